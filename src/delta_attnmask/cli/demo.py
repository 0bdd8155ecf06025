"""`delta-attnmask demo`: `run` on the data and the model that come with the package, and what its defects say of it."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from delta_attnmask.calibration import Candidate
from delta_attnmask.cli.run import print_result, print_stage
from delta_attnmask.cli.terminal import print_check, print_table
from delta_attnmask.progress import show_progress
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.running.plan import ModelSource, RunPlan
from delta_attnmask.runs import RunFolder
from delta_attnmask.selecting.candidates import Indices, ranking_values
from delta_attnmask.selecting.note import read_note
from delta_attnmask.selecting.quotas import MIX_COLUMNS, distortion
from delta_attnmask.selecting.selector import select_rows
from delta_attnmask.selecting.strata import strata_of
from delta_attnmask.settings import PRESETS, MaskSettings
from delta_attnmask.statistics import auroc

if TYPE_CHECKING:
    from delta_attnmask.running.run import Run
    from delta_attnmask.scorer import DeltaAttnMask

_PAPER = Candidate(PRESETS["paper"].form, PRESETS["paper"].mask)
_ALSO = ("el2n", "entropy", "margin", "image_share")


def demo(*, out: Path = Path("demo-run"), export: Path | None = None, limit: int | None = None) -> int:
    """Run everything on the embedded data, and compare what is kept with its known defects.

    Args:
        out: Folder for the data and the run. Rerun the same command to resume.
        export: Only write the embedded model and data into this folder.
        limit: Only the first rows of the pool.
    """
    from delta_attnmask.embedded import export as export_embedded

    if export is not None:
        print(f"Wrote model/, images/, pool.json, test.json and defects.json into {export_embedded(export)}")
        return 0
    started = time.monotonic()
    home = export_embedded(out / "data")

    from delta_attnmask.running.run import Run
    from delta_attnmask.scorer import DeltaAttnMask

    rows = FileRows(home / "pool.json", home / "images", limit=limit)
    plan = RunPlan(test=str(home / "test.json"), also=_ALSO)
    source = ModelSource(model=str(home / "model"))
    scorer = DeltaAttnMask.from_pretrained(source.model)
    begun, done = (Run(rows, out, one, source, lambda: scorer, {}) for one in (replace(plan, until="calibrate"), plan))
    begun.run(print_stage)
    best = _best_delta(begun)
    _score(begun, scorer, best)
    done.run(lambda stage, is_done: None if is_done else print_stage(stage, is_done))
    _print_ways(done, best, [int(row) for row in json.loads((home / "defects.json").read_text())])
    print_result(done)
    print(f"\n{time.monotonic() - started:.0f} s in all. Scoring and calibration never saw which rows have defects.")
    return 0


def _best_delta(run: "Run") -> Candidate:
    """The best Δ by itself, as calibration finds it; a preset where nothing was calibrated."""
    found = [] if run.calibration is None else run.calibration.report["candidates"]
    deltas = [one for one in found if one["settings"] and not one["is_control"] and one["copies_kept"] is not None]
    if not deltas:
        return Candidate(PRESETS["relative"].form, PRESETS["relative"].mask)
    best = min(deltas, key=lambda one: one["copies_kept"])
    return Candidate(best["form"], MaskSettings.from_dict(best["settings"]))


def _score(run: "Run", scorer: "DeltaAttnMask", best: Candidate) -> None:
    """The run's stage, with two Δ beside what was chosen, for the comparison."""
    from delta_attnmask.scorer import make_plan
    from delta_attnmask.scoring.jobs import score_dataset

    settings = "relative" if run.calibration is None else run.calibration
    plan, _ = make_plan(scorer.loaded, run.pool, run.out / "run", settings=settings, also=_ALSO)
    masks = [one.settings for one in (best, _PAPER) if one.settings]
    plan = replace(plan, sweep=tuple(dict.fromkeys(masks)))
    with show_progress("scoring", run.pool.n_rows) as advance:
        score_dataset(scorer.loaded, run.pool, run.out / "run", plan, on_progress=advance, on_check=print_check)


def _print_ways(run: "Run", best: Candidate, defects: list[int]) -> None:
    """Compare ways to select by the defects that they keep, without quotas and under those of the selection."""
    folder = RunFolder.open(run.out / "run")
    kept, drawn = (read_note(run.path_of(name), folder) for name in ("kept", "random"))
    scores, sweep = folder.read_scores(), folder.read_side("sweep")
    scores = scores.filter(pc.equal(scores["status"], "ok"))
    assert sweep is not None
    rows, mix = scores["row"].to_numpy(), strata_of(scores, MIX_COLUMNS)
    is_planted = np.isin(rows, defects)
    truth = scores.append_column("truth", pa.array(-is_planted.astype(np.float64)))

    def compare(name: str, table: pa.Table, column: str) -> tuple[object, ...]:
        values, under = ranking_values(table, column), select_rows(table, len(kept), by=column, rule="top").indices
        top = under
        if kept.quota_by:
            under = select_rows(table, len(kept), by=column, rule="quota", quota_by=kept.quota_by).indices
        return (name, share(top), share(under), changed(under), f"{auroc(values[~is_planted], values[is_planted]):.3f}")

    def share(indices: Indices) -> str:
        return f"{is_planted[np.isin(rows, indices)].mean():.1%}"

    def changed(indices: Indices) -> str:
        return f"{distortion(mix, np.flatnonzero(np.isin(rows, indices))):.2f}"

    lines = [
        compare(f"selected: {kept.column}", scores, kept.column),
        compare("low loss", scores, "low_loss"),
        compare(f"best Δ alone: {best.form}", _masked_by(best, scores, sweep), best.form),
        compare("the paper's plain Δ", _masked_by(_PAPER, scores, sweep), _PAPER.form),
        ("random", None, share(drawn.indices), changed(drawn.indices), None),
        compare("oracle, which knows the defects", truth, "truth"),
    ]
    print_table(
        f"Of {len(scores):,} rows {is_planted.mean():.1%} have a planted defect; of the {len(kept):,} that are kept",
        ["way", "have one", "with quotas", "mix distortion", "AUROC"],
        lines,
    )


def _masked_by(candidate: Candidate, scores: pa.Table, sweep: pa.Table) -> pa.Table:
    """The scores as they would be under another mask setting, which the sweep has."""
    assert candidate.settings is not None
    for name, value in candidate.settings.to_dict().items():
        sweep = sweep.filter(pc.equal(sweep[name], value))
    found = sweep.take(pc.index_in(scores["row"], sweep["row"].combine_chunks()))
    for name in ("masked_loss", "delta"):
        scores = scores.set_column(scores.column_names.index(name), name, found[name])
    return scores
