"""Score a data set into a run folder, unit by unit; what is finished is never done again."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from delta_attnmask.artifacts import Manifest, RunFolder
from delta_attnmask.errors import DeltaAttnMaskError, SettingsError, UnsupportedModelError
from delta_attnmask.executing.local import run_units
from delta_attnmask.modeling.anatomy import examine, text_config
from delta_attnmask.modeling.fingerprint import model_fingerprint
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.reading.dataset import Dataset
from delta_attnmask.reading.encoding import Encoder
from delta_attnmask.scoring.embeddings import embedding_table, middle_block
from delta_attnmask.scoring.units import PreparedUnit, ScoredUnit, ScoringPlan, UnitScorer
from delta_attnmask.settings import MaskSettings

UNIT_ROWS = 256
_REFUSED = "the model"  # begins the reason of every row that failed in model or processor


@dataclass(frozen=True)
class Progress:
    """Where a run stands after a unit: rows in this run folder, of which this process did some."""

    n_done: int
    n_rows: int
    n_done_here: int
    n_failed_here: int


def score_dataset(
    loaded: LoadedModel,
    dataset: Dataset,
    out: str | Path,
    plan: ScoringPlan,
    *,
    unit_rows: int = UNIT_ROWS,
    command: tuple[str, ...] = (),
    on_check: Callable[[str], None] = lambda line: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> RunFolder:
    """Score every row of `dataset` into the folder `out`, or finish what an earlier call began there.

    on_check is given one line that says what was found in the model; on_progress is called after each unit.
    Returns the complete run. Raises UnsupportedModelError where the model can't be scored with, ArtifactError where
    `out` belongs to another run or is in use, DataError where the file is broken.
    """
    if unit_rows < 1:
        raise SettingsError(f"unit_rows={unit_rows}: expected at least 1")
    scorer = make_scorer(loaded, dataset, plan)
    manifest = make_manifest(loaded, dataset, plan, unit_rows, command)
    with RunFolder.start(out, manifest) as run:
        to_do = run.units_to_do()
        n_before = run.manifest.n_rows - sum(len(run.unit_rows(unit)) for unit in to_do)
        n_here = n_failed = 0
        prepare = partial(_prepare, scorer, dataset, run)
        for unit in run_units(to_do, prepare, partial(_compute, scorer, on_check)):
            _require_some_success(unit, is_first=n_here == 0)
            run.write_unit(unit.index, unit.scores, **_side_tables(unit, plan))
            n_here += len(unit.scores)
            n_failed += sum(score.status == "failed" for score in unit.scores)
            on_progress(Progress(n_before + n_here, run.manifest.n_rows, n_here, n_failed))
        run.mark_complete()
        return run


def dry_run_line(loaded: LoadedModel, dataset: Dataset, plan: ScoringPlan) -> str:
    """Check model, settings and the first rows, write nothing, and say what a run would do."""
    scorer = make_scorer(loaded, dataset, plan)
    unit = scorer.prepare(0, dataset.records(0, 8))
    check = scorer.self_check(unit)
    ok = sum(score.status == "ok" for score in scorer.compute(unit).scores)
    return (
        f"{dataset.n_rows} rows of {dataset.path} ({dataset.format_name}); {ok} of the first {len(unit.records)} can "
        f"be scored on {loaded.device} in {loaded.dtype}; model: {check or 'not checked, no row could be encoded'}"
    )


def make_scorer(loaded: LoadedModel, dataset: Dataset, plan: ScoringPlan) -> UnitScorer:
    """What scores the units; SettingsError where the plan doesn't fit the model."""
    anatomy, encoder = examine(loaded.model), make_encoder(loaded)
    anatomy.resolve_block(plan.settings.block)
    if plan.settings.tokens == "image" and not encoder.takes_images:
        raise SettingsError("tokens='image': this model takes no images; use tokens='all' or 'prompt'")
    return UnitScorer(loaded, encoder, dataset.load_image, plan)


def make_encoder(loaded: LoadedModel) -> Encoder:
    """The encoder that fits a loaded model."""
    longest = getattr(text_config(loaded.model), "max_position_embeddings", None)
    return Encoder(loaded.processor, examine(loaded.model).image_token_id, longest)


def make_manifest(
    loaded: LoadedModel, dataset: Dataset, plan: ScoringPlan, unit_rows: int, command: tuple[str, ...]
) -> Manifest:
    """What this run is, for its folder."""
    dtype = str(loaded.dtype).removeprefix("torch.")
    settings: dict[str, Any] = {**plan.settings.to_dict(), "dtype": dtype, "form": plan.form}
    if plan.sweep:
        settings["sweep"] = [setting.to_dict() for setting in plan.sweep]
    if plan.embed:
        settings["embeddings"] = f"mean over tokens at block {middle_block(examine(loaded.model).n_blocks)}"
    return Manifest(
        model=loaded.name,
        model_fingerprint=model_fingerprint(loaded.model),
        settings=settings,
        data=str(dataset.path),
        images=str(dataset.images_root or ""),
        input=dataset.fingerprint,
        format=dataset.format_name,
        n_rows=dataset.n_rows,
        unit_rows=unit_rows,
        extra_columns=tuple(plan.rivals),
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


def _side_tables(unit: ScoredUnit, plan: ScoringPlan) -> dict[str, pa.Table]:
    tables = {"sweep": sweep_table(unit, plan.sweep)} if plan.sweep else {}
    return tables | ({"embeddings": embedding_table(unit.embeddings)} if plan.embed else {})


def _prepare(scorer: UnitScorer, dataset: Dataset, run: RunFolder, unit: int) -> PreparedUnit:
    rows = run.unit_rows(unit)
    return scorer.prepare(unit, dataset.records(rows.start, rows.stop))


def _compute(scorer: UnitScorer, on_check: Callable[[str], None], unit: PreparedUnit) -> ScoredUnit:
    try:
        if (line := scorer.self_check(unit)) is not None:
            on_check(line)
        return scorer.compute(unit)
    except torch.AcceleratorError as error:
        raise DeltaAttnMaskError(
            f"the device failed in unit {unit.index}: {error}; start the same command again to go on"
        ) from error


def _require_some_success(unit: ScoredUnit, *, is_first: bool) -> None:
    """If the model refuses every row of the first unit, the fault is the model's, and the run ends."""
    refused = [score.reason for score in unit.scores if score.reason.startswith(_REFUSED)]
    if is_first and refused and not any(score.status == "ok" for score in unit.scores):
        raise UnsupportedModelError(f"no row of the first unit could be scored; {len(refused)} like this: {refused[0]}")
