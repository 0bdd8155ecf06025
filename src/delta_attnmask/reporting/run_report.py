"""One HTML page about a run and what is selected of it. No torch here."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from delta_attnmask.auditing.run_audit import audit_run
from delta_attnmask.errors import ArtifactError, DataError
from delta_attnmask.exporting.run_export import open_scored
from delta_attnmask.reading.rows import FileRows, Place
from delta_attnmask.reporting.charts import distribution, kinds_chart
from delta_attnmask.reporting.gallery import GROUPS, Card, Inspect, fill_cards, make_cards, worst_cards
from delta_attnmask.reporting.page import Section, render_page
from delta_attnmask.reporting.standing import find_standing
from delta_attnmask.reporting.summary import count_reasons, find_findings
from delta_attnmask.reporting.words import count
from delta_attnmask.runs import RunFolder
from delta_attnmask.selecting.candidates import find_candidates
from delta_attnmask.selecting.run_selection import candidates_of
from delta_attnmask.selection import Selection


@dataclass(frozen=True)
class Request:
    """What to report on.

    selection: None if no row of the run can be kept. is_written: whether it was written to a file, or is only what
        `select` would keep.
    calibration: a folder or file; None for the run's own. place: where the data is now.
    opening: sentences that come first, such as what a proof found.
    sections: further parts, such as what a review found.
    n_cards: samples in the gallery.
    inspect: gives what is shown below a row's card, for `n_inspected` of them; styles: sheets that it needs.
    """

    run: RunFolder
    selection: Selection | None
    is_written: bool = False
    calibration: Path | None = None
    place: Place = Place()
    train_rate: float | None = None
    epochs: float = 1.0
    opening: tuple[str, ...] = ()
    sections: tuple[Section, ...] = ()
    n_cards: int = 120
    inspect: Inspect | None = None
    n_inspected: int = 20
    styles: tuple[str, ...] = ()


def make_report(request: Request) -> str:
    """Read the run, measure, draw and give the HTML of the page.

    Reads of the data only the rows of the gallery, after the passes that find their places and whether they are those
    that were scored. Raises ArtifactError for a run, calibration or selection that can't be read; data that is
    missing or changed is said in the page.
    """
    run, selection, standing, audit = request.run, request.selection, None, None
    scores = run.read_scores(encoded=True)
    if selection is not None:
        standing = find_standing(selection, candidates_of(selection, run, scores))
        audit = audit_run(run, selection, train_rate=request.train_rate, epochs=request.epochs)
    findings = find_findings(run, selection, request.calibration)
    dataset, data_problem = open_data(request)
    cards = make_cards(scores, standing, dataset, request.n_cards, request.inspect, request.n_inspected)
    return render_page(
        "report.html",
        title=_ask(run, selection),
        styles=("report.css", *request.styles),
        scripts=("report.js",),
        opening=request.opening,
        manifest=run.manifest,
        selection=selection,
        is_written=request.is_written,
        audit=audit,
        findings=findings,
        cut=None if standing is None else distribution(standing),
        kinds=None if findings is None else kinds_chart(findings),
        sections=request.sections,
        reasons=count_reasons(scores),
        n_failed=pc.sum(pc.equal(scores["status"], "failed")).as_py() or 0,
        cards=cards,
        groups=GROUPS,
        sources=sorted({card.source for card in cards}),
        data_problem=data_problem,
    )


def make_worst(request: Request, by: str | None = None) -> tuple[str, list[Card]]:
    """The HTML of a page with the rows that a person should look at first, and their cards, the worst first.

    Of the request only the run, place, n_cards and inspections count. by: the column that ranks; None for the run's.
    """
    run = request.run
    column = by or str(run.manifest.settings.get("form", "delta"))
    dataset, problem = open_data(request)
    cards = worst_cards(find_candidates(run.read_scores(), column), column, request.n_cards)
    html = render_page(
        "worst.html",
        title=f"The {count(len(cards), 'row')} to look at first",
        styles=("report.css", *request.styles),
        data=Path(run.manifest.data).name or "the data",
        column=column,
        data_problem=problem,
        cards=fill_cards(cards, dataset, request.inspect, request.n_inspected),
    )
    return html, cards


def open_data(request: Request) -> tuple[FileRows | None, str]:
    """What was scored, without its images or not at all where they are missing; then also what is wrong."""
    problem = ""
    for with_images in (True, False):
        try:
            return open_scored(request.run, request.place, with_images=with_images), problem
        except (ArtifactError, DataError) as error:
            problem = str(error)
    return None, problem


def _ask(run: RunFolder, selection: Selection | None) -> str:
    """The question that the page answers."""
    name = Path(run.manifest.data).name
    if selection is None:
        return f"Why could nothing of {name} be scored?"
    if (budget := str(selection.budget)).endswith("%"):
        return f"Which {budget.replace('%', ' %')} of {name} is worth training on?"
    return f"Which {count(len(selection), 'row')} of {name} {'is' if len(selection) == 1 else 'are'} worth training on?"
