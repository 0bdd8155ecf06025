"""Bootstrap intervals and the sign test against enumeration and hand-computed numbers."""

from fractions import Fraction
from itertools import product
from math import comb

import numpy as np
import pytest

from delta_attnmask.evaluating.intervals import mean_of_shares, resampled_sums, sign_test


@pytest.mark.parametrize(
    ("better", "worse", "p"),
    [(0, 0, 1.0), (5, 5, 1.0), (1, 0, 1.0), (8, 2, 112 / 1024), (2, 8, 112 / 1024), (5, 0, 2 / 32), (10, 0, 2 / 1024)],
)
def test_sign_test_by_hand(better: int, worse: int, p: float) -> None:
    assert sign_test(better, worse) == pytest.approx(p, rel=1e-12)


def test_sign_test_of_many_rows_against_exact_fractions() -> None:
    n, fewer = 1001, 460
    exact = 2 * Fraction(sum(comb(n, k) for k in range(fewer + 1)), 2**n)
    assert sign_test(fewer, n - fewer) == pytest.approx(float(exact), rel=1e-9)


def test_resampled_sums_have_the_distribution_of_all_possible_draws() -> None:
    rows = np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 3.0]])
    drawn = resampled_sums(rows, (0,), 20000)
    every = np.array([rows[list(choice)].sum(0) for choice in product(range(3), repeat=3)])
    assert drawn.mean(0) == pytest.approx(every.mean(0), rel=0.02)
    assert np.cov(drawn.T) == pytest.approx(np.cov(every.T, ddof=0), rel=0.06)
    assert {tuple(sums) for sums in drawn.tolist()} == {tuple(sums) for sums in every.tolist()}


def test_the_interval_of_a_share_is_the_binomial_one() -> None:
    hits = np.repeat([1.0, 0.0], 50)
    estimate = mean_of_shares([(hits, np.ones(100))], seed=3)
    assert estimate.value == 0.5
    # Quantiles 0.025 and 0.975 of the binomial distribution of 100 draws at 0.5 are 40 and 60.
    assert estimate.low == pytest.approx(0.40, abs=0.011)
    assert estimate.high == pytest.approx(0.60, abs=0.011)


def test_answers_of_a_row_are_drawn_together() -> None:
    """Ten rows of ten answers each, all right or all wrong, say as little as ten answers."""
    right = np.repeat([10.0, 0.0], 5)
    together = mean_of_shares([(right, np.full(10, 10.0))])
    alone = mean_of_shares([(np.repeat([1.0, 0.0], 50), np.ones(100))])
    assert together.value == alone.value == 0.5
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_every_group_counts_alike_and_is_drawn_by_itself() -> None:
    large, small = (np.ones(1000), np.ones(1000)), (np.array([0.0, 1.0]), np.ones(2))
    estimate = mean_of_shares([large, small])
    assert estimate.value == 0.75
    assert (estimate.low, estimate.high) == (0.5, 1.0)  # one in four draws of the small group has no hit


def test_the_same_seed_gives_the_same_interval_and_no_spread_none() -> None:
    rng = np.random.default_rng(0)
    values = rng.random(50)  # no two rows are alike
    assert mean_of_shares([(values, np.ones(50))], 1) == mean_of_shares([(values, np.ones(50))], 1)
    assert mean_of_shares([(values, np.ones(50))], 1) != mean_of_shares([(values, np.ones(50))], 2)
    certain = mean_of_shares([(np.ones(20), np.ones(20))])
    assert (certain.low, certain.value, certain.high) == (1.0, 1.0, 1.0)
