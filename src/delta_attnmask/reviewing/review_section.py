"""The part of the report that says what people judged."""

from collections.abc import Sequence

from delta_attnmask.errors import ArtifactError
from delta_attnmask.reporting.drawing import FAILED, KEPT, MUTED, Chart, drawing, rule_out
from delta_attnmask.reporting.sections import Section
from delta_attnmask.reviewing.review_results import QuestionResult, ReviewResults, name_control, percent
from delta_attnmask.runs import RunFolder

_COLOURS = {"better": KEPT, "worse": FAILED, "open": MUTED}
_CONCLUSIONS = {
    "better": "The selected side won more often than chance explains: {}.",
    "worse": "It won less often than chance explains: {}.",
    "open": "These pairs show no difference: {}.",
}


def review_section(results: ReviewResults, run: RunFolder) -> Section:
    """Win rates as a chart, and tables of sources and judges. Raises ArtifactError for another run's review."""
    if results.review.manifest_sha256 != run.manifest_sha256:
        raise ArtifactError(f"the review is of another run than {run.path}; name that run, or its own review")
    if not results.answered:
        return Section("review", "What people say", "Nobody has judged yet.", [], [])
    (_, columns, rows), *tables = results.tables
    return Section("review", "What people say", _lead(results), [_chart(results.answered, columns, rows)], tables)


def _lead(results: ReviewResults) -> str:
    """Who compared what, and what follows from it."""
    n_raters = sum(not rater.excluded for rater in results.raters)
    people = "One person" if n_raters == 1 else f"{n_raters} people"
    verdicts = {
        verdict: ", ".join(one.title.lower() for one in results.answered if one.overall.verdict == verdict)
        for verdict in _CONCLUSIONS
    }
    return (
        f"{people} compared selected samples with {name_control(results.review)}, not knowing which was which. "
        + " ".join(text.format(titles) for (verdict, text) in _CONCLUSIONS.items() if (titles := verdicts[verdict]))
    )


def _chart(answered: Sequence[QuestionResult], columns: Sequence[str], rows: Sequence[tuple[object, ...]]) -> Chart:
    with drawing(0.9 + 0.38 * len(answered)) as figure:
        axes = figure.subplots()
        axes.axvline(50, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
        for place, question in enumerate(reversed(answered)):
            rate, colour = question.overall, _COLOURS[question.overall.verdict]
            axes.plot([100 * rate.low, 100 * rate.high], [place, place], color=colour, linewidth=2)
            axes.plot([100 * (rate.rate or 0)], [place], "o", color=colour, markersize=6)
        axes.set_yticks(range(len(answered)), [question.title for question in reversed(answered)])
        axes.set(xlim=(0, 100), ylim=(-0.6, len(answered) - 0.4), xlabel="pairs won by the selected side, %")
        rule_out(axes, "left")
        axes.tick_params(axis="y", length=0)
    return Chart(
        name="review",
        title="How often the selected side won",
        caption="A tie counts as half. Lines are 95 % intervals; one that crosses 50 % shows no difference.",
        alt="Win rates with intervals: " + "; ".join(map(_describe, answered)),
        figure=figure,
        columns=columns,
        rows=rows,
    )


def _describe(question: QuestionResult) -> str:
    return f"{question.title} {percent(question.overall.rate)} of {question.overall.n_pairs} pairs"
