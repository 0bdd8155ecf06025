"""Vision-language families that share little with the others."""

from typing import Any

import torch
from torch import Tensor

from tests.families.family import IMAGE, IMAGE_END, IMAGE_START, PAD, VOCABULARY, Family, Inputs, pixels, text

TOWER: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}
QFORMER: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "encoder_hidden_size": 32,
}
OPT = text("opt", ffn_dim=48, word_embed_proj_dim=32)
KOSMOS_TEXT: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "embed_dim": 32,
    "layers": 4,
    "ffn_dim": 48,
    "attention_heads": 4,
    "pad_token_id": PAD,
    "max_position_embeddings": 64,
}


def picture(sample: int) -> Inputs:
    return {"pixel_values": pixels(sample, 1, 3, 16, 16)}


def family(name: str, hf_class: str, config: dict[str, Any], *, n_tokens: int = 4, **more: Any) -> Family:
    image = (IMAGE_START, *[IMAGE] * n_tokens, IMAGE_END)
    common = {"kind": "vlm", "layers": "model.language_model.layers", "vision": picture, "image": image}
    return Family(**common | {"name": name, "hf_class": hf_class, "config": config} | more)


def cross_attention(input_ids: Tensor, attention_mask: Tensor) -> Inputs:
    """Which tiles of the one picture each token may see: the first, from the image token on."""
    sees = (input_ids == IMAGE).cumsum(-1).clamp(max=1) * attention_mask
    return {"cross_attention_mask": torch.stack([sees, torch.zeros_like(sees)], dim=-1)[:, :, None]}


def image_positions(input_ids: Tensor, attention_mask: Tensor) -> Inputs:
    return {"image_embeds_position_mask": (input_ids == IMAGE).int()}


def flattened_patches(sample: int) -> Inputs:
    """16 patches, each with its row and column in front."""
    places = torch.tensor([[row, column] for row in range(1, 5) for column in range(1, 5)]).float()
    return {"flattened_patches": torch.cat([places[None], pixels(sample, 1, 16, 48)], dim=-1)}


def pooled_patches(input_ids: Tensor, attention_mask: Tensor) -> Inputs:
    """Which of the 16 patches of a picture each of its tokens pools, counted through the batch."""
    one = torch.arange(16).view(2, 2, 2, 2).transpose(1, 2).reshape(4, 4)
    pooling = torch.cat([one + 16 * sample for sample in range(len(input_ids))])
    return {"image_token_pooling": pooling, "mm_token_type_ids": (input_ids == IMAGE).int()}


