"""Evaluations written by hand, to compare: no model has answered."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from delta_attnmask.evaluating.predictions import EvaluationFolder, Line
from delta_attnmask.manifest import Manifest
from delta_attnmask.records import Fingerprint

SETTINGS = {"image_swap": False, "max_new_tokens": 9, "seed": 0, "dtype": "float32"}


def write_evaluation(
    path: Path,
    right: Sequence[Sequence[bool] | None],
    sources: str,
    *,
    sha256: str = "a" * 64,
    note: dict[str, Any] | None = None,
    losses: Sequence[float] = (),
    images: str = "",
    **settings: Any,
) -> Path:
    """right: of each row, whether each of its answers is right; None for a failed row. sources: a letter for each row.

    note: what `train.json` says beside the model; without it there is none. losses: of each row's answers, 0.5 if not
    given. images: a letter for each row; rows of one letter show the same image.
    """
    model = path.with_name(f"{path.name}-model")
    model.mkdir(parents=True)
    if note is not None:
        (model / "train.json").write_text(json.dumps(note))
    manifest = Manifest(
        model=str(model),
        model_fingerprint=path.name,
        settings=SETTINGS | settings,
        data="test.json",
        images="",
        input=Fingerprint(sha256, 1),
        format="llava",
        n_rows=len(right),
        unit_rows=100,
        versions={},
    )
    lines = [
        line | ({"loss": losses[row]} if losses else {}) | ({"image": images[row]} if images else {})
        for row, turns in enumerate(right)
        for line in _lines(row, turns, sources[row])
    ]
    with EvaluationFolder.start(path, manifest) as folder:
        folder.write_unit(0, lines)
    return path


def _lines(row: int, turns: Sequence[bool] | None, source: str) -> list[Line]:
    about = {"row": row, "id": "", "key": "", "source": source}
    if turns is None:
        return [about | {"status": "failed", "reason": "bad"}]
    given = {"question": "?", "reference": "yes", "normalised": True, "same_form": True, "loss": 0.5, "ended": True}
    given |= {"n_reference_tokens": 2, "n_new_tokens": 2}
    return [
        about | given | {"turn": turn, "prediction": "yes" if is_right else "no", "exact": is_right}
        for turn, is_right in enumerate(turns)
    ]
