"""The worker of a scoring run: it scores units with one model and writes them into the run's folder."""

import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import torch

from delta_attnmask.calibration import adapter_sha256
from delta_attnmask.errors import ArtifactError, DataError, DeviceError, SettingsError, UnsupportedModelError
from delta_attnmask.executing.engines import Faults
from delta_attnmask.executing.process import keep_freed_memory
from delta_attnmask.manifest import WHOLE, Manifest, Shard
from delta_attnmask.modeling.anatomy import examine, text_config
from delta_attnmask.modeling.load import LoadedModel, is_worth_compiling, load_model, model_fingerprint
from delta_attnmask.reading.rows import Rows
from delta_attnmask.runs import RunFolder
from delta_attnmask.scores import UnitReport, embedding_table
from delta_attnmask.scoring.pipeline import Unit
from delta_attnmask.scoring.trial import refuse_hopeless
from delta_attnmask.scoring.units import ScoredUnit, ScoringPlan, UnitScorer
from delta_attnmask.settings import Dtype, MaskSettings, require_positive

UNIT_ROWS = 256
FAULTS = Faults(
    ends_run=(SettingsError, DataError, UnsupportedModelError, ArtifactError),
    ends_worker=(DeviceError,),
)


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


class UnitWorker:
    """Scores units with a loaded model into the run's folder; a unit that is done again is the same again."""

    def __init__(self, loaded: LoadedModel, task: Task) -> None:
        fingerprint = model_fingerprint(loaded.model)  # without the adapters
        compiled = task.plan.compile
        if compiled is None:
            compiled = is_worth_compiling(loaded, task.rows.n_rows // task.shard.count)
        self.scorer = UnitScorer(loaded, task.rows.load_image, replace(task.plan, compile=compiled))
        plan = self.scorer.plan
        settings: dict[str, Any] = {**plan.settings.to_dict(), "form": plan.form}
        if plan.calibration:
            settings["calibration"] = plan.calibration
        if plan.judge is not None:
            settings["judge"] = plan.judge.sha256
        if plan.adapters:
            settings["adapters"] = [adapter_sha256(folder) for folder in plan.adapters]
        if plan.sweep:
            settings["sweep"] = [setting.to_dict() for setting in plan.sweep]
        if task.rows.columns:
            settings["columns"] = list(task.rows.columns)
        if plan.embed:
            settings["embeddings"] = f"mean over tokens at block {examine(loaded.model).middle_block}"
        self.manifest = make_manifest(loaded, task.rows, settings, task.unit_rows, task.command, plan.columns)
        self.manifest = replace(self.manifest, model_fingerprint=fingerprint)
        self._task = task
        self._has_begun = False

    def run(self, units: Iterable[int]) -> Iterator[UnitReport]:
        try:
            for scored in self.scorer.score(map(self._unit, units)):
                if not self._has_begun:
                    refuse_hopeless("the first unit", scored.scores, self.scorer, self._task.rows)
                self._write(scored)
                self._has_begun = True
                n_failed = sum(score.status == "failed" for score in scored.scores)
                yield UnitReport(scored.index, len(scored.scores), n_failed, scored.check)
        except torch.AcceleratorError as error:
            raise DeviceError(f"the device failed: {error}; rerun the same command to resume") from error

    def _unit(self, unit: int) -> Unit:
        rows = self.manifest.rows_of(unit)
        return Unit(unit, len(rows), self._task.rows.records(rows.start, rows.stop))

    def _write(self, scored: ScoredUnit) -> None:
        """Put a unit into the run's folder, once it is certain that it is still this run's."""
        plan, side = self.scorer.plan, {}
        if plan.sweep:
            side["sweep"] = sweep_table(scored, plan.sweep)
        if plan.embed:
            width = text_config(self.scorer.loaded.model).hidden_size
            side["embeddings"] = embedding_table(scored.embeddings, width)
        try:
            folder = RunFolder.join(self._task.out, self.manifest, self._task.shard)
        except ArtifactError as error:
            raise ArtifactError(
                f"on {socket.gethostname()}: {error}. All workers need the same model, data and run folder"
            ) from error
        folder.write_unit(scored.index, scored.scores, **side)


@dataclass(frozen=True)
class Recipe:
    """Makes a worker in another process: `Recipe(...)()` loads the model there."""

    task: Task
    model: str
    dtype: Dtype = "auto"
    device: str = "auto"
    revision: str | None = None

    def __call__(self) -> UnitWorker:
        keep_freed_memory()
        loaded = load_model(self.model, dtype=self.dtype, device=self.device, revision=self.revision)
        return UnitWorker(loaded, self.task)


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
