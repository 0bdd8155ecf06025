"""Batches stay within their budget, and samples of one image stay together."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from delta_attnmask.reading.collate import plan_batches
from delta_attnmask.reading.encoding import EncodedSample


def sample(row: int, n_tokens: int, image: str | None) -> EncodedSample:
    ids = torch.zeros(1, n_tokens, dtype=torch.long)
    inputs = {"input_ids": ids} | ({"pixel_values": torch.zeros(1)} if image else {})
    return EncodedSample(row, inputs, ids, 0, (image,) if image else ())


@given(
    rows=st.lists(st.tuples(st.integers(1, 50), st.sampled_from([None, "a", "b", "c"])), max_size=30),
    batch_tokens=st.integers(1, 400),
)
def test_every_sample_once_within_the_budget(rows: list[tuple[int, str | None]], batch_tokens: int) -> None:
    samples = [sample(row, n_tokens, image) for row, (n_tokens, image) in enumerate(rows)]
    batches = list(plan_batches(samples, batch_tokens))
    assert sorted(part.row for batch in batches for part in batch) == list(range(len(rows)))
    for batch in batches:
        assert len(batch) == 1 or max(part.n_tokens for part in batch) * len(batch) <= batch_tokens
        assert len({frozenset(part.inputs) for part in batch}) == 1


def test_samples_of_one_image_follow_each_other() -> None:
    samples = [sample(row, 10 + row, "ab"[row % 2]) for row in range(6)]
    rows = [[part.row for part in batch] for batch in plan_batches(samples, 48)]
    assert rows == [[5, 3, 1], [4, 2, 0]]


def test_single_images_go_by_length() -> None:
    samples = [sample(row, n_tokens, str(row)) for row, n_tokens in enumerate([3, 9, 5, 7])]
    assert [part.row for batch in plan_batches(samples, 100) for part in batch] == [1, 3, 2, 0]
