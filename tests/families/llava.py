"""Families that put the features of a vision tower in place of image tokens, with any vision tower and any decoder."""

from typing import Any

import torch

from tests.families.family import IMAGE, IMAGE_END, IMAGE_START, Family, Inputs, pixels, text

TOWER: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
}
CLIP = TOWER | {"model_type": "clip_vision_model", "projection_dim": 32}
SIGLIP = TOWER | {"model_type": "siglip_vision_model", "vision_use_head": False}
PIXTRAL = TOWER | {"model_type": "pixtral", "head_dim": 16, "image_size": 16}
ANYRES = [[8, 16], [16, 8], [16, 16]]
N_ANYRES_TOKENS = 4 + 2 * 4 + 2  # the whole picture, two tiles side by side, a new line after each of the two rows


def picture(sample: int) -> Inputs:
    return {"pixel_values": pixels(sample, 1, 3, 8, 8)}


def sized_picture(sample: int) -> Inputs:
    return {"pixel_values": pixels(sample, 1, 3, 16, 16), "image_sizes": torch.tensor([[16, 16]])}


def tiles(sample: int) -> Inputs:
    return {"pixel_values": pixels(sample, 1, 3, 3, 8, 8), "image_sizes": torch.tensor([[8, 16]])}


def family(name: str, hf_class: str, *, n_tokens: int, **more: Any) -> Family:
    config = {"image_token_index": IMAGE, "image_token_id": IMAGE} | more.pop("config")
    image = [IMAGE_START, *[IMAGE] * n_tokens, IMAGE_END]
    common = {"kind": "vlm", "layers": "model.language_model.layers", "vision": picture, "image": image}
    return Family(**common | {"name": name, "hf_class": hf_class, "config": config} | more)


FAMILIES = [
    family(
        "LLaVA",
        "LlavaForConditionalGeneration",
        n_tokens=4,
        config={"vision_config": CLIP, "text_config": text("llama"), "vision_feature_layer": -1},
    ),
    family(
        "LLaVA-NeXT",
        "LlavaNextForConditionalGeneration",
        n_tokens=N_ANYRES_TOKENS,
        vision=tiles,
        config={
            "vision_config": CLIP,
            "text_config": text("mistral"),
            "vision_feature_layer": -1,
            "image_grid_pinpoints": ANYRES,
        },
    ),
    family(
        "LLaVA-OneVision",
        "LlavaOnevisionForConditionalGeneration",
        n_tokens=N_ANYRES_TOKENS,
        vision=tiles,
        config={"vision_config": SIGLIP, "text_config": text("qwen2"), "image_grid_pinpoints": ANYRES},
    ),
    family(
        "VipLLaVA",
        "VipLlavaForConditionalGeneration",
        n_tokens=4,
        config={"vision_config": CLIP, "text_config": text("llama"), "vision_feature_layer": [-1, 1]},
    ),
    family(
        "Pixtral",
        "LlavaForConditionalGeneration",
        n_tokens=16,
        vision=sized_picture,
        config={
            "vision_config": PIXTRAL,
            "text_config": text("mistral"),
            "vision_feature_layer": -1,
            "vision_feature_select_strategy": "full",
        },
    ),
    family(
        "Mistral 3",
        "Mistral3ForConditionalGeneration",
        n_tokens=4,
        vision=sized_picture,
        config={"vision_config": PIXTRAL, "text_config": text("mistral", sliding_window=6), "spatial_merge_size": 2},
    ),
    family(
        "InternVL",
        "InternVLForConditionalGeneration",
        n_tokens=4,
        vision=lambda sample: {"pixel_values": pixels(sample, 1, 3, 16, 16)},
        config={
            "vision_config": TOWER | {"image_size": [16, 16], "patch_size": [4, 4]},
            "text_config": text("qwen2"),
            "image_seq_length": 4,
        },
    ),
    family(
        "Aya Vision",
        "AyaVisionForConditionalGeneration",
        n_tokens=4,
        vision=lambda sample: {"pixel_values": pixels(sample, 1, 3, 16, 16)},
        config={
            "vision_config": SIGLIP | {"image_size": 16},
            "text_config": text("cohere2", sliding_window=6, logit_scale=0.5),
        },
    ),
    family(
        "Cohere 2 Vision",
        "Cohere2VisionForConditionalGeneration",
        n_tokens=4,
        vision=lambda sample: {"pixel_values": pixels(sample, 1, 3, 16, 16)},
        config={
            "vision_config": SIGLIP | {"image_size": 16},
            "text_config": text("cohere2", sliding_window=6, logit_scale=0.5),
            "alignment_intermediate_size": 48,
        },
    ),
    family(
        "DeepSeek-VL",
        "DeepseekVLForConditionalGeneration",
        n_tokens=4,
        config={"vision_config": SIGLIP, "text_config": text("llama")},
    ),
    family(
        "Aria",
        "AriaForConditionalGeneration",
        n_tokens=3,
        config={
            "vision_config": TOWER | {"model_type": "idefics3_vision"},
            "text_config": text(moe_num_experts=4, moe_topk=2, moe_num_shared_experts=1),
            "projector_patch_to_query_dict": {"4": 3},
        },
    ),
    family(
        "Ovis2",
        "Ovis2ForConditionalGeneration",
        n_tokens=4,
        config={
            "vision_config": TOWER | {"vocab_size": 24, "hidden_stride": 1, "num_visual_indicator_tokens": 2},
            "text_config": text("qwen2"),
            "visual_indicator_token_ids": [IMAGE_START, IMAGE_END],
            "vocab_size": 128,
            "hidden_size": 32,
        },
    ),
    family(
        "LFM2-VL",
        "Lfm2VlForConditionalGeneration",
        n_tokens=4,
        self_attentions=2,
        vision=lambda sample: {
            "pixel_values": pixels(sample, 1, 16, 48),
            "pixel_attention_mask": torch.ones(1, 16, dtype=torch.long),
            "spatial_shapes": torch.tensor([[4, 4]]),
        },
        config={
            "vision_config": TOWER
            | {"model_type": "siglip2_vision_model", "num_patches": 16, "vision_use_head": False},
            "text_config": text("lfm2", layer_types=["conv", "full_attention"] * 2),
            "projector_hidden_size": 32,
        },
    ),
]
