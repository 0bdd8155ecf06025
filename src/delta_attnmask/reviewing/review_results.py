"""What the judgements say: win rates with intervals, agreement, and which judges were careless. No torch here."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

from delta_attnmask.errors import ArtifactError
from delta_attnmask.reporting.page import Section, Table
from delta_attnmask.reviewing.answers import Judgement, read_judgements
from delta_attnmask.reviewing.pairs import Checks, check_rater
from delta_attnmask.reviewing.protocol import QUESTIONS, Answer, Pair, Protocol, Review, ReviewQuestion
from delta_attnmask.runs import RunFolder
from delta_attnmask.statistics import krippendorff_alpha, wilson_interval

_ORDER: dict[Answer, int] = {"first": 0, "equal": 1, "second": 2}  # "unknown" is no value, but a missing one
_PAUSE_S = 300.0  # whoever takes longer was away
_RATE_COLUMNS = ("pairs", "won", "tied", "lost", "win rate", "95 % interval")
_RATER_COLUMNS = ("judge", "pairs", "s an answer", "checks passed", "contradicted", "counted")


@dataclass(frozen=True)
class WinRate:
    """How often the selected side won.

    n_pairs: pairs with at least one judgement. n_won, n_tied, n_lost: pairs by what most judges preferred.
    rate: mean over pairs of the judges' mean, a tie counting half; 0.5 says no difference. None without pairs.
    low, high: 95 % Wilson interval of the rate. The pair is the unit: several judges of one pair are no further pairs.
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

    @property
    def cells(self) -> tuple[object, ...]:
        interval = "-" if self.rate is None else f"{_percent(self.low)} to {_percent(self.high)}"
        return (self.n_pairs, self.n_won, self.n_tied, self.n_lost, _percent(self.rate), interval)


@dataclass(frozen=True)
class QuestionResult:
    """All about one question; its name, title and text as in the protocol.

    n_unknown: answers "can't tell"; they count in no rate. alpha_nominal, alpha_ordinal: Krippendorff's alpha of
        the sides chosen, as they were shown; None with fewer than two judges of one pair.
    """

    name: str
    title: str
    text: str
    overall: WinRate
    by_source: Mapping[str, WinRate]
    by_rater: Mapping[str, WinRate]
    n_answers: int
    n_unknown: int
    alpha_nominal: float | None
    alpha_ordinal: float | None

    @property
    def cells(self) -> tuple[object, ...]:
        alphas = ("-" if alpha is None else f"{alpha:.2f}" for alpha in (self.alpha_nominal, self.alpha_ordinal))
        return (self.title, *self.overall.cells, self.n_unknown, *alphas)


@dataclass(frozen=True)
class RaterResult:
    """What a judge did.

    n_pairs: pairs answered in full, checks included. seconds: median time for one answer.
    excluded: why the judgements don't count; empty if they do.
    """

    name: str
    n_pairs: int
    seconds: float | None
    checks: Checks
    excluded: str

    @property
    def cells(self) -> tuple[object, ...]:
        checks = self.checks
        return (
            self.name,
            self.n_pairs,
            "-" if self.seconds is None else f"{self.seconds:g}",
            f"{checks.n_passed} of {checks.n_shuffled}",
            f"{checks.n_contradicted} of {checks.n_repeated}",
            f"no: {self.excluded}" if self.excluded else "yes" if checks.is_checked else "yes, with too few checks",
        )


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
    def answered(self) -> list[QuestionResult]:
        return [question for question in self.questions if question.overall.rate is not None]

    @property
    def sentences(self) -> list[str]:
        """The results in words, one sentence a question that was answered."""
        return [_say(question, self.review) for question in self.answered]

    @property
    def tables(self) -> list[Table]:
        """All results as text: first of the questions, then by source and by judge, last of the judges."""
        title = f"{self.review.selection}, against {self.review.against}"
        columns = ("question", *_RATE_COLUMNS, "can't tell", "alpha", "ordinal alpha")
        tables: list[Table] = [(title, columns, [one.cells for one in self.questions])]
        for question in self.answered:
            if question.name == "overall":
                for group, rates in (("source", question.by_source), ("judge", question.by_rater)):
                    rows = [(name or "(none)", *rate.cells) for name, rate in rates.items()]
                    tables.append((f"{question.title}, by {group}", (group, *_RATE_COLUMNS), rows))
        tables.append(("Judges, and who isn't counted", _RATER_COLUMNS, [rater.cells for rater in self.raters]))
        return tables


