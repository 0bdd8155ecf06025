"""Krippendorff's alpha against the values that he publishes himself, and its invariants."""

import pytest

from delta_attnmask.reviewing.agreement import krippendorff_alpha

# K. Krippendorff, Computing Krippendorff's Alpha-Reliability (2011): one string a rater, "." a missing value.
BINARY = ("0100000010", "1110010000")  # section A: alpha 0.095
NOMINAL = ("aabbdcccedda", "babbbccceddd")  # section B: alpha 0.692
MISSING = ("123321412...", "12332241253"[:9] + "5.3", ".3332342251.", "12332441251.")  # sections C and D


def to_units(raters: tuple[str, ...]) -> tuple[list[list[int]], int]:
    values = sorted({value for rater in raters for value in rater} - {"."})
    units = [[values.index(value) for value in unit if value != "."] for unit in zip(*raters, strict=True)]
    return units, len(values)


@pytest.mark.parametrize(
    ("raters", "metric", "alpha"),
    [
        (BINARY, "nominal", 0.095),
        (NOMINAL, "nominal", 0.692),
        (MISSING, "nominal", 0.743),
        (MISSING, "ordinal", 0.815),
    ],
)
def test_published_values(raters, metric, alpha):
    assert krippendorff_alpha(*to_units(raters), metric) == pytest.approx(alpha, abs=5e-4)


def test_limits():
    assert krippendorff_alpha([[0, 0], [1, 1], [2, 2, 2]], 3, "ordinal") == 1
    assert krippendorff_alpha([[0, 1], [1, 0]], 2, "nominal") < 0
    assert krippendorff_alpha([[0], [1], []], 2, "nominal") is None  # nobody judged what another did
    assert krippendorff_alpha([[1, 1], [1, 1]], 2, "nominal") is None  # nothing varies


def test_units_with_one_value_and_the_order_of_raters_change_nothing():
    units, n = to_units(MISSING)
    for metric in ("nominal", "ordinal"):
        alpha = krippendorff_alpha(units, n, metric)
        assert krippendorff_alpha([list(reversed(unit)) for unit in units] + [[0], []], n, metric) == alpha


def test_near_misses_cost_less_by_rank():
    near, far = [[0, 1], [1, 0], [2, 2], [0, 0], [1, 1]], [[0, 2], [2, 0], [1, 1], [0, 0], [2, 2]]
    assert krippendorff_alpha(near, 3, "ordinal") > krippendorff_alpha(far, 3, "ordinal")
