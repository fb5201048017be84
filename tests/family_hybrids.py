"""Families that mix attention with recurrences: name, variant, sizes, whether in every run, attention."""

from __future__ import annotations

from tests.family_ends import LATENT, Row, row

EXPERTS = {"num_experts_per_tok": 3, "router_aux_loss_coef": 0.7}
SPACE = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 6, "mamba_n_groups": 2, "mamba_chunk_size": 8}
H1 = {
    **SPACE,
    "mamba_d_ssm": 64,
    "embedding_multiplier": 1.7,
    "lm_head_multiplier": 0.5,
    "key_multiplier": 0.39,
    "mlp_multipliers": [0.88, 1.25],
    "ssm_multipliers": [0.75, 1.25, 0.5, 1.5, 0.875],  # exact in the float32 that the class keeps them in
    "ssm_in_multiplier": 1.25,
    "ssm_out_multiplier": 0.8,
    "attention_in_multiplier": 1.1,
    "attention_out_multiplier": 0.94,
}
GRANITE = {
    **SPACE,
    **EXPERTS,
    "num_local_experts": 6,
    "shared_intermediate_size": 40,
    "layer_types": ["linear_attention", "full_attention", "linear_attention", "linear_attention"],
    "embedding_multiplier": 3.0,
    "logits_scaling": 2.0,
    "residual_multiplier": 0.7,
    "attention_multiplier": 0.2,
}
DENSE = {**GRANITE, "num_local_experts": 0, "num_experts_per_tok": 0, "router_aux_loss_coef": 0.0}
NEMOTRON = {
    "sliding_window": None,
    "layers_block_type": ["linear_attention", "moe", "full_attention", "mlp", "linear_attention"],
    "mamba_num_heads": 8,
    "mamba_head_dim": 8,
    "n_groups": 2,
    "ssm_state_size": 6,
    "chunk_size": 8,
    "time_step_min": 0.3,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 24,
    "moe_shared_expert_intermediate_size": 40,
    "routed_scaling_factor": 1.5,
}
NEXT = {
    **EXPERTS,
    "num_experts": 6,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 40,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 6,
    "linear_value_head_dim": 5,
}
KIMI = {
    "num_hidden_layers": 6,
    "linear_num_heads": 3,
    "linear_head_dim": 6,
    "num_experts": 8,
    "num_experts_per_token": 3,
    "num_shared_experts": 2,
    "moe_intermediate_size": 24,
    "kv_lora_rank": 12,
    "qk_nope_head_dim": 6,
    "qk_rope_head_dim": 4,
    "v_head_dim": 10,
    "head_dim": None,
    "num_key_value_heads": 4,
}
GRIFFIN = {"num_hidden_layers": 7, "hidden_size": 64, "lru_width": 64, "attention_window_size": 8, "head_dim": None}
LFM2 = {
    "layer_types": ["conv", "full_attention", "conv", "conv"],
    "num_experts": 6,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 24,
    "num_dense_layers": 1,
    "routed_scaling_factor": 1.5,
}
JAMBA = {
    **EXPERTS,
    "num_experts": 6,
    "mamba_d_state": 5,
    "mamba_dt_rank": 3,
    "attn_layer_period": 4,
    "attn_layer_offset": 2,
    "num_hidden_layers": 5,
    "mamba_proj_bias": True,
}
UNSAVED = {
    "olmo_hybrid": "of q, k and v of other widths it cuts thirds",
    "kimi_linear": "it renames dense layers, too",
}
"""Classes that save what files on the hub do not have, and why."""
T5 = {
    "d_model": 32,
    "d_kv": 6,
    "d_ff": 48,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 4,
    "dropout_rate": 0.0,
}
SCALED = {"embedding_multiplier": 3.0, "logits_scaling": 2.0, "residual_multiplier": 0.7, "attention_multiplier": 0.2}
MODULE = {
    "hidden_size": 64,  # its root is exact
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 96,
    "max_position_embeddings": 64,
    "sliding_window": 8,
    "query_pre_attn_scalar": 11,
}
T5GEMMA = {
    "encoder": {**MODULE, "num_hidden_layers": 3, "attention_bias": True},
    "decoder": {**MODULE, "num_hidden_layers": 2, "num_key_value_heads": 4, "final_logit_softcapping": 5.0},
}
MORE: tuple[Row, ...] = (
    row("bloom", "", {"num_attention_heads": 8}, attention="eager"),
    row("ernie4_5", "", {"use_bias": True}),
    row("granitemoe", "", {**EXPERTS, **SCALED, "num_local_experts": 6}),
    row("minicpm3", "", {**LATENT, "dim_model_base": 24}),
    row("mt5", "", T5),
    row("mt5", "plain", {**T5, "feed_forward_proj": "gelu", "tie_word_embeddings": False}),
    row("t5gemma", "", T5GEMMA, attention="eager"),
    row("t5gemma", "wider", {**T5GEMMA, "encoder": {**T5GEMMA["encoder"], "hidden_size": 52}}, attention="eager"),
    row("t5gemma", "untied", {**T5GEMMA, "tie_word_embeddings": False}, attention="eager"),
    row("umt5", "", T5, attention="eager"),
    row("umt5", "plain-untied", {**T5, "feed_forward_proj": "gelu", "tie_word_embeddings": False}, attention="eager"),
    row("t5", "", T5),
    row("t5", "gated-untied", {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
)
HYBRIDS: tuple[Row, ...] = (
    row("bamba", "", {**SPACE, "attn_layer_indices": [1, 2], "mamba_proj_bias": True}),
    row("falcon_h1", "", H1, quick=True),
    row("falcon_h1", "normed", {**H1, "mamba_rms_norm": True}),
    row("falcon_h1", "gated-first", {**H1, "mamba_rms_norm": True, "mamba_norm_before_gate": False}),
    row("granitemoehybrid", "", GRANITE),
    row("granitemoehybrid", "dense", DENSE),
    row("granitemoehybrid", "rope", {**GRANITE, "position_embedding_type": "rope"}),
    row("granitemoehybrid", "dense-rope", {**DENSE, "position_embedding_type": "rope"}),
    row("jamba", "", JAMBA, quick=True),
    row("kimi_linear", "", KIMI, quick=True),
    row("lfm2_moe", "", LFM2),
    row("nemotron_h", "", NEMOTRON),
    row("qwen3_next", "", NEXT, quick=True),
    row("recurrent_gemma", "", GRIFFIN, quick=True),
)
