"""Scores the suite's pool with the product's own commands, and times them."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from delta_attnmask.calibrating.judging import DELTA, FEATURES
from delta_attnmask.calibration import Calibration
from delta_attnmask.cli import app

from .workplace import Workplace, write_json

RIVALS = ("el2n", "ifd", "irs", "image_gain")
ROUNDS = {"rounds": 1, "rounds2": 2}  # group -> cross-fitted rounds

Step = Callable[[], list[str]]


def score_pool(place: Workplace, groups: Collection[str], device: str = "auto") -> dict[str, float]:
    """Calibrate and score what the groups need; returns seconds by step, CPU seconds unless on a GPU.

    What is there already is kept; a step that was cut off begins anew, so that its seconds are those of all of it.
    """
    file = place.home / "scores" / "seconds.json"
    seconds: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}
    clock = time.perf_counter if device.startswith("cuda") else time.process_time  # a busy machine changes it little
    if device == "cpu":
        torch.set_num_threads(1)
    for name, command in steps(place, groups, device).items():
        if name not in seconds:
            arguments = command()
            shutil.rmtree(arguments[arguments.index("--out") + 1], ignore_errors=True)
            started = clock()
            app(arguments)
            seconds[name] = round(clock() - started, 1)
            write_json(file, seconds)
    return seconds


def steps(place: Workplace, groups: Collection[str], device: str) -> dict[str, Step]:
    """The commands by name, in an order in which each finds what it needs; made when their turn comes."""
    on_pool = ["--model", str(place.base), "--data", str(place.suite / "pool.json")]
    on_pool += ["--images", str(place.suite / "images"), "--device", device]

    def calibrate(rounds: int) -> list[str]:
        more = ["--rounds", str(rounds)] if rounds else []
        return ["calibrate", *on_pool, "--out", str(place.calibration(rounds)), *more]

    def score(rounds: int) -> list[str]:
        """What the calibration chose, with Δ and the judge's features even where it reads none."""
        calibrated = ["--settings", str(place.calibration(rounds))]
        mask = options_of(best_mask(Calibration.load(place.calibration(rounds)).report))
        also = ["--also", ",".join(FEATURES[1:])]
        return ["score", *on_pool, *calibrated, *mask, *also, "--out", str(place.scored(rounds))]

    def old() -> list[str]:
        _, mask = old_choice(Calibration.load(place.calibration()).report)
        return ["score", *on_pool, "--settings", "relative", *options_of(mask), "--out", str(place.old)]

    def paper() -> list[str]:
        return ["score", *on_pool, "--settings", "paper", "--also", ",".join(RIVALS), "--out", str(place.paper)]

    found: dict[str, Step] = {}
    for n in (0, *(n for group, n in ROUNDS.items() if group in groups)):
        found[f"calibrate_{n}"] = lambda n=n: calibrate(n)
        found[f"score_{n}"] = lambda n=n: score(n)
    return found | ({"old": old, "paper": paper} if "methods" in groups else {})


def best_mask(report: Mapping[str, Any]) -> dict[str, Any]:
    """The mask setting that calibration takes, or would have taken, for Δ."""
    return next(dict(way["settings"]) for way in report["ways"] if way["name"] == DELTA)


def old_choice(report: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Form and mask by the rule before the judge: the highest 2 x worst + mean AUROC over the kinds of defects."""
    candidates = [one for one in report["candidates"] if one["settings"] and not one["is_control"]]
    best = max(candidates, key=lambda one: 2 * one["worst"] + one["mean"])
    return str(best["form"]), dict(best["settings"])


def options_of(mask: Mapping[str, Any]) -> list[str]:
    """Mask settings as options of `score`."""
    return [f"--{name}={value}" for name, value in mask.items()]


def calibrated(path: Path) -> dict[str, object]:
    """What a calibration chose, for the record."""
    found = Calibration.load(path)
    return {
        "form": found.form,
        "masks": bool(found.settings.fraction),
        "copies_kept": {way["name"]: way["copies_kept"] for way in found.report["ways"]},
        "best_mask": best_mask(found.report),
        "verdict": found.verdict_sentence,
        "rounds": found.report.get("rounds", {}).get("tried", [])[1:],
    }
