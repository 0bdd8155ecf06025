"""Batches stay within their budget, and samples of one image stay together."""

from itertools import pairwise, product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from delta_attnmask.encoding.collate import _OVERHEAD, collate, plan_batches
from delta_attnmask.encoding.encoder import EncodedSample


def sample(row: int, n_tokens: int, image: str | None) -> EncodedSample:
    ids = torch.zeros(1, n_tokens, dtype=torch.long)
    inputs = {"input_ids": ids} | ({"pixel_values": torch.zeros(1)} if image else {})
    return EncodedSample(row, inputs, ids, 8 if image else 0, (image,) if image else ())


@given(
    rows=st.lists(st.tuples(st.integers(1, 50), st.sampled_from([None, "a", "b", "c"])), max_size=30),
    batch_tokens=st.integers(1, 400),
    image_cost=st.sampled_from([0.0, 1.0, 100.0]),
)
def test_every_sample_once_within_the_budget(
    rows: list[tuple[int, str | None]], batch_tokens: int, image_cost: float
) -> None:
    samples = [sample(row, n_tokens, image) for row, (n_tokens, image) in enumerate(rows)]
    batches = plan_batches(samples, batch_tokens, image_cost)
    assert sorted(part.row for batch in batches for part in batch) == list(range(len(rows)))
    for batch in batches:
        assert len(batch) == 1 or max(part.n_tokens for part in batch) * len(batch) <= batch_tokens
        assert len({frozenset(part.inputs) for part in batch}) == 1


@pytest.mark.parametrize(("image_cost", "expected"), [(0.0, [[5, 4, 3], [2, 1, 0]]), (10.0, [[5, 3, 1], [4, 2, 0]])])
def test_samples_of_one_image_stay_together_where_it_pays(image_cost: float, expected: list[list[int]]) -> None:
    samples = [sample(row, 100 + row, "ab"[row % 2]) for row in range(6)]
    assert [[part.row for part in batch] for batch in plan_batches(samples, 320, image_cost)] == expected


def test_without_common_images_the_length_decides() -> None:
    samples = [sample(row, n_tokens, str(row)) for row, n_tokens in enumerate([3, 9, 5, 7])]
    assert [part.row for batch in plan_batches(samples, 100, 9.0) for part in batch] == [1, 3, 2, 0]


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=8), batch_tokens=st.integers(40, 200))
def test_no_other_cut_of_sorted_samples_costs_less(lengths: list[int], batch_tokens: int) -> None:
    lengths = sorted(lengths, reverse=True)
    every = []
    for cuts in product((False, True), repeat=len(lengths) - 1):
        edges = [0, *(place for place, is_cut in enumerate(cuts, 1) if is_cut), len(lengths)]
        every.append([lengths[start:stop] for start, stop in pairwise(edges)])
    allowed = [plan for plan in every if all(max(part) * len(part) <= batch_tokens for part in plan)]
    found = plan_batches([sample(row, n_tokens, None) for row, n_tokens in enumerate(lengths)], batch_tokens)
    planned = [[part.n_tokens for part in batch] for batch in found]
    assert planned in allowed
    assert cost(planned, batch_tokens) == pytest.approx(min(cost(plan, batch_tokens) for plan in allowed))


def cost(plan: list[list[int]], batch_tokens: int) -> float:
    return sum(max(part) * len(part) + _OVERHEAD * batch_tokens for part in plan)


def test_padding_is_small_and_batches_are_not() -> None:
    samples = [sample(row, 160 - row // 4, None) for row in range(400)]
    batches = plan_batches(samples, 8192)
    n_positions = sum(max(part.n_tokens for part in batch) * len(batch) for batch in batches)
    assert 1 - sum(part.n_tokens for part in samples) / n_positions < 0.05
    assert len(batches) <= 15
    assert all(len(batch) >= 16 for batch in batches)


@pytest.mark.parametrize(
    ("images", "image_of"),
    [
        ([("a",), ("b",), ("a",)], (0, 1, 0)),
        ([("a", "b"), ("b",), ("c",)], (0, 1, 1, 3)),
        ([(), (), ()], ()),
        ([("a", "a"), (), ("b",)], None),  # three samples and three images: an entry may be either
    ],
)
def test_a_batch_says_which_images_are_equal(images: list[tuple[str, ...]], image_of: tuple[int, ...] | None) -> None:
    ids = torch.zeros(1, 4, dtype=torch.long)
    samples = [EncodedSample(row, {"input_ids": ids}, ids, 0, names) for row, names in enumerate(images)]
    assert collate(samples, 0).image_of == image_of
