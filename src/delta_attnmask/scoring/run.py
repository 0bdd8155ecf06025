"""Score a data set into a run folder, unit by unit; what is finished is never done again."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from delta_attnmask.artifacts import Manifest, RunFolder
from delta_attnmask.errors import DataError, UnitsFailedError, UnsupportedModelError
from delta_attnmask.executing.contract import Failure, Pool
from delta_attnmask.executing.local import LocalPool
from delta_attnmask.executing.ray import Cluster, ray_pool
from delta_attnmask.manifest import WHOLE, Shard
from delta_attnmask.modeling.devices import has_own_cores
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.reading.dataset import Dataset
from delta_attnmask.reading.faults import count_faults, describe_faults
from delta_attnmask.scores import UnitReport
from delta_attnmask.scoring.outlook import refuse_hopeless
from delta_attnmask.scoring.setup import make_scorer
from delta_attnmask.scoring.units import ScoringPlan
from delta_attnmask.scoring.worker import FAULTS, UNIT_ROWS, Recipe, Task, UnitWorker

_N_DRY = 8  # rows that a dry run tries
_GIVE_UP = 3  # units that fail while none succeeds: the fault isn't theirs


@dataclass(frozen=True)
class Progress:
    """Where a run stands at its start or after a unit: rows in this run folder, of which this process did some.

    Of a shard, only its own rows count.
    """

    n_done: int
    n_rows: int
    n_done_here: int
    n_failed_here: int


OnCheck = Callable[[str], None]
OnProgress = Callable[[Progress], None]
OnRows = Callable[[int], None]


def score_dataset(
    loaded: LoadedModel,
    dataset: Dataset,
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
    """Score every row of `dataset` into the folder `out`, or finish what an earlier call began there.

    shard: do only this share of the units, beside other processes that do the others.
    on_check is given one line that says what was found in the model. on_start is called before the first unit,
    on_progress after each unit, on_rows after each batch with how many rows of the present unit it had.
    Returns the run, complete unless it is a shard. Raises UnsupportedModelError where the model can't be scored with,
    ArtifactError where `out` belongs to another run or is in use, DataError where the file is broken or no row of the
    first unit can be scored, UnitsFailedError where units failed again and again; the others are scored then.
    """
    task = Task(dataset, str(out), plan, unit_rows, shard, command)
    return score_task(loaded, task, on_check=on_check, on_start=on_start, on_progress=on_progress, on_rows=on_rows)


def score_task(
    loaded: LoadedModel,
    task: Task,
    *,
    on_check: OnCheck = lambda line: None,
    on_start: OnProgress = lambda progress: None,
    on_progress: OnProgress = lambda progress: None,
    on_rows: OnRows = lambda n_rows: None,
) -> RunFolder:
    """`score_dataset` for a task that is put together already."""
    worker = UnitWorker(loaded, task)
    worker.scorer.on_rows = on_rows
    pool: LocalPool[UnitWorker, UnitReport] = LocalPool(worker, FAULTS, overlaps=has_own_cores(loaded.device))
    told: dict[str, Any] = {"on_check": on_check, "on_start": on_start, "on_progress": on_progress}
    return score_units(pool, task.out, task.shard, is_alone=True, **told)


def score_on_cluster(
    recipe: Recipe,
    cluster: Cluster,
    *,
    on_check: OnCheck = lambda line: None,
    on_start: OnProgress = lambda progress: None,
    on_progress: OnProgress = lambda progress: None,
) -> RunFolder:
    """Like `score_task`, by the workers of a Ray cluster, which write into the folder themselves."""
    with ray_pool(recipe, cluster, FAULTS) as pool:
        return score_units(pool, recipe.task.out, on_check=on_check, on_start=on_start, on_progress=on_progress)


def dry_run_line(loaded: LoadedModel, dataset: Dataset, plan: ScoringPlan) -> str:
    """Check model, settings and the first rows, write nothing, and say what a run would do.

    Raises DataError or UnsupportedModelError, with the reasons, where no row can be scored.
    """
    scorer = make_scorer(loaded, dataset, plan)
    unit = scorer.prepare(0, dataset.records(0, _N_DRY))
    check = scorer.self_check(unit)
    scores = scorer.compute(unit).scores
    refuse_hopeless(f"the first {len(scores)}", scores, scorer, dataset)
    faults = count_faults((score.row, score.reason_code, score.reason) for score in scores if score.status == "failed")
    n_ok = sum(score.status == "ok" for score in scores)
    return (
        f"{dataset.n_rows} rows of {dataset.path} ({dataset.format_name}); {n_ok} of the first {len(scores)} can "
        f"be scored on {loaded.device} in {loaded.dtype}{f' ({describe_faults(faults)})' if faults else ''}; "
        f"model: {check or 'not checked, none of these rows could be encoded'}"
    )


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
        told = "all that were tried" if not self.n_here else "the others are scored"
        return UnitsFailedError(
            f"{len(self.failures)} units failed {first.n_tries} times each, {told}; unit {first.unit} (rows "
            f"{rows.start} to {rows.stop - 1}): {first.reason}; {run.failed_path} lists them; start the same command "
            "again to try them again"
        )


def _describe(failure: Failure, run: RunFolder) -> dict[str, object]:
    rows = run.unit_rows(failure.unit)
    return {"first_row": rows.start, "last_row": rows.stop - 1, **asdict(failure)}
