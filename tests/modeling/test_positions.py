"""Positions made beforehand are those that the model makes."""

import pytest
import torch

from delta_attnmask import MaskSettings, score_batch
from delta_attnmask.modeling.running import with_positions
from tests.families import FAMILIES


@pytest.mark.parametrize("padding", ["right", "left"])
@pytest.mark.parametrize("name", ["Qwen2-VL", "Qwen2.5-VL", "Qwen3-VL", "GLM-4V"])
def test_scores_stay_the_same(name: str, padding: str) -> None:
    family = FAMILIES[name]
    model = family.build()
    inputs, labels = family.inputs(padding)
    numbered = with_positions(model, inputs)
    assert numbered["position_ids"].shape[-2:] == labels.shape
    expected, found = (score_batch(model, given, labels, MaskSettings.paper()) for given in (inputs, numbered))
    assert torch.equal(found.loss, expected.loss)
    assert torch.equal(found.delta, expected.delta)


@pytest.mark.parametrize("name", ["LLaVA", "Llama"])
def test_other_models_number_for_themselves(name: str) -> None:
    family = FAMILIES[name]
    inputs, _ = family.inputs()
    assert with_positions(family.build(), inputs) is inputs


def test_text_alone_is_left_to_the_decoder() -> None:
    family = FAMILIES["Qwen2-VL"]
    inputs, _ = family.inputs()
    text = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    assert with_positions(family.build(), text) is text
