"""The part of the report that says what people judged."""

from collections.abc import Sequence

from delta_attnmask.artifacts import RunFolder
from delta_attnmask.errors import ArtifactError
from delta_attnmask.reporting.drawing import FAILED, KEPT, MUTED, Chart, drawing, rule_out
from delta_attnmask.reporting.report import Section
from delta_attnmask.reviewing.protocol import ALL_QUESTIONS
from delta_attnmask.reviewing.results import QuestionResult, RaterResult, ReviewResults, WinRate, name_control, percent

_COLUMNS = ("pairs", "won", "tied", "lost", "win rate", "95 % interval")
_COLOURS = {"better": KEPT, "worse": FAILED, "open": MUTED}
_CONCLUSIONS = {
    "better": "The selected side won more often than chance explains: {}.",
    "worse": "It won less often than chance explains: {}.",
    "open": "No difference can be told from these pairs: {}.",
}
_TITLES = {question.name: question.title for question in ALL_QUESTIONS}


def review_section(results: ReviewResults, run: RunFolder) -> Section:
    """Win rates as a chart, and tables of sources, agreement and raters. Raises ArtifactError for another run's."""
    if results.review.manifest_sha256 != run.manifest_sha256:
        raise ArtifactError(f"the review is of another run than {run.path}; name that run, or its own review")
    answered = [question for question in results.questions if question.overall.rate is not None]
    return Section(
        "review",
        "What people say",
        _lead(results, answered),
        [_chart(answered)] if answered else [],
        list(_tables(results, answered)) if answered else [],
    )


def _lead(results: ReviewResults, answered: Sequence[QuestionResult]) -> str:
    """Who compared what, and what follows from it."""
    if not answered:
        return "Nobody has judged yet."
    n_raters = sum(not rater.excluded for rater in results.raters)
    people = "One person" if n_raters == 1 else f"{n_raters} people"
    verdicts = {
        verdict: ", ".join(_TITLES[one.name].lower() for one in answered if one.overall.verdict == verdict)
        for verdict in _CONCLUSIONS
    }
    return (
        f"{people} compared selected samples with {name_control(results.review)}, not knowing which was which. "
        + " ".join(text.format(titles) for (verdict, text) in _CONCLUSIONS.items() if (titles := verdicts[verdict]))
    )


def _chart(answered: Sequence[QuestionResult]) -> Chart:
    with drawing(0.9 + 0.38 * len(answered)) as figure:
        axes = figure.subplots()
        axes.axvline(50, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
        for place, question in enumerate(reversed(answered)):
            rate, colour = question.overall, _COLOURS[question.overall.verdict]
            axes.plot([100 * rate.low, 100 * rate.high], [place, place], color=colour, linewidth=2)
            axes.plot([100 * (rate.rate or 0)], [place], "o", color=colour, markersize=6)
        axes.set_yticks(range(len(answered)), [_TITLES[question.name] for question in reversed(answered)])
        axes.set(xlim=(0, 100), ylim=(-0.6, len(answered) - 0.4), xlabel="pairs won by the selected side, %")
        rule_out(axes, "left")
        axes.tick_params(axis="y", length=0)
    return Chart(
        name="review",
        title="How often the selected side won",
        caption="A tie counts as half. Lines are 95 % intervals; one that crosses 50 % tells no difference.",
        alt="Win rates with intervals: " + "; ".join(map(_describe, answered)),
        figure=figure,
        columns=("question", *_COLUMNS),
        rows=[(_TITLES[question.name], *_cells(question.overall)) for question in answered],
    )


def _tables(
    results: ReviewResults, answered: Sequence[QuestionResult]
) -> list[tuple[str, Sequence[str], Sequence[Sequence[object]]]]:
    overall = [question for question in answered if question.name == "overall"]
    sources = [(name or "(none)", *_cells(rate)) for question in overall for name, rate in question.by_source.items()]
    agreement = [
        (_TITLES[one.name], one.n_answers, one.n_unknown, _round(one.alpha_nominal), _round(one.alpha_ordinal))
        for one in answered
    ]
    raters = [(rater.name, rater.n_pairs, rater.seconds, _say_checks(rater)) for rater in results.raters]
    return [
        ("Better to learn from, by source", ("source", *_COLUMNS), sources),
        ("Agreement of the raters", ("question", "answers", "can't tell", "alpha", "ordinal alpha"), agreement),
        ("Raters, and who isn't counted", ("rater", "pairs", "seconds an answer", "checks"), raters),
    ]


def _say_checks(rater: RaterResult) -> str:
    if rater.excluded:
        return f"not counted: {rater.excluded}"
    return "passed" if rater.is_checked else "counted, with too few checks to judge by"


def _cells(rate: WinRate) -> tuple[object, ...]:
    interval = f"{percent(rate.low)} to {percent(rate.high)}"
    return (rate.n_pairs, rate.n_won, rate.n_tied, rate.n_lost, percent(rate.rate), interval)


def _describe(question: QuestionResult) -> str:
    return f"{_TITLES[question.name]} {percent(question.overall.rate)} of {question.overall.n_pairs} pairs"


def _round(alpha: float | None) -> float | None:
    return None if alpha is None else round(alpha, 2)
