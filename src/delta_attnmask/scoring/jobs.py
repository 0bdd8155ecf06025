"""Score a data set into a run folder, unit by unit; what is finished is never done again."""

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from delta_attnmask.errors import DataError, UnitsFailedError, UnsupportedModelError
from delta_attnmask.executing.actors import Cluster, ray_pool
from delta_attnmask.executing.engines import Failure, LocalPool, Pool
from delta_attnmask.manifest import WHOLE, Manifest, Shard
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.progress import Advance, show_nothing
from delta_attnmask.reading.rows import Rows
from delta_attnmask.runs import RunFolder
from delta_attnmask.scores import UnitReport
from delta_attnmask.scoring.units import ScoringPlan
from delta_attnmask.scoring.worker import FAULTS, UNIT_ROWS, Recipe, Task, UnitWorker

_GIVE_UP = 3  # units that fail while none succeeds: the fault isn't theirs

OnCheck = Callable[[str], None]


def score_dataset(
    loaded: LoadedModel,
    rows: Rows,
    out: str | Path,
    plan: ScoringPlan,
    *,
    unit_rows: int = UNIT_ROWS,
    shard: Shard = WHOLE,
    command: tuple[str, ...] = (),
    on_check: OnCheck = lambda line: None,
    on_progress: Advance = show_nothing,
) -> RunFolder:
    """Score every row into the folder `out`, or finish what an earlier call began there.

    shard: do only this share of the units, beside other processes that do the others.
    on_check is given one line that says what was found in the model. on_progress is called at the start, after each
    batch and after each unit; of a shard, only its own rows count.
    Returns the run, complete unless it is a shard. Raises UnsupportedModelError where the model can't be scored with,
    ArtifactError where the folder belongs to another run or is in use, DataError where the file is broken or no row of
    the first unit can be scored, UnitsFailedError where units failed again and again; the others are scored then.
    """
    worker = UnitWorker(loaded, Task(rows, str(out), plan, unit_rows, shard, command))
    last = [0, 0, 0, 0]

    def show(n_done: int, n_rows: int, n_failed: int = 0, n_before: int = 0) -> None:
        last[:] = n_done, n_rows, n_failed, n_before
        on_progress(*last)

    def show_batch(n_rows: int) -> None:
        show(min(last[0] + n_rows, last[1]), *last[1:])

    worker.scorer.on_rows = show_batch
    pool: LocalPool[UnitWorker, UnitReport] = LocalPool(worker, FAULTS)
    try:
        return score_units(pool, out, shard, on_check=on_check, on_progress=show)
    finally:
        worker.scorer.close()


def score_on_cluster(
    recipe: Recipe,
    cluster: Cluster,
    *,
    on_check: OnCheck = lambda line: None,
    on_progress: Advance = show_nothing,
) -> RunFolder:
    """Like `score_dataset`, by the workers of a Ray cluster, which write into the folder themselves."""
    with ray_pool(recipe, cluster, FAULTS) as pool:
        return score_units(pool, recipe.task.out, on_check=on_check, on_progress=on_progress)


class RunWorker(Protocol):
    """A worker that knows what run it works for."""

    @property
    def manifest(self) -> Manifest: ...


def score_units(
    pool: Pool[RunWorker, UnitReport],
    out: str | Path,
    shard: Shard = WHOLE,
    *,
    on_check: OnCheck = lambda line: None,
    on_progress: Advance = show_nothing,
) -> RunFolder:
    """Let the workers of a pool score what is missing in the folder `out`; they write there themselves."""
    with RunFolder.start(out, pool.ask(lambda worker: worker.manifest), shard) as run:
        to_do = run.units_to_do()
        n_rows = sum(len(run.unit_rows(unit)) for unit in range(run.n_units) if shard.owns(unit))
        n_before = n_rows - sum(len(run.unit_rows(unit)) for unit in to_do)
        n_here = n_failed = 0
        is_checked = False
        failures: list[Failure] = []
        began = time.monotonic()
        on_progress(n_before, n_rows, 0, n_before)
        try:
            for outcome in pool.run(to_do):
                if isinstance(outcome, Failure):
                    failures.append(outcome)
                    if len(failures) >= _GIVE_UP and not n_here:
                        break
                    continue
                if outcome.check and not is_checked:  # of many workers, one speaks for all
                    on_check(outcome.check)
                    is_checked = True
                n_here, n_failed = n_here + outcome.n_rows, n_failed + outcome.n_failed
                on_progress(n_before + n_here, n_rows, n_failed, n_before)
        except (DataError, UnsupportedModelError):
            run.withdraw()
            raise
        finally:
            run.add_pace(n_here, time.monotonic() - began)
            run.keep_failed([_describe(failure, run) for failure in failures])
        if failures:
            raise _error(failures, run, n_here)
        if run.shard.is_whole:
            run.mark_complete()
        return run


def _error(failures: list[Failure], run: RunFolder, n_here: int) -> UnitsFailedError:
    first = failures[0]
    rows = run.unit_rows(first.unit)
    others = "the others are scored" if n_here else "all that were tried"
    return UnitsFailedError(
        f"{len(failures)} units failed {first.n_tries} times each, {others}; unit {first.unit} (rows {rows.start} to "
        f"{rows.stop - 1}): {first.reason}; failed{run.shard.tag}.json in the run folder lists them; rerun the same "
        "command to try them again"
    )


def _describe(failure: Failure, run: RunFolder) -> dict[str, object]:
    rows = run.unit_rows(failure.unit)
    return {"first_row": rows.start, "last_row": rows.stop - 1, **asdict(failure)}
