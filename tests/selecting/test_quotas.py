"""Distortion is that of a plain count, and the rule weighs it against what a quota lets through."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delta_attnmask.selecting.candidates import Candidates
from delta_attnmask.selecting.quotas import (
    QUOTAS,
    chance_distortion,
    choose_columns,
    choose_quota,
    distortion,
    kept_set,
    questions_repeat,
)
from delta_attnmask.selecting.strata import strata_of_values
from tests.selecting.tables import make_table


@given(st.lists(st.sampled_from("abcd"), min_size=2, max_size=50), st.data())
def test_distortion_is_the_total_variation_distance(values, data):
    kept = data.draw(st.lists(st.integers(0, len(values) - 1), min_size=1, unique=True))
    mix = strata_of_values(values)
    shares = [(values.count(v) / len(values), sum(values[i] == v for i in kept) / len(kept)) for v in set(values)]
    expected = sum(abs(before - after) for before, after in shares) / 2
    assert distortion(mix, np.array(kept)) == pytest.approx(expected)
    assert 0 <= distortion(mix, np.array(kept)) <= 1


def test_what_chance_gives():
    rng = np.random.default_rng(0)
    mix = strata_of_values(rng.integers(0, 30, 2000).tolist())
    drawn = [distortion(mix, rng.choice(2000, 400, replace=False)) for _ in range(200)]
    assert chance_distortion(mix, 400) == pytest.approx(np.mean(drawn), rel=0.05)
    assert chance_distortion(mix, 2000) == 0


def test_questions_repeat_if_half_of_the_rows_share_theirs():
    assert questions_repeat(strata_of_values(["what?"] * 21 + list(map(str, range(21)))))
    assert not questions_repeat(strata_of_values(["what?"] * 21 + list(map(str, range(22)))))
    assert not questions_repeat(strata_of_values([str(row // 20) for row in range(100)]))


@pytest.mark.parametrize(
    ("ratios", "excess", "chosen"),
    [
        ({}, {}, "none"),  # all alike: the coarsest
        ({"none": 0.5, "source": 0.48}, {}, "none"),  # within 0.02 counts as alike
        ({"none": 0.5, "source": 0.45}, {}, "source"),
        ({"none": 0.2}, {"none": 0.4}, "source"),  # fewer defects don't pay for a skewed mix
        ({"none": 0.05, "source": 0.5}, {"none": 0.1}, "none"),
        ({"source,answer_type": 0.1}, {}, "source,answer_type"),
    ],
)
def test_the_rule(ratios, excess, chosen):
    assert choose_quota(dict.fromkeys(QUOTAS, 0.5) | ratios, dict.fromkeys(QUOTAS, 0.0) | excess) == chosen


def test_only_what_is_on_offer():
    assert choose_quota(dict.fromkeys(QUOTAS, 0.5) | {"question": 0.0}, {"none": 0.3, "source": 0.0}) == "source"


def test_each_quota_keeps_its_columns_in_balance():
    rng = np.random.default_rng(0)
    names = ("source", "question", "answer_type")
    columns = {name: strata_of_values(rng.integers(0, 3, 900).tolist()) for name in names}
    values = rng.normal(size=900) + sum(column.codes for column in columns.values())
    for quota, balanced in QUOTAS.items():
        kept = kept_set(values, columns, quota, 180)
        assert len(kept) == 180
        for name in names:
            assert (distortion(columns[name], kept) < 0.02) == (name in balanced)


ALIKE = dict.fromkeys(QUOTAS, 0.3)


def make_candidates(*, questions_repeat: bool = True, n_rows: int = 6000) -> Candidates:
    """Rows whose value grows with the source; the answer types are the same in all of them."""
    rng = np.random.default_rng(0)
    sources = rng.integers(0, 4, n_rows)
    questions = [str(row % 10 if questions_repeat else row) for row in range(n_rows)]
    types = [("word", "number")[row % 2] for row in range(n_rows)]
    values = rng.normal(size=n_rows) + sources
    table = make_table(values.tolist(), [f"s{s}" for s in sources], types, questions)
    return Candidates(values, table, np.arange(n_rows))


def test_without_a_calibration_the_finest_that_is_always_there():
    candidates = make_candidates()
    columns, why = choose_columns(candidates, {})
    assert columns == ("source", "answer_type")
    assert why["is_calibrated"] is False
    assert "share of planted copies" in why["rule"]
    for left in ("source", "answer_type"):
        lacking = replace(candidates, table=candidates.table.drop_columns(["question", left]))
        assert choose_columns(lacking, ALIKE)[0] == tuple({"source", "answer_type"} - {left})


def test_a_skewed_mix_costs_more_than_a_few_defects():
    columns, why = choose_columns(make_candidates(), ALIKE | {"none": 0.2})
    assert columns == ("source",)
    assert why["options"]["none"]["excess_distortion"] > 0.2
    assert why["options"]["source"] == {"planted_ratio": 0.3, "excess_distortion": 0.0}


def test_no_quota_where_it_costs_much_unless_one_is_needed():
    costly = dict.fromkeys(QUOTAS, 0.9) | {"none": 0.1}
    assert choose_columns(make_candidates(), costly)[0] == ()
    assert choose_columns(make_candidates(), costly, needs_quota=True)[0] == ("source",)


@pytest.mark.parametrize("questions_repeat", [True, False])
def test_questions_are_on_offer_only_where_they_repeat(questions_repeat):
    ratios = ALIKE | {"question,answer_type": -1.0}
    columns, _ = choose_columns(make_candidates(questions_repeat=questions_repeat), ratios)
    assert ("question" in columns) is questions_repeat


def test_many_rows_are_judged_by_evenly_spaced_ones():
    few, many = (choose_columns(make_candidates(n_rows=n), ALIKE)[1]["options"] for n in (6000, 250_000))
    for quota, option in few.items():
        assert many[quota]["excess_distortion"] == pytest.approx(option["excess_distortion"], abs=0.05)
