"""Batches stay within their budget, and samples of one image stay together."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from delta_attnmask.reading.collate import plan_batches
from delta_attnmask.reading.encoding import EncodedSample


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


def test_padding_is_bounded_once_a_batch_is_well_filled() -> None:
    samples = [sample(row, 100 - row, None) for row in range(60)]
    batches = plan_batches(samples, 4000)
    n_positions = sum(max(part.n_tokens for part in batch) * len(batch) for batch in batches)
    assert 1 - sum(part.n_tokens for part in samples) / n_positions < 0.09
    assert all(len(batch) >= 10 for batch in batches[:-1])
