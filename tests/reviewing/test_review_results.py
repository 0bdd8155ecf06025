"""Win rates, agreement and the exclusion of careless raters, against counts made by hand."""

import json
from datetime import timedelta

import numpy as np
import pytest

from delta_attnmask.reviewing.answers import Judgement, collect
from delta_attnmask.reviewing.pairs import check_rater
from delta_attnmask.reviewing.protocol import QUESTIONS, Pair, Review, other_side
from delta_attnmask.reviewing.review_results import read_results, summarize
from delta_attnmask.statistics import wilson_interval
from tests.reviewing.conftest import START, answer_all, save

REVIEW = Review(
    manifest_sha256="m",
    selection_sha256="s",
    selection="20 rows",
    against="random",
    against_sha256="",
    seed=0,
    n_pairs=20,
)


def make_pair(position, kind="compare", target="first", source="a", repeats=""):
    return Pair(
        token=f"{position:02}",
        kind=kind,
        source=source,
        first=1,
        second=2,
        target=target,
        repeats=repeats,
    )


def say(rater, pair, answer, question="overall", second=0):
    return Judgement(rater, pair, question, answer, START + timedelta(seconds=second))


def results_of(pairs, judgements, question="overall", **options):
    found = summarize(REVIEW, pairs, judgements, **options)
    return next(one for one in found.questions if one.name == question)


