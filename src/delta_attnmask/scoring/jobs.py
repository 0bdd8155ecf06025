"""Score a data set, unit by unit, into a run folder or into memory; what is finished is never done again."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from delta_attnmask.errors import DataError, UnitsFailedError, UnsupportedModelError
from delta_attnmask.executing.actors import Cluster, ray_pool
from delta_attnmask.executing.engines import Failure, LocalPool, Pool
from delta_attnmask.manifest import WHOLE, Manifest, Shard
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.reading.rows import Rows
from delta_attnmask.runs import RunFolder
from delta_attnmask.scores import UnitReport, score_table
from delta_attnmask.scoring.units import ScoredUnit, ScoringPlan
from delta_attnmask.scoring.worker import FAULTS, UNIT_ROWS, Recipe, Task, UnitWorker

_GIVE_UP = 3  # units that fail while none succeeds: the fault isn't theirs

OnCheck = Callable[[str], None]
OnRows = Callable[[int], None]


@dataclass(frozen=True)
class Progress:
    """Where a run stands at its start or after a unit: rows in this run folder, of which this process did some.

    Of a shard, only its own rows count.
    """

    n_done: int
    n_rows: int
    n_done_here: int
    n_failed_here: int


OnProgress = Callable[[Progress], None]


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
    on_start: OnProgress = lambda progress: None,
    on_progress: OnProgress = lambda progress: None,
    on_rows: OnRows = lambda n_rows: None,
) -> RunFolder:
    """Score every row into the folder `out`, or finish what an earlier call began there.

    shard: do only this share of the units, beside other processes that do the others.
    on_check is given one line that says what was found in the model. on_start is called before the first unit,
    on_progress after each unit, on_rows after each batch with how many rows of the present unit it had.
    Returns the run, complete unless it is a shard. Raises UnsupportedModelError where the model can't be scored with,
    ArtifactError where the folder belongs to another run or is in use, DataError where the file is broken or no row of
    the first unit can be scored, UnitsFailedError where units failed again and again; the others are scored then.
    """
    worker = UnitWorker(loaded, Task(rows, str(out), plan, unit_rows, shard, command))
    worker.scorer.on_rows = on_rows
    pool: LocalPool[UnitWorker, UnitReport] = LocalPool(worker, FAULTS)
    listeners: dict[str, Any] = {"on_check": on_check, "on_start": on_start, "on_progress": on_progress}
    try:
        return score_units(pool, out, shard, is_alone=True, **listeners)
    finally:
        worker.scorer.encoded.close()


def score_in_memory(
    loaded: LoadedModel,
    rows: Rows,
    plan: ScoringPlan,
    *,
    on_check: OnCheck = lambda line: None,
    on_start: OnProgress = lambda progress: None,
    on_progress: OnProgress = lambda progress: None,
    on_rows: OnRows = lambda n_rows: None,
) -> tuple[Manifest, dict[str, pa.Table]]:
    """Like `score_dataset`, but nothing is written: what the run is, and its tables by name, `scores` among them.

    Raises UnitsFailedError at the first unit that keeps failing, since nothing could be resumed.
    """
    parts: dict[str, list[pa.Table]] = {"scores": []}
    columns = tuple(plan.rivals)

    def keep(scored: ScoredUnit, tables: dict[str, pa.Table]) -> None:
        for name, table in {"scores": score_table(scored.scores, columns), **tables}.items():
            parts.setdefault(name, []).append(table)

    worker = UnitWorker(loaded, Task(rows, "", plan), keep)
    worker.scorer.on_rows = on_rows
    pool: LocalPool[UnitWorker, UnitReport] = LocalPool(worker, FAULTS)
    n_rows, n_done, n_failed = worker.manifest.n_rows, 0, 0
    on_start(Progress(0, n_rows, 0, 0))
    try:
        for outcome in pool.run(range(worker.manifest.n_units)):
            if isinstance(outcome, Failure):
                raise UnitsFailedError(f"unit {outcome.unit} failed {outcome.n_tries} times: {outcome.reason}")
            if outcome.check:
                on_check(outcome.check)
            n_done, n_failed = n_done + outcome.n_rows, n_failed + outcome.n_failed
            on_progress(Progress(n_done, n_rows, n_done, n_failed))
    finally:
        worker.scorer.encoded.close()
    return worker.manifest, {name: pa.concat_tables(tables).sort_by("row") for name, tables in parts.items()}


def score_on_cluster(
    recipe: Recipe,
    cluster: Cluster,
    *,
    on_check: OnCheck = lambda line: None,
    on_start: OnProgress = lambda progress: None,
    on_progress: OnProgress = lambda progress: None,
) -> RunFolder:
    """Like `score_dataset`, by the workers of a Ray cluster, which write into the folder themselves."""
    with ray_pool(recipe, cluster, FAULTS) as pool:
        return score_units(pool, recipe.task.out, on_check=on_check, on_start=on_start, on_progress=on_progress)


class RunWorker(Protocol):
    """A worker that knows what run it works for."""

    @property
    def manifest(self) -> Manifest: ...


def score_units(
    pool: Pool[RunWorker, UnitReport],
    out: str | Path,
    shard: Shard = WHOLE,
    *,
    is_alone: bool = False,
    on_check: OnCheck = lambda line: None,
    on_start: OnProgress = lambda progress: None,
    on_progress: OnProgress = lambda progress: None,
) -> RunFolder:
    """Let the workers of a pool score what is missing in the folder `out`; they write there themselves.

    is_alone: nothing is written any more once an error has ended the run, so that one without scores can be withdrawn.
    """
    with RunFolder.start(out, pool.ask(_manifest_of), shard) as run:
        tally = _Tally.of(run)
        on_start(tally.progress)
        try:
            for outcome in pool.run(run.units_to_do()):
                if isinstance(outcome, Failure):
                    tally.failures.append(outcome)
                    tally.refuse_hopeless(run)
                    continue
                if outcome.check and not tally.is_checked:  # of many workers, one speaks for all
                    on_check(outcome.check)
                run.count(outcome.n_rows)
                on_progress(tally.count(outcome))
        except (DataError, UnsupportedModelError):
            if is_alone:
                run.withdraw()
            raise
        finally:
            run.keep_pace()
            run.keep_failed([_describe(failure, run) for failure in tally.failures])
        if tally.failures:
            raise tally.error(run)
        if run.shard.is_whole:
            run.mark_complete()
        return run


def _manifest_of(worker: RunWorker) -> Manifest:
    return worker.manifest


@dataclass
class _Tally:
    """What came of the units so far."""

    n_rows: int
    n_before: int
    n_here: int = 0
    n_failed: int = 0
    is_checked: bool = False
    failures: list[Failure] = field(default_factory=list)

    @classmethod
    def of(cls, run: RunFolder) -> "_Tally":
        n_rows = sum(len(run.unit_rows(unit)) for unit in range(run.n_units) if run.shard.owns(unit))
        return cls(n_rows, n_rows - sum(len(run.unit_rows(unit)) for unit in run.units_to_do()))

    def count(self, report: UnitReport) -> Progress:
        self.n_here += report.n_rows
        self.n_failed += report.n_failed
        self.is_checked = self.is_checked or bool(report.check)
        return self.progress

    @property
    def progress(self) -> Progress:
        return Progress(self.n_before + self.n_here, self.n_rows, self.n_here, self.n_failed)

    def refuse_hopeless(self, run: RunFolder) -> None:
        if len(self.failures) >= _GIVE_UP and not self.n_here:
            raise self.error(run)

    def error(self, run: RunFolder) -> UnitsFailedError:
        first = self.failures[0]
        rows = run.unit_rows(first.unit)
        others = "all that were tried" if not self.n_here else "the others are scored"
        return UnitsFailedError(
            f"{len(self.failures)} units failed {first.n_tries} times each, {others}; unit {first.unit} (rows "
            f"{rows.start} to {rows.stop - 1}): {first.reason}; {run.failed_path} lists them; rerun the same command "
            "to try them again"
        )


def _describe(failure: Failure, run: RunFolder) -> dict[str, object]:
    rows = run.unit_rows(failure.unit)
    return {"first_row": rows.start, "last_row": rows.stop - 1, **asdict(failure)}
