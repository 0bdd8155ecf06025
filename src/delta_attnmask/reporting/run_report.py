"""One HTML page about a run and what is selected of it. No torch here."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from delta_attnmask.auditing.run_audit import audit_run
from delta_attnmask.reading.images import ImageLimits
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.reporting.calibration_figures import Findings, read_findings
from delta_attnmask.reporting.drawing import Chart
from delta_attnmask.reporting.gallery import GROUPS, Card, Inspect, Reader, make_cards, open_reader
from delta_attnmask.reporting.headline import write_headline
from delta_attnmask.reporting.page import Section, render_page, write_page
from delta_attnmask.reporting.sections import (
    calibration_section,
    cost_section,
    failure_section,
    selection_sections,
)
from delta_attnmask.reporting.standing import Standing, find_standing
from delta_attnmask.reporting.words import name_settings, to_prose, write_number
from delta_attnmask.runs import RunFolder
from delta_attnmask.selecting.run_selection import candidates_of
from delta_attnmask.selection import Selection

_Facts = tuple[str, Sequence[tuple[str, object]]]  # a title, then names and values


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
    run, selection = request.run, request.selection
    scores = run.read_scores(encoded=True)
    findings = read_findings(request.calibration or run.path, is_required=request.calibration is not None)
    standing = None if selection is None else find_standing(selection, candidates_of(selection, run, scores))
    audit = (
        None if selection is None else audit_run(run, selection, train_rate=request.train_rate, epochs=request.epochs)
    )
    is_covered = (
        selection is not None and findings is not None and findings.covers(selection.column, run.manifest.settings)
    )
    n_failed = pc.sum(pc.equal(scores["status"], "failed")).as_py() or 0
    headline = write_headline(
        run, standing, findings if is_covered else None, audit, n_failed, is_written=request.is_written
    )
    reader = open_data(request)
    cards = make_cards(scores, standing, reader, request.n_cards, request.inspect, request.n_inspected)
    sections = list(_sections(request, scores, standing, audit, findings, is_covered=is_covered))
    html = render_page(
        "report.html",
        title=headline.question,
        styles=("report.css", *request.styles),
        scripts=("report.js",),
        headline=headline,
        sections=sections,
        cards=cards,
        groups=_count_groups(cards),
        sources=sorted({card.source for card in cards}),
        statuses=[status for status in ("kept", "left", "failed") if any(card.status == status for card in cards)],
        data_problem=reader.problem,
        facts=_facts(request),
        number=write_number,
        prose=to_prose,
        is_number=_is_number,
    )
    return Report(html, tuple(chart for section in sections for chart in section.charts))


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


def _sections(
    request: Request,
    scores: pa.Table,
    standing: Standing | None,
    audit: Mapping[str, Any] | None,
    findings: Findings | None,
    *,
    is_covered: bool,
) -> Iterator[Section]:
    if standing is not None and audit is not None:
        yield from selection_sections(standing, audit, findings, is_covered=is_covered)
    elif findings is not None:
        yield calibration_section(findings, is_covered=is_covered)
    yield from request.sections
    yield from failure_section(scores)
    if audit is not None and audit["costs"] is not None:
        yield cost_section(audit["costs"], audit["n_rows"])


def _count_groups(cards: Sequence[Card]) -> list[tuple[str, str, int]]:
    """Name, title and number of cards of each group that has any."""
    found = [(name, title, sum(name in card.groups for card in cards)) for name, title in GROUPS.items()]
    return [line for line in found if line[2]]


def _facts(request: Request) -> list[_Facts]:
    """What it takes to make the run and the selection again, in groups of names and values."""
    manifest, selection = request.run.manifest, request.selection
    about = [
        ("model", manifest.model),
        ("model fingerprint", manifest.model_fingerprint),
        ("data", manifest.data),
        ("data SHA-256", manifest.input.sha256),
        ("images", manifest.images or "none"),
        ("format", manifest.format),
        ("rows", manifest.n_rows),
        ("scored", manifest.created),
        ("command", " ".join(manifest.command) or "not recorded"),
    ]
    groups: list[tuple[str, Sequence[tuple[str, object]]]] = [
        ("The run", about),
        ("Settings", _list_settings(manifest.settings)),
    ]
    if selection is not None:
        chosen = [("rule", selection.rule), ("ranked by", selection.column), ("budget", str(selection.budget))]
        options = [(name, _plain(value)) for name, value in selection.options.items()]
        groups.append(("The selection", [*chosen, *options]))
    return [*groups, ("Versions", list(manifest.versions.items()))]


def _list_settings(settings: Mapping[str, Any]) -> list[tuple[str, object]]:
    """A run's settings as names and values, its sweep in few words."""
    sweep = settings.get("sweep") or []
    lines: list[tuple[str, object]] = [(name, value) for name, value in settings.items() if name != "sweep"]
    return [*lines, ("sweep", "; ".join(name_settings(one) for one in sweep) or "none")]


def _plain(value: object) -> object:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else value


def _is_number(value: object) -> bool:
    """Whether a cell is set to the right: a number, a share or nothing."""
    return value is None or isinstance(value, int | float) or (isinstance(value, str) and value.endswith(" %"))
