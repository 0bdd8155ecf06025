"""The last block's feed-forward part runs on the rows that are read alone."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from delta_attnmask import MaskSettings, score_batch
from delta_attnmask.modeling.narrow import narrowed
from delta_attnmask.modeling.selfcheck import self_check
from tests.families import FAMILIES

POSITIONS = (torch.tensor([0, 1, 1]), torch.tensor([2, 0, 3]))


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, states: Tensor) -> Tensor:
        self.shapes.append(tuple(states.shape))
        return states + 1


def test_only_the_positions_are_computed() -> None:
    module, states = Counting(), torch.randn(2, 5, 3)
    with narrowed(module, POSITIONS, (2, 5)):
        output = module(states)
    assert module.shapes == [(1, 3, 3)]
    assert torch.equal(output[POSITIONS], states[POSITIONS] + 1)
    assert output.count_nonzero() == 9
    assert "forward" not in vars(module)


def test_other_calls_are_left_alone() -> None:
    module, states = Counting(), torch.randn(2, 5, 3)
    with narrowed(module, POSITIONS, (2, 5)):
        assert torch.equal(module(states=states), states + 1)
        assert torch.equal(module(states[0]), states[0] + 1)


class Mixing(nn.Module):
    """A feed-forward part that looks at other positions too."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, states: Tensor) -> Any:
        return self.inner(states + states.mean(1, keepdim=True))


@pytest.mark.parametrize("is_mixing", [False, True])
def test_the_self_check_finds_parts_that_mix_positions(is_mixing: bool) -> None:
    family = FAMILIES["Llama"]
    model: Any = family.build()
    if is_mixing:
        model.model.layers[-1].mlp = Mixing(model.model.layers[-1].mlp)
    inputs, labels = family.inputs("none", (0,))
    assert self_check(model, inputs, labels).is_narrowed != is_mixing
    assert score_batch(model, inputs, labels, MaskSettings.paper()).delta.isfinite().all()
