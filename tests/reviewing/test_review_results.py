"""Win rates, agreement and the exclusion of careless raters, against counts made by hand."""

import json
from dataclasses import asdict
from datetime import timedelta

import numpy as np
import pytest

from delta_attnmask.reviewing.answers import Judgement, collect
from delta_attnmask.reviewing.protocol import QUESTIONS, Pair, Protocol
from delta_attnmask.reviewing.review_results import read_results, summarize
from delta_attnmask.statistics import wilson_interval
from tests.reviewing.conftest import START, answer_all, other_side, save


def make_pair(position, target="first", is_check=False):
    return Pair(f"{position:02}", 1, 1 if is_check else 2, target)


def summarize_pairs(pairs, judgements, **options):
    choices = {"selection": "20 rows", "against": "random", "seed": 0, "n_pairs": 20}
    protocol = Protocol(id="r", manifest_sha256="m", pairs=tuple(pairs), **choices)
    return summarize(protocol, judgements, **options)


def say(rater, pair, answer, question="overall", second=0):
    return Judgement(rater, pair, question, answer, START + timedelta(seconds=second))


def results_of(pairs, judgements, question="overall"):
    return next(one for one in summarize_pairs(pairs, judgements).questions if one.name == question)


def test_win_rate():
    pairs = [make_pair(n, ("first", "second")[n % 2]) for n in range(10)]
    wins = [say("Ann", pairs[n], pairs[n].target) for n in range(6)]
    rest = [
        say("Ann", pairs[6], "equal"),
        say("Ann", pairs[7], "equal"),
        say("Ann", pairs[8], other_side(pairs[8].target)),
    ]
    found = results_of(pairs, [*wins, *rest, say("Ann", pairs[9], "unknown")])
    assert (found.n_pairs, found.n_won, found.n_tied, found.n_lost, found.n_unknown) == (9, 6, 2, 1, 1)
    assert found.rate == pytest.approx(7 / 9)
    assert (found.low, found.high) == wilson_interval(7, 9)
    assert found.alpha is None  # of one rater


def test_several_raters_of_a_pair_are_one_pair():
    pairs = [make_pair(0), make_pair(1)]
    judged = [
        say("Ann", pairs[0], "first"),
        say("Ben", pairs[0], "first"),
        say("Cem", pairs[0], "second"),
        say("Ann", pairs[1], "second"),
    ]
    found = results_of(pairs, judged)
    assert (found.n_pairs, found.n_won, found.n_lost) == (2, 1, 1)
    assert found.rate == pytest.approx((2 / 3 + 0) / 2)


def test_agreement_is_of_the_sides_shown():
    pairs = [make_pair(n, ("first", "second")[n % 2]) for n in range(4)]
    same = [say(name, pairs[n], pairs[n].target) for name in ("Ann", "Ben") for n in range(4)]
    assert results_of(pairs, same).alpha == 1
    opposite = [say("Ann", pairs[n], "first") for n in range(4)] + [say("Ben", pairs[n], "second") for n in range(4)]
    assert results_of(pairs, opposite).alpha < 0
    unknown = [say("Ann", pairs[n], "first") for n in range(4)] + [say("Ben", pairs[n], "unknown") for n in range(4)]
    assert results_of(pairs, unknown).alpha is None


def test_nobody_has_judged():
    found = summarize_pairs([make_pair(0)], [])
    assert found.raters == ()
    assert found.sentences == []
    assert all((one.rate, one.low, one.high) == (None, 0, 1) for one in found.questions)


@pytest.mark.parametrize(
    ("n_won", "verdict"), [(18, "more often than chance"), (2, "less often than chance"), (11, "chance alone explains")]
)
def test_the_verdict_is_the_intervals(n_won, verdict):
    pairs = [make_pair(n) for n in range(20)]
    judged = [say("Ann", pairs[n], "first" if n < n_won else "second") for n in range(20)]
    (sentence,) = summarize_pairs(pairs, judged).sentences
    assert sentence.startswith("Which sample would you rather teach a model with? The selected one in ")
    assert f"in {5 * n_won} % of 20 pairs with random rows" in sentence
    assert verdict in sentence


def checked_pairs():
    """Twelve compared pairs, and six checks."""
    sides = ("first", "second")
    return [make_pair(n, sides[n % 2], is_check=n >= 12) for n in range(18)]


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
    found = summarize_pairs(pairs, judged)
    excluded = {rater.name: bool(rater.excluded) for rater in found.raters}
    assert excluded == {"Ann": False, "Bad": True}
    for question in found.questions:
        assert question.rate == 1
        assert question.n_pairs == 12  # checks don't count
    everybody = summarize_pairs(pairs, judged, with_careless=True)
    assert {rater.name: bool(rater.excluded) for rater in everybody.raters} == excluded
    assert everybody.questions[3].rate != 1 or everybody.questions[3].n_unknown == 12


def test_a_careful_rater_may_miss_a_check():
    pairs = checked_pairs()
    judged = judge_all("Ann", pairs, lambda pair: "equal" if pair is pairs[12] else pair.target)
    (rater,) = summarize_pairs(pairs, judged).raters
    assert (rater.n_passed, rater.n_checks, rater.n_pairs, rater.excluded) == (10, 12, 12, "")


def test_few_checks_exclude_nobody():
    pairs = checked_pairs()
    judged = judge_all("Ann", [pairs[0], pairs[12]], lambda pair: other_side(pair.target))
    (rater,) = summarize_pairs(pairs, judged).raters
    assert (rater.excluded, rater.n_passed, rater.n_checks, rater.n_pairs) == ("", 0, 2, 1)


def test_a_folder_and_json(protocol, folder, tmp_path):
    collect(folder, [save(tmp_path / "answers.json", answer_all(protocol))])
    found = read_results(folder)
    assert [(one.name, one.rate, one.n_pairs) for one in found.questions] == [
        (name, 1, 20) for name in ("clarity", "correctness", "image", "overall")
    ]
    (rater,) = found.raters
    assert (rater.n_pairs, rater.excluded) == (found.n_drawn, "")
    plain = json.loads(json.dumps(asdict(found)))
    assert plain["questions"][0]["n_won"] == 20
    assert plain["manifest_sha256"] == protocol.manifest_sha256
