"""Models of published sizes with random weights, and small ones for a CPU."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import (
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)

from benchmarks.scoring.inputs import ImageInputs, llava_images, qwen_images

Config = dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """A model to be timed, and what its samples look like.

    make: gives it, with as many blocks in decoder and vision tower if a number is given.
    images: the forward's inputs for the images of a batch. n_text: text tokens of a sample, answer included.
    types: the input that says which tokens are of an image, if the model takes one.
    """

    name: str
    make: Callable[[int | None], nn.Module]
    images: ImageInputs
    n_image_tokens: int
    n_text: int
    n_answer: int
    vocabulary: int
    types: str = ""

    @property
    def n_tokens(self) -> int:
        return self.n_image_tokens + self.n_text


def build(subject: Subject, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Random weights, made on the device."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            return subject.make(None).to(device, dtype).eval()
    finally:
        torch.set_default_dtype(before)


def shallow(subject: Subject, n_blocks: int) -> Subject:
    """The same widths with fewer blocks."""
    return replace(subject, make=lambda _: subject.make(n_blocks))


def _qwen2_vl(text: Config, vision: Config, mrope_section: list[int], n_blocks: int | None) -> nn.Module:
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": mrope_section}
    ids: Config = {"image_token_id": 1, "video_token_id": 2, "vision_start_token_id": 3, "vision_end_token_id": 4}
    text = {"rope_parameters": rope, "max_position_embeddings": 32768, **text}
    if n_blocks is not None:
        text, vision = text | {"num_hidden_layers": n_blocks}, vision | {"depth": n_blocks}
    return Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=text, vision_config=vision, **ids))


def _llava(text: Config, vision: Config, n_blocks: int | None) -> nn.Module:
    depth = {} if n_blocks is None else {"num_hidden_layers": n_blocks}
    return LlavaForConditionalGeneration(
        LlavaConfig(
            text_config=LlamaConfig(**text | depth),
            vision_config=CLIPVisionConfig(**vision | depth),
            image_token_index=1,
            vision_feature_layer=-2,
            vision_feature_select_strategy="default",
        )
    )


def _gemma3(text: Config, vision: Config, mm_tokens_per_image: int, n_blocks: int | None) -> nn.Module:
    depth = {} if n_blocks is None else {"num_hidden_layers": n_blocks}
    vision = {"model_type": "siglip_vision_model", "vision_use_head": False, **vision, **depth}
    tokens = {"mm_tokens_per_image": mm_tokens_per_image, "image_token_index": 1}
    return Gemma3ForConditionalGeneration(Gemma3Config(text_config=text | depth, vision_config=vision, **tokens))


QWEN2_VISION: Config = {"depth": 32, "embed_dim": 1280, "num_heads": 16, "mlp_ratio": 4}
TINY: Config = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
TINY_VISION: Config = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
TINY_QWEN_VISION: Config = {"depth": 2, "embed_dim": 32, "num_heads": 2, "mlp_ratio": 2, "hidden_size": 32}
QWEN2_GRID = (34, 46)  # patches; 391 tokens after merging two by two

SUBJECTS = {
    subject.name: subject
    for subject in (
        Subject(
            "qwen2-vl-2b",
            partial(
                _qwen2_vl,
                {
                    "hidden_size": 1536,
                    "intermediate_size": 8960,
                    "num_hidden_layers": 28,
                    "num_attention_heads": 12,
                    "num_key_value_heads": 2,
                    "vocab_size": 151936,
                },
                QWEN2_VISION | {"hidden_size": 1536},
                [16, 24, 24],
            ),
            qwen_images(QWEN2_GRID),
            n_image_tokens=391,
            n_text=266,
            n_answer=200,
            vocabulary=151936,
            types="mm_token_type_ids",
        ),
        Subject(
            "qwen2-vl-7b",
            partial(
                _qwen2_vl,
                {
                    "hidden_size": 3584,
                    "intermediate_size": 18944,
                    "num_hidden_layers": 28,
                    "num_attention_heads": 28,
                    "num_key_value_heads": 4,
                    "vocab_size": 152064,
                },
                QWEN2_VISION | {"hidden_size": 3584},
                [16, 24, 24],
            ),
            qwen_images(QWEN2_GRID),
            n_image_tokens=391,
            n_text=266,
            n_answer=200,
            vocabulary=152064,
            types="mm_token_type_ids",
        ),
        Subject(
            "llava-1.5-7b",
            partial(
                _llava,
                {
                    "hidden_size": 4096,
                    "intermediate_size": 11008,
                    "num_hidden_layers": 32,
                    "num_attention_heads": 32,
                    "vocab_size": 32064,
                },
                {
                    "hidden_size": 1024,
                    "intermediate_size": 4096,
                    "num_hidden_layers": 24,
                    "num_attention_heads": 16,
                    "image_size": 336,
                    "patch_size": 14,
                },
            ),
            llava_images(336),
            n_image_tokens=576,
            n_text=266,
            n_answer=200,
            vocabulary=32064,
        ),
        Subject(
            "small-llava",
            partial(
                _llava,
                {
                    "hidden_size": 256,
                    "intermediate_size": 688,
                    "num_hidden_layers": 8,
                    "num_attention_heads": 4,
                    "vocab_size": 2000,
                },
                {
                    "hidden_size": 128,
                    "intermediate_size": 512,
                    "num_hidden_layers": 4,
                    "num_attention_heads": 4,
                    "image_size": 64,
                    "patch_size": 8,
                },
            ),
            llava_images(64),
            n_image_tokens=64,
            n_text=46,
            n_answer=16,
            vocabulary=2000,
        ),
        Subject(
            "small-qwen2-vl",
            partial(
                _qwen2_vl,
                {
                    "hidden_size": 256,
                    "intermediate_size": 688,
                    "num_hidden_layers": 8,
                    "num_attention_heads": 4,
                    "num_key_value_heads": 2,
                    "vocab_size": 2000,
                },
                {
                    "depth": 4,
                    "embed_dim": 128,
                    "num_heads": 4,
                    "mlp_ratio": 4,
                    "hidden_size": 256,
                },
                [8, 12, 12],
            ),
            qwen_images((16, 16)),
            n_image_tokens=64,
            n_text=448,
            n_answer=150,
            vocabulary=2000,
            types="mm_token_type_ids",
        ),
        Subject(
            "gemma-3-4b",
            partial(
                _gemma3,
                {
                    "hidden_size": 2560,
                    "intermediate_size": 10240,
                    "num_hidden_layers": 34,
                    "num_attention_heads": 8,
                    "num_key_value_heads": 4,
                    "head_dim": 256,
                    "sliding_window": 1024,
                    "vocab_size": 262208,
                },
                {
                    "hidden_size": 1152,
                    "intermediate_size": 4304,
                    "num_hidden_layers": 27,
                    "num_attention_heads": 16,
                    "image_size": 896,
                    "patch_size": 14,
                },
                256,
            ),
            llava_images(896),
            n_image_tokens=256,
            n_text=1266,
            n_answer=200,
            vocabulary=262208,
            types="token_type_ids",
        ),
        Subject(
            "tiny-qwen2-vl",
            partial(_qwen2_vl, TINY | {"vocab_size": 2000}, TINY_QWEN_VISION, [2, 3, 3]),
            qwen_images((4, 4)),
            n_image_tokens=4,
            n_text=20,
            n_answer=8,
            vocabulary=2000,
            types="mm_token_type_ids",
        ),
        Subject(
            "tiny-llava",
            partial(_llava, TINY | {"vocab_size": 500}, TINY_VISION),
            llava_images(16),
            n_image_tokens=4,
            n_text=20,
            n_answer=8,
            vocabulary=500,
        ),
        Subject(
            "tiny-gemma-3",
            partial(_gemma3, TINY | {"vocab_size": 500, "head_dim": 16, "sliding_window": 8}, TINY_VISION, 4),
            llava_images(16),
            n_image_tokens=4,
            n_text=20,
            n_answer=8,
            vocabulary=500,
            types="token_type_ids",
        ),
    )
}
