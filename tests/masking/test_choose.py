"""Which tokens are masked."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from delta_attnmask.batches import TokenRoles
from delta_attnmask.masking import choose_tokens, counted_queries, eligible_tokens, n_masked, priority
from delta_attnmask.settings import Exclude, Order, Tokens

IGNORED = -100


def roles() -> TokenRoles:
    """Two samples: image tokens (9), a special one (1), two answers; the second sample is padded on the right."""
    ids = torch.tensor([[1, 9, 9, 5, 6, 7, 5, 8], [1, 9, 5, 6, 7, 0, 0, 0]])
    mask = torch.tensor([[1] * 8, [1] * 5 + [0] * 3])
    labels = torch.full_like(ids, IGNORED)
    labels[0, 4:6], labels[0, 7], labels[1, 3:5] = ids[0, 4:6], ids[0, 7], ids[1, 3:5]
    return TokenRoles.of({"input_ids": ids, "attention_mask": mask}, labels, image_token_id=9, special_ids=[1])


def positions(mask: Tensor) -> list[list[int]]:
    return [row.nonzero().flatten().tolist() for row in mask]


def test_counted_queries() -> None:
    assert positions(counted_queries(roles(), "all")) == [[*range(8)], [*range(5)]]
    assert positions(counted_queries(roles(), "answer")) == [[3, 4, 6], [2, 3]]


@pytest.mark.parametrize(
    ("tokens", "exclude", "expected"),
    [
        ("all", "none", [[*range(8)], [*range(5)]]),
        ("prompt", "none", [[0, 1, 2, 3, 6], [0, 1, 2]]),
        ("image", "none", [[1, 2], [1]]),
        ("all", "sink", [[*range(1, 8)], [*range(1, 5)]]),
        ("prompt", "special", [[1, 2, 3, 6], [1, 2]]),
    ],
)
def test_eligible_tokens(tokens: Tokens, exclude: Exclude, expected: list[list[int]]) -> None:
    assert positions(eligible_tokens(roles(), tokens, exclude)) == expected


@given(n=st.integers(1, 5000), fraction=st.floats(0, 1))
def test_the_count_is_rounded_half_up_and_at_least_one(n: int, fraction: float) -> None:
    expected = max(1, math.floor(fraction * n + 0.5)) if fraction else 0
    assert n_masked(torch.tensor([n]), fraction, seq=n).tolist() == [expected]


def test_nothing_is_masked_where_nothing_is_eligible() -> None:
    assert n_masked(torch.tensor([0, 1]), 0.2, seq=3).tolist() == [0, 1]
    none = torch.zeros(1, 4, dtype=torch.bool)
    assert not choose_tokens(torch.rand(1, 4), none, 1.0).any()


def test_the_highest_are_chosen_and_ties_go_to_the_lower_position() -> None:
    ranked_by = torch.tensor([[0.5, 0.9, 0.5, 0.5, 0.9, 0.1], [0.0, 0.0, 0.0, 0.0, 0.0, 9.0]])
    eligible = torch.tensor([[True] * 6, [True, False, True, True, True, False]])
    assert positions(choose_tokens(ranked_by, eligible, 0.5)) == [[0, 1, 4], [0, 2]]
    assert positions(choose_tokens(-ranked_by, eligible, 0.5)) == [[0, 2, 5], [0, 2]]


class RefusingFloat64(TorchDispatchMode):
    """Lets no other device than the CPU have float64, as Apple's GPUs haven't."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if isinstance(output, Tensor) and output.device.type != "cpu" and output.dtype == torch.float64:
            raise TypeError("this device has no float64")
        return output


@pytest.mark.parametrize("order", ["most", "least", "random"])
def test_no_device_needs_float64(order: Order) -> None:
    saliency, is_token = torch.rand(2, 8), torch.ones(2, 8, dtype=torch.bool)
    there = [tensor.to("meta") for tensor in (saliency, torch.tensor([3, 7]), is_token)]
    with RefusingFloat64():
        ranked_by = priority(there[0], order, *there[1:])
        assert choose_tokens(ranked_by, there[2], 0.3).device.type == "meta"


def test_all_eligible_tokens_are_masked_at_fraction_one() -> None:
    eligible = torch.tensor([[True, False, True], [False, False, True]])
    assert torch.equal(choose_tokens(torch.rand(2, 3), eligible, 1.0), eligible)


def test_saliency_that_is_not_a_number_still_gives_the_right_count() -> None:
    ranked_by = torch.tensor([[torch.nan, 1.0, torch.nan, -torch.inf]])
    assert int(choose_tokens(ranked_by, torch.ones(1, 4, dtype=torch.bool), 0.5).sum()) == 2


def test_orders() -> None:
    saliency, is_token = torch.tensor([[0.1, 0.3, 0.2]]), torch.ones(1, 3, dtype=torch.bool)
    seeds = torch.tensor([7])
    assert torch.equal(priority(saliency, "most", seeds, is_token), saliency)
    assert torch.equal(priority(saliency, "least", seeds, is_token), -saliency)
    random = priority(saliency, "random", seeds, is_token)
    assert torch.equal(random, priority(saliency.flip(-1), "random", seeds, is_token))
    assert not torch.equal(random, priority(saliency, "random", seeds + 1, is_token))


def test_random_numbers_follow_the_sample_not_its_padding() -> None:
    alone = priority(torch.zeros(1, 5), "random", torch.tensor([7]), torch.ones(1, 5, dtype=torch.bool))
    seeds = torch.tensor([3, 7, 7])
    is_token = torch.tensor([[1] * 8, [1] * 5 + [0] * 3, [0] * 3 + [1] * 5]).bool()
    together = priority(torch.zeros(3, 8), "random", seeds, is_token)
    assert torch.equal(together[1, :5], alone[0])
    assert torch.equal(together[2, 3:], alone[0])


def test_random_numbers_are_spread_evenly_and_differ_between_samples() -> None:
    is_token = torch.ones(200, 100, dtype=torch.bool)
    ranked_by = priority(torch.zeros(200, 100), "random", torch.arange(200), is_token)
    chosen = choose_tokens(ranked_by, is_token, 0.2).double()
    assert (chosen.sum(-1) == 20).all()
    assert (chosen.mean(0) - 0.2).abs().max() < 0.13  # 4.5 standard deviations of 200 draws
    shared = (chosen @ chosen.T).fill_diagonal_(0).sum() / (200 * 199)
    assert abs(shared - 4) < 0.1  # two samples share 20 · 20 / 100 tokens by chance
