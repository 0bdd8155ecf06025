"""Text-only families."""

from typing import Any

from tests.families.family import Family, text

NO_ATTENTION = "attention"  # in the reason why a model whose attention can't be seen is refused

MAMBA2: dict[str, Any] = {
    "mamba_d_ssm": 32,
    "mamba_n_heads": 4,
    "mamba_d_head": 8,
    "mamba_d_state": 8,
    "mamba_expand": 1,
    "mamba_chunk_size": 8,
}
MLA: dict[str, Any] = {
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 12,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
WINDOWED = {"sliding_window": 6}
SLIDING_THEN_FULL = ["sliding_attention", "full_attention"] * 2


def family(name: str, hf_class: str, *, layers: str = "model.layers", config: dict[str, Any], **more: Any) -> Family:
    return Family(name=name, kind="text", hf_class=hf_class, layers=layers, config=config, **more)


FAMILIES = [
    family("Llama", "LlamaForCausalLM", config=text()),
    family("Qwen2", "Qwen2ForCausalLM", config=text()),
    family("Qwen3", "Qwen3ForCausalLM", config=text()),
    family(
        "Qwen3-MoE",
        "Qwen3MoeForCausalLM",
        config=text(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16),
    ),
    family("Mistral", "MistralForCausalLM", config=text(**WINDOWED)),
    family("Mixtral", "MixtralForCausalLM", config=text(num_local_experts=4)),
    family("Gemma", "GemmaForCausalLM", config=text()),
    family(
        "Gemma 2",
        "Gemma2ForCausalLM",
        config=text(
            **WINDOWED,
            layer_types=SLIDING_THEN_FULL,
            query_pre_attn_scalar=8,
            attn_logit_softcapping=2.0,
            final_logit_softcapping=5.0,
        ),
    ),
    family(
        "Gemma 3 text",
        "Gemma3ForCausalLM",
        config=text(**WINDOWED, layer_types=SLIDING_THEN_FULL, query_pre_attn_scalar=8),
    ),
    family(
        "GPT-2",
        "GPT2LMHeadModel",
        layers="transformer.h",
        config={"vocab_size": 128, "n_positions": 128, "n_embd": 32, "n_layer": 4, "n_head": 4},
        notes="positions are counted from the left, so left padding changes the model itself",
    ),
    family(
        "OPT",
        "OPTForCausalLM",
        layers="model.decoder.layers",
        config=text(ffn_dim=48, word_embed_proj_dim=32),
    ),
    family("GPT-NeoX", "GPTNeoXForCausalLM", layers="gpt_neox.layers", config=text()),
    family("Phi", "PhiForCausalLM", config=text()),
    family("Phi-3", "Phi3ForCausalLM", config=text(**WINDOWED)),
    family("DeepSeek-V3", "DeepseekV3ForCausalLM", config=text(**MLA)),
    family(
        "GLM-MoE-DSA",
        "GlmMoeDsaForCausalLM",
        config=text(**MLA, index_topk=6, index_head_dim=16, index_n_heads=16),
        notes="its indexer keeps the best six keys; with many index heads none of them tie",
    ),
    family("OLMo 2", "Olmo2ForCausalLM", config=text()),
    family(
        "Cohere 2",
        "Cohere2ForCausalLM",
        config=text(**WINDOWED, layer_types=SLIDING_THEN_FULL, logit_scale=0.5),
    ),
    family(
        "Granite",
        "GraniteForCausalLM",
        config=text(embedding_multiplier=2.0, logits_scaling=2.0, residual_multiplier=0.5, attention_multiplier=0.3),
    ),
    family("StableLM", "StableLmForCausalLM", config=text()),
    family(
        "gpt-oss",
        "GptOssForCausalLM",
        config=text(**WINDOWED, layer_types=SLIDING_THEN_FULL, num_local_experts=4, num_experts_per_tok=2),
    ),
    family(
        "Falcon-H1",
        "FalconH1ForCausalLM",
        config=text(**MAMBA2, lm_head_multiplier=0.5, embedding_multiplier=2.0, key_multiplier=0.7),
    ),
    family(
        "Bamba",
        "BambaForCausalLM",
        config=text(**MAMBA2, attn_layer_indices=[1, 3]),
        self_attentions=2,
    ),
    family(
        "LFM2",
        "Lfm2ForCausalLM",
        config=text(layer_types=["conv", "full_attention"] * 2),
        self_attentions=2,
    ),
    family(
        "Falcon",
        "FalconForCausalLM",
        layers="transformer.h",
        config={"vocab_size": 128, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4},
        refusal=NO_ATTENTION,
        notes="its attention does not go through the attention interface",
    ),
    family(
        "BLOOM",
        "BloomForCausalLM",
        layers="transformer.h",
        config={"vocab_size": 128, "hidden_size": 32, "n_layer": 4, "n_head": 4, "pad_token_id": 0},
        refusal=NO_ATTENTION,
        notes="its attention does not go through the attention interface",
    ),
    family(
        "Mamba",
        "MambaForCausalLM",
        layers="backbone.layers",
        config={"vocab_size": 128, "hidden_size": 32, "num_hidden_layers": 4, "state_size": 4, "pad_token_id": 0},
        refusal=NO_ATTENTION,
        notes="it has no attention",
    ),
]
