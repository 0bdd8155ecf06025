"""Score a data set into a run folder, unit by unit; what is finished is never done again."""

import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import torch

from delta_attnmask.errors import (
    ArtifactError,
    DataError,
    DeviceError,
    SettingsError,
    UnitsFailedError,
    UnsupportedModelError,
)
from delta_attnmask.executing.actors import Cluster, ray_pool
from delta_attnmask.executing.engines import Failure, Faults, LocalPool, Pool
from delta_attnmask.executing.process import keep_freed_memory
from delta_attnmask.manifest import WHOLE, Manifest, Shard
from delta_attnmask.modeling.anatomy import examine, text_config
from delta_attnmask.modeling.devices import Dtype
from delta_attnmask.modeling.load import LoadedModel, compile_blocks, load_model, model_fingerprint
from delta_attnmask.reading.rows import Rows
from delta_attnmask.runs import RunFolder
from delta_attnmask.scores import UnitReport, embedding_table, score_table
from delta_attnmask.scoring.pipeline import Unit
from delta_attnmask.scoring.trial import refuse_hopeless
from delta_attnmask.scoring.units import ScoredUnit, ScoringPlan, UnitScorer
from delta_attnmask.settings import MaskSettings, require_positive

UNIT_ROWS = 256
FAULTS = Faults(
    ends_run=(SettingsError, DataError, UnsupportedModelError, ArtifactError),
    ends_worker=(DeviceError,),
)
_GIVE_UP = 3  # units that fail while none succeeds: the fault isn't theirs

OnCheck = Callable[[str], None]
Sink = Callable[[ScoredUnit, dict[str, pa.Table]], None]
OnRows = Callable[[int], None]


@dataclass(frozen=True)
class Task:
    """What is to be scored into which folder; the same for all workers of a run."""

    rows: Rows
    out: str
    plan: ScoringPlan
    unit_rows: int = UNIT_ROWS
    shard: Shard = WHOLE
    command: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_positive(unit_rows=self.unit_rows)


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


class UnitWorker:
    """Scores units with a loaded model and hands them to a sink; a unit that is done again is the same again.

    sink: keeps a scored unit with its side tables; None for the run's folder.
    """

    def __init__(self, loaded: LoadedModel, task: Task, sink: "Sink | None" = None) -> None:
        self.scorer = UnitScorer(loaded, task.rows.load_image, task.plan)
        self.manifest = scoring_manifest(loaded, task.rows, self.scorer.plan, task.unit_rows, task.command)
        self._task = task
        self._keep = sink or self._write
        self._folder: RunFolder | None = None
        self._n_done = 0

    def run(self, units: Iterable[int]) -> Iterator[UnitReport]:
        try:
            for scored in self.scorer.score(map(self._unit, units)):
                if not self._n_done:
                    refuse_hopeless("the first unit", scored.scores, self.scorer, self._task.rows)
                self._keep(scored, side_tables(scored, self.scorer))
                self._n_done += 1
                n_failed = sum(score.status == "failed" for score in scored.scores)
                yield UnitReport(scored.index, len(scored.scores), n_failed, scored.check)
        except torch.AcceleratorError as error:
            raise DeviceError(f"the device failed: {error}; rerun the same command to resume") from error

    def _unit(self, unit: int) -> Unit:
        rows = self.manifest.rows_of(unit)
        return Unit(unit, len(rows), self._task.rows.records(rows.start, rows.stop))

    def _write(self, scored: ScoredUnit, tables: dict[str, pa.Table]) -> None:
        """Put a unit into the run's folder, once it is certain that it is this run's."""
        if self._folder is None:
            try:
                self._folder = RunFolder.join(self._task.out, self.manifest, self._task.shard)
            except ArtifactError as error:
                raise ArtifactError(
                    f"on {socket.gethostname()}: {error}. All workers need the same model, data and run folder"
                ) from error
        self._folder.write_unit(scored.index, scored.scores, **tables)


@dataclass(frozen=True)
class Recipe:
    """Makes a worker in another process: `Recipe(...)()` loads the model there."""

    task: Task
    model: str
    dtype: Dtype = "auto"
    device: str = "auto"
    revision: str | None = None
    compile: bool = False

    def __call__(self) -> UnitWorker:
        keep_freed_memory()
        loaded = load_model(self.model, dtype=self.dtype, device=self.device, revision=self.revision)
        if self.compile:
            compile_blocks(loaded.model)
        return UnitWorker(loaded, self.task)


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


def scoring_manifest(
    loaded: LoadedModel, rows: Rows, plan: ScoringPlan, unit_rows: int, command: tuple[str, ...] = ()
) -> Manifest:
    """What this run is, for its folder."""
    settings: dict[str, Any] = {**plan.settings.to_dict(), "form": plan.form}
    if plan.calibration:
        settings["calibration"] = plan.calibration
    if plan.sweep:
        settings["sweep"] = [setting.to_dict() for setting in plan.sweep]
    if plan.embed:
        settings["embeddings"] = f"mean over tokens at block {examine(loaded.model).middle_block}"
    return make_manifest(loaded, rows, settings, unit_rows, command, tuple(plan.rivals))


def make_manifest(
    loaded: LoadedModel,
    rows: Rows,
    settings: Mapping[str, Any],
    unit_rows: int,
    command: tuple[str, ...] = (),
    extra_columns: tuple[str, ...] = (),
) -> Manifest:
    """What a model does with a data set under some settings, to which its precision is added."""
    return Manifest(
        model=loaded.name,
        model_fingerprint=model_fingerprint(loaded.model),
        revision=loaded.revision,
        settings={**settings, "dtype": str(loaded.dtype).removeprefix("torch.")},
        data=rows.location,
        images=str(rows.images_root or ""),
        input=rows.fingerprint,
        format=rows.format_name,
        n_rows=rows.n_rows,
        unit_rows=unit_rows,
        extra_columns=extra_columns,
        command=command,
    )


def side_tables(unit: ScoredUnit, scorer: UnitScorer) -> dict[str, pa.Table]:
    """What a unit has beside its scores, by the name of the table."""
    tables: dict[str, pa.Table] = {}
    if scorer.plan.sweep:
        tables["sweep"] = sweep_table(unit, scorer.plan.sweep)
    if scorer.plan.embed:
        tables["embeddings"] = embedding_table(unit.embeddings, text_config(scorer.loaded.model).hidden_size)
    return tables


def sweep_table(unit: ScoredUnit, sweep: tuple[MaskSettings, ...]) -> pa.Table:
    """One line for each row and setting: the setting's fields, `masked_loss` and `delta`."""
    loss = {score.row: score.loss for score in unit.scores}
    lines = [
        {"row": row, **setting.to_dict(), "masked_loss": masked, "delta": masked - (loss[row] or 0.0)}
        for row, losses in sorted(unit.sweep.items())
        for setting, masked in zip(sweep, losses, strict=True)
    ]
    fields = {"row": pa.int64(), "fraction": pa.float64(), "block": pa.int32()}
    numbers = {"masked_loss": pa.float32(), "delta": pa.float32()}
    texts = {name: pa.string() for name in MaskSettings().to_dict() if name not in fields}
    return pa.Table.from_pylist(lines, schema=pa.schema(fields | texts | numbers))
