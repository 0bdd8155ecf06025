"""One HTML page about a run and what is selected of it. No torch here."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from delta_attnmask.auditing.run_audit import audit_run
from delta_attnmask.reading.images import ImageLimits
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.reporting.charts import Chart, distribution, kinds_chart
from delta_attnmask.reporting.gallery import GROUPS, Inspect, Reader, make_cards, open_reader
from delta_attnmask.reporting.page import Section, render_page, write_page
from delta_attnmask.reporting.standing import find_standing
from delta_attnmask.reporting.summary import SETTINGS, count_reasons, find_findings
from delta_attnmask.reporting.words import count
from delta_attnmask.runs import RunFolder
from delta_attnmask.selecting.run_selection import candidates_of
from delta_attnmask.selection import Selection


@dataclass(frozen=True)
class Request:
    """What to report on.

    selection: None if no row of the run can be kept. is_written: whether it was written to a file, or is only what
        `select` would keep.
    calibration: a folder or file; None for the run's own. data, images: None for those that were scored.
    limits: of the images that are shown.
    sections: further parts, such as what a review found.
    n_cards: samples in the gallery.
    inspect: gives what is shown below a row's card, for `n_inspected` of them; styles: sheets that it needs.
    """

    run: RunFolder
    selection: Selection | None
    is_written: bool = False
    calibration: Path | None = None
    data: Path | None = None
    images: Path | None = None
    limits: ImageLimits = ImageLimits()
    train_rate: float | None = None
    epochs: float = 1.0
    sections: tuple[Section, ...] = ()
    n_cards: int = 120
    inspect: Inspect | None = None
    n_inspected: int = 20
    styles: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """html: the page. charts: its figures, to be written for papers."""

    html: str
    charts: tuple[Chart, ...]


def make_report(request: Request) -> Report:
    """Read the run, measure, draw and write the page.

    Reads of the data only the rows of the gallery, after one pass that finds where they stand. Raises ArtifactError for
    a run, calibration or selection that can't be read; data that is missing is said in the page.
    """
    run, selection, standing, audit = request.run, request.selection, None, None
    scores = run.read_scores(encoded=True)
    if selection is not None:
        standing = find_standing(selection, candidates_of(selection, run, scores))
        audit = audit_run(run, selection, train_rate=request.train_rate, epochs=request.epochs)
    findings = find_findings(run, selection, request.calibration)
    cut = None if standing is None else distribution(standing)
    kinds = None if findings is None else kinds_chart(findings)
    reader = open_data(request)
    cards = make_cards(scores, standing, reader, request.n_cards, request.inspect, request.n_inspected)
    html = render_page(
        "report.html",
        title=_ask(run, selection),
        styles=("report.css", *request.styles),
        scripts=("report.js",),
        manifest=run.manifest,
        selection=selection,
        is_written=request.is_written,
        audit=audit,
        findings=findings,
        setting_names=list(SETTINGS),
        cut=cut,
        kinds=kinds,
        sections=request.sections,
        reasons=count_reasons(scores),
        n_failed=pc.sum(pc.equal(scores["status"], "failed")).as_py() or 0,
        cards=cards,
        groups=GROUPS,
        sources=sorted({card.source for card in cards}),
        data_problem=reader.problem,
    )
    return Report(html, tuple(chart for chart in (cut, kinds) if chart is not None))


def write_report(report: Report, out: Path, figures: Path | None = None) -> list[str]:
    """Write the page, and the figures into a folder of their own; what was written, in words."""
    write_page(out, report.html)
    lines = [f"Wrote {out} ({len(report.html.encode()) / 1e6:.1f} MB)"]
    if figures is not None:
        for chart in report.charts:
            chart.write(figures)
        lines.append(f"Wrote {len(report.charts)} figures as SVG and PNG into {figures}")
    return lines


def open_data(request: Request) -> Reader:
    """The input as the gallery reads it; where it or its images are missing, the reader says so."""
    manifest = request.run.manifest
    images, problem = request.images or (manifest.images or None), ""
    if images is not None and not Path(images).is_dir():
        problem = f"The image folder {images} is missing, so no image is shown; name it with --images."
        images = None

    def open_rows() -> FileRows:
        data = request.data or manifest.require_data()
        return FileRows(data, images, format=manifest.format, image_limits=request.limits)

    return open_reader(open_rows, problem)


def _ask(run: RunFolder, selection: Selection | None) -> str:
    """The question that the page answers."""
    name = Path(run.manifest.data).name
    if selection is None:
        return f"Why could nothing of {name} be scored?"
    if (budget := str(selection.budget)).endswith("%"):
        return f"Which {budget.replace('%', ' %')} of {name} is worth training on?"
    return f"Which {count(len(selection), 'row')} of {name} {'is' if len(selection) == 1 else 'are'} worth training on?"
