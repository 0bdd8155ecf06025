"""Find, on the user's own data, the score that ranks rows above copies of them with a planted defect."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from delta_attnmask.calibrating.findings import make_report
from delta_attnmask.calibrating.judging import FEATURES, UNMASKED
from delta_attnmask.calibrating.planting import Donors, plant, stratified_sample
from delta_attnmask.calibrating.preset_choice import made_with
from delta_attnmask.calibrating.scored import (
    MIN_ORIGINALS,
    KeptUnits,
    Outcome,
    Score,
    collect,
    make_candidates,
    no_row_scored,
    require_scored,
)
from delta_attnmask.calibration import Calibration, adapter_sha256, judge_calibration
from delta_attnmask.errors import DataError, TooLittleDataError
from delta_attnmask.manifest import collect_versions
from delta_attnmask.modeling.anatomy import examine
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.reading.rows import Rows
from delta_attnmask.records import Record
from delta_attnmask.scoring.pipeline import Unit
from delta_attnmask.scoring.rivals import load_rivals
from delta_attnmask.scoring.trial import spaced_records
from delta_attnmask.scoring.units import ScoringPlan, UnitScorer, fit_grid
from delta_attnmask.settings import AttentionBackend, MaskSettings, calibration_grid

DONOR_ROWS = 20_000  # rows read to sample and to borrow images and answers from; more would only cost memory
_WINDOWS = 50  # places of the data that they come from, so that sources that follow one another are all seen
_UNIT_ROWS = 128


def calibrate_rows(
    loaded: LoadedModel,
    rows: Rows,
    *,
    n_rows: int = 240,
    rivals: Sequence[str] = (),
    grid: Sequence[MaskSettings] | None = None,
    adapters: tuple[str, ...] = (),
    folder: Path | None = None,
    batch_tokens: int | None = None,
    attention: AttentionBackend = "auto",
    workers: int | None = None,
    seed: int = 0,
    on_progress: Callable[[int, int], None] = lambda n_done, n_rows: None,
) -> Calibration:
    """Find the setting that suits this model and this data.

    n_rows: originals. rivals: names of further scores to compare with. grid: mask settings to choose from; None for
    `calibration_grid`. adapters: of the two halves of the rows; a copy is in the half of its original.
    folder: where the calibration will be saved; until then it keeps what is scored, so that the same call resumes.
    batch_tokens, attention, workers: as in a scoring plan. Raises TooLittleDataError where the data is too small for
    it, DataError where it can't be used.
    """
    anatomy = examine(loaded.model)
    grid = fit_grid(calibration_grid(anatomy.n_blocks) if grid is None else grid, anatomy)
    plan = ScoringPlan(
        UNMASKED,
        grid,
        load_rivals([*FEATURES, *rivals]),
        batch_tokens,
        attention=attention,
        adapters=adapters,
        workers=workers,
    )
    about = made_with(loaded, rows)  # of the model without adapters
    scorer = UnitScorer(loaded, rows.load_image, plan)
    identity = {name: about[name] for name in ("model_fingerprint", "dtype", "input")} | {
        "data": [rows.format_name, rows.n_rows, str(rows.images_root)],
        "sample": [n_rows, seed],
        "scores": [list(rivals), [setting.to_dict() for setting in grid], list(map(adapter_sha256, adapters))],
        "versions": collect_versions(),
    }
    kept = KeptUnits(folder, identity)

    def score(records: Sequence[Record]) -> Iterator[Outcome]:
        parts = [records[start : start + _UNIT_ROWS] for start in range(0, len(records), _UNIT_ROWS)]
        found = [kept.read(number) for number in range(len(parts))]
        to_do = [Unit(number, len(part), part) for number, part in enumerate(parts) if found[number] is None]
        scored = scorer.score(to_do)
        n_done, since = 0, time.monotonic()
        for number, outcome in enumerate(found):
            if outcome is None:
                unit = next(scored)
                outcome = unit.scores, unit.sweep
                kept.write(number, outcome, time.monotonic() - since)
                since = time.monotonic()
            n_done += len(outcome[0])
            on_progress(n_done, len(records))
            yield outcome

    try:
        report = calibrate(read_donors(rows), score, grid, n_rows=n_rows, seed=seed)
    except DataError:  # what is wrong may be put right in the same place
        kept.forget()
        raise
    finally:
        scorer.close()
    report["seconds"] = round(report["seconds"] + kept.seconds, 1)
    report |= about | {"versions": collect_versions()}
    return Calibration(report | judge_calibration(Calibration(report)))


def read_donors(rows: Rows, n_rows: int = DONOR_ROWS) -> list[Record]:
    """The rows that the sample and its defects are made of: all, or windows evenly spaced over large data."""
    return spaced_records(rows, n_rows, _WINDOWS)


def calibrate(
    records: Iterable[Record],
    score: Score,
    grid: Sequence[MaskSettings],
    *,
    n_rows: int = 240,
    copies_per_row: int = 3,
    seed: int = 0,
) -> dict[str, Any]:
    """Plant defects in a sample of `records`, score everything under `grid`, choose by `judging.RULE`.

    score: gives the scores of records, with the masked losses of `grid` in its order.
    Returns the report. Raises TooLittleDataError where the data is too small: fewer than 60 rows that can be scored, or
    no kind of defect fits 20 of them; DataError where every row of the sample fails.
    """
    started = time.monotonic()
    found = list(records)
    usable = [record for record in found if not record.reason]
    if found and not usable:
        raise no_row_scored(f"none of the {len(found)} rows that were read", f"row {found[0].row}: {found[0].reason}")
    originals = stratified_sample(usable, n_rows, seed)
    if len(originals) < MIN_ORIGINALS:
        raise TooLittleDataError(f"{len(originals)} usable rows are too few to calibrate on; it needs {MIN_ORIGINALS}")
    planted = plant(originals, Donors(usable), copies_per_row, seed)
    if not planted.kinds:
        raise TooLittleDataError(
            "no kind of defect could be planted in 20 rows of the sample; there is nothing to compare"
        )
    results = collect(score(planted.records), len(grid), len(planted.records))
    require_scored(originals, results)
    return make_report(planted, make_candidates(results, grid), started, seed)
