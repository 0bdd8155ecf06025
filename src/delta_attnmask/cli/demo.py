"""`delta-attnmask demo`: the whole job on the data and the model that come with the package."""

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from delta_attnmask.cli.report import with_inspections
from delta_attnmask.cli.terminal import print_table
from delta_attnmask.errors import DeltaAttnMaskError
from delta_attnmask.progress import RunBar, print_note, show_progress
from delta_attnmask.reading.rows import load_rows
from delta_attnmask.runs import RunFolder
from delta_attnmask.selecting.candidates import ranking_values
from delta_attnmask.selecting.quotas import MIX_COLUMNS, distortion
from delta_attnmask.selecting.run_selection import select_from_run
from delta_attnmask.selecting.selector import select_rows
from delta_attnmask.selecting.strata import strata_of
from delta_attnmask.selection import Budget, Selection
from delta_attnmask.settings import PRESETS
from delta_attnmask.statistics import auroc

_KEEP = Budget.parse("20%")
_PAPER = "paper_delta"
_N_INSPECTED = 12  # samples of the report


@dataclass(frozen=True)
class _Way:
    """One way to select: what it ranks by (none for random), and the rows that it keeps."""

    name: str
    values: NDArray[np.float64] | None
    is_kept: NDArray[np.bool_]


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
    scores = run.read_scores()
    scores = scores.filter(pc.equal(scores["status"], "ok"))
    defects = json.loads((home / "defects.json").read_text())
    is_planted = np.isin(scores["row"].to_numpy(), [int(row) for row in defects])
    scores = scores.append_column(_PAPER, pa.array(_paper_delta(run, scores)))
    ways = _ways(run, scores)
    _print_ways(scores, ways, is_planted)
    _print_sources(scores, ways[-1], is_planted)
    _write_report(run, out / "report.html")
    print(f"\n{time.monotonic() - started:.0f} s in all. Scoring and calibration never saw which rows have defects.")
    print(f"Next: delta-attnmask select {run.path} --keep 20% --out kept.json")
    return 0


def _write_report(run: RunFolder, out: Path) -> None:
    """Write the page about the run; if that fails, the run is none the worse, so the failure is only printed."""
    from delta_attnmask.reporting.run_report import Request, make_report, write_report

    try:
        request = Request(run=run, selection=select_from_run(run, _KEEP))
        lines = write_report(make_report(with_inspections(request, _N_INSPECTED)), out)
    except DeltaAttnMaskError as error:
        lines = [f"No report could be written: {error}"]
    print("", *lines, sep="\n")


def _score(home: Path, out: Path, limit: int | None) -> RunFolder:
    """Calibrate and score the pool, with the paper's plainest reading beside the calibrated setting."""
    from delta_attnmask.modeling.load import load_model
    from delta_attnmask.scorer import ScoringOptions, make_plan
    from delta_attnmask.scoring.jobs import score_dataset

    rows = load_rows(home / "pool.json", home / "images", limit=limit)
    loaded = load_model(str(home / "model"))
    options = ScoringOptions(also=("el2n", "entropy", "margin", "image_share"))
    plan, _ = make_plan(loaded, rows, options, out)
    plan = replace(plan, sweep=(PRESETS["paper"].mask,))
    with show_progress("scoring", rows.n_rows) as advance:
        bar = RunBar(advance)
        return score_dataset(
            loaded, rows, out, plan, **bar.listeners, on_check=lambda line: print_note(f"model: {line}")
        )


def _paper_delta(run: RunFolder, scores: pa.Table) -> NDArray[np.float64]:
    """The paper's plain delta of the same rows, from the sweep that ran beside the chosen setting."""
    shards = [pq.read_table(run.unit_path(unit, "sweep"), columns=["row", "delta"]) for unit in range(run.n_units)]
    sweep = pa.concat_tables(shards)
    by_row = dict(zip(sweep["row"].to_pylist(), sweep["delta"].to_pylist(), strict=True))
    return np.array([by_row[row] for row in scores["row"].to_pylist()], dtype=np.float64)


def _ways(run: RunFolder, scores: pa.Table) -> list[_Way]:
    """The selections to compare; the last one is what `delta-attnmask select` does by default."""
    form, rows = run.manifest.settings["form"], scores["row"].to_numpy()
    n_keep = _KEEP.resolve(len(scores))
    ways = [_Way("random", None, np.isin(rows, np.random.default_rng(0).permutation(rows)[:n_keep]))]
    quota = {"rule": "quota", "quota_by": MIX_COLUMNS}
    for name, column, options in (
        ("paper's plain delta, top", _PAPER, {"rule": "top"}),
        ("low loss, top", "low_loss", {"rule": "top"}),
        ("low loss, quota by source x answer type", "low_loss", quota),
        (f"calibrated {form}, top", form, {"rule": "top"}),
        (f"calibrated {form}, quota by source x answer type", form, quota),
    ):
        kept: Selection = select_rows(scores, _KEEP, by=column, **options)
        ways.append(_Way(name, ranking_values(scores, column), np.isin(rows, kept.indices)))
    default = select_from_run(run, _KEEP)
    name = f"what `select` does: {form}, {_quota_of(default)}"
    return [*ways, _Way(name, ranking_values(scores, form), np.isin(rows, default.indices))]


def _quota_of(selection: Selection) -> str:
    return f"quota by {' x '.join(selection.quota_by)}" if selection.quota_by else selection.rule


def _print_ways(scores: pa.Table, ways: list[_Way], is_planted: NDArray[np.bool_]) -> None:
    mix = strata_of(scores, MIX_COLUMNS)
    lines = [
        (
            way.name,
            f"{is_planted[way.is_kept].mean():.1%}",
            "-" if way.values is None else f"{auroc(way.values[~is_planted], way.values[is_planted]):.3f}",
            f"{distortion(mix, np.flatnonzero(way.is_kept)):.2f}",
        )
        for way in ways
    ]
    print_table(
        f"Keeping 20 % of {len(scores):,} rows, of which {is_planted.mean():.1%} have a planted defect",
        ["selection", "defects kept", "AUROC", "mix distortion"],
        [*lines, ("defect-free random (oracle)", "0.0%", "1.000", "-")],
    )


def _print_sources(scores: pa.Table, way: _Way, is_planted: NDArray[np.bool_]) -> None:
    sources = np.array(scores["source"].to_pylist())
    lines = []
    for source in sorted(set(sources.tolist())):
        of_source = sources == source
        kept = of_source & way.is_kept
        n_kept, n_left = int(kept.sum()), int((of_source & ~way.is_kept).sum())
        defects = f"{is_planted[kept].mean():.0%}" if n_kept else "-"
        lines.append((source, n_kept, n_left, f"{is_planted[of_source].mean():.0%}", defects))
    print_table(f"{way.name}, by source", ["source", "kept", "left", "defects in pool", "defects in kept"], lines)
