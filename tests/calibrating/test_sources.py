"""Figures by source: each source's originals against their own copies."""

import numpy as np
import pytest

from delta_attnmask.calibrating.findings import by_source
from delta_attnmask.calibrating.planting import Donors, Planted, plant
from delta_attnmask.statistics import auroc, separate
from tests.calibrating.test_defects import make_records


@pytest.fixture(scope="module")
def planted() -> Planted:
    records = make_records(160)
    return plant(records, Donors(records), 3, seed=0)


def noise(planted: Planted) -> np.ndarray:
    return np.random.default_rng(0).normal(size=len(planted.records)) + [not kind for kind in planted.kind]


def test_each_source_is_held_against_its_own_copies(planted):
    values = noise(planted)
    found = by_source(planted, values, ["image_swapped"])
    assert set(found) == {"a", "b"}
    for source, one in found.items():
        copies = [
            idx
            for idx, first in enumerate(planted.original)
            if planted.kind[idx] == "image_swapped" and planted.records[first].source == source
        ]
        expected = auroc(values[[planted.original[idx] for idx in copies]], values[copies])
        assert one["together"]["auroc"] == one["kinds"]["image_swapped"]["auroc"] == pytest.approx(expected, abs=1e-4)
        assert one["together"]["n_pairs"] == one["together"]["n_originals"] == len(copies)
        assert one["kinds"].keys() <= set(planted.kinds)


def test_intervals_are_given_where_the_counts_allow(planted):
    values = noise(planted)
    together = by_source(planted, values, planted.kinds)["a"]["together"]
    assert together["n_pairs"] > together["n_originals"] > 10
    assert together["low"] < together["auroc"] < together["high"]
    few = np.where(np.arange(len(values)) % 16 == 0, values, np.nan)
    kinds = by_source(planted, few, planted.kinds)["a"]["kinds"]
    assert all(one["low"] is one["high"] is None for one in kinds.values() if one["n_originals"] < 10)
    assert any(one["n_originals"] < 10 for one in kinds.values())


def test_pairs_of_one_original_are_resampled_together():
    rng = np.random.default_rng(1)
    originals, copies = np.repeat(rng.normal(1, 1, 40), 3), np.repeat(rng.normal(0, 1, 40), 3)
    alone = separate(originals[::3], copies[::3])
    tripled = separate(originals, copies, groups=np.repeat(np.arange(40), 3))
    assert (tripled.auroc, tripled.low, tripled.high) == pytest.approx((alone.auroc, alone.low, alone.high))
    blindly = separate(originals, copies)
    assert blindly.high - blindly.low < 0.8 * (alone.high - alone.low)
