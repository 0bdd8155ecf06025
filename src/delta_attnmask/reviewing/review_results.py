"""What the judgements say: win rates with intervals, agreement, and which judges were careless. No torch here."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from delta_attnmask.errors import ArtifactError
from delta_attnmask.reporting.page import Section, Table
from delta_attnmask.reviewing.answers import Judgement, read_judgements
from delta_attnmask.reviewing.protocol import CHECK_QUESTIONS, QUESTIONS, Answer, Protocol
from delta_attnmask.runs import RunFolder
from delta_attnmask.statistics import krippendorff_alpha, wilson_interval

# Fixed before anyone judges; docs/review.md says how often the rule excludes a careless judge, and a careful one.
_MIN_CHECKS, _MIN_PASSED = 4, 0.75
_VALUES: dict[Answer, int] = {"first": 0, "second": 1, "equal": 2}  # for agreement; "unknown" is a missing value
_QUESTION_COLUMNS = ("question", "pairs", "won", "tied", "lost", "win rate", "95 % interval", "can't tell", "alpha")
_RATER_COLUMNS = ("judge", "pairs", "checks passed", "counted")


@dataclass(frozen=True)
class QuestionResult:
    """How often the selected sample won, by one question.

    n_pairs: pairs with at least one judgement. n_won, n_tied, n_lost: pairs by what most judges preferred.
    rate: mean over pairs of the judges' mean, a tie counting half; 0.5 says no difference. None without pairs.
    low, high: 95 % Wilson interval of the rate. The pair is the unit: several judges of one pair are no further pairs.
    n_unknown: answers "can't tell"; they count in no rate.
    alpha: Krippendorff's alpha of the sides chosen, as they were shown; None with fewer than two judges of one pair.
    """

    name: str
    n_pairs: int
    n_won: int
    n_tied: int
    n_lost: int
    rate: float | None
    low: float
    high: float
    n_unknown: int
    alpha: float | None

    @property
    def interval(self) -> str:
        return f"{100 * self.low:.0f} % to {100 * self.high:.0f} %"


@dataclass(frozen=True)
class RaterResult:
    """What a judge did.

    n_pairs: pairs answered in full, without checks. n_checks, n_passed: answers in checks, and the right ones.
    excluded: why the judgements don't count; empty if they do. Too few checks exclude nobody.
    """

    name: str
    n_pairs: int
    n_checks: int
    n_passed: int
    excluded: str


@dataclass(frozen=True)
class ReviewResults:
    """A whole review: plain values, for tables, JSON and the report.

    manifest_sha256: of the run. selection, against: what was compared, in words. n_drawn: pairs, without checks.
    questions: in the order of QUESTIONS.
    """

    manifest_sha256: str
    selection: str
    against: str
    n_drawn: int
    questions: tuple[QuestionResult, ...]
    raters: tuple[RaterResult, ...]

    @property
    def control(self) -> str:
        """What the selected samples were compared with, as part of a sentence."""
        return {"random": "random rows", "left": "rows that were left"}.get(self.against, "the other selection")

    @property
    def sentences(self) -> list[str]:
        """The results in words, one sentence for each question that was answered."""
        found = []
        for question, one in zip(QUESTIONS, self.questions, strict=True):
            if one.rate is not None:
                more, less = "more often than chance explains", "less often than chance explains"
                verdict = more if one.low > 0.5 else less if one.high < 0.5 else "chance alone explains that"
                share = f"{100 * one.rate:.0f} % of {one.n_pairs} pairs with {self.control}"
                found.append(f"{question.text} The selected one in {share} (95 % interval {one.interval}): {verdict}.")
        return found

    @property
    def tables(self) -> list[Table]:
        """The questions, and the judges."""
        questions: list[tuple[object, ...]] = []
        for one in self.questions:
            rate = "-" if one.rate is None else f"{100 * one.rate:.0f} %"
            alpha = "-" if one.alpha is None else f"{one.alpha:.2f}"
            counts = (one.n_pairs, one.n_won, one.n_tied, one.n_lost)
            questions.append((one.name, *counts, rate, one.interval, one.n_unknown, alpha))
        raters = [
            (
                one.name,
                one.n_pairs,
                f"{one.n_passed} of {one.n_checks}",
                f"no: {one.excluded}" if one.excluded else "yes",
            )
            for one in self.raters
        ]
        return [
            (f"{self.selection}, against {self.against}", _QUESTION_COLUMNS, questions),
            ("Judges, and who isn't counted", _RATER_COLUMNS, raters),
        ]


def read_results(folder: Path, *, with_careless: bool = False) -> ReviewResults:
    """The results of a review's folder; with_careless: count all judges. Raises ArtifactError for what is no review."""
    protocol = Protocol.read(folder)
    return summarize(protocol, read_judgements(folder, protocol), with_careless=with_careless)


