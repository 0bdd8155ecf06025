"""Every family: first the reference by itself, then `score_batch` against the reference."""

from collections.abc import Callable
from operator import attrgetter

import pytest
import torch
import transformers
from packaging.version import Version
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


def test_enough_families_are_declared_exact() -> None:
    """A class that this transformers lacks counts as one that isn't."""
    others = [family.name for family in FAMILIES.values() if family.refusal or not family.is_installed]
    n_expected = 60 if Version(transformers.__version__) >= Version("5.23") else 57
    assert len(FAMILIES) == 64
    assert len(FAMILIES) - len(others) >= n_expected, (
        f"not exact under transformers {transformers.__version__}: {others}"
    )


@pytest.fixture(scope="module")
def built(request: pytest.FixtureRequest) -> Built:
    family: Family = request.param
    if not family.is_installed:
        pytest.skip(f"this transformers has no {family.hf_class}")
    return family, family.build()


def over(wanted: Callable[[Family], object]) -> pytest.MarkDecorator:
    """Run a test for each family that is wanted; a family's model is built once for all tests."""
    families = [family for family in FAMILIES.values() if wanted(family)]
    names = [family.name.replace(" ", "-") for family in families]
    return pytest.mark.parametrize("built", families, ids=names, indirect=True, scope="module")


scored = over(lambda family: not family.refusal)


@scored
def test_reference_sees_every_self_attention_and_its_delta(built: Built) -> None:
    family, model = built
    for cell in cells(family):
        expected = reference(family, model, cell)
        assert expected.n_maps == (family.self_attentions or len(attrgetter(family.layers)(model)))
        assert expected.delta.abs().max() > VISIBLE, f"{cell}: {expected.delta}"


@scored
def test_reference_does_not_depend_on_the_batch(built: Built) -> None:
    family, model = built
    settings = MaskSettings(block=family.blocks[1])
    together = naive_score(model, *family.inputs("right"), settings, layers=family.layers, eager=family.eager)
    for sample in (0, 1):
        inputs, labels = family.inputs("none", [sample])
        alone = naive_score(model, inputs, labels, settings, layers=family.layers, eager=family.eager)
        assert abs(alone.loss[0] - together.loss[sample]) < ROUNDING
        assert abs(alone.delta[0] - together.delta[sample]) < ROUNDING


@over(lambda family: family.kind == "vlm" and not family.is_broken)
def test_reference_looks_at_the_image(built: Built) -> None:
    family, model = built
    inputs, _ = family.inputs()
    swapped = inputs | {name: inputs[name].flip(0) for name in family.vision(0) if inputs[name].is_floating_point()}
    with torch.no_grad():
        assert (model(**inputs).logits - model(**swapped).logits).abs().max() > VISIBLE


@over(lambda family: not family.refusal and family.name not in WITHOUT_RETURNED_MAPS)
def test_reference_equals_the_maps_that_the_model_returns(built: Built) -> None:
    family, model = built
    inputs, labels = family.inputs("none", [0])
    with attention(model, family.eager), torch.no_grad():
        returned = model(**inputs, output_attentions=True, use_cache=False).attentions
    seq = labels.shape[1]
    maps = torch.stack([m for m in returned if m is not None and m.shape[-2:] == (seq, seq)])
    score = naive_score(model, inputs, labels, MaskSettings.paper(), layers=family.layers, eager=family.eager)
    assert len(maps) == score.n_maps
    assert (score.saliency - maps.mean((0, 2)).sum(-2)).abs().max() < ROUNDING


@scored
def test_equals_the_reference(built: Built) -> None:
    family, model = built
    for cell in cells(family):
        found = difference(family, model, cell)
        assert found.same_choice, f"{cell}: other tokens were masked ({found})"
        assert max(found.loss, found.delta, found.saliency) < LARGEST, f"{cell}: {found}"


@scored
def test_score_does_not_depend_on_the_batch(built: Built) -> None:
    family, model = built
    together = score_batch(model, *family.inputs("right"), MaskSettings.paper())
    for sample in (0, 1):
        inputs, labels = family.inputs("none", [sample])
        alone = score_batch(model, inputs, labels, MaskSettings.paper())
        assert abs(alone.loss[0] - together.loss[sample]) < ROUNDING
        assert abs(alone.delta[0] - together.delta[sample]) < ROUNDING


@pytest.mark.parametrize("name", ["Llama 4", "Gemma 3", "SmolVLM", "Qwen2-VL", "OPT"])
def test_equals_the_reference_when_loaded_with_eager_attention(name: str) -> None:
    family = FAMILIES[name]
    if family.refusal:
        pytest.skip(family.notes)
    model = family.build()
    model.set_attn_implementation("eager")
    found = difference(family, model, next(cells(family)))
    assert found.same_choice
    assert max(found.loss, found.delta, found.saliency) < LARGEST, found


@over(lambda family: family.refusal)
def test_refuses_models_without_readable_attention(built: Built) -> None:
    family, model = built
    with pytest.raises(UnsupportedModelError, match=family.refusal):
        score_batch(model, *family.inputs(), MaskSettings.paper())


@over(lambda family: family.refused)
def test_refuses_blocks_before_the_last_image(built: Built) -> None:
    family, model = built
    for block, reason in family.refused.items():
        with pytest.raises(SettingsError, match=reason):
            score_batch(model, *family.inputs(), MaskSettings(block=block))
