"""Every statistic against values worked out by hand, published, or enumerated."""

import re
from fractions import Fraction
from itertools import product
from math import comb
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delta_attnmask.statistics import (
    auroc,
    krippendorff_alpha,
    mean_of_columns,
    mean_of_shares,
    midranks,
    resampled_sums,
    rounded,
    separate,
    share_between,
    sign_test,
    spearman,
    total_variation,
    wilson_interval,
)

midranks(np.zeros(1))  # SciPy is imported before a test's time is taken

VALUES = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=30)


@given(VALUES)
def test_equal_values_share_the_mean_of_their_ranks(values):
    expected = [sum(o < v for o in values) + (values.count(v) + 1) / 2 for v in values]
    assert midranks(np.array(values)).tolist() == expected


def test_what_is_no_number_has_no_rank():
    np.testing.assert_array_equal(midranks(np.array([2.0, np.nan, 1.0, 2.0])), [2.5, np.nan, 1.0, 2.5])
    assert midranks(np.array([])).tolist() == []


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=30))
def test_spearman_is_the_correlation_of_the_ranks(pairs):
    first, second = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    found = spearman(first, second)
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert np.isnan(found)
        return
    assert found == pytest.approx(np.corrcoef(midranks(first), midranks(second))[0, 1])
    assert spearman(first, first) == pytest.approx(1)
    assert spearman(np.exp(first), -second) == pytest.approx(-found)


def test_spearman_does_not_depend_on_the_order_of_ties():
    """Two independent columns of two values: whatever the order of the rows, the ranks aren't correlated."""
    first, second = np.repeat([0.0, 1.0], 50), np.tile([0.0, 1.0], 50)
    assert spearman(first, second) == pytest.approx(0)
    order = np.lexsort((second, first))
    assert spearman(first[order], second[order]) == pytest.approx(0)
    assert np.isnan(spearman(np.ones(10), np.ones(10)))


def test_spearman_by_hand():
    # Zar, Biostatistical Analysis: wing and tail lengths of twelve birds, with ties; r = 0.851
    wing = np.array([10.4, 10.8, 11.1, 10.2, 10.3, 10.2, 10.7, 10.5, 10.8, 11.2, 10.6, 11.4])
    tail = np.array([7.4, 7.6, 7.9, 7.2, 7.4, 7.1, 7.4, 7.2, 7.8, 7.7, 7.8, 8.3])
    assert spearman(wing, tail) == pytest.approx(0.851, abs=5e-4)


def test_spearman_leaves_out_rows_without_a_number():
    nan = np.nan
    assert spearman(np.array([1, nan, 2, 3, 4]), np.array([1, 5, 2, nan, 3])) == pytest.approx(1)
    assert np.isnan(spearman(np.array([1.0, nan]), np.array([nan, 1.0])))


def test_the_share_between_groups():
    groups = np.array([0, 0, 1, 1])
    assert share_between(np.array([1.0, 1, 2, 2]), groups) == 1
    assert share_between(np.array([1.0, 2, 1, 2]), groups) == 0
    assert np.isnan(share_between(np.ones(4), groups))


def test_reports_hold_four_digits_and_no_nan():
    assert [rounded(number) for number in (1 / 3, np.nan, 1.0)] == [0.3333, None, 1.0]


def test_total_variation():
    assert total_variation(np.array([0.5, 0.5, 0]), np.array([0.2, 0.5, 0.3])) == pytest.approx(0.3)
    assert total_variation(np.array([1.0, 0]), np.array([0, 1.0])) == 1


def brute_force(originals: list[float], copies: list[float]) -> float:
    return float(np.mean([(o > c) + 0.5 * (o == c) for o in originals for c in copies]))


@pytest.mark.parametrize("seed", range(5))
def test_auroc_is_the_share_of_pairs_won(seed: int) -> None:
    rng = np.random.default_rng(seed)
    originals, copies = rng.integers(0, 6, 30).astype(float), rng.integers(0, 5, 30).astype(float)
    expected = brute_force(originals.tolist(), copies.tolist())
    assert auroc(originals, copies) == pytest.approx(expected)
    assert separate(originals, copies).auroc == pytest.approx(expected)


def test_perfect_separation_and_none() -> None:
    low, high = np.arange(20.0), np.arange(100.0, 120.0)
    assert separate(high, low).auroc == 1.0
    assert separate(low, high).auroc == 0.0
    assert separate(low, low).auroc == 0.5


