"""TRL's own collator sees in an exported file the images, turns and answer tokens that were scored."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from delta_attnmask.batches import IGNORED_LABEL
from delta_attnmask.exporting.run_export import export_rows
from delta_attnmask.reading.rows import FileRows
from tests.exporting.runs import score_all
from tests.reading import prompts, samples
from tests.reading.builders import write_list

SINGLE = [
    {"image": "a/x.png", "conversations": samples.from_value(samples.IMAGE_ROW[:2])},
    {"conversations": samples.from_value(samples.TEXT_ROW)},
    {
        "image": ["a/x.png", "a/y.png"],
        "conversations": [
            {"from": "human", "value": "Is <image> like <image>?"},
            {"from": "gpt", "value": "No.\nNot at all"},
        ],
    },
]
SEVERAL = [{"image": "a/x.png", "conversations": samples.from_value(samples.IMAGE_ROW)}, *SINGLE]


def collate(tmp_path: Path, rows: list[dict[str, Any]], **options: Any) -> tuple[FileRows, Any]:
    """What TRL makes of the rows after they went through a file of ours."""
    for name, colour in (("x", "red"), ("y", "blue")):
        samples.write_image(tmp_path / "images" / "a" / f"{name}.png", colour)
    dataset = FileRows(write_list(tmp_path / "data.json", rows), tmp_path / "images")
    scores = score_all(dataset, tmp_path / "run").read_scores()
    out = tmp_path / "out" / "train.parquet"
    export_rows(dataset, np.arange(len(rows)), out, to="trl", scores=scores)
    loaded = datasets.Dataset.from_parquet(str(out), cache_dir=str(tmp_path / "cache"))
    collator = DataCollatorForVisionLanguageModeling(prompts.qwen2_vl().processor, **options)
    return dataset, collator(list(loaded))


def encode(dataset: FileRows) -> list[Any]:
    encoder = prompts.qwen2_vl().encoder()
    return [encoder.encode(record, [dataset.load_image(image) for image in record.images]) for record in dataset]


def test_prompt_and_completion(tmp_path):
    dataset, batch = collate(tmp_path, SINGLE, completion_only_loss=True)
    line_break = prompts.qwen2_vl().tokenizer("\n").input_ids[0]
    n_images = 0
    for sample, ids, mask, labels in zip(
        encode(dataset), batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True
    ):
        ours = sample.inputs["input_ids"][0]
        assert torch.equal(ids[mask.bool()], ours)
        is_answer = sample.labels[0] != IGNORED_LABEL
        theirs = labels[mask.bool()]
        assert torch.equal(theirs[is_answer], ours[is_answer])
        assert {*theirs[~is_answer].tolist()} <= {IGNORED_LABEL, line_break}  # the template ends each turn with one
        n_images += len(sample.images)
    pixels = [sample.inputs["pixel_values"] for sample in encode(dataset) if sample.images]
    assert torch.equal(batch["pixel_values"], torch.cat(pixels))
    assert len(batch["image_grid_thw"]) == n_images == 3


def test_messages_of_several_turns(tmp_path):
    dataset, batch = collate(tmp_path, SEVERAL)
    for sample, ids, mask in zip(encode(dataset), batch["input_ids"], batch["attention_mask"], strict=True):
        assert torch.equal(ids[mask.bool()], sample.inputs["input_ids"][0])
    assert len(batch["image_grid_thw"]) == 4