def read_results(folder: Path, *, with_careless: bool = False) -> ReviewResults:
    """The results of a review's folder; with_careless: count all judges. Raises ArtifactError for what is no review."""
    protocol = Protocol.read(folder)
    judgements = read_judgements(folder, protocol)
    return summarize(protocol.review, protocol.pairs, judgements, with_careless=with_careless)


def summarize(
    review: Review, pairs: Sequence[Pair], judgements: Sequence[Judgement], *, with_careless: bool = False
) -> ReviewResults:
    """The results of these judgements."""
    names = sorted({one.rater for one in judgements})
    raters = tuple(_describe_rater(name, pairs, [one for one in judgements if one.rater == name]) for name in names)
    careful = {rater.name for rater in raters if with_careless or not rater.excluded}
    counted = [one for one in judgements if one.rater in careful and one.pair.kind == "compare"]
    questions = tuple(
        _summarize_question(question, [one for one in counted if one.question == question.name])
        for question in QUESTIONS
    )
    return ReviewResults(review, len(pairs), questions, raters)


def _summarize_question(question: ReviewQuestion, judgements: Sequence[Judgement]) -> QuestionResult:
    known = [one for one in judgements if one.answer != "unknown"]
    units = [[_ORDER[one.answer] for one in group] for group in _group(known, _token).values()]
    return QuestionResult(
        name=question.name,
        title=question.title,
        text=question.text,
        overall=_win_rate(known),
        by_source={name: _win_rate(group) for name, group in _group(known, lambda one: one.pair.source).items()},
        by_rater={name: _win_rate(group) for name, group in _group(known, lambda one: one.rater).items()},
        n_answers=len(judgements),
        n_unknown=len(judgements) - len(known),
        alpha_nominal=krippendorff_alpha(units, len(_ORDER), "nominal"),
        alpha_ordinal=krippendorff_alpha(units, len(_ORDER), "ordinal"),
    )


def _token(judgement: Judgement) -> str:
    return judgement.pair.token


def _group(judgements: Iterable[Judgement], key: Callable[[Judgement], str]) -> dict[str, list[Judgement]]:
    return {name: list(group) for name, group in groupby(sorted(judgements, key=key), key)}


def _win_rate(judgements: Sequence[Judgement]) -> WinRate:
    outcomes = [
        mean(0.5 if one.answer == "equal" else float(one.answer == one.pair.target) for one in group)
        for group in _group(judgements, _token).values()
    ]
    n, n_won, n_lost = len(outcomes), sum(one > 0.5 for one in outcomes), sum(one < 0.5 for one in outcomes)
    low, high = wilson_interval(sum(outcomes), n)
    return WinRate(n, n_won, n - n_won - n_lost, n_lost, mean(outcomes) if n else None, low, high)


def _describe_rater(name: str, pairs: Sequence[Pair], judgements: Sequence[Judgement]) -> RaterResult:
    answers = {(one.pair.token, one.question): one.answer for one in judgements}
    checks = check_rater(pairs, answers)
    times = [(after.created - before.created).total_seconds() for before, after in pairwise(judgements)]
    times = [seconds for seconds in times if 0 < seconds < _PAUSE_S]
    return RaterResult(
        name=name,
        n_pairs=sum(pair.is_judged(answers) for pair in pairs),
        seconds=round(median(times), 1) if times else None,
        checks=checks,
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
        f"{question.text} The selected one in {_percent(rate.rate)} of {rate.n_pairs} pairs with "
        f"{_name_control(review)} (95 % interval {_percent(rate.low)} to {_percent(rate.high)}): {conclusion}."
    )


def review_section(results: ReviewResults, run: RunFolder) -> Section:
    """The part of the report that says what people judged. Raises ArtifactError for another run's review."""
    if results.review.manifest_sha256 != run.manifest_sha256:
        raise ArtifactError(f"the review is of another run than {run.path}; name that run, or its own review")
    if not results.answered:
        return Section("review", "What people say", "Nobody has judged yet.")
    n_raters = sum(not rater.excluded for rater in results.raters)
    people = "One person" if n_raters == 1 else f"{n_raters} people"
    control = _name_control(results.review)
    lead = f"{people} compared selected samples with {control}, not knowing which was which."
    return Section("review", "What people say", " ".join([lead, *results.sentences]), tables=results.tables)


def _name_control(review: Review) -> str:
    """What the selected samples were compared with, in words."""
    return {"random": "random rows", "left": "rows that were left"}.get(review.against, "the other selection")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"
