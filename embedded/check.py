"""Checks what ships against what training assumed: `python -m embedded.check`. Silent where all is well.

That `corpus.encode` and `train.answer_logits` equal the processor and the model's own forward pass on shipped rows;
that the chat template is prefix-preserving and reads both forms of content alike; that pool and test share no picture.
"""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import torch
from PIL import Image as PILImage
from transformers import AutoModelForImageTextToText, AutoProcessor

from .build import SHIPPED, digest
from .corpus import encode
from .evaluate import paths_of, turns_of
from .modelfiles import IMAGE
from .train import Batch, answer_logits

ROWS = 60
TOLERANCE = 0.15  # logits; training computes in bfloat16


def main() -> None:
    """Run every check on the first rows of the pool; raises AssertionError at the first that fails."""
    model = AutoModelForImageTextToText.from_pretrained(SHIPPED / "model").eval()
    processor = AutoProcessor.from_pretrained(SHIPPED / "model")
    rows = json.loads((SHIPPED / "pool.json").read_text())[:ROWS]
    with zipfile.ZipFile(SHIPPED / "images.zip") as archive:
        check_apart(archive)
        for row in rows:
            pictures = [PILImage.open(io.BytesIO(archive.read(path))) for path in paths_of(row)]
            check_template(processor, row)
            check_encoding(model, processor, row, pictures)
    assert model.dtype == torch.float32, model.dtype


def check_apart(archive: zipfile.ZipFile) -> None:
    """No picture of the test set is in the pool."""
    found: dict[str, set[str]] = {"pool": set(), "test": set()}
    for name in archive.namelist():
        picture = PILImage.open(io.BytesIO(archive.read(name)))
        assert (picture.mode, picture.size) == ("RGB", (64, 64)), name
        found[name.split("/")[0]].add(digest(torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).numpy()))
    assert not found["pool"] & found["test"]


def check_template(processor: Any, row: dict[str, Any]) -> None:
    """Strings with picture tags and lists of parts render alike; every start renders as a start of the whole."""
    plain = [*turns_of(row)[-1].messages, {"role": "assistant", "content": turns_of(row)[-1].answer}]
    parts = [{"role": m["role"], "content": _parts(m["content"])} for m in plain]
    whole = processor.apply_chat_template(plain)
    assert whole == processor.apply_chat_template(parts)
    for count in range(1, len(plain)):
        assert whole.startswith(processor.apply_chat_template(plain[:count], add_generation_prompt=count % 2 == 1))


def check_encoding(model: Any, processor: Any, row: dict[str, Any], pictures: list[PILImage.Image]) -> None:
    """Our tokens are the processor's; our logits are the model's up to the lower precision."""
    turns = [(turn.question, turn.answer) for turn in turns_of(row)]
    ids, marks = encode(processor.tokenizer.backend_tokenizer, turns, len(pictures))
    plain = [*turns_of(row)[-1].messages, {"role": "assistant", "content": turns[-1][1]}]
    inputs = processor(text=processor.apply_chat_template(plain), images=pictures or None, return_tensors="pt")
    assert inputs["input_ids"][0].tolist() == ids
    batch = Batch(torch.tensor([ids]), torch.tensor([marks]), inputs.get("pixel_values"), torch.tensor([0]))
    with torch.inference_mode():
        ours, _ = answer_logits(model, batch, processor.tokenizer.convert_tokens_to_ids(IMAGE))
        theirs = model(**inputs).logits[0, :-1][batch.is_answer[0, 1:]]
    difference = (ours.float() - theirs).square().mean().sqrt().item()
    assert difference < TOLERANCE, difference


def _parts(content: str) -> list[dict[str, str]]:
    count = content.count("<image>\n")
    return [{"type": "image"}] * count + [{"type": "text", "text": content.replace("<image>\n", "")}]


if __name__ == "__main__":
    main()
