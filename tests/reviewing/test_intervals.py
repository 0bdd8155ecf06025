"""Wilson's interval against published values, and what docs/review.md says of precision."""

import re
from pathlib import Path

import pytest

from delta_attnmask.reviewing.intervals import half_width, least_wins, wilson_interval


@pytest.mark.parametrize(
    ("wins", "n", "low", "high"),
    [  # R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_published_values(wins, n, low, high):
    assert wilson_interval(wins, n) == pytest.approx((low, high), abs=5e-5)


def test_limits():
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert wilson_interval(20, 20)[1] == 1.0
    for n in (1, 7, 60):
        for wins in range(n + 1):
            low, high = wilson_interval(wins, n)
            mirrored = wilson_interval(n - wins, n)
            assert 0 <= low <= wins / n <= high + 1e-12 <= 1 + 1e-12
            assert (1 - high, 1 - low) == pytest.approx(mirrored)


def test_the_least_wins_are_just_enough():
    for n in (10, 60, 200):
        wins = least_wins(n)
        assert wilson_interval(wins, n)[0] > 0.5 >= wilson_interval(wins - 1, n)[0]


def test_the_table_in_the_docs():
    text = (Path(__file__).parents[2] / "docs/review.md").read_text()
    rows = re.findall(r"^\| (\d+) \| ± (\d+) \| ± (\d+) \| (\d+) \((\d+) %\) \|$", text, flags=re.MULTILINE)
    assert len(rows) >= 6
    for n, even, high, wins, share in (map(int, row) for row in rows):
        assert (even, high) == (round(100 * half_width(n)), round(100 * half_width(n, 0.8)))
        assert (wins, share) == (least_wins(n), round(100 * least_wins(n) / n))
