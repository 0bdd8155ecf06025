"""The note beside a selection, FILE.selection.json: what was kept, by which rule, and why."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import numpy as np

from delta_attnmask import __version__
from delta_attnmask.errors import ArtifactError, DataError
from delta_attnmask.reading.rows import fingerprint_file
from delta_attnmask.records import Fingerprint
from delta_attnmask.runs import RunFolder
from delta_attnmask.selection import Budget, Selection

Order = Literal["input", "score"]

_SCHEMA = 2
_SUFFIX = ".selection.json"


def note_path(out: Path) -> Path:
    """The path of the note of a selection that was written to `out`."""
    return out.with_name(f"{out.name}{_SUFFIX}")


def is_noted(out: Path) -> bool:
    """Whether `select` wrote a file as it is now: the note beside it has its hash."""
    try:
        found = json.loads(note_path(out).read_text(encoding="utf-8"))
        return bool(found["file"] == asdict(fingerprint_file(out)))
    except (OSError, ValueError, KeyError, TypeError, DataError):
        return False


def write_note(selection: Selection, run: RunFolder, order: Order, file: Fingerprint | None = None) -> str:
    """The note as JSON; lists of rows come last, each on one line. file: what was written, if that is one file."""
    note = {
        "generator": f"delta-attnmask {__version__}",
        "schema": _SCHEMA,
        "file": file and asdict(file),
        **selection.report,
        "order": order,
        "format": run.manifest.format,
        "input": asdict(run.manifest.input) | {"path": run.manifest.data},
        "run": {
            "manifest_sha256": run.manifest_sha256,
            "model": run.manifest.model,
            "settings": dict(run.manifest.settings),
        },
    }
    head = json.dumps(note, ensure_ascii=False, indent=2)
    lists = {"duplicates": selection.duplicates, "rows": selection.indices}
    lines = [f'  "{name}": {json.dumps(rows.tolist())}' for name, rows in lists.items()]
    return ",\n".join([head[:-2], *lines]) + "\n}\n"


def read_note(path: Path, run: RunFolder) -> Selection:
    """The selection of a note, or of the file next to a note; its details are the whole note but the rows.

    Raises ArtifactError if there is none, or if it was made of another run.
    """
    path = path if path.name.endswith(_SUFFIX) else note_path(path)
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        selection = Selection(
            indices=np.array(note.pop("rows"), dtype=np.int64),
            reason=next(iter(note["reasons"])),
            rule=note["rule"],
            column=note["column"],
            budget=Budget.of(note["budget"]),
            n_candidates=note["n_candidates"],
            options=note["options"],
            duplicates=np.array(note.pop("duplicates"), dtype=np.int64),
            details=note,
        )
        made_of = note["run"]["manifest_sha256"]
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing; `delta-attnmask select --out` writes it") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise ArtifactError(f"{path} is no note of a selection: {error!r}") from error
    if made_of != run.manifest_sha256:
        raise ArtifactError(f"{path} was made of another run than {run.path}; name that run, or select again")
    return selection
