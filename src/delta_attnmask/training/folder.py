"""The folder of one training. No torch here.

OUT/train.json       what is trained on what; when it is over also seconds and steps: a second start must agree with it
OUT/rows.parquet     every input row, and whether it is trained on; OUT/skipped.jsonl: those that aren't, with reasons
OUT/metrics.jsonl    loss, learning rate and the like, one JSON object a line
OUT/checkpoints/     the last two
OUT/lock             held by the process that trains
OUT/…                in the end the model and its processor, or the adapter
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from delta_attnmask.folders import Folder
from delta_attnmask.manifest import name_differences
from delta_attnmask.storage import write_text_atomically

_MARKER = "trainer_state.json"  # what the Trainer writes into a checkpoint last


@dataclass(frozen=True)
class TrainingNote:
    """The content of `train.json`; what it has under `identity` must not change between starts."""

    content: Mapping[str, Any]

    def to_json(self) -> str:
        return json.dumps(self.content, indent=2, ensure_ascii=False) + "\n"

    def differences(self, other: Self) -> list[str]:
        """What keeps `other` from resuming this training, name by name."""
        return name_differences(self.content.get("identity", {}), json.loads(other.to_json())["identity"])


class TrainingFolder(Folder[TrainingNote]):
    """The folder of one training, on this machine: checkpoints are written in place."""

    kind = "training"
    command = "train"
    identity_file = "train.json"
    takes_urls = False

    @classmethod
    def parse(cls, text: str) -> TrainingNote:
        found = json.loads(text)
        if not isinstance(found, dict):
            raise ValueError(f"expected an object, got {type(found).__name__}")
        return TrainingNote(found)

    @property
    def about(self) -> dict[str, Any]:
        """The content of `train.json`."""
        return dict(self.manifest.content)

    @property
    def is_complete(self) -> bool:
        return "seconds" in self.manifest.content

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def last_checkpoint(self) -> Path | None:
        """The newest whole checkpoint; what a killed process left half-written is removed."""
        found = {int(folder.name.rpartition("-")[2]): folder for folder in self.checkpoints.glob("checkpoint-*")}
        for step in sorted(found, reverse=True):
            if (found[step] / _MARKER).exists():
                return found[step]
            shutil.rmtree(found[step])
        return None

    def complete(self, **results: Any) -> None:
        """Record that the training is over and what came of it; the checkpoints are needed no more."""
        self.manifest = TrainingNote({**self.manifest.content, **results})
        self.write_json(self.identity_file, self.manifest.content, indent=2)
        shutil.rmtree(self.checkpoints, ignore_errors=True)


class MetricsFile:
    """OUT/metrics.jsonl: one JSON object a line, each step at most once, also after an interruption.

    seconds: of training up to the last line, over all starts that led there.
    """

    def __init__(self, path: Path, step: int) -> None:
        """Resume at `step`; lines of later steps, which are trained anew, are dropped."""
        self._path = path
        kept = [line for line in _read_lines(path) if line["step"] <= step]
        self.seconds = float(kept[-1]["seconds"]) if kept else 0.0
        write_text_atomically(path, "".join(json.dumps(line) + "\n" for line in kept))

    def add(self, line: Mapping[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines; a process that was killed may have left a part of one."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines
