"""Small random models with their real processors, whose image tokens lie where the family puts them."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
import transformers
from transformers import (
    CLIPImageProcessor,
    Gemma3ImageProcessor,
    Gemma3Processor,
    GotOcr2ImageProcessor,
    Idefics2ImageProcessor,
    Idefics2Processor,
    Idefics3ImageProcessor,
    Idefics3Processor,
    InternVLProcessor,
    InternVLVideoProcessor,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

from delta_attnmask.modeling.load import LoadedModel
from tests.families.family import TEXT, randomize
from tests.reading.prompts import template

PATCH = 8
TOWER: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": PATCH,
}
WRAPPED = (
    "{% for m in messages %}{{ m.role }}:"
    "{% for p in m.content %}{{ '<image>' if p.type == 'image' else p.text }}{% endfor %}<|im_end|>{% endfor %}"
)


def byte_tokenizer(named: dict[str, str] | None = None, added: Sequence[str] = ()) -> Any:
    """A tokenizer whose tokens are bytes. named: special tokens that the processor looks for by attribute."""
    vocabulary = {letter: byte for byte, letter in bytes_to_unicode().items()}
    tokenizer = Qwen2Tokenizer(vocabulary, [], extra_special_tokens=named or {})
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>", *added], special_tokens=True)
    tokenizer.eos_token = "<|im_end|>"
    return tokenizer


def text(tokenizer: Any, model_type: str, **more: Any) -> dict[str, Any]:
    """The decoder's configuration, with room for every token."""
    return TEXT | {"model_type": model_type, "vocab_size": len(tokenizer), "max_position_embeddings": 4096} | more


def build(hf_class: str, processor: Any, **config: Any) -> LoadedModel:
    torch.manual_seed(0)
    model_class = getattr(transformers, hf_class)
    model = model_class(model_class.config_class(**config)).float().eval()
    randomize(model, seed=1)
    return LoadedModel(hf_class, model, processor)


def qwen2_vl() -> LoadedModel:
    tokenizer = byte_tokenizer(added=["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"])
    images = Qwen2VLImageProcessor(patch_size=PATCH, merge_size=2, min_pixels=32 * 32, max_pixels=160 * 160)
    processor = Qwen2VLProcessor(images, tokenizer, Qwen2VLVideoProcessor(), chat_template=template("qwen2-vl"))
    vision = {"embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2, "depth": 2, "num_heads": 2, "patch_size": PATCH}
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
    return build(
        "Qwen2VLForConditionalGeneration",
        processor,
        vision_config=vision,
        text_config=text(tokenizer, "qwen2_vl_text", rope_parameters=rope),
        image_token_id=processor.image_token_id,
        video_token_id=tokenizer.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=tokenizer.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=tokenizer.convert_tokens_to_ids("<|vision_end|>"),
    )


def llava() -> LoadedModel:
    tokenizer = byte_tokenizer(added=["<image>"])
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=WRAPPED,
    )
    return build(
        "LlavaForConditionalGeneration",
        processor,
        vision_config=TOWER | {"model_type": "clip_vision_model", "image_size": 32, "projection_dim": 32},
        text_config=text(tokenizer, "llama"),
        image_token_index=processor.image_token_id,
        vision_feature_layer=-2,
    )


def llava_next() -> LoadedModel:
    tokenizer = byte_tokenizer(added=["<image>"])
    pinpoints = [[32, 64], [64, 32], [64, 64]]
    processor = LlavaNextProcessor(
        LlavaNextImageProcessor(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, image_grid_pinpoints=pinpoints
        ),
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=WRAPPED,
    )
    return build(
        "LlavaNextForConditionalGeneration",
        processor,
        vision_config=TOWER | {"model_type": "clip_vision_model", "image_size": 32, "projection_dim": 32},
        text_config=text(tokenizer, "llama"),
        image_token_index=processor.image_token_id,
        image_grid_pinpoints=pinpoints,
        vision_feature_layer=-2,
    )


def smolvlm() -> LoadedModel:
    tiles = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    tokenizer = byte_tokenizer(
        added=["<global-img>", "<fake_token_around_image>", "<image>", "<end_of_utterance>", *tiles]
    )
    tokenizer.bos_token = "<|im_start|>"
    images = Idefics3ImageProcessor(size={"longest_edge": 128}, max_image_size={"longest_edge": 32})
    processor = Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=template("smolvlm"))
    return build(
        "Idefics3ForConditionalGeneration",
        processor,
        vision_config=TOWER | {"image_size": 32},
        text_config=text(tokenizer, "llama"),
        image_token_id=processor.image_token_id,
        scale_factor=2,
    )


def internvl() -> LoadedModel:
    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    images = GotOcr2ImageProcessor(size={"height": 32, "width": 32}, crop_to_patches=True, min_patches=1, max_patches=4)
    tokenizer = byte_tokenizer(named=named)
    processor = InternVLProcessor(
        images, tokenizer, InternVLVideoProcessor(), image_seq_length=4, chat_template=template("internvl")
    )
    return build(
        "InternVLForConditionalGeneration",
        processor,
        vision_config=TOWER | {"image_size": [32, 32], "patch_size": [PATCH, PATCH]},
        text_config=text(tokenizer, "qwen2"),
        image_token_id=processor.image_token_id,
        image_seq_length=4,
    )


def gemma3() -> LoadedModel:
    named = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    tokenizer = byte_tokenizer(named=named, added=["<start_of_turn>", "<end_of_turn>", "<bos>"])
    tokenizer.bos_token = "<bos>"
    images = Gemma3ImageProcessor(size={"height": 32, "width": 32})
    processor = Gemma3Processor(images, tokenizer, chat_template=template("gemma3-like"), image_seq_length=4)
    return build(
        "Gemma3ForConditionalGeneration",
        processor,
        vision_config=TOWER | {"model_type": "siglip_vision_model", "image_size": 32, "vision_use_head": False},
        text_config=text(tokenizer, "gemma3_text"),
        mm_tokens_per_image=4,
        image_token_index=tokenizer.image_token_id,
    )


def idefics2() -> LoadedModel:
    tokenizer = byte_tokenizer(added=["<fake_token_around_image>", "<image>", "<end_of_utterance>"])
    images = Idefics2ImageProcessor(size={"shortest_edge": 24, "longest_edge": 32}, do_image_splitting=False)
    processor = Idefics2Processor(images, tokenizer, image_seq_len=4, chat_template=WRAPPED)
    perceiver = {
        "hidden_size": 32,
        "resampler_n_latents": 4,
        "resampler_depth": 1,
        "resampler_n_heads": 2,
        "resampler_head_dim": 16,
        "num_key_value_heads": 1,
    }
    return build(
        "Idefics2ForConditionalGeneration",
        processor,
        vision_config=TOWER | {"image_size": 32},
        text_config=text(tokenizer, "mistral"),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        perceiver_config=perceiver,
    )


MODELS: dict[str, Callable[[], LoadedModel]] = {
    "Qwen2-VL": cache(qwen2_vl),
    "LLaVA": cache(llava),
    "LLaVA-NeXT": cache(llava_next),
    "SmolVLM": cache(smolvlm),
    "InternVL": cache(internvl),
    "Gemma 3": cache(gemma3),
    "Idefics2": cache(idefics2),
}
