"""Part 3: rows with JPEGs from the file to their scores, and how long the device had nothing to do meanwhile."""

import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.findings import Findings, NamedStep, Place
from benchmarks.scoring.idle import UNIT_ROWS, run_units
from benchmarks.scoring.measure import synchronize
from benchmarks.scoring.models import SUBJECTS, build
from benchmarks.scoring.photos import PHOTO, SMALL, Size, name_tokens, qwen_processor, write_rows
from delta_attnmask.batches import EncodedBatch
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.scoring.pipeline import default_workers
from delta_attnmask.scoring.units import ScoringPlan, UnitScorer
from delta_attnmask.settings import MaskSettings

_ROWS = {SMALL: 4096, PHOTO: 2048}
_KEPT = 6  # batches, whose time alone says how long the model takes a row


class Keeper(UnitScorer):
    """Keeps some batches, as they are on the device."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.kept: list[EncodedBatch] = []

    def _score(self, batch: EncodedBatch, found: Any, scored: Any) -> None:
        if len(self.kept) < _KEPT:
            self.kept.append(batch)
        super()._score(batch, found, scored)

    def seconds_a_row(self) -> float:
        """Of the kept batches, one after the other."""
        scored, found = _Nowhere(), _Nowhere()
        synchronize(self.loaded.device)
        begun = time.perf_counter()
        for batch in self.kept:
            super()._score(batch, found, scored)  # type: ignore[arg-type]
        self._read(lambda: None)
        synchronize(self.loaded.device)
        return (time.perf_counter() - begun) / sum(len(batch.rows) for batch in self.kept)


class _Nowhere:
    """Takes what nobody reads."""

    def __init__(self) -> None:
        self.numbers: dict[int, Any] = {}
        self.failures: dict[int, Any] = {}


def measure_idle(findings: Findings, place: Place) -> None:
    """With the defaults for this device, for which the goal is; and with other workers and batches."""
    model = build(SUBJECTS[place.model], place.device, place.dtype)
    processor = qwen_processor()
    name_tokens(model, processor)
    loaded = LoadedModel(place.model, model, processor)
    n_workers = default_workers(place.device)
    others = [] if place.is_tiny else [(max(1, n_workers // 2), None), (n_workers, 8192), (n_workers, 32768)]
    for size in (SMALL, PHOTO) if not place.is_tiny else (SMALL,):
        with tempfile.TemporaryDirectory() as folder:
            n_rows = 2 * UNIT_ROWS if place.is_tiny else _ROWS[size]
            rows = FileRows(write_rows(Path(folder), n_rows, size), Path(folder))
            findings.check("idle from file to file", _idle(findings, loaded, rows, size, None, None))
            for workers, batch_tokens in others:
                _idle(findings, loaded, rows, size, workers, batch_tokens)


def _idle(
    findings: Findings,
    loaded: LoadedModel,
    rows: FileRows,
    size: Size,
    workers: int | None,
    batch_tokens: int | None,
) -> float:
    """The share of the time from the second unit on that the model doesn't need for these rows."""
    plan = ScoringPlan(MaskSettings.paper(), batch_tokens=batch_tokens, workers=workers)
    scorer = Keeper(loaded, rows.load_image, plan)
    try:
        stretch = run_units(scorer, rows)
        busy_s = stretch.n_rows * scorer.seconds_a_row()
    finally:
        scorer.close()
    share = max(0.0, 1 - busy_s / stretch.seconds)
    findings.note(
        f"{size[0]}×{size[1]}, workers {workers}, batch tokens {batch_tokens}",
        {
            "idle": share,
            "rows_per_s": stretch.n_rows / stretch.seconds,
            "ms_a_row_of_the_model": 1e3 * busy_s / stretch.n_rows,
            "batch_tokens": scorer.batches.batch_tokens,
            "peak_bytes": torch.cuda.max_memory_allocated() if loaded.device.type == "cuda" else 0,
        },
    )
    return share


STEPS = (NamedStep("file to file", measure_idle, is_done_once=True),)
