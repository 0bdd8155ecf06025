"""The goals, what was found, and the file that both are kept in."""

import gc
import json
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch


class Goal(NamedTuple):
    """What a finding is held against: at most the bound, or at least."""

    bound: float
    is_least: bool = False

    def is_met(self, value: float) -> bool:
        return value >= self.bound if self.is_least else value <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.is_least else '≤'} {self.bound:g}"


GOALS = {
    "largest delta that is compared, nats": Goal(1e-3, is_least=True),  # or else a wrong one wouldn't show
    "loss beside the naive score, nats": Goal(1e-4),
    "delta beside the naive score, nats": Goal(1e-4),
    "attention received beside the naive score, relative": Goal(1e-4),
    "attention received in half precision beside plain torch, relative": Goal(2e-2),
    "patches by a matrix product beside the convolution, relative": Goal(1e-5),
    "waits that deeper models add": Goal(0),
    "ms that a new shape costs once": Goal(5),
    "bytes that memory grows a batch": Goal(0),
    "rows lost where memory runs out": Goal(0),
    "time to a plain forward": Goal(1.10),
    "compiled: time to a plain forward": Goal(0.85),
    "graphs compiled after the warm-up": Goal(0),
    "times as fast as the naive score": Goal(8, is_least=True),
    "of the rate of a matrix product": Goal(0.55, is_least=True),
    "memory to a plain forward": Goal(1.25),
    "24 settings to one": Goal(1.5),
    "idle from file to file": Goal(0.10),
}


@dataclass(frozen=True)
class Place:
    """What a step measures: a subject by its name, on a device. is_tiny: only whether the step itself runs."""

    device: torch.device
    model: str
    is_tiny: bool

    @property
    def dtype(self) -> torch.dtype:
        """What is computed in where speed counts."""
        return torch.bfloat16 if self.device.type == "cuda" else torch.float32


class Findings:
    """Keeps what each step finds, in the file after every one; a step that fails is a finding, and the next one runs.

    part: whose earlier findings in the file are replaced. limit_s: after which no further step begins.
    """

    def __init__(self, path: Path, part: str, limit_s: float) -> None:
        self._path, self._end = path, time.monotonic() + limit_s
        self._all: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self._here: dict[str, Any] = {"checks": [], "notes": {}, "seconds": {}}
        self._all[part] = self._here
        self._step = part

    def run(self, name: str, step: "Step", place: Place) -> None:
        self._step, begun = name, time.monotonic()
        if begun > self._end:
            self._add("not done: no time was left", None, "", None)
            return
        print(f"{name} …", flush=True)
        try:
            step(self, place)
        except Exception as error:  # noqa: BLE001 - whatever a device that nobody has tried raises
            self.note("trace", traceback.format_exc())
            self._add(f"{type(error).__name__}: {str(error).strip()[:160]}", None, "", False)
        self._here["seconds"][name] = round(time.monotonic() - begun, 1)
        self._write()
        gc.collect()
        if place.device.type == "cuda":
            torch.cuda.empty_cache()

    def note(self, name: str, value: Any) -> None:
        """Keep what has no goal."""
        self._here["notes"].setdefault(self._step, {})[name] = value
        self._write()

    def check(self, what: str, value: float) -> None:
        """Hold a value against its goal."""
        self._add(what, value, str(GOALS[what]), GOALS[what].is_met(value))

    @property
    def is_good(self) -> bool:
        """Whether all of this part is done and meets its goals."""
        return all(check["is_met"] for check in self._here["checks"])

    def table(self) -> str:
        """All parts that the file holds, as markdown."""
        lines = ["| part | step | what | found | goal | |", "| --- | --- | --- | ---: | ---: | --- |"]
        verdicts = {True: "pass", False: "**fail**", None: "–"}
        for part, found in sorted(self._all.items()):
            for one in found["checks"]:
                value = "" if one["value"] is None else f"{one['value']:.3g}"
                cells = part, one["step"], one["what"], value, one["goal"], verdicts[one["is_met"]]
                lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
        return "\n".join(lines)

    def _add(self, what: str, value: float | None, goal: str, is_met: bool | None) -> None:
        one = {"step": self._step, "what": " ".join(what.split()), "value": value, "goal": goal, "is_met": is_met}
        self._here["checks"].append(one)
        self._write()

    def _write(self) -> None:
        self._path.write_text(json.dumps(self._all, indent=1, ensure_ascii=False, default=str), encoding="utf-8")


Step = Callable[[Findings, Place], None]


class NamedStep(NamedTuple):
    """is_done_once: with the first model alone."""

    name: str
    function: Step
    is_done_once: bool = False
