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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from delta_attnmask.errors import ArtifactError
from delta_attnmask.manifest import tell_differences
from delta_attnmask.storage import hold_folder, refuse_other_files, remove_stale, write_text_atomically

_FILE = "train.json"
_MARKER = "trainer_state.json"  # what the Trainer writes into a checkpoint last


class TrainingFolder:
    """The folder of one training, held by this process.

    about: the content of train.json.
    """

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        self.path, self.about = path, about

    @classmethod
    @contextmanager
    def start(cls, path: str | Path, identity: Mapping[str, Any], about: Mapping[str, Any]) -> Iterator[Self]:
        """Begin in a new or empty folder, or go on with the same training; the folder is locked meanwhile.

        identity: what must not change between starts. about: what else train.json shall say of the first start.
        Raises ArtifactError, naming every difference, where the folder belongs to another training or is in use.
        """
        path = Path(path)
        with hold_folder(path):
            found = _read(path)
            if found is None:
                refuse_other_files(path, "training")
                found = {**about, "identity": json.loads(json.dumps(identity))}
                write_text_atomically(path / _FILE, _to_json(found))
            elif differences := tell_differences(found.get("identity", {}), json.loads(json.dumps(identity))):
                raise ArtifactError(
                    f"{path} holds another training; choose another folder, or repeat that one's choices. "
                    f"What differs: {'; '.join(differences)}"
                )
            remove_stale(path)
            yield cls(path, found)

    @property
    def is_complete(self) -> bool:
        return "seconds" in self.about

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
        """Say that the training is over and what came of it; the checkpoints are needed no more."""
        self.about |= results
        write_text_atomically(self.path / _FILE, _to_json(self.about))
        shutil.rmtree(self.checkpoints, ignore_errors=True)


class MetricsFile:
    """OUT/metrics.jsonl: one JSON object a line, each step at most once, also after an interruption.

    seconds: of training up to the last line, over all starts that led there.
    """

    def __init__(self, path: Path, step: int) -> None:
        """Go on at `step`; lines of later steps, which are trained anew, are dropped."""
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


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((path / _FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path / _FILE} can't be read: {error}") from error
    if not isinstance(found, dict):
        raise ArtifactError(f"{path / _FILE} can't be read: expected an object, got {type(found).__name__}")
    return found


def _to_json(about: Mapping[str, Any]) -> str:
    return json.dumps(about, indent=2, ensure_ascii=False) + "\n"
