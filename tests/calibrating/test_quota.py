"""A quota is rated by the planted copies that it keeps, on pools where a copy stands in for its original."""

import numpy as np
import pytest

from delta_attnmask.calibrating.quota_rating import choose_quota
from delta_attnmask.errors import DataError
from delta_attnmask.selecting.quotas import QUOTAS

N_ORIGINALS, N_COPIES = 120, 3


def rate(gap: float, *, by_source: float = 0.0, seed: int = 0, keep: float = 0.2):
    """Rate a score that lifts originals by `gap` above copies, and each next source by `by_source`."""
    rng = np.random.default_rng(seed)
    original = np.concatenate([np.arange(N_ORIGINALS), np.repeat(np.arange(N_ORIGINALS), N_COPIES)])
    is_planted = np.arange(len(original)) >= N_ORIGINALS
    source = original % 5
    values = rng.normal(size=len(original)) + gap * ~is_planted + by_source * source
    columns = {
        "source": [f"s{number}" for number in source],
        "question": [f"q{number % 10}" for number in original],
        "answer_type": [("word", "number")[number % 2] for number in original],
    }
    return choose_quota(values, original.tolist(), is_planted.tolist(), columns, keep=keep, seed=seed)


def ratios(found):
    return {quota: option["planted_ratio"] for quota, option in found["options"].items()}


def test_a_perfect_score_keeps_no_copy_and_a_blind_one_its_share():
    assert all(ratio < 0.01 for ratio in ratios(rate(100.0)).values())  # a small stratum may hold copies alone
    blind = rate(0.0)
    assert blind["planted_share"] == pytest.approx(0.4, abs=0.02)
    assert all(ratio == pytest.approx(1, abs=0.2) for ratio in ratios(blind).values())


def test_a_score_that_skews_the_sources_needs_a_quota_by_them():
    found = rate(3.0, by_source=1.0)
    assert found["options"]["none"]["excess_distortion"] > 0.1
    assert found["options"]["source"]["excess_distortion"] < 0.02
    assert "source" in found["chosen"]


def test_the_same_again():
    assert rate(1.0) == rate(1.0)
    assert rate(1.0)["keep"] == 0.2


def test_rows_without_a_score_are_in_no_pool():
    values = np.array([1.0, np.nan, 2.0, 0.0, np.nan, 0.5])
    texts = ["a"] * 6
    columns = {"source": texts, "question": texts, "answer_type": texts}
    found = choose_quota(values, [0, 1, 2, 0, 1, 2], [False] * 3 + [True] * 3, columns)
    assert set(ratios(found)) == set(QUOTAS)
    with pytest.raises(DataError, match="no planted copy has a score"):
        choose_quota(
            np.where([True] * 3 + [False] * 3, values, np.nan), [0, 1, 2, 0, 1, 2], [False] * 3 + [True] * 3, columns
        )
