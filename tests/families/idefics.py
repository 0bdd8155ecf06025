"""Idefics and SmolVLM: pixel values with one row for each sample."""

from typing import Any

from tests.families.family import IMAGE, IMAGE_END, IMAGE_START, Family, Inputs, pixels, text

TOWER: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}
PERCEIVER = {
    "hidden_size": 32,
    "resampler_n_latents": 4,
    "resampler_depth": 1,
    "resampler_n_heads": 2,
    "resampler_head_dim": 16,
    "num_key_value_heads": 1,
}


def picture(sample: int) -> Inputs:
    return {"pixel_values": pixels(sample, 1, 1, 3, 16, 16)}


def family(name: str, hf_class: str, text_type: str, **config: Any) -> Family:
    return Family(
        name=name,
        kind="vlm",
        hf_class=hf_class,
        config={"vision_config": TOWER, "text_config": text(text_type), "image_token_id": IMAGE} | config,
        layers="model.text_model.layers",
        image=(IMAGE_START, *[IMAGE] * 4, IMAGE_END),
        vision=picture,
    )


FAMILIES = [
    family("Idefics2", "Idefics2ForConditionalGeneration", "mistral", perceiver_config=PERCEIVER),
    family("Idefics3", "Idefics3ForConditionalGeneration", "llama", scale_factor=2),
    family("SmolVLM", "SmolVLMForConditionalGeneration", "llama", scale_factor=2),
]
