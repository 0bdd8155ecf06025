import numpy as np
import pytest

from delta_attnmask.calibrating.separation import auroc, separate


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
