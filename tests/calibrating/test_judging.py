"""Judges learn from planted copies, are judged on rows and kinds that they never saw, and Δ has to add something."""

import json

import numpy as np
import pytest

from delta_attnmask.calibrating.judging import DELTA, FEATURES, JUDGE, JUDGE_WITH_DELTA, LOW_LOSS, UNMASKED, Trial
from delta_attnmask.calibrating.planting import Donors, Planted, plant
from delta_attnmask.calibrating.scored import Results, Scored, make_candidates
from delta_attnmask.judge import Feature, Judge
from delta_attnmask.settings import MaskSettings
from delta_attnmask.statistics import auroc, copies_kept
from tests.calibrating.test_defects import make_records

GRID = [MaskSettings(block=-2), MaskSettings(block=-2, order="random")]


@pytest.fixture(scope="module")
def planted() -> Planted:
    records = make_records(240)
    return plant(records, Donors(records), 3, seed=0)


def scored(planted: Planted, seen: dict[str, float], by_mask: float = 0.0, seed: int = 0) -> Scored:
    """Noise in every feature, but for how much each rises with a row's being an original; `by_mask`: that of Δ."""
    rng = np.random.default_rng(seed)
    is_good = np.array([not kind for kind in planted.kind], dtype=float)
    stored = {name: rng.normal(size=is_good.size) + seen.get(name, 0.0) * is_good for name in FEATURES}
    stored["loss"] = np.exp(stored["loss"])
    rise = np.stack([rng.normal(size=is_good.size) + by_mask * is_good, rng.normal(size=is_good.size)])
    return make_candidates(Results(stored, stored["loss"] + rise, {}), GRID)


def trial(planted: Planted, *args: object, **options: object) -> Trial:
    return Trial(planted, scored(planted, *args, **options), planted.kinds)


def test_a_judge_weighs_the_features_that_tell(planted):
    found = trial(planted, {"margin": 1.5, "el2n": -1.0}).choose()
    assert (found.form, found.settings, found.way.name) == ("p_good", UNMASKED, JUDGE)
    weights = {feature.column: feature.weight for feature in found.judge.features}
    assert weights["margin"] > -weights["el2n"] > 0.3
    assert max(abs(weights[name]) for name in ("entropy", "image_share", "loss")) < 0.3


def test_masking_is_taken_only_where_it_adds_something(planted):
    ways = {way.name: way for way in trial(planted, {"margin": 1.0}).ways}
    assert list(ways) == [JUDGE, LOW_LOSS, JUDGE_WITH_DELTA, DELTA, "judge_with_random_delta"]
    seeing = trial(planted, {"margin": 1.0}, by_mask=3.0)
    found = seeing.choose()
    assert (found.form, found.settings, found.way.name) == ("p_good", GRID[0], JUDGE_WITH_DELTA)
    by_name = {way.name: seeing.value(way) for way in seeing.ways}
    assert by_name[JUDGE_WITH_DELTA] < by_name[JUDGE] - 0.2
    assert abs(by_name["judge_with_random_delta"] - by_name[JUDGE]) < 0.15
    reads = {way.name: (seeing.setting_of(way), seeing.judge_of(way)) for way in seeing.ways}
    assert [name for name, (setting, _) in reads.items() if setting == GRID[0]] == [JUDGE_WITH_DELTA, DELTA]
    assert [name for name, (_, judge) in reads.items() if judge] == [JUDGE, JUDGE_WITH_DELTA]
    assert reads[JUDGE_WITH_DELTA][1] == found.judge


def test_noise_looks_like_chance_whatever_it_is_fitted_to(planted):
    """Out of sample: a judge of noise finds nothing, though in sample it would."""
    for seed in range(3):
        bench = trial(planted, {}, seed=seed)
        judge = bench.ways[0]
        assert abs(bench.value(judge) - 1) < 0.25
        assert abs(bench.mean_auroc(judge) - 0.5) < 0.05


def test_probabilities_hold_for_rows_that_it_never_saw(planted):
    judge = trial(planted, {"margin": 1.0, "entropy": -1.0}).choose().judge
    fresh = scored(planted, {"margin": 1.0, "entropy": -1.0}, seed=1)
    chance = judge.p_good(fresh.stored.__getitem__)
    is_good = np.array([not kind for kind in planted.kind])
    for low in (0.2, 0.4, 0.6, 0.8):
        inside = (chance >= low) & (chance < low + 0.2)
        good, bad = (inside & is_good).sum() / is_good.sum(), (inside & ~is_good).sum() / (~is_good).sum()
        if inside.sum() > 60:
            assert good / (good + bad) == pytest.approx(low + 0.1, abs=0.15)
    assert auroc(chance[is_good], chance[~is_good]) > 0.8


def test_a_judge_is_the_same_after_json(planted):
    judge = trial(planted, {"margin": 1.0}).choose().judge
    again = Judge.from_dict(json.loads(json.dumps(judge.to_dict())))
    assert again == judge
    columns = {name: np.array([0.0, np.nan, 1e9, -1e9]) for name in judge.columns}
    assert np.isfinite(again.p_good(columns.__getitem__)).all()


@pytest.mark.parametrize(
    "change",
    [
        {"features": []},
        {"features": [{"column": "loss", "weight": 1.0, "knots": [2.0, 1.0]}]},
        {"features": [{"column": "loss", "weight": 1.0, "knots": [0.0, float("nan")]}]},
        {"features": [{"column": "loss", "weight": float("inf"), "knots": [0.0, 1.0]}]},
        {"features": [{"column": "loss", "knots": [0.0, 1.0]}]},
        {"intercept": "much"},
    ],
)
def test_what_is_no_judge_is_refused(change):
    whole = {"features": [{"column": "loss", "weight": 1.0, "knots": [0.0, 1.0]}], "intercept": 0.0}
    assert Judge.from_dict(whole).columns == ("loss",)
    with pytest.raises((ValueError, KeyError, TypeError)):
        Judge.from_dict(whole | change)


def test_features_are_normal_and_missing_values_are_the_middle():
    values = np.random.default_rng(0).exponential(size=4000)
    feature = Feature.of("x", np.append(values, np.nan))
    normal = feature.normal(values)
    assert (normal.mean(), normal.std()) == pytest.approx((0, 1), abs=0.05)
    assert feature.normal(np.array([np.nan, -9, 99])).tolist() == pytest.approx([0, -2.33, 2.33], abs=0.01)
    assert Feature.of("x", np.full(9, 3.0)).normal(np.array([3.0, 4.0])).tolist() == pytest.approx([0, 0], abs=1e-9)


def test_copies_kept_is_one_by_chance_and_ties_favour_nobody():
    assert copies_kept(np.arange(10.0) + 10, np.arange(10.0)) == 0
    assert copies_kept(np.arange(10.0), np.arange(10.0) + 10) == 2
    assert copies_kept(np.zeros(10), np.zeros(10)) == pytest.approx(1)
    assert copies_kept(np.zeros(10), np.zeros(30)) == pytest.approx(1)
    assert np.isnan(copies_kept(np.zeros(2), np.array([np.nan])))
