"""Runs to report on: small data with pictures, and scores made up for it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from delta_attnmask.calibration import SCHEMA
from delta_attnmask.manifest import Manifest
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.runs import RunFolder
from delta_attnmask.scores import SampleScore

HOSTILE = "<script>document.title = 'taken over'</script><img src=x onerror=alert(1)>"


def write_data(folder: Path, n_rows: int, *, side: int = 24) -> Path:
    """FOLDER/data.json in LLaVA's format and FOLDER/images; row 0 tries to break out of the page."""
    images = folder / "images"
    images.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = []
    for row in range(n_rows):
        pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{row}.png")
        rows.append(
            {
                "id": f"id{row}",
                "source": f"s{row % 3}" if row % 3 else HOSTILE,
                "image": f"{row}.png",
                "conversations": [
                    {"from": "human", "value": f"<image>\n{'What is this?' if row else HOSTILE}"},
                    {"from": "gpt", "value": f"word{row}"},
                ],
            }
        )
    path = folder / "data.json"
    path.write_text(json.dumps(rows))
    return path


def write_run(folder: Path, data: Path, deltas: Sequence[float | None], *, reason: str = "why") -> RunFolder:
    """A complete run over the data with these deltas; a row without one failed."""
    dataset = FileRows(data, data.parent / "images")
    scores = []
    for record, delta in zip(dataset, deltas, strict=True):
        score = SampleScore(row=record.row, id=record.id, key=record.key, source=record.source, status="failed")
        if delta is not None:
            score = replace(
                score, status="ok", answer_type="word", n_turns=1, n_images=1, n_tokens=20, n_image_tokens=9,
                n_answer_tokens=record.row % 5 + 1, loss=1.0 + record.row % 7, masked_loss=1.0 + delta, delta=delta,
            )  # fmt: skip
        scores.append(score if delta is not None else replace(score, reason=reason))
    manifest = Manifest(
        model="tiny/model",
        model_fingerprint="f",
        settings={"queries": "all", "tokens": "all", "fraction": 0.2, "block": -2, "form": "delta"},
        data=str(data),
        images=str(data.parent / "images"),
        input=dataset.fingerprint,
        format="llava",
        n_rows=len(scores),
        unit_rows=64,
    )
    with RunFolder.start(folder, manifest) as run:
        for unit in run.units_to_do():
            rows = run.unit_rows(unit)
            run.write_unit(unit, scores[rows.start : rows.stop])
        run.mark_complete()
    return run


def write_calibration(folder: Path) -> None:
    """RUN/calibration.json as `calibrate` writes it, of the scores of `write_run`: one kind is seen, one by nothing."""
    settings = {"queries": "all", "tokens": "all", "fraction": 0.2, "block": -2}
    chosen = {
        "form": "delta",
        "settings": settings,
        "is_control": False,
        "copies_kept": 0.3,
        "standard_error": 0.05,
        "mean": 0.8,
        "worst": 0.7,
        "auroc": {"answer_swapped": 0.9, "image_swapped": None},
    }
    plain = chosen | {"form": "perplexity", "settings": None, "copies_kept": 1.2, "auroc": {"answer_swapped": 0.1}}
    control = chosen | {"settings": settings | {"order": "random"}, "is_control": True, "copies_kept": None}
    kind = {"is_visible": True, "chosen": {"auroc": 0.9, "low": 0.8, "high": 0.95}}
    report = {
        "schema": SCHEMA,
        "settings": settings,
        "form": "delta",
        "judge": None,
        "rule": "the best",
        "n_originals": 60,
        "n_planted": 120,
        "ways": [{"name": "delta", "is_chosen": True, "copies_kept": 0.3, "standard_error": 0.0, "mean_auroc": 0.8}],
        "visible_kinds": ["answer_swapped"],
        "chosen": chosen,
        "kinds": {"answer_swapped": kind, "image_swapped": {"chosen": {"auroc": None, "low": None, "high": None}}},
        "sources": {
            "s1": {
                "together": {"auroc": 0.8125, "low": 0.7, "high": 0.9, "n_originals": 30, "n_pairs": 30},
                "kinds": {"answer_swapped": {"auroc": 0.8, "low": None, "high": None, "n_originals": 9, "n_pairs": 9}},
            }
        },
        "low_loss": {"spearman": 0.95, "copies_kept": {"chosen": 0.31, "low_loss": 0.3}, "mean_auroc": {}},
        "warnings": ["no score sees these defects: image_swapped"],
        "candidates": [plain, chosen, control],
        "seconds": 3.0,
    }
    (folder / "calibration.json").write_text(json.dumps(report))