def test_win_rate_by_source_and_rater():
    pairs = [make_pair(n, target=("first", "second")[n % 2], source="ab"[n // 5]) for n in range(10)]
    wins = [say("Ann", pairs[n], pairs[n].target) for n in range(6)]
    rest = [
        say("Ann", pairs[6], "equal"),
        say("Ann", pairs[7], "equal"),
        say("Ann", pairs[8], other_side(pairs[8].target)),
    ]
    found = results_of(pairs, [*wins, *rest, say("Ann", pairs[9], "unknown")])
    assert (found.overall.n_pairs, found.overall.n_won, found.overall.n_tied, found.overall.n_lost) == (9, 6, 2, 1)
    assert found.overall.rate == pytest.approx(7 / 9)
    assert (found.overall.low, found.overall.high) == wilson_interval(7, 9)
    assert (found.n_answers, found.n_unknown) == (10, 1)
    assert {name: (rate.n_pairs, rate.rate) for name, rate in found.by_source.items()} == {"a": (5, 1), "b": (4, 0.5)}
    assert found.by_rater["Ann"] == found.overall
    assert found.alpha_nominal is None  # of one rater


def test_several_raters_of_a_pair_are_one_pair():
    pairs = [make_pair(0), make_pair(1)]
    judged = [
        say("Ann", pairs[0], "first"),
        say("Ben", pairs[0], "first"),
        say("Cem", pairs[0], "second"),
        say("Ann", pairs[1], "second"),
    ]
    found = results_of(pairs, judged)
    assert (found.overall.n_pairs, found.overall.n_won, found.overall.n_lost) == (2, 1, 1)
    assert found.overall.rate == pytest.approx((2 / 3 + 0) / 2)
    assert found.by_rater["Ann"].rate == 0.5


def test_agreement_is_of_the_sides_shown():
    pairs = [make_pair(n, target=("first", "second")[n % 2]) for n in range(4)]
    same = [say(name, pairs[n], pairs[n].target) for name in ("Ann", "Ben") for n in range(4)]
    assert results_of(pairs, same).alpha_nominal == 1
    assert results_of(pairs, same).alpha_ordinal == 1
    opposite = [say("Ann", pairs[n], "first") for n in range(4)] + [say("Ben", pairs[n], "second") for n in range(4)]
    assert results_of(pairs, opposite).alpha_nominal < 0
    unknown = [say("Ann", pairs[n], "first") for n in range(4)] + [say("Ben", pairs[n], "unknown") for n in range(4)]
    assert results_of(pairs, unknown).alpha_nominal is None


def test_nobody_has_judged():
    found = summarize(REVIEW, [make_pair(0)], [])
    assert found.raters == ()
    assert found.sentences == []
    assert all((one.overall.rate, one.overall.low, one.overall.high) == (None, 0, 1) for one in found.questions)


@pytest.mark.parametrize(("n_won", "verdict"), [(18, "better"), (2, "worse"), (11, "open")])
def test_the_verdict_is_the_intervals(n_won, verdict):
    pairs = [make_pair(n) for n in range(20)]
    judged = [say("Ann", pairs[n], "first" if n < n_won else "second") for n in range(20)]
    found = summarize(REVIEW, pairs, judged)
    assert found.questions[3].overall.verdict == verdict
    (sentence,) = found.sentences
    assert sentence.startswith("Which sample would you rather teach a model with? The selected one in ")
    assert f"in {5 * n_won} % of 20 pairs with random rows" in sentence


def checked_pairs():
    """Twelve compared pairs, six of them repeated, and six with shuffled words."""
    sides = ("first", "second")
    compared = [make_pair(n, target=sides[n % 2]) for n in range(12)]
    repeated = [
        make_pair(12 + n, "repeat", target=other_side(compared[n].target), repeats=compared[n].token) for n in range(6)
    ]
    return [*compared, *repeated, *(make_pair(18 + n, "shuffled", target=sides[n % 2]) for n in range(6))]


def judge_all(rater, pairs, choose):
    return [say(rater, pair, choose(pair), question.name) for pair in pairs for question in QUESTIONS]


RNG = np.random.default_rng(0)
CARELESS = {
    "always the first": lambda pair: "first",
    "always equal": lambda pair: "equal",
    "never tells": lambda pair: "unknown",
    "at random": lambda pair: ("first", "second", "equal")[RNG.integers(3)],
}


@pytest.mark.parametrize("how", CARELESS)
def test_careless_raters_are_left_out(how):
    pairs = checked_pairs()
    judged = [*judge_all("Ann", pairs, lambda pair: pair.target), *judge_all("Bad", pairs, CARELESS[how])]
    found = summarize(REVIEW, pairs, judged)
    excluded = {rater.name: bool(rater.excluded) for rater in found.raters}
    assert excluded == {"Ann": False, "Bad": True}
    for question in found.questions:
        assert set(question.by_rater) == {"Ann"}
        assert question.overall.rate == 1
        assert question.overall.n_pairs == 12  # checks and repetitions are not counted
    everybody = summarize(REVIEW, pairs, judged, with_careless=True)
    assert {rater.name: bool(rater.excluded) for rater in everybody.raters} == excluded
    assert everybody.questions[3].n_answers == 24


def test_contradictions_alone_exclude():
    """Whoever chooses by the place on the screen, but looks at shuffled words."""
    pairs = checked_pairs()
    judged = judge_all("Bad", pairs, lambda pair: pair.target if pair.kind == "shuffled" else "first")
    (rater,) = summarize(REVIEW, pairs, judged).raters
    assert rater.excluded == "chose the other sample in 24 of 24 answers about repeated pairs"
    assert (rater.checks.n_shuffled, rater.checks.n_passed) == (12, 12)


def test_wavering_between_a_side_and_a_tie_is_no_contradiction():
    pairs = checked_pairs()
    answers = {(pair.token, question.name): pair.target for pair in pairs for question in QUESTIONS}
    answers |= {(pair.token, "clarity"): "equal" for pair in pairs if pair.kind == "repeat"}
    checks = check_rater(pairs, answers)
    assert (checks.n_repeated, checks.n_contradicted) == (18, 0)


def test_few_checks_exclude_nobody():
    pairs = checked_pairs()
    judged = judge_all("Ann", [pairs[0], pairs[18]], lambda pair: other_side(pair.target))
    (rater,) = summarize(REVIEW, pairs, judged).raters
    assert (rater.excluded, rater.checks.is_checked, rater.n_pairs) == ("", False, 2)
    assert rater.checks.n_passed == 0 < rater.checks.n_shuffled == 2


def test_time_of_a_rater():
    pairs = [make_pair(n) for n in range(4)]
    seconds = (0, 10, 24, 4000)  # the last one after a pause
    judged = [say("Ann", pairs[n], ("first", "second", "first", "equal")[n], second=seconds[n]) for n in range(4)]
    (rater,) = summarize(REVIEW, pairs, judged).raters
    assert rater.seconds == 12


def test_a_folder_and_json(protocol, folder, tmp_path):
    collect(folder, [save(tmp_path / "answers.json", answer_all(protocol))])
    found = read_results(folder)
    assert [(one.name, one.overall.rate, one.overall.n_pairs) for one in found.questions] == [
        (name, 1, 20) for name in ("clarity", "correctness", "image", "overall")
    ]
    (rater,) = found.raters
    assert rater.n_pairs == found.n_drawn == len(protocol.pairs)
    assert (rater.excluded, rater.seconds) == ("", 10)
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["questions"][0]["overall"]["n_won"] == 20
    assert plain["review"]["manifest_sha256"] == protocol.review.manifest_sha256
