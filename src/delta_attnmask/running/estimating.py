"""How long things will take here: a few rows are read, scored and calibrated on; nothing is written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from delta_attnmask.calibrating.judging import FEATURES
from delta_attnmask.modeling.anatomy import examine
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.reading.rows import Rows
from delta_attnmask.scoring.rivals import load_rivals
from delta_attnmask.scoring.trial import Trial, try_rows
from delta_attnmask.scoring.units import ScoringPlan
from delta_attnmask.settings import (
    PRESETS,
    STANDARD_GRID,
    WARM_ROWS,
    RoundsWanted,
    calibration_grid,
    seconds_of_a_round,
)

_CALIBRATION_RECORDS = 960  # 240 originals with three copies each
_CALIBRATION_TRIED = 16


@dataclass(frozen=True)
class ScoringEstimate:
    """trial: how a few rows went. calibration_s, rounds_s: seconds of a calibration on all rows, and of its rounds."""

    trial: Trial
    calibration_s: float
    rounds_s: float


def estimate_scoring(
    loaded: LoadedModel,
    rows: Rows,
    compute: Mapping[str, Any],
    *,
    also: Sequence[str] = (),
    sweep: bool = False,
    rounds: RoundsWanted = 0,
    warm_rows: int = WARM_ROWS,
    n_tried: int = 50,
) -> ScoringEstimate:
    """Score rows from evenly spaced places of the data, and some with every setting, as a calibration does.

    compute: batch_tokens, attention, workers. also, sweep, rounds, warm_rows: as for `DeltaAttnMask.score`; "auto"
        counts as the two rounds that it may take.
    """
    mask = PRESETS["relative"].mask
    trial = try_rows(
        loaded, rows, ScoringPlan(mask, STANDARD_GRID if sweep else (), load_rivals(also), **compute), n_tried
    )
    grid = calibration_grid(examine(loaded.model).n_blocks)
    plan = ScoringPlan(mask, grid, load_rivals(FEATURES), **compute)
    per_row = try_rows(loaded, rows, plan, min(n_tried, _CALIBRATION_TRIED)).seconds_per_row
    calibration_s = per_row * min(_CALIBRATION_RECORDS, 4 * rows.n_rows)
    of_a_round = calibration_s + seconds_of_a_round(rows.n_rows, warm_rows, trial.seconds_per_row)
    return ScoringEstimate(trial, calibration_s, (2 if rounds == "auto" else rounds) * of_a_round)
