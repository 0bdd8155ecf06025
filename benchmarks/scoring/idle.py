"""How long a GPU that takes so many milliseconds a row would wait for the pipeline, with the cores of this machine.

The device is a stub: torch's "meta", to which batches are moved as to a GPU, and a model that sleeps. Everything before
it is the real thing: rows are read, encoded by worker processes, planned, collated, moved and their results kept.

python -m benchmarks.scoring.idle --rows 512 --ms 15 --workers 1 2
"""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.scoring.models import SUBJECTS, build
from benchmarks.scoring.photos import PHOTO, SMALL, Size, name_tokens, qwen_processor, write_rows
from delta_attnmask.batches import EncodedBatch
from delta_attnmask.encoding.encoder import EncodedSample
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.scoring.pipeline import Unit
from delta_attnmask.scoring.units import ScoringPlan, UnitScorer
from delta_attnmask.settings import MaskSettings

UNIT_ROWS = 64


class Elsewhere(LoadedModel):
    """A model that is said to be on a device with cores of its own."""

    device = torch.device("meta")
    dtype = torch.bfloat16


class Sleeper(UnitScorer):
    """Sleeps as long as a GPU would compute."""

    seconds_a_row = 0.015
    busy_s = 0.0

    def _score(self, batch: EncodedBatch, found: Any, scored: Any) -> None:
        begun = time.perf_counter()
        time.sleep(self.seconds_a_row * len(batch.rows))
        found.numbers |= {row: {"loss": 1.0, "masked_loss": 1.0, "delta": 0.0} for row in batch.rows}
        self.busy_s += time.perf_counter() - begun
        self.on_rows(len(batch.rows))


class Unchecked:
    """In the place of the self-check, which would run the model."""

    def __call__(self, samples: Sequence[EncodedSample]) -> None:
        pass

    def take_line(self) -> str:
        return ""

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Stretch:
    """From the end of the first unit to the end of the last: rows, seconds."""

    n_rows: int
    seconds: float


def run_units(scorer: UnitScorer, rows: FileRows, on_start: Any = lambda: None) -> Stretch:
    """Score all rows in units; the first one starts the worker processes. on_start: called when it is done."""
    starts = range(0, len(rows), UNIT_ROWS)
    units = (Unit(n, UNIT_ROWS, rows.records(start, start + UNIT_ROWS)) for n, start in enumerate(starts))
    begun, n_rows = 0.0, 0
    for unit in scorer.score(units):
        bad = [score for score in unit.scores if score.status != "ok"]
        assert not bad, bad[0].reason
        if begun:
            n_rows += len(unit.scores)
        else:
            on_start()
            begun = time.perf_counter()
    return Stretch(n_rows, time.perf_counter() - begun)


def idle_share(rows: FileRows, processor: Any, n_workers: int, seconds_a_row: float, batch_tokens: int) -> float:
    """Of the time from the second unit on, in which the stub didn't sleep."""
    model = build(SUBJECTS["tiny-qwen2-vl"], torch.device("cpu"), torch.float32)
    name_tokens(model, processor)
    plan = ScoringPlan(MaskSettings.paper(), batch_tokens=batch_tokens, workers=n_workers)
    scorer = Sleeper(Elsewhere("stub", model, processor), rows.load_image, plan)
    scorer.seconds_a_row = seconds_a_row
    scorer._check = Unchecked()  # type: ignore[assignment]
    try:
        stretch = run_units(scorer, rows, lambda: setattr(scorer, "busy_s", 0.0))
    finally:
        scorer.close()
    return max(0.0, 1 - scorer.busy_s / stretch.seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--ms", type=float, default=15.0, help="a row; about Qwen2-VL-2B on an H100")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch-tokens", type=int, default=8192)
    given = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    processor = qwen_processor()
    print(f"{given.rows} rows, {given.ms} ms a row, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print("| images | workers | idle |\n| --- | ---: | ---: |")
    sizes: list[Size] = [SMALL, PHOTO]
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            rows = FileRows(write_rows(Path(folder), given.rows, size), Path(folder))
            for n_workers in given.workers:
                share = idle_share(rows, processor, n_workers, given.ms / 1e3, given.batch_tokens)
                print(f"| {size[0]}×{size[1]} | {n_workers} | {share:.1%} |", flush=True)


if __name__ == "__main__":
    main()
