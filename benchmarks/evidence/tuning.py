"""Chooses learning rate and epochs on the validation split, for random picks alone: no method is favoured.

The oracle's accuracy on that split is measured too, since a suite whose oracle gains little over random tells nothing.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

from .jobs import Job, make_worker
from .training import Recipe
from .workplace import Workplace, write_json

RATES, EPOCHS, SEEDS = (1e-3, 2e-3), (3, 4), (100, 101)  # seeds that the run itself never uses


def tune(place: Workplace, file: Path, device: str) -> None:
    """Write the recipe with the best mean accuracy of random 20 % on the validation split, and what was tried."""
    worker = make_worker(place, place.base, Recipe(), device, ("pool", "dev"))
    tried = []
    for lr, epochs in product(RATES, EPOCHS):
        recipe = Recipe(lr=lr, epochs=epochs)
        found = {
            method: [_accuracy(replace(worker, recipe=recipe), method, seed) for seed in SEEDS]
            for method in ("random", "oracle")
        }
        tried.append({"recipe": asdict(recipe), **found})
        print(tried[-1], flush=True)
    best = max(tried, key=lambda one: sum(one["random"]))
    write_json(file, {"recipe": best["recipe"], "seeds": SEEDS, "split": "dev", "tried": tried})


def _accuracy(worker: object, method: str, seed: int) -> float:
    return float(worker.run(Job("methods", method, 0.2, seed), "dev")["em_mean"])  # type: ignore[attr-defined]
