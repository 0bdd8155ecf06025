"""Models of published sizes with random weights, and small ones for a CPU."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import (
    CLIPVisionConfig,
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

    images: the forward's inputs for the images of a batch. n_text: text tokens of a sample, answer included.
    """

    name: str
    build: Callable[[], nn.Module]
    images: ImageInputs
    n_image_tokens: int
    n_text: int
    n_answer: int
    vocabulary: int

    @property
    def n_tokens(self) -> int:
        return self.n_image_tokens + self.n_text


def build(subject: Subject, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Random weights, made on the device."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            return subject.build().to(device, dtype).eval()
    finally:
        torch.set_default_dtype(before)


def _qwen2_vl(text: Config, vision: Config) -> Callable[[], nn.Module]:
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": vision.pop("mrope_section")}
    ids: Config = {"image_token_id": 1, "video_token_id": 2, "vision_start_token_id": 3, "vision_end_token_id": 4}
    text_config = {"rope_parameters": rope, "max_position_embeddings": 32768, **text}
    return lambda: Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=text_config, vision_config=vision, **ids))


def _llava(text: Config, vision: Config) -> Callable[[], nn.Module]:
    return lambda: LlavaForConditionalGeneration(
        LlavaConfig(
            text_config=LlamaConfig(**text),
            vision_config=CLIPVisionConfig(**vision),
            image_token_index=1,
            vision_feature_layer=-2,
            vision_feature_select_strategy="default",
        )
    )


QWEN2_VISION: Config = {"depth": 32, "embed_dim": 1280, "num_heads": 16, "mlp_ratio": 4}
QWEN2_GRID = (34, 46)  # patches; 391 tokens after merging two by two

SUBJECTS = {
    subject.name: subject
    for subject in (
        Subject(
            "qwen2-vl-2b",
            _qwen2_vl(
                {
                    "hidden_size": 1536,
                    "intermediate_size": 8960,
                    "num_hidden_layers": 28,
                    "num_attention_heads": 12,
                    "num_key_value_heads": 2,
                    "vocab_size": 151936,
                },
                QWEN2_VISION | {"hidden_size": 1536, "mrope_section": [16, 24, 24]},
            ),
            qwen_images(QWEN2_GRID),
            n_image_tokens=391,
            n_text=266,
            n_answer=200,
            vocabulary=151936,
        ),
        Subject(
            "qwen2-vl-7b",
            _qwen2_vl(
                {
                    "hidden_size": 3584,
                    "intermediate_size": 18944,
                    "num_hidden_layers": 28,
                    "num_attention_heads": 28,
                    "num_key_value_heads": 4,
                    "vocab_size": 152064,
                },
                QWEN2_VISION | {"hidden_size": 3584, "mrope_section": [16, 24, 24]},
            ),
            qwen_images(QWEN2_GRID),
            n_image_tokens=391,
            n_text=266,
            n_answer=200,
            vocabulary=152064,
        ),
        Subject(
            "llava-1.5-7b",
            _llava(
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
            _llava(
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
            _qwen2_vl(
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
                    "mrope_section": [8, 12, 12],
                },
            ),
            qwen_images((16, 16)),
            n_image_tokens=64,
            n_text=448,
            n_answer=150,
            vocabulary=2000,
        ),
    )
}
