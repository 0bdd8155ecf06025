"""How well the chosen score does in each source, on the half of the sample that it wasn't chosen on. Numpy only."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from delta_attnmask.calibrating.sample import Planted
from delta_attnmask.statistics import Separation, Values, separate

_MIN_ORIGINALS = 10  # with fewer, no interval is given


def by_source(planted: Planted, values: Values, kinds: Sequence[str]) -> dict[str, dict[str, Any]]:
    """AUROC of each source's originals against their own copies, with intervals that resample originals.

    Returns plain JSON values: source -> together (`kinds` taken together), kinds (each kind that was planted); each of
    them auroc, low, high, n_originals, n_pairs. low and high are null where fewer than 10 originals speak.
    """
    of_source: dict[str, list[int]] = {}
    for idx, first in enumerate(planted.original):
        if planted.kind[idx] and planted.half[idx] == "report":
            of_source.setdefault(planted.records[first].source, []).append(idx)
    return {
        source: {
            "together": _separation(planted, values, [idx for idx in copies if planted.kind[idx] in kinds]),
            "kinds": {
                kind: _separation(planted, values, own)
                for kind in planted.kinds
                if (own := [idx for idx in copies if planted.kind[idx] == kind])
            },
        }
        for source, copies in sorted(of_source.items())
    }


def _separation(planted: Planted, values: Values, copies: list[int]) -> dict[str, Any]:
    firsts = np.array([planted.original[idx] for idx in copies], dtype=np.int64)
    found = separate(values[firsts], values[copies], groups=firsts)
    is_known = ~(np.isnan(values[firsts]) | np.isnan(values[copies]))
    n_originals = len(np.unique(firsts[is_known]))
    low, high = _interval(found, n_originals)
    return {
        "auroc": _rounded(found.auroc),
        "low": low,
        "high": high,
        "n_originals": n_originals,
        "n_pairs": found.n_pairs,
    }


def _interval(found: Separation, n_originals: int) -> tuple[float | None, float | None]:
    return (None, None) if n_originals < _MIN_ORIGINALS else (_rounded(found.low), _rounded(found.high))


def _rounded(number: float) -> float | None:
    return None if np.isnan(number) else round(float(number), 4)
