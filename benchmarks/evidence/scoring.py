"""Scores the suite's pool with the product's own commands, and times them."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

from .workplace import Workplace, write_json

ALSO = "el2n,loss_without_image,loss_alone,loss_without_question"
SEEDS = (1, 2)  # of further calibrations, to see how much of the picks depends on the sample
N_START = 8  # rows of a run that costs little but the start


def score_pool(place: Workplace, device: str = "auto") -> dict[str, float]:
    """Calibrate and score into the workplace; returns seconds by step, CPU seconds unless on a GPU.

    "start" is a run of a few rows, "score" the calibrated setting alone. What is there already is kept; a step that was
    cut off begins anew, so that its seconds are those of all of it.
    """
    file = place.home / "scores" / "seconds.json"
    seconds: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}
    for name, arguments in steps(place, device).items():
        if name not in seconds:
            shutil.rmtree(arguments[arguments.index("--out") + 1], ignore_errors=True)
            started, busy = time.perf_counter(), children_s()
            subprocess.run([sys.executable, "-m", "delta_attnmask", *arguments], check=True)
            took = time.perf_counter() - started if device.startswith("cuda") else children_s() - busy
            seconds[name] = round(took, 1)
            write_json(file, seconds)
    return seconds


def steps(place: Workplace, device: str) -> dict[str, list[str]]:
    """The commands by name, in an order in which each finds what it needs."""

    def on_pool(model: Path) -> list[str]:
        pool = ["--data", str(place.suite / "pool.json"), "--images", str(place.suite / "images")]
        return ["--model", str(model), *pool, "--device", device]

    base, calibrated = on_pool(place.base), ["--settings", str(place.calibration)]
    found = {
        "calibrate": ["calibrate", *base, "--out", str(place.calibration)],
        "score_all": ["score", *base, *calibrated, "--out", str(place.scored), "--also", ALSO, "--embeddings"],
        "start": ["score", *base, *calibrated, "--out", str(place.home / "scores" / "start"), "--limit", str(N_START)],
        "score": ["score", *base, *calibrated, "--out", str(place.chosen)],
        "paper": ["score", *base, "--settings", "paper", "--out", str(place.paper)],
        "relative": ["score", *base, "--settings", "relative", "--out", str(place.relative)],
        "random": ["score", *base, *calibrated, "--order", "random", "--out", str(place.random_tokens)],
    }
    for seed in SEEDS:
        again = place.home / "scores" / f"calibration-{seed}"
        found[f"calibrate_{seed}"] = ["calibrate", *base, "--out", str(again), "--seed", str(seed)]
        found[f"score_{seed}"] = ["score", *base, "--settings", str(again), "--out", str(place.of_seed(seed))]
    if place.other:
        found["other"] = ["score", *on_pool(place.other), "--settings", "auto", "--out", str(place.of_other)]
    return found


def children_s() -> float:
    """CPU seconds of the finished child processes: what a busy machine doesn't change much."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
