"""Chooses learning rate and epochs on the validation split, for random picks alone: no method is favoured.

The accuracies of the untouched base and of the oracle on that split are told too, since a suite whose oracle gains
little over random tells nothing. Epochs are even, since "twice" sees every row two times in one.
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

RATES, EPOCHS, SEEDS = (2.5e-4, 5e-4, 1e-3), (2, 4), (100, 101)  # seeds that the run itself never uses


def tune(place: Workplace, file: Path, device: str) -> None:
    """Write the recipe with the best mean accuracy of random 20 % on the validation split, and what was tried."""
    worker = make_worker(place, place.base, Recipe(), device, ("pool", "dev"), read_unscored_pool(place))
    tried = []
    for lr, epochs in product(RATES, EPOCHS):
        recipe = Recipe(lr=lr, epochs=epochs)
        found = [_accuracy(replace(worker, recipe=recipe), "random", seed) for seed in SEEDS]
        tried.append({"recipe": asdict(recipe), "random": found})
        print(tried[-1], flush=True)
    best = max(tried, key=lambda one: sum(one["random"]))
    chosen = replace(worker, recipe=Recipe(**best["recipe"]))
    others = {method: [_accuracy(chosen, method, seed) for seed in SEEDS] for method in ("none", "oracle")}
    headroom = np.mean(others["oracle"]) - np.mean(best["random"])
    print(others, f"the oracle's gain over random: {headroom:+.3f}", flush=True)
    write_json(file, {"recipe": best["recipe"], "seeds": SEEDS, "split": "dev", "tried": tried, **others})


def _accuracy(worker: Worker, method: str, seed: int) -> float:
    return float(str(worker.run(Job("methods", method, 0.2, seed), "dev")["em_mean"]))
