"""Every family against the naive reference: right and left padding, two blocks."""

import pytest
from torch import nn

from delta_attnmask import MaskSettings, SettingsError, UnsupportedModelError, score_batch
from tests.families import FAMILIES
from tests.families.family import Family
from tests.families.matrix import cells, difference

LARGEST = 1e-4

Built = tuple[Family, nn.Module]


@pytest.fixture(scope="module", params=FAMILIES.values(), ids=lambda family: family.name.replace(" ", "-"))
def built(request: pytest.FixtureRequest) -> Built:
    family: Family = request.param
    if not family.is_installed:
        pytest.skip(f"this transformers has no {family.hf_class}")
    return family, family.build()


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
    for block, reason in family.refused.items():
        inputs, labels = family.inputs()
        with pytest.raises(SettingsError, match=reason):
            score_batch(model, inputs, labels, MaskSettings(block=block))
