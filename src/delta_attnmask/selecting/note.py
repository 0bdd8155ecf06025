"""The note beside a selection, FILE.selection.json: what was kept, by which rule, and why."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from delta_attnmask.artifacts import RunFolder
from delta_attnmask.errors import ArtifactError
from delta_attnmask.selecting.strata import encode
from delta_attnmask.selection import Budget, Selection

Order = Literal["input", "score"]

_SCHEMA = 1
_SUFFIX = ".selection.json"


def note_path(out: Path) -> Path:
    """Where the note of a selection lies that was written to `out`."""
    return out.with_name(f"{out.name}{_SUFFIX}")


def write_note(selection: Selection, run: RunFolder, scores: pa.Table, order: Order) -> str:
    """The note as JSON; the rows stand last, on one line."""
    head = json.dumps(_describe(selection, run, scores, order), ensure_ascii=False, indent=2)
    return f'{head[:-2]},\n  "rows": {json.dumps(selection.rows.tolist())}\n}}\n'


def read_note(path: Path, run: RunFolder) -> Selection:
    """The selection of a note, or of the file beside which a note lies; its details are the whole note but the rows.

    Raises ArtifactError if there is none, or if it was made of another run.
    """
    path = path if path.name.endswith(_SUFFIX) else note_path(path)
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        rows = np.array(note["rows"], dtype=np.int64)
        selection = Selection(
            rows=rows,
            reasons=(),
            reason_idx=np.zeros(len(rows), dtype=np.int32),
            rule=note["rule"],
            column=note["column"],
            budget=Budget.parse(note["budget"]),
            n_candidates=note["n_candidates"],
            options=note["options"],
            details={name: value for name, value in note.items() if name != "rows"},
        )
        made_of = note["run"]["manifest_sha256"]
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing; `delta-attnmask select --out` writes it") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is no note of a selection: {error!r}") from error
    if made_of != run.manifest_sha256:
        raise ArtifactError(f"{path} was made of another run than {run.path}; name that run, or select again")
    return selection


def _describe(selection: Selection, run: RunFolder, scores: pa.Table, order: Order) -> dict[str, Any]:
    """What was kept and why, but for the rows themselves, as plain JSON values."""
    return {
        "schema": _SCHEMA,
        "rule": selection.rule,
        "options": selection.options,
        "column": selection.column,
        "budget": str(selection.budget),
        "n_kept": len(selection),
        "n_candidates": selection.n_candidates,
        "n_rows": run.manifest.n_rows,
        **selection.details,
        "reasons": {
            reason: int(np.count_nonzero(selection.reason_idx == idx)) for idx, reason in enumerate(selection.reasons)
        },
        "order": order,
        "sources": count_sources(selection, scores),
        "format": run.manifest.format,
        "input": asdict(run.manifest.input) | {"path": run.manifest.data},
        "run": {
            "manifest_sha256": run.manifest_sha256,
            "model": run.manifest.model,
            "settings": dict(run.manifest.settings),
        },
    }


def count_sources(selection: Selection, scores: pa.Table) -> dict[str, dict[str, int]]:
    """Kept, left and failed rows of each source, in alphabetical order."""
    codes, names = encode(scores, "source")
    fate = np.where(pc.equal(scores["status"], "ok").to_numpy(), 1, 2)
    fate[np.searchsorted(scores["row"].to_numpy(), selection.rows)] = 0
    counts = np.bincount(codes * 3 + fate, minlength=3 * len(names)).reshape(-1, 3).tolist()
    fates = ("kept", "left", "failed")
    return {name: dict(zip(fates, counts[idx], strict=True)) for idx, name in sorted(enumerate(names), key=_by_name)}


def _by_name(numbered: tuple[int, str]) -> str:
    return numbered[1]
