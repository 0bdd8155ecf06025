"""The worker of a run: it scores units with one model and puts them into the run folder."""

import socket
from dataclasses import dataclass

import pyarrow as pa
import torch

from delta_attnmask.artifacts import RunFolder
from delta_attnmask.errors import (
    ArtifactError,
    DataError,
    DeviceError,
    SettingsError,
    UnsupportedModelError,
)
from delta_attnmask.executing.contract import Faults
from delta_attnmask.executing.memory import keep_freed_memory
from delta_attnmask.manifest import WHOLE, Shard
from delta_attnmask.modeling.anatomy import text_config
from delta_attnmask.modeling.compiling import compile_blocks
from delta_attnmask.modeling.load import Dtype, LoadedModel, load_model
from delta_attnmask.reading.dataset import Dataset
from delta_attnmask.scores import UnitReport
from delta_attnmask.scoring.embeddings import embedding_table
from delta_attnmask.scoring.outlook import refuse_hopeless
from delta_attnmask.scoring.setup import make_manifest, make_scorer
from delta_attnmask.scoring.units import PreparedUnit, ScoredUnit, ScoringPlan
from delta_attnmask.settings import MaskSettings, require_positive

UNIT_ROWS = 256
FAULTS = Faults(
    ends_run=(SettingsError, DataError, UnsupportedModelError, ArtifactError),
    ends_worker=(DeviceError,),
)


@dataclass(frozen=True)
class Task:
    """What is to be scored into which folder; the same for all workers of a run."""

    dataset: Dataset
    out: str
    plan: ScoringPlan
    unit_rows: int = UNIT_ROWS
    shard: Shard = WHOLE
    command: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_positive(unit_rows=self.unit_rows)


class UnitWorker:
    """Scores units with a loaded model and writes them; a unit that is done again is the same again."""

    def __init__(self, loaded: LoadedModel, task: Task) -> None:
        self.scorer = make_scorer(loaded, task.dataset, task.plan)
        self.manifest = make_manifest(loaded, task.dataset, self.scorer.plan, task.unit_rows, task.command)
        self._task = task
        self._folder: RunFolder | None = None
        self._n_done = 0

    def prepare(self, unit: int) -> PreparedUnit:
        rows = self.manifest.rows_of(unit)
        return self.scorer.prepare(unit, self._task.dataset.records(rows.start, rows.stop))

    def compute(self, prepared: PreparedUnit) -> UnitReport:
        try:
            check = self.scorer.self_check(prepared) or ""
            scored = self.scorer.compute(prepared)
            if not self._n_done:
                refuse_hopeless("the first unit", scored.scores, self.scorer, self._task.dataset)
        except torch.AcceleratorError as error:
            raise DeviceError(
                f"the device failed in unit {prepared.index}: {error}; start the same command again to go on"
            ) from error
        self._open_folder().write_unit(scored.index, scored.scores, **self._side_tables(scored))
        self._n_done += 1
        n_failed = sum(score.status == "failed" for score in scored.scores)
        return UnitReport(scored.index, len(scored.scores), n_failed, check)

    def _side_tables(self, unit: ScoredUnit) -> dict[str, pa.Table]:
        plan = self.scorer.plan
        tables: dict[str, pa.Table] = {}
        if plan.sweep:
            tables["sweep"] = sweep_table(unit, plan.sweep)
        if plan.embed:
            width = text_config(self.scorer.loaded.model).hidden_size
            tables["embeddings"] = embedding_table(unit.embeddings, width)
        return tables

    def _open_folder(self) -> RunFolder:
        """The run's folder, once it is certain that it is this run's."""
        if self._folder is None:
            try:
                self._folder = RunFolder.join(self._task.out, self.manifest, self._task.shard)
            except ArtifactError as error:
                raise ArtifactError(
                    f"on {socket.gethostname()}: {error}. All workers need the same model, data and run folder"
                ) from error
        return self._folder


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
