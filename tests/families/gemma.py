"""The Gemma family: image tokens see each other both ways, windows, shared keys and values."""

from typing import Any

import torch
import transformers
from torch import Tensor

from tests.families.family import IMAGE, IMAGE_END, IMAGE_START, VOCABULARY, Family, Inputs, pixels, text

IMAGE_TEXT = (IMAGE_START, *[IMAGE] * 4, IMAGE_END)
SIGLIP: dict[str, Any] = {
    "model_type": "siglip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
    "vision_use_head": False,
}
WINDOWED = {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"] * 2}
WINDOWED_6 = {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"] * 3, "num_hidden_layers": 6}
SHARED_KV: dict[str, Any] = {
    "blocks": (-2, 0),
    "moved": {-2: 1},
    "notes": "the last two of six blocks reuse keys and values of the two before, so none behind block 1 is masked",
}


def picture(sample: int) -> Inputs:
    return {"pixel_values": pixels(sample, 1, 3, 8, 8)}


def large_picture(sample: int) -> Inputs:
    return {"pixel_values": pixels(sample, 1, 3, 16, 16)}


def flat_patches(sample: int) -> Inputs:
    """4x4 patches with their positions; two by two of them are pooled into a token."""
    rows, columns = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
    positions = torch.stack([columns.flatten(), rows.flatten()], dim=-1)
    return {"pixel_values": pixels(sample, 1, 16, 48).sigmoid(), "image_position_ids": positions[None]}


def prefix_types(input_ids: Tensor, attention_mask: Tensor) -> Inputs:
    """0 for the prefix, which sees itself both ways, 1 for the rest."""
    return {"token_type_ids": (input_ids != IMAGE).int()}


def gemma3n_config() -> Any:
    """Gemma 3n's own vision tower needs timm; SigLIP stands in for it."""
    config = transformers.Gemma3nConfig(
        text_config=text(
            **WINDOWED_6,
            num_kv_shared_layers=2,
            vocab_size_per_layer_input=VOCABULARY,
            hidden_size_per_layer_input=8,
            laurel_rank=4,
            altup_num_inputs=2,
        ),
        audio_config={"hidden_size": 32, "conf_num_hidden_layers": 1, "conf_num_attention_heads": 2, "vocab_size": 8},
        vision_soft_tokens_per_image=4,
        image_token_id=IMAGE,
        audio_token_id=7,
    )
    extra = {"vocab_size": 8, "vocab_offset": 2 * VOCABULARY, "rms_norm_eps": 1e-6}
    vars(config)["vision_config"] = transformers.SiglipVisionConfig(**SIGLIP | extra)
    config.audio_config.vocab_offset = 3 * VOCABULARY
    return config


def family(name: str, hf_class: str, config: Any, **more: Any) -> Family:
    common = {"kind": "vlm", "layers": "model.language_model.layers", "vision": picture, "image": IMAGE_TEXT}
    return Family(**common | {"name": name, "hf_class": hf_class, "config": config} | more)


FAMILIES = [
    family(
        "PaliGemma",
        "PaliGemmaForConditionalGeneration",
        {"vision_config": SIGLIP, "text_config": text("gemma"), "image_token_index": IMAGE, "projection_dim": 32},
        aligned=prefix_types,
    ),
    family(
        "PaliGemma 2",
        "PaliGemmaForConditionalGeneration",
        {
            "vision_config": SIGLIP,
            "text_config": text(
                "gemma2",
                **WINDOWED,
                query_pre_attn_scalar=8,
                attn_logit_softcapping=2.0,
                final_logit_softcapping=5.0,
            ),
            "image_token_index": IMAGE,
            "projection_dim": 32,
        },
        aligned=prefix_types,
    ),
    family(
        "Gemma 3",
        "Gemma3ForConditionalGeneration",
        {
            "vision_config": SIGLIP | {"image_size": 16},
            "text_config": text(**WINDOWED, query_pre_attn_scalar=8),
            "mm_tokens_per_image": 4,
            "image_token_index": IMAGE,
        },
        vision=large_picture,
        aligned=lambda input_ids, attention_mask: {"token_type_ids": (input_ids == IMAGE).int()},
    ),
    family("Gemma 3n", "Gemma3nForConditionalGeneration", gemma3n_config, **SHARED_KV),
    family(
        "Gemma 4",
        "Gemma4ForConditionalGeneration",
        {
            "vision_config": {
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "head_dim": 16,
                "patch_size": 4,
                "pooling_kernel_size": 2,
                "position_embedding_size": 16,
            },
            "text_config": text(
                **WINDOWED_6,
                num_kv_shared_layers=2,
                vocab_size_per_layer_input=VOCABULARY,
                hidden_size_per_layer_input=8,
                use_bidirectional_attention="vision",
            ),
            "image_token_id": IMAGE,
            "video_token_id": 6,
            "audio_token_id": 7,
        },
        vision=flat_patches,
        aligned=lambda input_ids, attention_mask: {"mm_token_type_ids": (input_ids == IMAGE).int()},
        **SHARED_KV,
    ),
]
