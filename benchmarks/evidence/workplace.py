"""Where an evidence run keeps its things, and the record of what each base and pool was measured with."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers

CODE = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Workplace:
    """One base on one pool. csv: the results of all bases and pools; a JSON file beside it says what made them.

    base: the model that scores and is trained. base_name, pool: how the results call them.
    """

    home: Path
    suite: Path
    base: Path
    base_name: str
    pool: str
    csv: Path

    @property
    def name(self) -> str:
        return f"{self.base_name}/{self.pool}"

    @property
    def records(self) -> Path:
        return self.csv.with_suffix(".json")

    def calibration(self, rounds: int = 0) -> Path:
        """What was learned from planted copies, after so many cross-fitted rounds."""
        return self.home / "scores" / f"calibration-{rounds}"

    def scored(self, rounds: int = 0) -> Path:
        """The run of that calibration, with Δ under its best mask setting."""
        return self.home / "scores" / f"rounds-{rounds}"

    @property
    def paper(self) -> Path:
        """The plainest reading of the paper, with the rivals."""
        return self.home / "scores" / "paper"

    @property
    def old(self) -> Path:
        """The setting that calibration chose before it learned a judge."""
        return self.home / "scores" / "old"


def read_records(path: Path) -> dict[str, dict[str, object]]:
    """By base and pool, what the results were made with; {} where there are none."""
    found: dict[str, dict[str, object]] = json.loads(path.read_text()) if path.exists() else {}
    return found


def record(place: Workplace, **facts: object) -> None:
    """Add facts to the record of this base and pool."""
    with taking_turns(place.csv):
        known = read_records(place.records)
        write_json(place.records, known | {place.name: known.get(place.name, {}) | facts})


def check_identity(place: Workplace, recipe: dict[str, object]) -> None:
    """Refuse to add trainings of another suite, base or recipe to those that the record has under the same names."""
    suite = json.loads((place.suite / "suite.json").read_text())
    found = {"suite": suite["fingerprint"], "base": weights_digest(place.base), "recipe": recipe}
    known = read_records(place.records).get(place.name, found)
    if other := [name for name in found if known[name] != found[name]]:
        raise SystemExit(f"{place.csv} has {place.name} with another {', '.join(other)}; give other names or --csv")
    test = Counter(entry["source"] for entry in json.loads((place.suite / "test.json").read_text()))
    record(place, **found, rows=suite["rows"], test=dict(sorted(test.items())))


@contextmanager
def taking_turns(path: Path) -> Iterator[None]:
    """Commands that share a file change it one after another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield


def describe_machine() -> dict[str, object]:
    """Processor, cores, versions and the commit, as this process sees them."""
    return {
        "processor": processor_name(),
        "n_cores": os.cpu_count(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "commit": commit(),
    }


def processor_name() -> str:
    """The processor's own name where Linux gives it."""
    file = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", file.read_text()) if file.exists() else None
    return found.group(1) if found else platform.machine()


def commit() -> str:
    """The commit of this code, or "" where there is no git."""
    try:
        told = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=CODE, capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return told.stdout.strip()


def how_taught(base: Path) -> dict[str, object]:
    """What a base of the suite was taught, as far as its folder says."""
    file = base / "training.json"
    log = json.loads(file.read_text()) if file.exists() else {}
    return {name: log[name] for name in ("curriculum", "minutes", "rows", "held_out_exact_match") if name in log}


def weights_digest(folder: Path) -> str:
    """Distinguishes models."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:16]


def write_json(path: Path, content: object) -> None:
    """Write readable JSON, making the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_file = path.with_suffix(".part")
    partial_file.write_text(json.dumps(content, indent=1) + "\n")
    partial_file.replace(path)
