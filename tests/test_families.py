"""Every family: first the reference against itself, then `score_batch` against the reference."""

from operator import attrgetter

import pytest
import torch
from torch import nn

from delta_attnmask import MaskSettings, SettingsError, UnsupportedModelError, score_batch
from tests.families import FAMILIES
from tests.families.family import Family
from tests.families.matrix import cells, difference, reference
from tests.reference import attention, naive_score

LARGEST = 1e-4  # the difference that the contract allows
ROUNDING = 1e-5
VISIBLE = 1e-3  # every cell's delta is larger, so that a wrong one shows
WITHOUT_RETURNED_MAPS = {"Phi-4 multimodal", "BLIP-2", "InstructBLIP"}

Built = tuple[Family, nn.Module]


@pytest.fixture(scope="module", params=FAMILIES.values(), ids=lambda family: family.name.replace(" ", "-"))
def built(request: pytest.FixtureRequest) -> Built:
    family: Family = request.param
    if not family.is_installed:
        pytest.skip(f"this transformers has no {family.hf_class}")
    return family, family.build()


@pytest.fixture(scope="module")
def scored(built: Built) -> Built:
    if built[0].refusal:
        pytest.skip("refused as a whole")
    return built


def test_reference_sees_every_self_attention_and_its_delta(scored: Built) -> None:
    family, model = scored
    for cell in cells(family):
        expected = reference(family, model, cell)
        assert expected.n_maps == (family.self_attentions or len(attrgetter(family.layers)(model)))
        assert expected.delta.abs().max() > VISIBLE, f"{cell}: {expected.delta}"


def test_reference_does_not_depend_on_the_batch(scored: Built) -> None:
    family, model = scored
    settings = MaskSettings(block=family.blocks[1])
    together = naive_score(model, *family.inputs("right"), settings, layers=family.layers, eager=family.eager)
    for sample in (0, 1):
        inputs, labels = family.inputs("none", [sample])
        alone = naive_score(model, inputs, labels, settings, layers=family.layers, eager=family.eager)
        assert abs(alone.loss[0] - together.loss[sample]) < ROUNDING
        assert abs(alone.delta[0] - together.delta[sample]) < ROUNDING


def test_reference_looks_at_the_image(scored: Built) -> None:
    family, model = scored
    if family.kind == "text":
        pytest.skip("text only")
    inputs, _ = family.inputs()
    swapped = inputs | {name: inputs[name].flip(0) for name in family.vision(0) if inputs[name].is_floating_point()}
    with torch.no_grad():
        assert (model(**inputs).logits - model(**swapped).logits).abs().max() > VISIBLE


def test_reference_equals_the_maps_that_the_model_returns(scored: Built) -> None:
    family, model = scored
    if family.name in WITHOUT_RETURNED_MAPS:
        pytest.skip("the model's output has no attention maps of the decoder")
    inputs, labels = family.inputs("none", [0])
    with attention(model, family.eager), torch.no_grad():
        returned = model(**inputs, output_attentions=True, use_cache=False).attentions
    seq = labels.shape[1]
    maps = torch.stack([m for m in returned if m is not None and m.shape[-2:] == (seq, seq)])
    score = naive_score(model, inputs, labels, MaskSettings(), layers=family.layers, eager=family.eager)
    assert len(maps) == score.n_maps
    assert (score.saliency - maps.mean((0, 2)).sum(-2)).abs().max() < ROUNDING


def test_equals_the_reference(built: Built) -> None:
    family, model = built
    if family.refusal:
        inputs, labels = family.inputs()
        with pytest.raises(UnsupportedModelError, match=family.refusal):
            score_batch(model, inputs, labels)
        return
    for cell in cells(family):
        found = difference(family, model, cell)
        assert found.same_choice, f"{cell}: other tokens were masked ({found})"
        assert max(found.loss, found.delta, found.saliency) < LARGEST, f"{cell}: {found}"


def test_refuses_blocks_before_the_last_image(built: Built) -> None:
    family, model = built
    inputs, labels = family.inputs()
    for block, reason in family.refused.items():
        with pytest.raises(SettingsError, match=reason):
            score_batch(model, inputs, labels, MaskSettings(block=block))
