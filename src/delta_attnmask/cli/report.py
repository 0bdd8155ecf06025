"""`delta-attnmask report`: one HTML page about a run and what is selected of it."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from delta_attnmask.cli.options import Force, MaskOptions, RunDataOptions, SelectionOptions, TrainingCost
from delta_attnmask.cli.terminal import printable
from delta_attnmask.errors import SettingsError
from delta_attnmask.exporting.run_export import inputs_of, open_scored
from delta_attnmask.runs import RunFolder

if TYPE_CHECKING:
    from delta_attnmask.reporting.run_report import Request


def report(
    run: Path,
    /,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("report.html"),
    selection: SelectionOptions = SelectionOptions(),
    calibration: Path | None = None,
    review: Path | None = None,
    moved: RunDataOptions = RunDataOptions(),
    cost: TrainingCost = TrainingCost(),
    cards: int = 120,
    inspect: int = 0,
    revision: str | None = None,
    force: Force = False,
) -> None:
    """Write one HTML page: what was scored, what is kept and why, and samples.

    The file contains everything it shows, so it opens offline.

    Args:
        run: Run folder that `score` wrote.
        out: File to write.
        calibration: Folder that `calibrate` wrote, if it is not the run's own.
        review: Folder of a review of the run, as `review --out` wrote it.
        cards: Samples in the gallery, at most 500; each of its five groups gets a fifth.
        inspect: How many samples show where the model looked; above 0 this loads the model.
        revision: With --inspect: revision of a model on the hub, if it isn't the run's own.
    """
    if cards < 1 or inspect < 0:
        raise SettingsError(f"cards={cards}, inspect={inspect}: expected at least one card, and no negative number")
    from delta_attnmask.reporting.page import claim_page, write_page
    from delta_attnmask.reporting.run_report import Request, make_report
    from delta_attnmask.reviewing.review_results import read_results, review_section

    folder = RunFolder.open(run)
    claim_page(out, inputs_of(folder, moved.place), force=force)
    has_scores = "ok" in folder.read_scores(["status"]).column("status").unique().to_pylist()
    request = Request(
        run=folder,
        selection=selection.read(folder) if selection.selection is not None or has_scores else None,
        is_written=selection.selection is not None,
        calibration=calibration,
        place=moved.place,
        train_rate=cost.train_rate,
        epochs=cost.epochs,
        sections=() if review is None else (review_section(read_results(review), folder),),
        n_cards=cards,
    )
    if inspect:
        request = with_inspections(request, inspect, revision)
    write_page(out, make_report(request), force=force)
    print(f"Wrote {out} ({out.stat().st_size / 1e6:.1f} MB)")


def with_inspections(request: "Request", n_rows: int, revision: str | None = None) -> "Request":
    """The same with inspections of some rows, by the run's own model and settings.

    revision: of the model; None for the one that the run was made with. Warns where the model is another one.
    """
    from delta_attnmask.inspecting.inspection_page import STYLE, render_fragment
    from delta_attnmask.inspecting.inspector import Inspector
    from delta_attnmask.modeling.load import load_model, model_fingerprint

    manifest = request.run.manifest
    dataset = open_scored(request.run, request.place)
    loaded = load_model(manifest.model, dtype=manifest.settings["dtype"], revision=revision or manifest.revision)
    if model_fingerprint(loaded.model) != manifest.model_fingerprint:
        print(
            f"WARNING: {printable(manifest.model)} is not the model that scored: its fingerprint differs. If it has "
            "several revisions, name that one with --revision",
            file=sys.stderr,
        )
    inspector = Inspector(loaded, dataset, MaskOptions().choose(None, request.run))
    return replace(
        request,
        inspect=lambda row: render_fragment(inspector.inspect_rows([row])[0]),
        n_inspected=n_rows,
        styles=(STYLE,),
    )