def test_missing_values_leave_with_their_pair() -> None:
    originals, copies = np.array([3.0, np.nan, 5.0]), np.array([1.0, 0.0, np.nan])
    found = separate(originals, copies)
    assert found.n_pairs == 1
    assert found.auroc == 1.0
    assert np.isnan(separate(np.array([np.nan]), np.array([1.0])).auroc)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    truth = 0.6915  # P(N(0.707, 1) + noise > 0): Phi(0.5) for a shift of 0.5 * sqrt(2)
    hits = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        found = separate(rng.normal(0.5 * np.sqrt(2), 1, 80), rng.normal(0, 1, 80))
        hits += found.low <= truth <= found.high
    assert 50 <= hits <= 60


def test_paired_counts_only_a_row_against_its_own_copy() -> None:
    originals, copies = np.array([1.0, 10.0, 100.0]), np.array([0.5, 9.0, 99.0])
    found = separate(originals, copies)
    assert found.paired == 1.0
    assert found.auroc == pytest.approx(6 / 9)


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


def test_means_of_columns_have_their_own_intervals():
    rows = np.column_stack([np.ones(40), np.repeat([0.0, 1.0], 20)])
    constant, varying = mean_of_columns(rows)
    assert (constant.low, constant.value, constant.high) == (1, 1, 1)
    assert varying.value == 0.5
    assert varying.low < 0.4 < 0.6 < varying.high


@pytest.mark.parametrize(
    ("wins", "n", "low", "high"),
    [  # R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_as_published(wins, n, low, high):
    assert wilson_interval(wins, n) == pytest.approx((low, high), abs=5e-5)


def test_limits_of_the_wilson_interval():
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert wilson_interval(20, 20)[1] == 1.0
    for n in (1, 7, 60):
        for wins in range(n + 1):
            low, high = wilson_interval(wins, n)
            mirrored = wilson_interval(n - wins, n)
            assert 0 <= low <= wins / n <= high + 1e-12 <= 1 + 1e-12
            assert (1 - high, 1 - low) == pytest.approx(mirrored)


def half_width(n: int, share: float = 0.5) -> float:
    low, high = wilson_interval(share * n, n)
    return (high - low) / 2


def test_what_the_documents_say_of_precision():
    text = (Path(__file__).parents[1] / "docs/review.md").read_text()
    rows = re.findall(r"^\| (\d+) \| ± (\d+) \| ± (\d+) \| (\d+) \((\d+) %\) \|$", text, flags=re.MULTILINE)
    assert len(rows) >= 6
    for n, even, high, wins, share in (map(int, row) for row in rows):
        assert (even, high) == (round(100 * half_width(n)), round(100 * half_width(n, 0.8)))
        assert wilson_interval(wins, n)[0] > 0.5 >= wilson_interval(wins - 1, n)[0]
        assert share == round(100 * wins / n)


# K. Krippendorff, Computing Krippendorff's Alpha-Reliability (2011): one string a rater, "." a missing value.
BINARY = ("0100000010", "1110010000")  # section A: alpha 0.095
NOMINAL = ("aabbdcccedda", "babbbccceddd")  # section B: alpha 0.692
MISSING = ("123321412...", "12332241253"[:9] + "5.3", ".3332342251.", "12332441251.")  # sections C and D


def to_units(raters: tuple[str, ...]) -> tuple[list[list[int]], int]:
    values = sorted({value for rater in raters for value in rater} - {"."})
    units = [[values.index(value) for value in unit if value != "."] for unit in zip(*raters, strict=True)]
    return units, len(values)


@pytest.mark.parametrize(
    ("raters", "alpha"),
    [(BINARY, 0.095), (NOMINAL, 0.692), (MISSING, 0.743)],
)
def test_alpha_as_published(raters, alpha):
    assert krippendorff_alpha(*to_units(raters)) == pytest.approx(alpha, abs=5e-4)


def test_limits_of_alpha():
    assert krippendorff_alpha([[0, 0], [1, 1], [2, 2, 2]], 3) == 1
    assert krippendorff_alpha([[0, 1], [1, 0]], 2) < 0
    assert krippendorff_alpha([[0], [1], []], 2) is None  # nobody judged what another did
    assert krippendorff_alpha([[1, 1], [1, 1]], 2) is None  # nothing varies


def test_units_with_one_value_and_the_order_of_raters_change_nothing():
    units, n = to_units(MISSING)
    alpha = krippendorff_alpha(units, n)
    assert krippendorff_alpha([list(reversed(unit)) for unit in units] + [[0], []], n) == alpha
