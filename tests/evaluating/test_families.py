"""Models of other families with their real processors: padding on the left and batches change no answer."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from delta_attnmask.evaluating.evaluation import EvaluationPlan, evaluate_dataset
from delta_attnmask.reading.rows import FileRows
from tests.inspecting.models import MODELS

SIZES = ((64, 64), (96, 64))


@pytest.fixture
def dataset(tmp_path: Path) -> FileRows:
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for place, (width, height) in enumerate(SIZES):
        pixels = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{place}.png")
    rows = [
        row(["0.png"], "<image>\nWhat is it?", "A cat", "And?", "no"),
        row(["1.png"], "<image>\nWhat is this, and of which colour is it?", "A red one"),
        row([], "1 + 1?", "2"),
        row(["0.png", "1.png"], "<image>\nWhat?", "x", "And <image>?", "yes"),
    ]
    (tmp_path / "test.json").write_text(json.dumps(rows))
    return FileRows(tmp_path / "test.json", tmp_path / "images")


def row(images: list[str], *texts: str) -> dict[str, Any]:
    turns = [{"from": ("human", "gpt")[place % 2], "value": text} for place, text in enumerate(texts)]
    return {"conversations": turns} | ({"image": images} if images else {})


@pytest.mark.parametrize("family", ["Qwen2-VL", "LLaVA-NeXT", "Gemma 3"])
def test_answers_alone_and_together_are_the_same(family: str, dataset: FileRows, tmp_path: Path) -> None:
    loaded = MODELS[family]()
    together = EvaluationPlan(max_new_tokens=6, image_swap=False)
    alone = EvaluationPlan(max_new_tokens=6, image_swap=False, batch_tokens=1)
    expected, found = (
        evaluate_dataset(loaded, dataset, tmp_path / name, plan).read().to_pylist()
        for name, plan in (("alone", alone), ("together", together))
    )
    assert [line["status"] for line in found] == ["ok"] * 6
    assert [line["prediction"] for line in found] == [line["prediction"] for line in expected]
    assert [line["loss"] for line in found] == pytest.approx([line["loss"] for line in expected], abs=1e-5)
    assert len({line["prediction"] for line in found}) > 1  # a model that says one thing would prove little
