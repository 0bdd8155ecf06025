"""A model that is split over devices by accelerate gives the scores of the whole one."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from delta_attnmask.errors import UnsupportedModelError
from delta_attnmask.modeling.load import LoadedModel, refuse_offloaded
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.scoring.jobs import score_dataset
from delta_attnmask.scoring.units import ScoringPlan
from delta_attnmask.settings import MaskSettings


def split(loaded: LoadedModel, second: str, folder: Path) -> LoadedModel:
    """A copy whose upper half is a part of its own, with hooks that move every input to where the weights are."""
    accelerate = pytest.importorskip("accelerate")
    model: Any = deepcopy(loaded.model)
    decoder = model.model.language_model
    parts = dict.fromkeys(("model.vision_tower", "model.multi_modal_projector"), "cpu")
    parts |= {f"model.language_model.{name}": "cpu" for name in ("embed_tokens", "rotary_emb")}
    middle = len(decoder.layers) // 2
    parts |= {
        f"model.language_model.layers.{idx}": "cpu" if idx < middle else second for idx in range(len(decoder.layers))
    }
    parts |= {"model.language_model.norm": second, "lm_head": second}
    accelerate.dispatch_model(model, parts, main_device="cpu", offload_dir=folder, force_hooks=True)
    return replace(loaded, model=model)


def test_a_model_in_two_parts_scores_as_the_whole_one(
    embedded: Path, embedded_model: LoadedModel, tmp_path: Path
) -> None:
    dataset = FileRows(embedded / "pool.json", embedded / "images", limit=8)
    plan = ScoringPlan(MaskSettings.paper(), embed=True)
    in_two = split(embedded_model, "cpu", tmp_path)
    hooks = {type(module._hf_hook).__name__ for module in in_two.model.modules() if "_hf_hook" in vars(module)}
    assert hooks == {"AlignDevicesHook"}
    runs = [
        score_dataset(loaded, dataset, tmp_path / name, plan)
        for name, loaded in (("whole", embedded_model), ("split", in_two))
    ]
    assert runs[0].read_scores() == runs[1].read_scores()
    assert runs[0].read_side("embeddings") == runs[1].read_side("embeddings")


def test_a_model_of_which_a_part_is_on_disk_is_refused(embedded_model: LoadedModel, tmp_path: Path) -> None:
    refuse_offloaded("tiny", embedded_model.model)
    with pytest.raises(UnsupportedModelError, match=r"tiny: .* of its parameters don't fit .* --gpus-per-actor"):
        refuse_offloaded("tiny", split(embedded_model, "disk", tmp_path).model)
