"""Rows with a JPEG each, and Qwen2-VL's processor over the embedded tokenizer: all made here, nothing is fetched."""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers import AutoTokenizer, Qwen2VLImageProcessor, Qwen2VLProcessor, Qwen2VLVideoProcessor

from delta_attnmask.embedded import export

Size = tuple[int, int]
PHOTO: Size = (640, 480)
SMALL: Size = (64, 64)
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
)
_ADDED = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]


def write_rows(folder: Path, n_rows: int, size: Size = PHOTO) -> Path:
    """A LLaVA file of one question a row, each with a JPEG of its own; smooth, as photos are, with some grain."""
    random = np.random.default_rng(0)
    width, height = size
    rows = []
    for number in range(n_rows):
        coarse = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        noise = random.integers(-12, 13, (height, width, 3))
        pixels = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC), dtype=np.int16) + noise
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.jpg", quality=90)
        question = {"from": "human", "value": "<image>\nWhat is in the picture?"}
        answer = {"from": "gpt", "value": "Fields of colour that run into one another, with some grain."}
        rows.append({"id": str(number), "image": f"{number}.jpg", "conversations": [question, answer]})
    path = folder / "rows.json"
    path.write_text(json.dumps(rows))
    return path


def qwen_processor() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = AutoTokenizer.from_pretrained(export(folder) / "model")
    tokenizer.add_special_tokens({"additional_special_tokens": _ADDED})
    return Qwen2VLProcessor(Qwen2VLImageProcessor(), tokenizer, Qwen2VLVideoProcessor(), chat_template=_TEMPLATE)


def name_tokens(model: Any, processor: Any) -> None:
    """Tell a Qwen2-VL model of random weights what the processor's special tokens are."""
    ids = {name: processor.tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("vision_start", "vision_end")}
    model.config.image_token_id, model.config.video_token_id = processor.image_token_id, processor.video_token_id
    model.config.vision_start_token_id, model.config.vision_end_token_id = ids.values()
