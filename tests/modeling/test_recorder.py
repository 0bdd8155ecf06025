"""The attention function that stands in for a model's own, and the masks that it can do without."""

import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from delta_attnmask.batches import TokenRoles
from delta_attnmask.errors import SettingsError
from delta_attnmask.modeling.recorder import AttentionRecorder, MaskReader
from tests.modeling.attention_inputs import Shape, by_definition, draw, error


def test_a_query_gives_away_all_of_its_attention_under_autocast() -> None:
    """Queries and keys are in float32 there, values in bfloat16: shares and their sum must come of the same scores."""
    block = nn.Linear(1, 1)
    roles = TokenRoles.of({}, torch.zeros(2, 40, dtype=torch.long), None)
    weights = torch.zeros(2, 1, 40)
    weights[..., -1] = 1  # the last query alone
    recorder = AttentionRecorder(nn.ModuleList([block]), weights, roles)
    recorder.is_recording = True
    query, key, value = 4 * torch.randn(3, 2, 4, 40, 32, generator=torch.Generator().manual_seed(0))
    output, _ = recorder(block, query, key, value.bfloat16(), None, is_causal=True)
    assert output.dtype == torch.bfloat16
    given = recorder.saliency.sum(-1)
    assert (given - 1).abs().max() < 1e-3


SEQ = 6


def reader() -> MaskReader:
    attention_mask = torch.tensor([[1] * SEQ, [1] * 4 + [0] * 2])
    labels = torch.zeros(2, SEQ, dtype=torch.long)
    return MaskReader(TokenRoles.of({"attention_mask": attention_mask}, labels, None))


def plain() -> Tensor:
    return torch.ones(SEQ, SEQ, dtype=torch.bool).tril()[None, None].repeat(2, 1, 1, 1)


def window() -> Tensor:
    return plain().triu(-2)


class Looks(TorchFunctionMode):
    """Counts the masks that are looked at, for each of which a GPU would be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.masks = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.masks += function is torch.arange  # of the mask that is expected
        return function(*args, **(kwargs or {}))


def test_two_kinds_are_told_apart_and_looked_at_once() -> None:
    masks, causal, windowed = reader(), plain(), window()
    with Looks() as looks:
        for _ in range(5):
            assert masks.simplify(causal[:, :, :, :SEQ], False) == (None, True)  # sliced anew for each block
            mask, is_causal = masks.simplify(windowed, False)
            assert mask is windowed
            assert not is_causal
    assert looks.masks == 2


def test_a_mask_is_made_into_numbers_to_add_once() -> None:
    masks, mask = reader(), window()
    found = [masks.additive(mask[:, :, :, :SEQ], torch.float32) for _ in range(3)]
    assert found[0] is found[1] is found[2]
    assert torch.equal(found[0] == 0, mask)
    assert masks.additive(mask, torch.bfloat16).dtype == torch.bfloat16
    mask.fill_(True)
    assert not masks.additive(mask, torch.float32).any()


def test_a_mask_that_was_written_to_is_looked_at_again() -> None:
    masks, mask = reader(), plain()
    assert masks.simplify(mask, False) == (None, True)
    mask.triu_(-2)
    assert masks.simplify(mask, False)[0] is mask


def test_masks_that_all_differ_are_not_all_kept() -> None:
    masks, kept = reader(), []
    for n in range(20):
        mask = torch.full((2, 1, SEQ, SEQ), float(n))
        assert masks.simplify(mask, False)[0] is not None
        kept.append(weakref.ref(mask))
        del mask
    assert sum(mask() is not None for mask in kept) < 10


def test_the_mean_is_over_blocks() -> None:
    first, second = draw(Shape()), draw(Shape())
    batch, _, seq, _ = first.query.shape
    roles = TokenRoles.of({}, torch.zeros(batch, seq, dtype=torch.long), None)
    block = nn.Linear(1, 1)
    recorder = AttentionRecorder(nn.ModuleList([block]), first.weights, roles)
    recorder.is_recording = True
    for inputs in (first, replace(second, weights=first.weights)):
        recorder(block, inputs.query, inputs.key, inputs.value, None, scaling=inputs.scale, is_causal=True)
    expected = (by_definition(first)[2] + by_definition(replace(second, weights=first.weights))[2]) / 2
    assert recorder.n_blocks == 2
    assert error(recorder.saliency, expected) < 1e-5


def test_triton_is_refused_without_a_gpu() -> None:
    roles = TokenRoles.of({}, torch.zeros(1, 4, dtype=torch.long), None)
    with pytest.raises(SettingsError, match="needs an NVIDIA GPU"):
        AttentionRecorder(nn.ModuleList([nn.Linear(1, 1)]), torch.ones(1, 1, 4), roles, "triton")
