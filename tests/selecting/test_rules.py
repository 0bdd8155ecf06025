"""Each rule keeps what a plain loop over sorted rows would, and refuses options that make no sense."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delta_attnmask.errors import SettingsError
from delta_attnmask.selecting.candidates import Candidates
from delta_attnmask.selecting.quotas import distortion
from delta_attnmask.selecting.rules import Rule, all_rules, make_rule
from delta_attnmask.selecting.selector import Background, select_rows
from delta_attnmask.selecting.strata import strata_of
from tests.selecting.tables import make_table, skewed_deltas


@dataclass(frozen=True)
class Scored:
    """Scores in memory with what is known beside them."""

    table: pa.Table
    background: Background


VALUES = st.lists(
    st.sampled_from([-1.5, 0.0, -0.0, 0.25, 2.0]) | st.floats(allow_nan=False, allow_infinity=False), min_size=1
)


def pick(name: str, values: list[float], n_keep: int, **options: object) -> list[int]:
    candidates = Candidates(np.array(values), make_table(values), np.arange(len(values)))
    return make_rule(name, options).choose(candidates, n_keep).positions.tolist()


def sort(values: list[float]) -> list[int]:
    return sorted(range(len(values)), key=lambda position: (-values[position], position))


@given(VALUES, st.data())
def test_the_top_is_that_of_a_stable_sort(values, data):
    n_keep = data.draw(st.integers(1, len(values)))
    assert pick("top", values, n_keep) == sort(values)[:n_keep]


@given(VALUES, st.data(), st.sampled_from([0, 0.1, 0.5, 0.99]))
def test_a_band_is_one_of_a_stable_sort(values, data, skip_top):
    n_keep = data.draw(st.integers(1, len(values)))
    n_skip = min(int(skip_top * len(values)), len(values) - n_keep)
    assert pick("band", values, n_keep, skip_top=skip_top) == sort(values)[n_skip : n_skip + n_keep]


def test_the_extreme_share_is_left_out():
    table = make_table([float(row) for row in range(100)])
    selection = select_rows(table, 3, rule="band", skip_top="5%")
    assert selection.indices.tolist() == [94, 93, 92]
    assert selection.options == {"skip_top": 0.05}
    assert [selection.report[name] for name in ("n_skipped", "ceiling", "threshold")] == [5, 94.0, 92.0]
    assert select_rows(table, 98, rule="band", skip_top=0.05).indices[0] == 97
    quota = select_rows(table, 7, rule="quota", quota_by=["n_answer_tokens"], skip_top=0.1)
    assert quota.indices.tolist() == [92, 91, 90, 89, 88, 87, 86]  # one of each seven, below the best one


def test_the_mix_stays_where_the_plain_top_skews_it():
    deltas, sources = skewed_deltas(1000)
    table = make_table(deltas, sources, n_chunks=3)
    mix = strata_of(table, ["source"])
    top, quota = select_rows(table, 0.2, rule="top"), select_rows(table, 0.2, rule="quota", quota_by="source")
    assert distortion(mix, top.indices) > 0.3
    assert distortion(mix, quota.indices) < 0.005


def test_best_first_over_all_strata_and_only_candidates():
    table = make_table([5.0, None, 1.0, 4.0, 2.0, 9.0], ["a", "a", "a", "b", "b", "b"])
    selection = select_rows(table, 4, rule="quota", quota_by="source")
    assert selection.indices.tolist() == [5, 0, 3, 2]
    assert selection.options["quota_by"] == ("source",)
    assert selection.reason == "among the highest of its source, within its share of the budget"


def test_any_column_and_many_of_them():
    table = make_table([float(row) for row in range(14)], ["a", "b"] * 7)
    rows = select_rows(table, 7, rule="quota", quota_by="n_answer_tokens").indices
    assert sorted(rows.tolist()) == list(range(7, 14))
    assert len(select_rows(table, 7, rule="quota", quota_by="n_answer_tokens,source")) == 7


def test_trusted_rows_are_drawn_from_the_best_of_each_stratum():
    deltas, sources = skewed_deltas(1000)
    table = make_table(deltas, sources, n_chunks=3)
    values, of_source = np.array(deltas), np.array(sources)
    kept = select_rows(table, 0.2, rule="trusted", quota_by="source")
    for source in np.unique(of_source):
        own, drawn = values[of_source == source], kept.indices[of_source[kept.indices] == source]
        assert abs(len(drawn) - 0.2 * len(own)) < 1
        best = np.sort(own)[-2 * len(drawn) :]
        assert values[drawn].min() >= best[0]
        assert abs(np.mean(values[drawn] >= np.median(best)) - 0.5) < 0.25  # not its top
    again = [select_rows(table, 0.2, rule="trusted", quota_by="source", seed=seed).indices.tolist() for seed in (0, 1)]
    assert again[0] == kept.indices.tolist()
    assert sorted(again[1]) != sorted(again[0])


def test_a_threshold_says_what_is_trusted():
    table = make_table([float(row) for row in range(100)], ["a"] * 90 + ["b"] * 10)
    kept = select_rows(table, 10, rule="trusted", quota_by=(), above=60)
    assert kept.report["n_pool"] == 40
    assert kept.indices.min() >= 60
    widened = select_rows(table, 50, rule="trusted", quota_by="source", above=80)  # a has 10 above, and gives 45
    assert (len(widened), widened.report["n_strata_widened"]) == (50, 1)
    assert set(range(45, 90)) <= set(widened.indices.tolist())


def test_planted_copies_say_where_trust_ends():
    table = make_table([float(row) for row in range(100)])
    scores = Scored(table, Background("delta", passing={"delta": {0.01: 90.0, 0.05: 80.0, 0.5: 20.0}}))
    kept = select_rows(scores, 5, rule="trusted", quota_by=(), copies="5%")
    assert (kept.report["n_pool"], kept.indices.min() >= 80) == (20, True)
    assert select_rows(scores, 5, rule="trusted", quota_by=(), copies=0.03).report["n_pool"] == 15
    for options, fault in (
        ({"copies": 0.6}, r"copies=0\.6: expected a share from 1% to 50%"),
        ({"copies": 0.05, "above": 3.0}, r"above, copies: each draws the line"),
        ({"copies": 0.05, "by": "loss"}, "copies: loss wasn't calibrated here"),
        ({"copies": "much"}, "copies='much': expected a share"),
    ):
        with pytest.raises(SettingsError, match=fault):
            select_rows(scores, 5, rule="trusted", quota_by=(), **options)


def test_easy_and_hard_go_by_the_loss():
    table = make_table([float(row) for row in range(20)])
    losses = np.array([(7 * row) % 20 for row in range(20)], dtype=np.float32)
    table = table.set_column(table.column_names.index("loss"), "loss", pa.array(losses))
    easy, hard = (select_rows(table, 5, rule="trusted", quota_by=(), prefer=name) for name in ("easy", "hard"))
    pool = np.arange(10, 20)
    assert sorted(easy.indices) == sorted(pool[np.argsort(losses[pool])[:5]])
    assert sorted(hard.indices) == sorted(pool[np.argsort(losses[pool])[5:]])
    with pytest.raises(SettingsError, match="needs the column loss"):
        select_rows(table.drop_columns("loss"), 5, rule="trusted", quota_by=(), prefer="easy")


def test_random_rows_are_those_of_the_seed_and_keep_the_mix():
    deltas, sources = skewed_deltas(1000)
    table = make_table(deltas, sources)
    kept = [select_rows(table, 0.2, rule="random", quota_by="source", seed=seed) for seed in (0, 0, 1)]
    assert kept[0].indices.tolist() == kept[1].indices.tolist() != kept[2].indices.tolist()
    assert distortion(strata_of(table, ["source"]), kept[0].indices) < 0.005
    assert abs(np.array(deltas)[kept[0].indices].mean() - np.mean(deltas)) < 0.3


@pytest.mark.parametrize(
    ("rule", "options", "fault"),
    [
        ("quota", {"quota_by": []}, "at least one column"),
        ("quota", {"temperature": 0}, "temperature=0: expected a number above 0"),
        ("quota", {"min_per_stratum": -1}, "min_per_stratum=-1"),
        ("quota", {"skip_top": 1}, "skip_top=1: expected a share such as 2%"),
        ("band", {"skip_top": -0.1}, "expected a share such as 2%"),
        ("band", {"skip_top": "100%"}, "expected a share such as 2%"),
        ("band", {"skip_top": "some"}, "expected a share such as 2%"),
        ("diverse", {"pool": 0.5}, "pool=0.5: expected how many times the budget"),
        ("x", {}, "rule='x': expected one of auto, band, diverse, quota, random, top, trusted"),
        ("top", {"share": 1}, "share: no rule has such an option; top has none"),
        ("quota", {"share": 1}, "quota has quota_by, temperature, min_per_stratum, skip_top"),
        ("top", {"skip_top": 0.1}, "skip_top: the rule top doesn't take it; use the rule band or quota"),
        ("quota", {"pool": 2}, "use the rule diverse or trusted"),
        ("trusted", {"pool": 0.5}, "pool=0.5: expected how many times the budget"),
        ("trusted", {"prefer": "new"}, "prefer='new': expected one of typical, easy, hard"),
    ],
)
def test_what_makes_no_sense(rule, options, fault):
    with pytest.raises(SettingsError, match=fault):
        make_rule(rule, options)


def test_a_rule_is_a_file_of_its_name():
    assert list(all_rules()) == ["band", "diverse", "quota", "random", "top", "trusted"]
    for name, rule in all_rules().items():
        assert rule.__module__ == f"delta_attnmask.selecting.rules.{name}"
        assert issubclass(rule, Rule)
        assert rule.help
