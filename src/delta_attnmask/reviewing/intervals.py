"""Wilson's interval for a share (E. B. Wilson, JASA 22, 1927), and how many pairs make it how narrow."""

from math import sqrt
from statistics import NormalDist

CONFIDENCE = 0.95


def wilson_interval(n_wins: float, n: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The score interval, without continuity correction, for a share of n_wins in n; (0, 1) where n is 0.

    n_wins may be fractional: with a tie counted as half a win the variance of an outcome is at most that of a yes or
    no of the same mean, so the interval is rather too wide than too narrow.
    """
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = n_wins / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def half_width(n: int, share: float = 0.5) -> float:
    """Half the width of the interval for that share of n."""
    low, high = wilson_interval(share * n, n)
    return (high - low) / 2


def least_wins(n: int) -> int:
    """The fewest wins of n that the interval tells from a coin's."""
    return next(wins for wins in range(n + 1) if wilson_interval(wins, n)[0] > 0.5 or wins == n)
