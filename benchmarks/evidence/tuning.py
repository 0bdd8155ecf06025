"""Chooses the learning rate on the validation split by defect-free picks: the recipe of somebody who trusts the data.

No method under test takes part, so that none is favoured. Where half of the pool is wrong, random picks would choose
the recipe that hardly moves the base, under which no pick differs from another; what they come to under each recipe is
noted beside it, and so is the untouched base. Epochs are even, since "twice" sees every row two times in one.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

import numpy as np

from .jobs import Job, Worker, make_worker
from .methods import read_unscored_pool
from .training import Recipe
from .workplace import Workplace, write_json

RATES, EPOCHS, SEEDS = (2.5e-4, 1e-3), (4,), (100, 101)  # seeds that the run itself never uses


def tune(place: Workplace, file: Path, device: str) -> None:
    """Write the recipe with the best mean accuracy of defect-free picks at 20 %, and what was tried."""
    worker = make_worker(place, Recipe(), device, ("pool", "dev"), read_unscored_pool(place))

    def accuracy(at: Worker, method: str, seed: int) -> float:
        return float(str(at.run(Job(place.base_name, place.pool, method, 0.2, seed), "dev")["em_mean"]))

    tried = []
    for lr, epochs in product(RATES, EPOCHS):
        at = replace(worker, recipe=Recipe(lr=lr, epochs=epochs))
        found = {name: [accuracy(at, name, seed) for seed in SEEDS] for name in ("random", "oracle")}
        tried.append({"recipe": asdict(at.recipe), **found})
        print(tried[-1], flush=True)
    best = max(tried, key=lambda one: sum(one["oracle"]))
    untouched = accuracy(worker, "none", SEEDS[0])
    gain = np.mean(best["oracle"]) - np.mean(best["random"])
    print(f"untouched {untouched:.3f}; the oracle's gain over random: {gain:+.3f}", flush=True)
    write_json(file, {"recipe": best["recipe"], "seeds": SEEDS, "split": "dev", "untouched": untouched, "tried": tried})
