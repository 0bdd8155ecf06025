"""Whether calibration orders mask settings as known defects do, with the attention of all queries or the answer's.

    delta-attnmask calibrate --model MODEL --data POOL --images IMAGES --out CAL
    python -m benchmarks.labels.grid --model MODEL --data POOL --images IMAGES --calibration CAL --defects defects.json

Scores evenly spaced rows of the pool under each setting, with the calibration's adapters if it has any, and compares
each Δ with the pool's defects; calibration itself sees planted copies alone.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from delta_attnmask.calibrating.calibrator import calibrate_rows
from delta_attnmask.calibrating.judging import UNMASKED
from delta_attnmask.calibrating.scored import Outcome, Scored, collect, make_candidates
from delta_attnmask.calibration import Calibration, Candidate
from delta_attnmask.modeling.anatomy import examine
from delta_attnmask.modeling.load import LoadedModel, load_model
from delta_attnmask.reading.rows import Rows, load_rows
from delta_attnmask.scoring.pipeline import Unit
from delta_attnmask.scoring.units import ScoringPlan, UnitScorer
from delta_attnmask.settings import MaskSettings, calibration_grid
from delta_attnmask.statistics import auroc, spearman

UNIT = 256


def main() -> None:
    options = read_options()
    loaded = load_model(options.model, device=options.device)
    rows = load_rows(options.data, options.images)
    grid = both_queries(calibration_grid(examine(loaded.model).n_blocks))
    found = Calibration.load(options.calibration)
    by_copies = calibrate_rows(loaded, rows, grid=grid, adapters=found.adapters, seed=int(found.report["seed"]))
    known = {str(Candidate(one["form"], MaskSettings.from_dict(one["settings"]))): one
             for one in by_copies.report["candidates"] if one["settings"] and not one["is_control"]}  # fmt: skip
    which = np.unique(np.linspace(0, rows.n_rows - 1, min(options.rows, rows.n_rows)).round().astype(int)).tolist()
    scored = score(loaded, rows.subset(which), grid, found.adapters)
    defects = json.loads(options.defects.read_text())
    is_bad = np.isin(which, [int(row) for row in defects])
    print(f"{len(which)} rows, {is_bad.mean():.1%} with a defect")
    print_line("low loss", -scored.loss, is_bad)
    for queries in ("all", "answer"):
        lines = []
        for candidate, values in zip(scored.candidates, scored.values, strict=True):
            if candidate.settings and candidate.settings.queries == queries and str(candidate) in known:
                lines.append((known[str(candidate)]["mean"], auroc(values[~is_bad], values[is_bad]), candidate, values))
        copies, truth = (np.array([line[index] for line in lines]) for index in (0, 1))
        print(f"queries {queries}: Spearman of {len(lines)} candidates {spearman(copies, truth):.3f}")
        for name, index in (("  chosen by copies", copies.argmax()), ("  best by defects", truth.argmax())):
            print_line(f"{name} ({copies[index]:.3f}) {lines[index][2]}", lines[index][3], is_bad)


def both_queries(grid: tuple[MaskSettings, ...]) -> tuple[MaskSettings, ...]:
    """The settings, and each with the attention of the answer's queries alone."""
    own = [setting for setting in grid if setting.order == "most"]
    return (*own, *(replace(setting, queries="answer") for setting in own))


def score(loaded: LoadedModel, rows: Rows, grid: tuple[MaskSettings, ...], adapters: tuple[str, ...]) -> Scored:
    """Every candidate of Δ for every row."""
    scorer = UnitScorer(loaded, rows.load_image, ScoringPlan(UNMASKED, grid, adapters=adapters))

    def outcomes() -> Iterator[Outcome]:
        sizes = [min(UNIT, rows.n_rows - start) for start in range(0, rows.n_rows, UNIT)]
        units = [Unit(i, n, rows.records(i * UNIT, i * UNIT + n)) for i, n in enumerate(sizes)]
        for unit in scorer.score(units):
            yield unit.scores, unit.sweep

    try:
        return make_candidates(collect(outcomes(), len(grid), rows.n_rows), grid)
    finally:
        scorer.close()


def print_line(name: str, values: NDArray[np.float64], is_bad: NDArray[np.bool_]) -> None:
    """AUROC of good rows above defective ones, and the share of defects in the highest fifth."""
    ranked = np.where(np.isfinite(values), values, -np.inf)
    top = np.argsort(-ranked, kind="stable")[: round(0.2 * len(values))]
    print(f"{name}: AUROC {auroc(values[~is_bad], values[is_bad]):.3f}, {is_bad[top].mean():.1%} in the highest fifth")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--defects", type=Path, required=True, help="JSON whose keys are the rows with a defect")
    parser.add_argument("--rows", type=int, default=1800)
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


if __name__ == "__main__":
    main()
