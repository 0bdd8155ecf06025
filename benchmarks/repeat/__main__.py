"""Calibrate on disjoint halves of the embedded pool: do they pick the same rows, and how many known defects?

    delta-attnmask demo --out demo-run
    python -m benchmarks.repeat --demo demo-run --pairs 2

Each pair splits the pool in two at random, calibrates on each half, and ranks the whole pool, as scored by the demo, by
what each calibration chose. Known defects are read here alone.
"""

import argparse
import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from delta_attnmask import Calibration, DeltaAttnMask
from delta_attnmask.derived import derive, derived_names
from delta_attnmask.runs import RunFolder
from delta_attnmask.selecting.candidates import to_values
from delta_attnmask.statistics import auroc


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=Path("demo-run"), help="folder of `delta-attnmask demo`")
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--rows", type=int, default=240, help="originals of each calibration")
    given = parser.parse_args()
    home = given.demo / "data"
    rows = json.loads((home / "pool.json").read_text())
    scorer = DeltaAttnMask.from_pretrained(str(home / "model"))
    scores = RunFolder.open(given.demo / "run").read_scores()
    scores = scores.filter(pc.equal(scores["status"], "ok"))
    defects = [int(row) for row in json.loads((home / "defects.json").read_text())]
    is_bad = np.isin(scores["row"].to_numpy(), defects)

    def column(name: str) -> np.ndarray:
        return derive(name, column) if name in derived_names() else to_values(scores, name)

    def picks(values: np.ndarray) -> set[int]:
        kept = np.argsort(-values, kind="stable")[: round(0.2 * len(values))]
        print(f"  AUROC {auroc(values[~is_bad], values[is_bad]):.3f}, defects in the fifth {is_bad[kept].mean():.2%}")
        return set(kept.tolist())

    def ranked_by(found: Calibration) -> np.ndarray:
        if found.settings.fraction:
            raise SystemExit(f"{found.candidate} needs another run of the pool; the demo holds no such column")
        return column(found.form) if found.judge is None else found.judge.p_good(column)

    print("low loss")
    picks(column("low_loss"))
    shared = []
    for pair in range(given.pairs):
        is_first = np.random.default_rng(pair).random(len(rows)) < 0.5
        chosen = []
        for half in (is_first, ~is_first):
            own = [row for row, is_in in zip(rows, half, strict=True) if is_in]
            found = scorer.calibrate(own, images=home / "images", n_rows=given.rows, progress=False)
            print(f"pair {pair}: {found.candidate}", {w["name"]: w["copies_kept"] for w in found.report["ways"]})
            chosen.append(picks(ranked_by(found)))
        shared += [len(one & other) / len(one | other) for one, other in combinations(chosen, 2)]
        print(f"  Jaccard {shared[-1]:.3f}", flush=True)
    print(f"mean Jaccard of {given.pairs} pairs: {np.mean(shared):.3f}")


if __name__ == "__main__":
    main()
