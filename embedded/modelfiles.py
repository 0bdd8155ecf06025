"""The model's parts that aren't weights: tokenizer, chat template, processor, configuration."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from .sample import SIDE
from .sources import SOURCES

PATCH = 8
IMAGE_TOKENS = (SIDE // PATCH) ** 2
PAD, END, IMAGE = "<|pad|>", "<|end|>", "<image>"
SPECIAL = (PAD, END, IMAGE, "<|system|>", "<|user|>", "<|assistant|>")
VOCABULARY = 2048
CORPUS_ROWS = {"easyvqa": 3000, "emoji": 6000, "scene": 6000, "chart": 5000, "clipart": 1500, "text": 4000}

# A role tag, the content, an end tag: rendering the first k messages is always the start of rendering k + 1.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|' + message['role'] + '|>\\n' -}}
{%- if message['role'] == 'assistant' -%}
{%- generation -%}
{%- if message['content'] is string -%}{{- message['content'] -}}
{%- else -%}{%- for part in message['content'] -%}{{- part['text'] -}}{%- endfor -%}{%- endif -%}
{{- '<|end|>' -}}
{%- endgeneration -%}
{%- elif message['content'] is string -%}
{{- message['content'] + '<|end|>' -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}{{- '<image>\\n' -}}
{%- else -%}{{- part['text'].lstrip('\\n') -}}{%- endif -%}
{%- endfor -%}
{{- '<|end|>' -}}
{%- endif -%}
{{- '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>\\n' -}}{%- endif -%}"""


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes that variants differ in."""

    hidden: int = 192
    inner: int = 512
    heads: int = 6
    key_heads: int = 6
    blocks: int = 8
    vision_hidden: int = 192
    vision_inner: int = 576
    vision_heads: int = 6
    vision_blocks: int = 5


SHAPES = {
    "tiny": Shape(
        hidden=64,
        inner=128,
        heads=2,
        key_heads=2,
        blocks=2,
        vision_hidden=64,
        vision_inner=128,
        vision_heads=2,
        vision_blocks=2,
    ),
    "lean": Shape(
        hidden=128,
        inner=352,
        heads=4,
        key_heads=4,
        vision_hidden=128,
        vision_inner=512,
        vision_heads=4,
        vision_blocks=5,
    ),
    "small": Shape(),
    "wide": Shape(hidden=256, inner=576, heads=8, key_heads=4),
}


def corpus(seed: int = 1) -> Iterable[str]:
    """Questions and answers of clean training rows, for the tokenizer."""
    rng = random.Random(seed)
    for source, n in CORPUS_ROWS.items():
        for row in SOURCES[source](rng, n, "train"):
            for turn in row.turns:
                yield turn.asked
                yield turn.answer


def train_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE: every string can be written with it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, additional_special_tokens=list(SPECIAL[2:]),
        model_max_length=1024, clean_up_tokenization_spaces=False, padding_side="right",
    )  # fmt: skip


def make_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """The processor: 64 x 64 pixels, 8-pixel patches, 64 image tokens."""
    pictures = CLIPImageProcessor(
        size={"shortest_edge": SIDE},
        crop_size={"height": SIDE, "width": SIDE},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    return LlavaProcessor(
        pictures, tokenizer, patch_size=PATCH, vision_feature_select_strategy="default", image_token=IMAGE,
        num_additional_image_tokens=1, chat_template=CHAT_TEMPLATE,
    )  # fmt: skip


def make_config(shape: Shape, tokenizer: PreTrainedTokenizerFast) -> LlavaConfig:
    """LLaVA: CLIP tower, two-layer projector, Llama decoder with tied embeddings."""
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    vision = CLIPVisionConfig(
        hidden_size=shape.vision_hidden, intermediate_size=shape.vision_inner, num_hidden_layers=shape.vision_blocks,
        num_attention_heads=shape.vision_heads, image_size=SIDE, patch_size=PATCH, projection_dim=shape.hidden,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=shape.hidden, intermediate_size=shape.inner,
        num_hidden_layers=shape.blocks,
        num_attention_heads=shape.heads, num_key_value_heads=shape.key_heads, max_position_embeddings=1024,
        tie_word_embeddings=True, bos_token_id=None, eos_token_id=ids[END], pad_token_id=ids[PAD],
    )  # fmt: skip
    return LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=ids[IMAGE], vision_feature_select_strategy="default",
        vision_feature_layer=-1, image_seq_length=IMAGE_TOKENS, tie_word_embeddings=True,
    )  # fmt: skip


def generation_config(tokenizer: PreTrainedTokenizerFast) -> GenerationConfig:
    """Greedy, stopping at the end of the turn."""
    return GenerationConfig(
        do_sample=False, max_new_tokens=32, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )


def save_parts(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Processor, tokenizer and template into the model's folder."""
    make_processor(tokenizer).save_pretrained(folder)
    generation_config(tokenizer).save_pretrained(folder)
