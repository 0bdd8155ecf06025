"""What a run needs of a model and a data set: an encoder, a scorer, and the manifest of its folder."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from delta_attnmask.artifacts import Manifest
from delta_attnmask.encoding.encoder import Encoder
from delta_attnmask.errors import SettingsError
from delta_attnmask.modeling.anatomy import Anatomy, examine, text_config
from delta_attnmask.modeling.fingerprint import model_fingerprint
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.reading.dataset import Dataset
from delta_attnmask.scoring.embeddings import middle_block
from delta_attnmask.scoring.units import ScoringPlan, UnitScorer
from delta_attnmask.settings import MaskSettings


def make_scorer(loaded: LoadedModel, dataset: Dataset, plan: ScoringPlan) -> UnitScorer:
    """What scores the units, with the part of the plan's sweep that the model can have.

    Raises SettingsError where the settings themselves don't fit the model.
    """
    anatomy, encoder = examine(loaded.model), make_encoder(loaded)
    anatomy.resolve_block(plan.settings.block)
    if plan.settings.tokens == "image" and not encoder.takes_images:
        raise SettingsError("tokens='image': this model takes no images; use tokens='all' or 'prompt'")
    return UnitScorer(loaded, encoder, dataset.load_image, replace(plan, sweep=fit_grid(plan.sweep, anatomy)))


def fit_grid(grid: Sequence[MaskSettings], anatomy: Anatomy) -> tuple[MaskSettings, ...]:
    """The settings of a grid that a model can have, each once.

    Without image tokens where it has none, without blocks that it lacks, and with the block that is masked instead
    where another can't be.
    """
    fitting = []
    for setting in grid:
        is_there = -anatomy.n_blocks <= setting.block < anatomy.n_blocks
        if not is_there or (setting.tokens == "image" and anatomy.image_token_id is None):
            continue
        instead = anatomy.resolve_block(setting.block) - anatomy.n_blocks
        fitting.append(setting if anatomy.has_block(setting.block) else replace(setting, block=instead))
    return tuple(dict.fromkeys(fitting))


def make_encoder(loaded: LoadedModel, max_tokens: int | None = None) -> Encoder:
    """The encoder that fits a loaded model. max_tokens: longer rows are refused, as those longer than the model are."""
    limits = [getattr(text_config(loaded.model), "max_position_embeddings", None), max_tokens]
    longest = min((limit for limit in limits if limit), default=None)
    return Encoder(loaded.processor, examine(loaded.model).image_token_id, longest)


def make_manifest(
    loaded: LoadedModel, dataset: Dataset, plan: ScoringPlan, unit_rows: int, command: tuple[str, ...]
) -> Manifest:
    """What this run is, for its folder."""
    dtype = str(loaded.dtype).removeprefix("torch.")
    settings: dict[str, Any] = {**plan.settings.to_dict(), "dtype": dtype, "form": plan.form}
    if plan.calibration:
        settings["calibration"] = plan.calibration
    if plan.sweep:
        settings["sweep"] = [setting.to_dict() for setting in plan.sweep]
    if plan.embed:
        settings["embeddings"] = f"mean over tokens at block {middle_block(examine(loaded.model).n_blocks)}"
    return Manifest(
        model=loaded.name,
        model_fingerprint=model_fingerprint(loaded.model),
        settings=settings,
        data=dataset.location,
        images=str(dataset.images_root or ""),
        input=dataset.fingerprint,
        format=dataset.format_name,
        n_rows=dataset.n_rows,
        unit_rows=unit_rows,
        extra_columns=tuple(plan.rivals),
        command=command,
    )
