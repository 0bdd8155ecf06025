"""`delta-attnmask demo`: calibrate, score and select on the embedded data."""

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from delta_attnmask.cli.report import with_inspections
from delta_attnmask.cli.terminal import print_check, print_table
from delta_attnmask.errors import DeltaAttnMaskError
from delta_attnmask.progress import show_progress
from delta_attnmask.reading.rows import load_rows
from delta_attnmask.runs import RunFolder
from delta_attnmask.selecting.candidates import Indices, ranking_values
from delta_attnmask.selecting.quotas import MIX_COLUMNS, distortion
from delta_attnmask.selecting.run_selection import select_from_run
from delta_attnmask.selecting.selector import select_rows
from delta_attnmask.selecting.strata import strata_of
from delta_attnmask.selection import Selection
from delta_attnmask.settings import PRESETS
from delta_attnmask.statistics import auroc

_KEEP = "20%"
_N_INSPECTED = 6  # samples of the report


def demo(*, out: Path = Path("demo-run"), export: Path | None = None, limit: int | None = None) -> int:
    """Calibrate, score and select on the embedded data, and compare the result with its known defects.

    Args:
        out: Folder for the data, the run and the selection. Rerun the same command to resume.
        export: Only write the embedded model and data into this folder.
        limit: Only the first rows of the pool.
    """
    from delta_attnmask.embedded import export as export_embedded

    if export is not None:
        print(f"Wrote model/, images/, pool.json, test.json and defects.json into {export_embedded(export)}")
        return 0
    started = time.monotonic()
    home = export_embedded(out / "data")
    run = _score(home, out / "run", limit)
    selection = select_from_run(run, _KEEP)
    _print_ways(run, selection, [int(row) for row in json.loads((home / "defects.json").read_text())])
    _write_report(run, selection, out / "report.html")
    print(f"\n{time.monotonic() - started:.0f} s in all. Scoring and calibration never saw which rows have defects.")
    print(f"Next: delta-attnmask select {run.path} --keep {_KEEP} --out kept.json")
    return 0


def _score(home: Path, out: Path, limit: int | None) -> RunFolder:
    """Calibrate and score the pool, with the paper's plainest reading beside the calibrated setting."""
    from delta_attnmask.modeling.load import load_model
    from delta_attnmask.scorer import make_plan
    from delta_attnmask.scoring.jobs import score_dataset

    rows = load_rows(home / "pool.json", home / "images", limit=limit)
    loaded = load_model(str(home / "model"))
    plan, _ = make_plan(loaded, rows, out, also=("el2n", "entropy", "margin", "image_share"))
    plan = replace(plan, sweep=(PRESETS["paper"].mask,))
    with show_progress("scoring", rows.n_rows) as advance:
        return score_dataset(loaded, rows, out, plan, on_progress=advance, on_check=print_check)


def _print_ways(run: RunFolder, selection: Selection, defects: list[int]) -> None:
    """Compare ways to select by the defects that they keep."""
    scores, sweep = run.read_scores(), run.read_side("sweep", ["row", "delta"])
    scores = scores.filter(pc.equal(scores["status"], "ok"))
    assert sweep is not None
    paper = sweep["delta"].take(pc.index_in(scores["row"], sweep["row"].combine_chunks()))
    scores = scores.append_column("paper_delta", paper)
    rows, form, mix = scores["row"].to_numpy(), selection.column, strata_of(scores, MIX_COLUMNS)
    is_planted = np.isin(rows, defects)
    how = f"quota by {' x '.join(selection.quota_by)}" if selection.quota_by else selection.rule
    drawn = np.random.default_rng(0).permutation(rows)[: len(selection)]
    ways: list[tuple[str, str | None, Indices]] = [("random", None, drawn)]
    for name, column in (
        ("paper's plain delta", "paper_delta"),
        ("low loss", "low_loss"),
        (f"calibrated {form}", form),
    ):
        ways.append((f"{name}, top", column, select_rows(scores, _KEEP, by=column, rule="top").indices))
    ways.append((f"what `select` does: {form}, {how}", form, selection.indices))
    lines = list[tuple[object, ...]]()
    for name, ranked_by, indices in ways:
        is_kept, separation = np.isin(rows, indices), None
        if ranked_by is not None:
            values = ranking_values(scores, ranked_by)
            separation = f"{auroc(values[~is_planted], values[is_planted]):.3f}"
        changed = distortion(mix, np.flatnonzero(is_kept))
        lines.append((name, f"{is_planted[is_kept].mean():.1%}", separation, f"{changed:.2f}"))
    print_table(
        f"Keeping {_KEEP} of {len(scores):,} rows, of which {is_planted.mean():.1%} have a planted defect",
        ["selection", "defects kept", "AUROC", "mix distortion"],
        lines,
    )


def _write_report(run: RunFolder, selection: Selection, out: Path) -> None:
    """Write the page about the run; a failure doesn't affect the run, so it is only printed."""
    from delta_attnmask.reporting.page import write_page
    from delta_attnmask.reporting.run_report import Request, make_report

    try:
        write_page(out, make_report(with_inspections(Request(run=run, selection=selection), _N_INSPECTED)))
        print(f"\nWrote {out}")
    except DeltaAttnMaskError as error:
        print(f"\nNo report could be written: {error}")
