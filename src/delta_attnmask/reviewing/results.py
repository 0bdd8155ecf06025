"""What the judgements say: win rates with intervals, agreement, and which raters were careless. No torch here."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any, TypeVar

from delta_attnmask.reviewing.checks import Checks, check_rater
from delta_attnmask.reviewing.pairs import Pair, Review, is_judged
from delta_attnmask.reviewing.protocol import ALL_QUESTIONS, Answer, Question
from delta_attnmask.reviewing.store import Judgement, ReviewStore
from delta_attnmask.statistics import krippendorff_alpha, wilson_interval

Key = TypeVar("Key")

_ORDER: dict[Answer, int] = {"first": 0, "equal": 1, "second": 2}  # "unknown" is no value, but a missing one
_PAUSE_S = 300.0  # whoever takes longer was away


@dataclass(frozen=True)
class WinRate:
    """How often the selected side won.

    n_pairs: pairs with at least one judgement. n_won, n_tied, n_lost: pairs by what most raters preferred.
    rate: mean over pairs of the raters' mean, a tie counting half; 0.5 says no difference. None without pairs.
    low, high: 95 % Wilson interval of the rate. The pair is the unit: several raters of one pair are no further pairs.
    """

    n_pairs: int
    n_won: int
    n_tied: int
    n_lost: int
    rate: float | None
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """better, worse or open: whether the interval leaves 0.5 out."""
        return "better" if self.low > 0.5 else "worse" if self.high < 0.5 else "open"


@dataclass(frozen=True)
class QuestionResult:
    """All about one question.

    n_unknown: answers "can't tell"; they count in no rate. alpha_nominal, alpha_ordinal: Krippendorff's alpha of
        the sides chosen, as they were shown; None with fewer than two raters of one pair.
    """

    name: str
    text: str
    overall: WinRate
    by_source: Mapping[str, WinRate]
    by_rater: Mapping[str, WinRate]
    n_answers: int
    n_unknown: int
    alpha_nominal: float | None
    alpha_ordinal: float | None


@dataclass(frozen=True)
class RaterResult:
    """What a rater did.

    n_pairs: pairs answered in full, checks included. first_share: share of the chosen sides that were the first one.
    seconds: median time for one answer. excluded: why the judgements don't count; empty if they do.
    """

    name: str
    n_answers: int
    n_pairs: int
    first_share: float | None
    seconds: float | None
    checks: Checks
    is_checked: bool
    excluded: str


@dataclass(frozen=True)
class ReviewResults:
    """A whole review; plain values, for tables, JSON and the report."""

    review: Review
    n_drawn: int
    questions: tuple[QuestionResult, ...]
    raters: tuple[RaterResult, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def sentences(self) -> list[str]:
        """The results in words, one sentence a question that was answered."""
        return [_say(question, self.review) for question in self.questions if question.overall.rate is not None]


def read_results(path: Path, *, with_careless: bool = False) -> ReviewResults:
    """The results of a review file; with_careless: count all raters. Raises ArtifactError for what is no review."""
    store = ReviewStore.open(path)
    try:
        return summarize(store.review, store.pairs(), store.judgements(), with_careless=with_careless)
    finally:
        store.close()


def summarize(
    review: Review, pairs: Sequence[Pair], judgements: Sequence[Judgement], *, with_careless: bool = False
) -> ReviewResults:
    """The results of these judgements."""
    names = sorted({one.rater for one in judgements})
    raters = tuple(_describe_rater(name, pairs, [one for one in judgements if one.rater == name]) for name in names)
    careful = {rater.name for rater in raters if with_careless or not rater.excluded}
    counted = [one for one in judgements if one.rater in careful and pairs[one.position].kind in ("compare", "sheet")]
    questions = tuple(
        _summarize_question(question, pairs, [one for one in counted if one.question == question.name])
        for question in ALL_QUESTIONS
    )
    return ReviewResults(review, len(pairs), questions, raters)


def _summarize_question(question: Question, pairs: Sequence[Pair], judgements: Sequence[Judgement]) -> QuestionResult:
    known = [one for one in judgements if one.answer != "unknown"]
    by_pair = _group(known, lambda one: one.position)
    units = [[_ORDER[one.answer] for one in group] for group in by_pair.values()]
    return QuestionResult(
        name=question.name,
        text=question.text,
        overall=_win_rate(pairs, known),
        by_source={} if question.name == "coverage" else _rates(pairs, known, lambda one: pairs[one.position].source),
        by_rater=_rates(pairs, known, lambda one: one.rater),
        n_answers=len(judgements),
        n_unknown=len(judgements) - len(known),
        alpha_nominal=krippendorff_alpha(units, len(_ORDER), "nominal"),
        alpha_ordinal=krippendorff_alpha(units, len(_ORDER), "ordinal"),
    )


def _rates(
    pairs: Sequence[Pair], judgements: Sequence[Judgement], key: Callable[[Judgement], str]
) -> dict[str, WinRate]:
    return {name: _win_rate(pairs, group) for name, group in sorted(_group(judgements, key).items())}


def _group(judgements: Iterable[Judgement], key: Callable[[Judgement], Key]) -> dict[Key, list[Judgement]]:
    groups: dict[Key, list[Judgement]] = {}
    for one in judgements:
        groups.setdefault(key(one), []).append(one)
    return groups


def _win_rate(pairs: Sequence[Pair], judgements: Sequence[Judgement]) -> WinRate:
    outcomes = [
        mean(0.5 if one.answer == "equal" else float(one.answer == pairs[position].target) for one in group)
        for position, group in _group(judgements, lambda one: one.position).items()
    ]
    n, n_won, n_lost = len(outcomes), sum(one > 0.5 for one in outcomes), sum(one < 0.5 for one in outcomes)
    low, high = wilson_interval(sum(outcomes), n)
    return WinRate(n, n_won, n - n_won - n_lost, n_lost, mean(outcomes) if n else None, low, high)


def _describe_rater(name: str, pairs: Sequence[Pair], judgements: Sequence[Judgement]) -> RaterResult:
    answers = {(one.position, one.question): one.answer for one in judgements}
    checks = check_rater(pairs, answers)
    sides = [answer for answer in answers.values() if answer in ("first", "second")]
    times = [(after.created - before.created).total_seconds() for before, after in pairwise(judgements)]
    times = [seconds for seconds in times if seconds < _PAUSE_S]
    return RaterResult(
        name=name,
        n_answers=len(answers),
        n_pairs=sum(is_judged(pair, answers) for pair in pairs),
        first_share=sides.count("first") / len(sides) if sides else None,
        seconds=round(median(times), 1) if times else None,
        checks=checks,
        is_checked=checks.is_checked,
        excluded=checks.fault,
    )


def _say(question: QuestionResult, review: Review) -> str:
    rate = question.overall
    conclusion = {
        "better": "more often than chance explains",
        "worse": "less often than chance explains",
        "open": "chance alone explains that",
    }[rate.verdict]
    return (
        f"{question.text} The selected one in {percent(rate.rate)} of {rate.n_pairs} pairs with {name_control(review)} "
        f"(95 % interval {percent(rate.low)} to {percent(rate.high)}): {conclusion}."
    )


def name_control(review: Review) -> str:
    """What the selected samples were compared with, in words."""
    return {"random": "random rows", "left": "rows that were left"}.get(review.against, "the other selection")


def percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"
