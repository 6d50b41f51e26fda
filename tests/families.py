"""A small random model of each family of causal LMs that users bring, from transformers' config classes.

Windows and chunks are 16 tokens, so that short rows go past them; attention sinks are drawn, as they are zero
in a fresh model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers

from sage.policy.models.load import LanguageModel
from tests.tiny_models import byte_tokenizer

WINDOW = 16
_ROWS = 259
"""The byte tokenizer's."""
_SIZES: dict[str, Any] = {
    "vocab_size": _ROWS,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
_MOE = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_DELTA = {
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
_MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8}
_CONVS = {"layer_types": ["conv", "full_attention", "conv", "full_attention"]}


def _of(config: str, **own: Any) -> Callable[[], Any]:
    return lambda: getattr(transformers, config)(**_SIZES | own)


FAMILIES: dict[str, Callable[[], Any]] = {
    "Llama": _of("LlamaConfig"),
    "Qwen2": _of("Qwen2Config"),
    "Qwen2, windowed": _of(
        "Qwen2Config", use_sliding_window=True, sliding_window=WINDOW, max_window_layers=2
    ),
    "Qwen3": _of("Qwen3Config", head_dim=8),
    "Qwen3-MoE": _of("Qwen3MoeConfig", head_dim=8, **_MOE),
    "Qwen3-Next": _of("Qwen3NextConfig", head_dim=8, shared_expert_intermediate_size=32, **_DELTA, **_MOE),
    "Qwen3.5": _of("Qwen3_5TextConfig", head_dim=8, **_DELTA),
    "Gemma 2": _of("Gemma2Config", head_dim=8, query_pre_attn_scalar=8, sliding_window=WINDOW),
    "Gemma 3": _of(
        "Gemma3TextConfig",
        head_dim=8,
        query_pre_attn_scalar=8,
        sliding_window=WINDOW,
        layer_types=["sliding_attention", "full_attention"] * 2,
    ),
    "gpt-oss": _of(
        "GptOssConfig", head_dim=8, sliding_window=WINDOW, num_local_experts=4, num_experts_per_tok=2
    ),
    "Mistral, windowed": _of("MistralConfig", sliding_window=WINDOW),
    "Mixtral, windowed": _of("MixtralConfig", sliding_window=WINDOW, num_local_experts=4),
    "Phi 3, windowed": _of("Phi3Config", sliding_window=WINDOW),
    "Olmo 3": _of("Olmo3Config", sliding_window=WINDOW),
    "OLMoE": _of("OlmoeConfig", num_experts=8, num_experts_per_tok=2),
    "SmolLM3": _of("SmolLM3Config"),
    "LFM2": _of("Lfm2Config", **_CONVS),
    "LFM2-MoE": _of("Lfm2MoeConfig", num_dense_layers=1, **_CONVS, **_MOE),
    "Llama 4, text": _of(
        "Llama4TextConfig",
        head_dim=8,
        attention_chunk_size=WINDOW,
        num_local_experts=4,
        intermediate_size_mlp=64,
    ),
    "Cohere 2": _of("Cohere2Config", sliding_window=WINDOW, logit_scale=0.25),
    "Granite": _of("GraniteConfig", logits_scaling=4.0, embedding_multiplier=3.0, residual_multiplier=0.5),
    "Granite 4, hybrid": _of(
        "GraniteMoeHybridConfig",
        layer_types=["linear_attention", "full_attention"] * 2,
        num_local_experts=0,
        shared_intermediate_size=64,
        logits_scaling=4.0,
        **_MAMBA,
    ),
    "Falcon-H1": _of("FalconH1Config", head_dim=8, mamba_d_ssm=64, lm_head_multiplier=0.5, **_MAMBA),
    "Jamba": _of(
        "JambaConfig", attn_layer_offset=1, attn_layer_period=2, num_experts=4, expert_layer_period=2
    ),
    "StarCoder2": _of("Starcoder2Config", sliding_window=WINDOW),
    "GLM 4": _of("Glm4Config", head_dim=8),
    "EXAONE 4": _of("Exaone4Config", sliding_window=WINDOW, sliding_window_pattern=4),
    "DeepSeek V3": _of(
        "DeepseekV3Config",
        num_key_value_heads=4,
        kv_lora_rank=8,
        q_lora_rank=8,
        qk_rope_head_dim=8,
        v_head_dim=8,
        qk_nope_head_dim=8,
        n_routed_experts=8,
        n_group=2,
        topk_group=1,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        first_k_dense_replace=1,
    ),
    "Gemma 4, text": _of(
        "Gemma4TextConfig",
        head_dim=8,
        sliding_window=WINDOW,
        vocab_size_per_layer_input=_ROWS,
        hidden_size_per_layer_input=8,
    ),
    "Llama, dynamic RoPE": _of(
        "LlamaConfig",
        max_position_embeddings=24,
        rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0},
    ),
    "RecurrentGemma": _of("RecurrentGemmaConfig", attention_window_size=WINDOW, lru_width=32),
}


def family(name: str, *, dtype: torch.dtype = torch.float32, **how: Any) -> LanguageModel:
    """The model of that name in `FAMILIES`, always the same one; `how` goes to `from_config`."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(FAMILIES[name](), **how)
    with torch.no_grad():
        for parameter, value in model.named_parameters():
            if "sinks" in parameter:
                value.normal_()
    return LanguageModel(model.to(dtype).eval(), byte_tokenizer(), name, "", torch.device("cpu"))
