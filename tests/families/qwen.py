"""Families with Qwen-VL's patches and three-axis positions: Qwen-VL and GLM-V."""

from typing import Any

import torch
from torch import Tensor

from tests.families.family import IMAGE, IMAGE_END, IMAGE_START, Family, Inputs, pixels, text

VIDEO = 6
N_IMAGE_TOKENS = 4
IMAGE_TEXT = (IMAGE_START, *[IMAGE] * N_IMAGE_TOKENS, IMAGE_END)
DEEPSTACK = "deepstack"
QWEN_TOKENS = {
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "vision_start_token_id": IMAGE_START,
    "vision_end_token_id": IMAGE_END,
}
GLM_TOKENS = {
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "image_start_token_id": IMAGE_START,
    "image_end_token_id": IMAGE_END,
    "video_start_token_id": 7,
    "video_end_token_id": 8,
}
VISION = {"depth": 2, "num_heads": 2, "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2}
WIDE = {"hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 32}
MROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}}
GLM_MROPE = {"rope_parameters": MROPE["rope_parameters"] | {"partial_rotary_factor": 1.0}}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
GLM_MOE = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
DEEPSTACKED = VISION | WIDE | {"num_position_embeddings": 16, "deepstack_visual_indexes": [0]}


def patches(sample: int) -> Inputs:
    """One picture of 4x4 patches, two frames of three channels each; two by two patches make a token."""
    return {"pixel_values": pixels(sample, 16, 3 * 2 * 4 * 4), "image_grid_thw": torch.tensor([[1, 4, 4]])}


def token_types(input_ids: Tensor, attention_mask: Tensor) -> Inputs:
    return {"mm_token_type_ids": (input_ids == IMAGE).int()}


def family(name: str, hf_class: str, vision_config: dict[str, Any], text_config: dict[str, Any], **more: Any) -> Family:
    tokens = GLM_TOKENS if hf_class.startswith("Glm") else QWEN_TOKENS
    return Family(
        name=name,
        kind="vlm",
        hf_class=hf_class,
        config={"vision_config": vision_config, "text_config": text_config, **tokens},
        layers="model.language_model.layers",
        image=IMAGE_TEXT,
        vision=patches,
        aligned=token_types,
        **more,
    )


FAMILIES = [
    family(
        "Qwen2-VL",
        "Qwen2VLForConditionalGeneration",
        VISION | {"embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2},
        text(**MROPE),
    ),
    family(
        "Qwen2.5-VL",
        "Qwen2_5_VLForConditionalGeneration",
        VISION | WIDE | {"window_size": 8, "fullatt_block_indexes": [1]},
        text(**MROPE),
    ),
    family(
        "Qwen3-VL",
        "Qwen3VLForConditionalGeneration",
        DEEPSTACKED,
        text(**MROPE),
        refused={0: DEEPSTACK},
        notes="image features are added again after block 0",
    ),
    family(
        "Qwen3-VL-MoE",
        "Qwen3VLMoeForConditionalGeneration",
        DEEPSTACKED,
        text(**MROPE, **MOE),
        refused={0: DEEPSTACK},
        notes="image features are added again after block 0",
    ),
    family("GLM-4V", "Glm4vForConditionalGeneration", VISION | WIDE | {"image_size": 16}, text(**GLM_MROPE)),
    family(
        "GLM-4V-MoE",
        "Glm4vMoeForConditionalGeneration",
        VISION | WIDE | {"image_size": 16},
        text(**GLM_MROPE, **GLM_MOE),
    ),
]
