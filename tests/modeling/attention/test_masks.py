"""Masks that say nothing but "causal, padded on the right", each looked at once and not all of them kept."""

import pytest
import torch
from torch import Tensor

from delta_attnmask.batches import TokenRoles
from delta_attnmask.modeling.attention.masks import MaskReader

SEQ = 6


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The masks that were looked at."""
    seen: list[Tensor] = []
    original = MaskReader._is_plain_causal

    def look(self: MaskReader, mask: Tensor) -> bool:
        seen.append(mask)
        return original(self, mask)

    monkeypatch.setattr(MaskReader, "_is_plain_causal", look)
    return seen


def reader() -> MaskReader:
    attention_mask = torch.tensor([[1] * SEQ, [1] * 4 + [0] * 2])
    labels = torch.zeros(2, SEQ, dtype=torch.long)
    return MaskReader(TokenRoles.of({"attention_mask": attention_mask}, labels, None))


def plain() -> Tensor:
    return torch.ones(SEQ, SEQ, dtype=torch.bool).tril()[None, None].repeat(2, 1, 1, 1)


def window() -> Tensor:
    return plain().triu(-2)


def test_two_kinds_are_told_apart_and_looked_at_once(looked_at: list[Tensor]) -> None:
    masks, causal, windowed = reader(), plain(), window()
    for _ in range(5):
        assert masks.simplify(causal, False) == (None, True)
        mask, is_causal = masks.simplify(windowed, False)
        assert mask is windowed
        assert not is_causal
    assert len(looked_at) == 2


def test_copies_are_known_again_and_not_kept(looked_at: list[Tensor]) -> None:
    masks = reader()
    for _ in range(20):
        assert masks.simplify(plain(), False) == (None, True)
        assert masks.simplify(window(), False)[0] is not None
    assert len(looked_at) == len(masks._latest) == 2


def test_masks_that_all_differ_are_not_all_kept(looked_at: list[Tensor]) -> None:
    masks = reader()
    for n in range(20):
        assert masks.simplify(torch.full((2, 1, SEQ, SEQ), float(n)), False)[0] is not None
    assert len(looked_at) == 20
    assert len(masks._latest) < 10
