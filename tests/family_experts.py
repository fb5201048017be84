"""Families with mixtures of experts: name, variant, sizes, whether in every run, attention."""

from __future__ import annotations

from tests.family_ends import LATENT, Row, row

ROUTED = {
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 24,
    "n_shared_experts": 2,
    "routed_scaling_factor": 1.5,
    "first_k_dense_replace": 1,
}
GROUPS = {"n_group": 4, "topk_group": 2}
BEST = {**ROUTED, **LATENT, **GROUPS, "topk_method": "group_limited_greedy"}
ERNIE = {"moe_num_experts": 6, "moe_k": 3, "moe_intermediate_size": 24}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 100.0,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
    "mscale_all_dim": 0.8,
}
LLAMA4 = {
    "interleave_moe_layer_step": 2,
    "intermediate_size_mlp": 40,
    "num_experts_per_tok": 2,
    "num_local_experts": 6,
    "attention_chunk_size": 8,
    "floor_scale": 4,
    "attn_scale": 0.3,
    "sliding_window": None,
}
DBRX = {"ffn_hidden_size": 24, "moe_num_experts": 6, "moe_top_k": 3, "moe_loss_weight": 0.0}
MIXED = {
    "no_rope_layers": [1, 0, 1, 0],
    "layer_types": ["full_attention", "chunked_attention", "chunked_attention", "full_attention"],
}
EXPERTS: tuple[Row, ...] = (
    row("dbrx", "", {"attn_config": {"clip_qkv": 0.3, "kv_n_heads": 2, "rope_theta": 10000.0}, "ffn_config": DBRX}),
    row("deepseek_v2", "", {**ROUTED, **LATENT, "rope_parameters": YARN, "attention_bias": True}),
    row("deepseek_v2", "groups", BEST),
    row("deepseek_v2", "whole-queries", {**ROUTED, **LATENT, "q_lora_rank": None, "attention_bias": True}),
    row("deepseek_v2", "groups-whole-queries", {**BEST, "q_lora_rank": None}),
    row("deepseek_v3", "yarn", {**ROUTED, **LATENT, **GROUPS, "rope_parameters": YARN}),
    row("deepseek_v3", "ungrouped", {**ROUTED, **LATENT, "n_group": 1, "topk_group": 1}),
    row("dots1", "", {**ROUTED, **GROUPS, "layer_types": ["full_attention", "sliding_attention"] * 2}),
    row("dots1", "ungrouped", {**ROUTED, "sliding_window": None, "attention_bias": True, "norm_topk_prob": True}),
    row("ernie4_5_moe", "", {**ERNIE, "use_bias": True, "router_aux_loss_coef": 0.0}),  # it counts uncorrected choices
    row("ernie4_5_moe", "unshared", {**ERNIE, "moe_num_shared_experts": 0, "router_aux_loss_coef": 0.0}),
    row("glm4_moe", "", {**ROUTED, "attention_bias": True}),
    row("glm4_moe", "normed-groups", {**ROUTED, **GROUPS, "use_qk_norm": True}),
    row("llama4_text", "", {**LLAMA4, "use_qk_norm": False}),
    row("llama4_text", "normed", {**LLAMA4, **MIXED, "attention_bias": True}),
    row("llama4_text", "still", {**LLAMA4, "attn_temperature_tuning": False}),
    row("llama4_text", "still-unnormed", {**LLAMA4, "attn_temperature_tuning": False, "use_qk_norm": False}),
    row("hunyuan_v1_moe", "", {"num_experts": 6, "moe_topk": 3, "attention_bias": True}),
)
