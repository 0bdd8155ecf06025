"""Where an evidence run keeps its things, and what it is made with."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers

CODE = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Workplace:
    """The folders of one run; `base` is the model that scores and is trained, `other` one that only is trained."""

    home: Path
    base: Path
    other: Path | None = None

    @property
    def suite(self) -> Path:
        return self.home / "suite"

    @property
    def calibration(self) -> Path:
        return self.home / "scores" / "calibration"

    @property
    def scored(self) -> Path:
        """The calibrated run, with every rival and the embeddings."""
        return self.home / "scores" / "all"

    @property
    def chosen(self) -> Path:
        """The calibrated setting alone: what it costs."""
        return self.home / "scores" / "chosen"

    @property
    def relative(self) -> Path:
        """The preset that `score` takes where the data are too few to calibrate."""
        return self.home / "scores" / "relative"

    @property
    def of_other(self) -> Path:
        """The same pool, calibrated and scored with the other model."""
        return self.home / "scores" / "other"

    def of_seed(self, seed: int) -> Path:
        """Calibrated on another sample of the pool, and scored."""
        return self.home / "scores" / f"seed-{seed}"

    @property
    def random_tokens(self) -> Path:
        """The calibrated setting with random tokens in place of the most attended ones."""
        return self.home / "scores" / "random-tokens"

    @property
    def paper(self) -> Path:
        """The plainest reading of the paper."""
        return self.home / "scores" / "paper"

    @property
    def results(self) -> Path:
        return self.home / "results.csv"


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
        "command": " ".join(["python -m benchmarks.evidence", *sys.argv[1:]]),
    }


def processor_name() -> str:
    """The processor's own name where Linux tells it."""
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


def check_identity(place: Workplace, recipe: dict[str, object]) -> None:
    """Refuse to go on with trainings of another suite, base or recipe; what they were made with lies beside them."""
    suite = json.loads((place.suite / "suite.json").read_text())
    models = {"base": place.base, "other": place.other}
    found = {
        "suite": suite["fingerprint"],
        **{name: weights_digest(folder) for name, folder in models.items() if folder},
        "recipe": recipe,
    }
    path = place.home / "identity.json"
    known = json.loads(path.read_text()) if path.exists() else found
    other = [name for name in known.keys() & found.keys() if known[name] != found[name]]
    if other:
        raise SystemExit(f"{place.home} was made with another {', '.join(sorted(other))}; give another --out")
    write_json(path, known | found)


def weights_digest(folder: Path) -> str:
    """Tells two models apart."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:16]


def write_json(path: Path, content: object) -> None:
    """Write readable JSON, making the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
