"""How long things will take here: a few rows are read, scored and calibrated on; nothing is written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from delta_attnmask.calibrating.judging import FEATURES
from delta_attnmask.modeling.anatomy import examine
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.reading.rows import Rows
from delta_attnmask.reading.survey import survey
from delta_attnmask.running.plan import StageName
from delta_attnmask.scoring.rivals import load_rivals
from delta_attnmask.scoring.trial import Trial, try_rows
from delta_attnmask.scoring.units import ScoringPlan
from delta_attnmask.selection import Budget
from delta_attnmask.settings import (
    PRESETS,
    STANDARD_GRID,
    WARM_ROWS,
    RoundsWanted,
    calibration_grid,
    seconds_of_a_round,
)

if TYPE_CHECKING:
    from delta_attnmask.running.run import Run

_N_TRIED = 50  # rows, of a run's estimate
_TRAINING_FORWARDS, _ANSWER_FORWARDS = 3, 4
_LITTLE_S = 1.0
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


def estimate_stages(run: "Run") -> dict[StageName, float]:
    """About how many seconds each stage of a run takes that isn't done, by a few rows that are tried.

    Trainings and evaluations are guessed from the scoring: a step of training as three forwards, an answer as four.
    """
    plan, rows, to_do = run.plan, run.rows, [stage for stage in run.plan.stages if not run.is_done(stage)]
    known: dict[StageName, float] = {}
    if "check" in to_do:
        few = run.open_rows(rows.location, rows.format_name, min(rows.n_rows, _N_TRIED))
        known["check"] = survey(few).elapsed_s * rows.n_rows / few.n_rows
    if set(to_do) & {"calibrate", "score", "train", "evaluate"}:
        found = estimate_scoring(
            run.scorer.loaded, rows, run.compute, also=plan.also, **plan.in_rounds, n_tried=_N_TRIED
        )
        n_test = plan.test_budget.resolve(rows.n_rows) if plan.test_budget else run.open_part("test").n_rows
        n_pool = rows.n_rows - (n_test if plan.test_budget else 0)
        n_seen, n_models = run.proof.count(Budget.of(plan.keep).resolve(n_pool), n_pool)
        per_row = found.trial.seconds_per_row
        known |= {
            "calibrate": found.calibration_s + found.rounds_s,
            "score": per_row * n_pool,
            "train": _TRAINING_FORWARDS * per_row * n_seen,
            "evaluate": _ANSWER_FORWARDS * per_row * n_test * n_models,
        }
    return {stage: known.get(stage, _LITTLE_S) for stage in to_do}