def summarize(protocol: Protocol, judgements: Sequence[Judgement], *, with_careless: bool = False) -> ReviewResults:
    """The results of these judgements."""
    names = sorted({one.rater for one in judgements})
    raters = tuple(_summarize_rater(name, [one for one in judgements if one.rater == name]) for name in names)
    counted = {rater.name for rater in raters if with_careless or not rater.excluded}
    careful = [one for one in judgements if one.rater in counted and not one.pair.is_check]
    questions = tuple(
        _summarize_question(question.name, [one for one in careful if one.question == question.name])
        for question in QUESTIONS
    )
    return ReviewResults(
        protocol.manifest_sha256, protocol.selection, protocol.against, len(protocol.compared), questions, raters
    )


def _summarize_rater(name: str, judgements: Sequence[Judgement]) -> RaterResult:
    answered = Counter(one.pair.token for one in judgements if not one.pair.is_check)
    checks = [one for one in judgements if one.pair.is_check and one.question in CHECK_QUESTIONS]
    n_passed = sum(one.answer == one.pair.target for one in checks)
    is_careless = len(checks) >= _MIN_CHECKS and n_passed < _MIN_PASSED * len(checks)
    why = f"preferred readable to reversed text in only {n_passed} of {len(checks)} answers" if is_careless else ""
    n_pairs = sum(n == len(QUESTIONS) for n in answered.values())
    return RaterResult(name, n_pairs, len(checks), n_passed, why)


def _summarize_question(name: str, judgements: Sequence[Judgement]) -> QuestionResult:
    by_pair = defaultdict[str, list[Judgement]](list)
    for one in judgements:
        if one.answer != "unknown":
            by_pair[one.pair.token].append(one)
    outcomes = [
        mean(0.5 if one.answer == "equal" else float(one.answer == one.pair.target) for one in group)
        for group in by_pair.values()
    ]
    n, n_won, n_lost = len(outcomes), sum(one > 0.5 for one in outcomes), sum(one < 0.5 for one in outcomes)
    low, high = wilson_interval(sum(outcomes), n)
    return QuestionResult(
        name=name,
        n_pairs=n,
        n_won=n_won,
        n_tied=n - n_won - n_lost,
        n_lost=n_lost,
        rate=mean(outcomes) if n else None,
        low=low,
        high=high,
        n_unknown=sum(one.answer == "unknown" for one in judgements),
        alpha=krippendorff_alpha([[_VALUES[one.answer] for one in group] for group in by_pair.values()], len(_VALUES)),
    )


def review_section(results: ReviewResults, run: RunFolder) -> Section:
    """The part of the report that says what people judged. Raises ArtifactError for another run's review."""
    if results.manifest_sha256 != run.manifest_sha256:
        raise ArtifactError(f"the review is of another run than {run.path}; name that run, or its own review")
    if not results.sentences:
        return Section("review", "What people say", "No one has judged yet.")
    n_raters = sum(not rater.excluded for rater in results.raters)
    people = "One person" if n_raters == 1 else f"{n_raters} people"
    lead = f"{people} compared selected samples with {results.control}, not knowing which was which."
    return Section("review", "What people say", " ".join([lead, *results.sentences]), tables=results.tables)