FAMILIES = [
    family(
        "Mllama",
        "MllamaForConditionalGeneration",
        {
            "vision_config": {
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_global_layers": 1,
                "attention_heads": 2,
                "image_size": 8,
                "patch_size": 4,
                "max_num_tiles": 2,
                "intermediate_layers_indices": [0],
                "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]],
                "vision_output_dim": 64,
            },
            "text_config": text(num_hidden_layers=5, cross_attention_layers=[1]),
            "image_token_index": IMAGE,
        },
        n_tokens=1,
        vision=lambda sample: {
            "pixel_values": pixels(sample, 1, 1, 2, 3, 8, 8),
            "aspect_ratio_ids": torch.tensor([[1]]),
            "aspect_ratio_mask": torch.tensor([[[1, 0]]]),
        },
        aligned=cross_attention,
        self_attentions=4,
        notes="block 1 attends to the image only and isn't recorded",
    ),
    family(
        "Llama 4",
        "Llama4ForConditionalGeneration",
        {
            "vision_config": TOWER
            | {
                "intermediate_size": 128,
                "vision_output_dim": 32,
                "projector_input_dim": 32,
                "projector_output_dim": 32,
            },
            "text_config": text(
                num_local_experts=2, intermediate_size_mlp=48, attention_chunk_size=8, no_rope_layer_interval=2
            ),
            "image_token_index": IMAGE,
        },
        layers="language_model.model.layers",
        broken_in=("5.24.0",),  # reads a field that the text model's output lacks
    ),
    family(
        "Phi-4 multimodal",
        "Phi4MultimodalForCausalLM",
        text(
            vision_config=TOWER | {"crop_size": 16, "image_token_id": IMAGE},
            audio_config={
                "hidden_size": 32,
                "intermediate_size": 32,
                "num_blocks": 2,
                "num_attention_heads": 2,
                "ext_pw_out_channel": 32,
                "depthwise_separable_out_channel": 32,
                "nemo_conv_channels": 32,
                "audio_token_id": 7,
            },
        ),
        n_tokens=2 * (4 + 2) + 1,  # the whole and one tile, two rows with a separator each, and one between
        layers="model.layers",
        vision=lambda sample: {
            "image_pixel_values": pixels(sample, 1, 2, 3, 16, 16),
            "image_sizes": torch.tensor([[16, 16]]),
            "image_attention_mask": torch.ones(1, 2, 4, 4, dtype=torch.long),
        },
        eager={"": "eager", "vision_config": "sdpa"},
        notes="its vision tower gives other features under eager attention, so the reference changes the decoder only",
    ),
    family(
        "BLIP-2",
        "Blip2ForConditionalGeneration",
        {
            "vision_config": TOWER,
            "qformer_config": QFORMER,
            "text_config": OPT,
            "num_query_tokens": 4,
            "image_token_index": IMAGE,
        },
        layers="language_model.model.decoder.layers",
    ),
    family(
        "InstructBLIP",
        "InstructBlipForConditionalGeneration",
        {
            "vision_config": TOWER,
            "qformer_config": QFORMER,
            "text_config": OPT,
            "num_query_tokens": 4,
            "image_token_index": IMAGE,
        },
        layers="language_model.model.decoder.layers",
        vision=lambda sample: picture(sample) | {"qformer_input_ids": torch.tensor([[3, 9 + sample, 4]])},
    ),
    family(
        "Kosmos-2",
        "Kosmos2ForConditionalGeneration",
        {"vision_config": TOWER, "text_config": KOSMOS_TEXT, "latent_query_num": 4},
        layers="text_model.model.layers",
        aligned=image_positions,
    ),
    family(
        "Kosmos-2.5",
        "Kosmos2_5ForConditionalGeneration",
        {
            "vision_config": {
                "hidden_size": 32,
                "patch_embed_hidden_size": 48,
                "intermediate_size": 48,
                "head_dim": 16,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "max_num_patches": 16,
            },
            "text_config": KOSMOS_TEXT,
            "latent_query_num": 4,
        },
        layers="text_model.model.layers",
        vision=flattened_patches,
        aligned=image_positions,
    ),
    family(
        "Janus",
        "JanusForConditionalGeneration",
        {
            "vision_config": TOWER | {"image_size": 8, "projection_dim": 32, "num_image_tokens": 4, "mlp_ratio": 2.0},
            "vq_config": {
                "num_embeddings": 16,
                "latent_channels": 32,
                "base_channels": 32,
                "channel_multiplier": [1],
                "num_res_blocks": 1,
                "num_patches": 8,
                "projection_dim": 32,
                "image_token_embed_dim": 32,
            },
            "text_config": text("llama"),
            "image_token_id": IMAGE,
        },
        vision=lambda sample: {"pixel_values": pixels(sample, 1, 3, 8, 8)},
    ),
    family(
        "Molmo2",
        "Molmo2ForConditionalGeneration",
        {
            "vision_config": {
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "head_dim": 16,
                "image_size": [16, 16],
                "patch_size": 4,
                "num_position_embeddings": 16,
            },
            "adapter_config": {
                "vision_feature_layer": [-1],
                "hidden_size": 32,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "head_dim": 16,
                "intermediate_size": 48,
                "text_hidden_size": 32,
            },
            "text_config": text(additional_vocab_size=4),
            "image_patch_id": IMAGE,
        },
        vision=lambda sample: {
            "pixel_values": pixels(sample, 1, 16, 48),
            "image_grids": torch.tensor([[2, 2, 0, 0]]),
            "image_num_crops": torch.tensor([1]),
        },
        aligned=pooled_patches,
    ),
    family(
        "Granite 4 Vision",
        "Granite4VisionForConditionalGeneration",
        {
            "vision_config": TOWER | {"model_type": "clip_vision_model", "hidden_size": 64, "projection_dim": 32},
            "qformer_config": QFORMER | {"model_type": "blip_2_qformer", "num_hidden_layers": 1},
            "text_config": text(
                embedding_multiplier=2.0, logits_scaling=2.0, residual_multiplier=0.5, attention_multiplier=0.3
            ),
            "image_token_index": IMAGE,
            "image_grid_pinpoints": [[16, 32], [32, 16]],
            "downsample_rate": "1/2",
            "deepstack_layer_map": [[-1, 0]],
            "spatial_target_layers": [1],
        },
        n_tokens=4 + 2 * 4 + 2,
        vision=lambda sample: {
            "pixel_values": pixels(sample, 1, 3, 3, 16, 16),
            "image_sizes": torch.tensor([[16, 32]]),
        },
        refused={0: "deepstack"},
        notes="image features are added again before block 1",
    ),
]
