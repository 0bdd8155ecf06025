"""LLaMA-Factory and ms-swift load exported files and see the images, turns and answer tokens that were scored.

Both need an environment of their own. Name its Python, as in

    LLAMA_FACTORY_PYTHON=lf/bin/python MS_SWIFT_PYTHON=swift/bin/python python -m pytest tests/trainers

Without that these tests are skipped.
"""

import json
import os
import re
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from delta_attnmask.batches import IGNORED_LABEL
from delta_attnmask.encoding.encoder import EncodedSample
from delta_attnmask.exporting.run_export import export_rows
from delta_attnmask.reading.formats import TargetName
from delta_attnmask.reading.rows import FileRows
from tests.exporting.runs import score_all
from tests.reading import prompts, samples
from tests.reading.builders import write_list

HERE = Path(__file__).parent
OFFLINE = {"HF_HUB_OFFLINE": "1", "USE_MODELSCOPE_HUB": "0"}

SEVERAL_IMAGES = [
    {"from": "human", "value": "Is <image> like <image>?"},
    {"from": "gpt", "value": "No: «non» 棕.\nNot at all."},
    {"from": "human", "value": "And this one? <image>"},
    {"from": "gpt", "value": "Yes"},
]
SYSTEM = {"from": "system", "value": "Be brief."}
ROWS = [
    {"image": "a/x.png", "conversations": samples.from_value(samples.IMAGE_ROW)},
    {"conversations": samples.from_value(samples.TEXT_ROW)},
    {"image": ["a/x.png", "a/y.png", "b/x.png"], "conversations": SEVERAL_IMAGES},
    {"image": "a/y.png", "conversations": [SYSTEM, *samples.from_value(samples.IMAGE_ROW[:2])]},
]


def find_python(name: str) -> str:
    python = os.environ.get(name)
    if not python:
        pytest.skip(f"{name} names no Python that has it")
    return python


@pytest.fixture(params=["files", "bytes"])
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> FileRows:
    """The same rows with images as files, and with images in the data."""
    for name, colour in (("a/x", "red"), ("a/y", "blue"), ("b/x", "green")):
        path = tmp_path / "images" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (56, 84), colour).save(path)  # LLaMA-Factory enlarges images of less than 1,024 pixels
    dataset = FileRows(write_list(tmp_path / "data.json", ROWS), tmp_path / "images")
    if request.param == "files":
        return dataset
    table = tmp_path / "table.parquet"
    export(dataset, table, "parquet")
    return FileRows(table)


def export(dataset: FileRows, out: Path, to: TargetName) -> Path:
    """Write all rows; return the folder that image paths are below."""
    run = score_all(dataset, out.with_name(f"run-{to}"))
    export_rows(dataset, np.arange(len(dataset)), out, to=to, scores=run.read_scores())
    return dataset.images_root or out.with_name(f"{out.name}.images")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The processor that our own encoder uses, as a folder that trainers take for a Qwen2-VL."""
    folder = tmp_path / "model"
    prompts.qwen2_vl().processor.save_pretrained(folder)
    config = {"model_type": "qwen2_vl", "architectures": ["Qwen2VLForConditionalGeneration"], "vocab_size": 152_000}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def encode(dataset: FileRows) -> list[EncodedSample]:
    encoder = prompts.qwen2_vl().encoder()
    return [encoder.encode(record, [dataset.load_image(image) for image in record.images]) for record in dataset]


def read_prompt(ids: list[int]) -> str:
    """The whole prompt with one token for each image: ms-swift repeats it only where it has Qwen's published id."""
    text = prompts.qwen2_vl().tokenizer.decode(ids)
    return re.sub(r"(<\|image_pad\|>)+", r"\1", text).rstrip("\n")


def read_answers(ids: list[int], labels: list[int]) -> list[str]:
    """Each stretch of answer tokens as text; the line break behind a turn's end belongs to the template."""
    edges = [
        n for n, (a, b) in enumerate(pairwise([IGNORED_LABEL, *labels, IGNORED_LABEL])) if _starts(a) != _starts(b)
    ]
    tokenizer = prompts.qwen2_vl().tokenizer
    return [tokenizer.decode(ids[a:b]).rstrip("\n") for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _starts(label: int) -> bool:
    return label != IGNORED_LABEL


def call(*command: object, cwd: Path, **environment: str) -> None:
    done = subprocess.run(
        [*map(str, command)], env=os.environ | OFFLINE | environment, cwd=cwd, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]


def load_with_llama_factory(python: str, model: Path, dataset: FileRows, folder: Path) -> list[dict[str, Any]]:
    out = folder / "made" / "mine.json"
    media = export(dataset, out, "llama-factory")
    saved = folder / "seen.json"
    call(python, HERE / "load_llama_factory.py", model, out.parent, "mine", media, saved, cwd=folder)
    return json.loads(saved.read_bytes())


def load_with_ms_swift(python: str, model: Path, dataset: FileRows, folder: Path) -> list[dict[str, Any]]:
    out = folder / "made" / "mine.jsonl"
    media = export(dataset, out, "ms-swift")
    saved = folder / "seen.json"
    places = {"ROOT_IMAGE_DIR": str(media), "MODELSCOPE_CACHE": str(folder / "cache")}
    call(python, HERE / "load_ms_swift.py", model, out, saved, cwd=folder, **places)
    return json.loads(saved.read_bytes())


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("named", "load"), [("LLAMA_FACTORY_PYTHON", load_with_llama_factory), ("MS_SWIFT_PYTHON", load_with_ms_swift)]
)
def test_images_turns_and_answer_tokens(
    named: str, load: Callable[..., list[dict[str, Any]]], dataset: FileRows, model: Path, tmp_path: Path
):
    seen = load(find_python(named), model, dataset, tmp_path)
    expected = sorted(encode(dataset), key=lambda sample: sample.inputs["input_ids"][0].tolist())
    assert len(seen) == len(expected) == len(ROWS)
    for ours, theirs in zip(expected, sorted(seen, key=lambda row: row["input_ids"]), strict=True):
        ids, labels = ours.inputs["input_ids"][0].tolist(), ours.labels[0].tolist()
        assert read_prompt(theirs["input_ids"]) == read_prompt(ids)
        assert read_answers(theirs["input_ids"], theirs["labels"]) == read_answers(ids, labels)
        assert len(theirs["images"]) == len(ours.images)
        if "grid" in theirs and ours.images:
            assert theirs["grid"] == ours.inputs["image_grid_thw"].tolist()
            assert theirs["pixels"] == pytest.approx(float(ours.inputs["pixel_values"].double().sum()), rel=1e-5)
