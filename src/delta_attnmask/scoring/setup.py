"""What a run needs of a model and a data set: an encoder, a scorer, and the manifest of its folder."""

from typing import Any

from delta_attnmask.artifacts import Manifest
from delta_attnmask.errors import SettingsError
from delta_attnmask.modeling.anatomy import examine, text_config
from delta_attnmask.modeling.fingerprint import model_fingerprint
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.reading.dataset import Dataset
from delta_attnmask.reading.encoding import Encoder
from delta_attnmask.scoring.embeddings import middle_block
from delta_attnmask.scoring.units import ScoringPlan, UnitScorer


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
