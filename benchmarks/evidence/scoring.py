"""Scores the suite's pool with the product's own commands, and times them."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time

from .workplace import Workplace, write_json

ALSO = "el2n,loss_without_image,loss_alone,loss_without_question"


def score_pool(place: Workplace, device: str = "auto") -> dict[str, float]:
    """Calibrate and score into the workplace; returns seconds by step, CPU seconds unless on a GPU.

    "score" is what one score costs: the paper's; the calibrated one costs the same. What is
    there already is kept.
    """
    on_pool = [
        "--model", str(place.base), "--data", str(place.suite / "pool.json"), "--images", str(place.suite / "images"),
        "--device", device,
    ]  # fmt: skip
    calibrated = ["--settings", str(place.calibration)]
    steps = {
        "calibrate": ["calibrate", *on_pool, "--out", str(place.calibration)],
        "score_all": ["score", *on_pool, *calibrated, "--out", str(place.scored), "--also", ALSO, "--embeddings"],
        "score": ["score", *on_pool, "--settings", "paper", "--out", str(place.paper)],
        "score_random": ["score", *on_pool, *calibrated, "--order", "random", "--out", str(place.random_tokens)],
    }  # fmt: skip
    file = place.home / "scores" / "seconds.json"
    seconds: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}
    for name, arguments in steps.items():
        if name not in seconds:
            started, busy = time.perf_counter(), children_s()
            subprocess.run([sys.executable, "-m", "delta_attnmask", *arguments], check=True)
            took = time.perf_counter() - started if device.startswith("cuda") else children_s() - busy
            seconds[name] = round(took, 1)
            write_json(file, seconds)
    return seconds


def children_s() -> float:
    """CPU seconds of the finished child processes: what a busy machine doesn't change much."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
