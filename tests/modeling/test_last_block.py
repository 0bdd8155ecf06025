"""The last block gives the rows that are read the same alone as in the whole sequence, or isn't asked to."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from delta_attnmask.batches import TokenRoles
from delta_attnmask.modeling.anatomy import examine
from delta_attnmask.modeling.capture import captured_forward
from delta_attnmask.modeling.last_block import Rows, at_rows
from delta_attnmask.modeling.selfcheck import self_check
from tests.families import FAMILIES

IS_READ = torch.tensor([[False, True, True, False], [False, False, True, False]])


def test_rows_are_listed_sample_by_sample() -> None:
    rows = Rows.of(IS_READ)
    assert rows.samples.tolist() == [0, 0, 1]
    assert rows.positions.tolist() == [1, 2, 2]
    assert rows.index.tolist() == [[1, 2], [2, 2]]
    assert rows.is_row.tolist() == [[True, True], [True, False]]


def test_what_is_given_for_each_position_is_narrowed() -> None:
    rows = Rows.of(IS_READ)
    angles = torch.arange(24).reshape(2, 4, 3)
    assert torch.equal(at_rows(angles, rows, 2, 4)[0], angles[IS_READ])
    assert torch.equal(at_rows(angles[:1], rows, 2, 4)[0], angles[0][[1, 2, 2]])
    multi_axis = torch.stack([angles, angles + 100, angles + 200])
    assert torch.equal(at_rows(multi_axis, rows, 2, 4)[:, 0], multi_axis[:, IS_READ])
    assert at_rows(torch.arange(4), rows, 2, 4).tolist() == [1, 2, 2]
    assert at_rows((None, "text", angles[0, 0]), rows, 2, 4)[:2] == (None, "text")


@pytest.mark.parametrize("name", ["LLaVA", "Qwen2-VL", "Gemma 2", "gpt-oss", "DeepSeek-V3"])
def test_masked_rows_equal_those_of_the_whole_sequence(name: str) -> None:
    inputs, labels = FAMILIES[name].inputs()
    anatomy = examine(FAMILIES[name].build())
    roles = TokenRoles.of(inputs, labels, anatomy.image_token_id)
    is_masked = roles.is_token & (torch.arange(labels.shape[1]) % 4 == 1)
    found = []
    for runs_on_rows in (False, True):
        checked = replace(anatomy, runs_on_rows=runs_on_rows)
        block = anatomy.n_blocks - 2
        weights = roles.is_token[:, None].float()
        with captured_forward(checked, inputs, labels, roles, weights, [block]) as forward:
            fill = forward.states[block].mean(-2, keepdim=True)
            found.append((forward.final_rows(), forward.run_masked(block, is_masked, fill)))
    assert (found[0][1] - found[0][0]).abs().max() > 1e-3  # or else nothing was masked
    for whole, alone in zip(*found, strict=True):
        assert (whole - alone).abs().max() < 1e-4


class Neighbourly(nn.Module):
    """A last block whose output at a position depends on its neighbour, beside its attention."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, states: Tensor, *args: Any, **kwargs: Any) -> Any:
        return self.inner(states, *args, **kwargs) + states.roll(1, dims=1)


class Short(nn.Module):
    """A last block that can't take fewer positions than the sequence has."""

    def __init__(self, inner: nn.Module, seq: int):
        super().__init__()
        self.inner = inner
        self.offset = torch.zeros(seq, 1)

    def forward(self, states: Tensor, *args: Any, **kwargs: Any) -> Any:
        return self.inner(states + self.offset, *args, **kwargs)


@pytest.mark.parametrize("wrap", [lambda block, _: Neighbourly(block), Short])
def test_the_self_check_finds_blocks_that_need_the_whole_sequence(wrap: Callable[[nn.Module, int], nn.Module]) -> None:
    family = FAMILIES["Llama"]
    inputs, labels = family.inputs()
    assert self_check(examine(family.build()), inputs, labels).runs_on_rows
    other: Any = family.build()
    other.model.layers[-1] = wrap(other.model.layers[-1], labels.shape[1])
    assert not self_check(examine(other), inputs, labels).runs_on_rows
