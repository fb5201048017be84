"""Families of Hugging Face in small sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from tests.family_ends import ENDS, LATENT
from tests.family_experts import EXPERTS as SPARSE
from tests.family_hybrids import HYBRIDS, MORE, UNSAVED

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 96,
    "max_position_embeddings": 64,
    "sliding_window": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
"""What most families call their sizes; those that a config has not are left out, None in a row takes one out."""


@dataclass(frozen=True)
class Row:
    """A config of a family. `quick` ones are in every run, the others behind the marker zoo."""

    family: str
    name: str = ""
    sizes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    quick: bool = False
    attention: str = "sdpa"
    double: bool = False
    """Its buffers are made in float64, so that what they hold is as exact as ours; so is what it makes them anew of."""
    saved: bool = True
    """Its class saves what it can read."""
    renamed: tuple[str, ...] = ()
    """Fields that come back as others that say the same."""

    def __str__(self) -> str:
        return f"{self.family}{'-' * bool(self.name)}{self.name}"

    def config(self) -> PreTrainedConfig:
        known = AutoConfig.for_model(self.family)
        names = {*known.to_dict(), *type(known).attribute_map}
        own = type(known).attribute_map
        given = {own.get(key, key): value for key, value in SMALL.items() if key in names} | dict(self.sizes)
        made = AutoConfig.for_model(self.family, **{key: value for key, value in given.items() if value is not None})
        made._attn_implementation = self.attention
        made._experts_implementation = "eager"
        return made


OLD = {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 64, "vocab_size": 96}
LLAMA3 = {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
YARN = {"rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0, "original_max_position_embeddings": 16}
MSCALE = {"mscale": 1.2, "mscale_all_dim": 0.8}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 4.0}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 100.0,
    "partial_rotary_factor": 1.0,
    "factor": 4.0,
    "short_factor": [1.0, 1.25, 1.5, 2.0],
    "long_factor": [1.0, 2.0, 3.0, 4.0],
}
WHOLE_YARN = {**YARN, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False}
UNSEEN = {"sliding_window": None}
EXPERTS = {"num_experts_per_tok": 3, "router_aux_loss_coef": 0.7}
FINE = {**EXPERTS, "num_experts": 6, "moe_intermediate_size": 24}
MPT = {"d_model": 48, "n_layers": 3, "n_heads": 6, "max_seq_len": 64, "vocab_size": 96}
LIMITED = {
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "n_group": 4,
    "topk_group": 2,
    "moe_intermediate_size": 24,
    "n_shared_experts": 2,
    "routed_scaling_factor": 1.5,
    "first_k_dense_replace": 1,
    **LATENT,
}
OLDER = {**OLD, "rotary_dim": 4}
MIXED = {"layer_types": ["conv", "full_attention", "conv", "conv"]}
SPACE = {"num_heads": 8, "head_dim": 8, "state_size": 6, "chunk_size": 8}
FACTORS = {"linear_attn_alpha_factor": 1.5, "linear_attn_beta_factor": 0.7, "mlp_alpha_factor": 1.25, "block_size": 8}
ROWS = (
    Row("afmoe", "", {**FINE, "num_hidden_layers": 5, "route_scale": 1.5, "router_aux_loss_coef": None}),
    Row("apertus", "", {"rope_parameters": {"rope_theta": 100.0, "rope_type": "default"}}),
    Row("arcee"),
    Row("bitnet"),
    Row("codegen", "", {**OLDER, "n_ctx": 64}, attention="eager"),
    Row("deepseek_v3", "", LIMITED, quick=True),
    Row(
        "deepseek_v3",
        "yarn-mscale",
        {**LIMITED, "rope_parameters": {**YARN, **MSCALE}},
        renamed=("rope_parameters",),
    ),
    Row("deepseek_v3", "whole-queries", {**LIMITED, "q_lora_rank": None, "norm_topk_prob": False}),
    Row("falcon", quick=True),
    Row("falcon", "grouped", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    Row("falcon", "grouped-one-norm", {"new_decoder_architecture": True, "num_ln_in_parallel_attn": 1, "bias": True}),
    Row("falcon", "slopes", {"alibi": True, "num_attention_heads": 8}),
    Row(
        "falcon", "slopes-each", {"alibi": True, "multi_query": False, "parallel_attn": False, "num_attention_heads": 8}
    ),
    Row("gemma", "", {"hidden_size": 64}),  # its root is exact: they round it to float32
    Row("glm"),
    Row("glm4"),
    Row("gpt2", "", OLD, quick=True),
    Row("gpt2", "narrow-untied", {**OLD, "n_inner": 40, "tie_word_embeddings": False}),
    Row("gpt_bigcode", "", OLD),
    Row("gpt_bigcode", "many", {**OLD, "multi_query": False}, quick=True),
    Row(
        "gpt_neo",
        "",
        {
            "hidden_size": 32,
            "num_layers": 4,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 2]],
            "window_size": 8,
        },
        attention="eager",
    ),
    Row("gpt_neox"),
    Row("gpt_neox", "in-turn", {"use_parallel_residual": False, "attention_bias": False}),
    Row("gpt_oss", "", {**EXPERTS, "num_local_experts": 6, "rope_parameters": WHOLE_YARN}, attention="eager"),
    Row("gptj", "", OLDER, attention="eager"),
    Row("lfm2", "", {**MIXED, "block_auto_adjust_ff_dim": False, "conv_bias": True}, quick=True),
    Row("lfm2", "rounded", {**MIXED, "full_attn_idxs": [1], "layer_types": None, "tie_word_embeddings": False}),
    Row("llama", quick=True),
    Row("llama", "scaled-tied", {"rope_parameters": {"rope_theta": 100.0, "rope_type": "llama3", **LLAMA3}}),
    Row("llama", "yarn", {"rope_parameters": YARN}),
    Row("llama", "yarn-weaker", {"rope_parameters": {**YARN, "attention_factor": 1.5, "truncate": False}}),
    Row("llama", "yarn-mscale", {"rope_parameters": {**YARN, **MSCALE}}, renamed=("rope_parameters",)),
    Row("llama", "dynamic", {"rope_parameters": DYNAMIC, "max_position_embeddings": 16}, double=True),
    Row("llama", "biases", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    Row("mamba", "", {"state_size": 5, "time_step_rank": 3, "use_bias": True}, attention="eager"),
    Row("falcon_mamba", "", {"state_size": 5, "tie_word_embeddings": False}, attention="eager"),
    Row("mamba2", "", {**SPACE, "n_groups": 2}, quick=True, attention="eager"),
    Row(
        "mamba2", "limits", {**SPACE, "n_groups": 1, "time_step_limit": [0.1, 0.5], "use_bias": True}, attention="eager"
    ),
    Row("minimax", "", {**FACTORS, "num_local_experts": 4, "sliding_window": None}, double=True),
    Row("mistral", quick=True),
    Row("mistral", "wide", UNSEEN),
    Row("mixtral", "", {**EXPERTS, "num_local_experts": 6}, quick=True),
    Row("mixtral", "window-alone", {**EXPERTS, "num_local_experts": 6, "num_hidden_layers": 1, "sliding_window": None}),
    Row("mpt", "", MPT, attention="eager"),
    Row("mpt", "clipped", {**MPT, "attn_config": {"clip_qkv": 0.3, "softmax_scale": 0.5}}, attention="eager"),
    Row("nemotron", "", {"norm_eps": 1e-2}),
    Row("olmo", "", {"clip_qkv": 0.2}),
    Row("olmo2", quick=True),
    Row("olmo3"),
    Row(
        "olmo_hybrid",
        "",
        {
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 6,
            "linear_value_head_dim": 5,
        },
        quick=True,
        saved=False,
    ),
    Row("olmoe", "", {**EXPERTS, "num_experts": 6, "clip_qkv": 0.2}),
    Row("persimmon"),
    Row("phi", "", {"head_dim": None}),
    Row("phi3", "", UNSEEN, quick=True),
    Row("phi3", "window"),
    Row("phi3", "longrope", {**UNSEEN, "original_max_position_embeddings": 16, "rope_parameters": LONGROPE}),
    Row("phi3", "longrope-within", {**UNSEEN, "original_max_position_embeddings": 40, "rope_parameters": LONGROPE}),
    Row("qwen2"),
    Row("qwen2_moe", "", {**FINE, "shared_expert_intermediate_size": 40}, quick=True),
    Row("qwen3", "", UNSEEN),
    Row("qwen3_moe", "", {**FINE, "norm_topk_prob": True}),
    Row("seed_oss"),
    Row("smollm3", "", {"no_rope_layer_interval": 3, "num_hidden_layers": 5, **UNSEEN}, quick=True),
    Row("stablelm", "", {"head_dim": None}),
    Row("stablelm", "parallel-biases", {"head_dim": None, "use_parallel_residual": True, "use_qkv_bias": True}),
    Row("starcoder2"),
    Row("starcoder2", "plain", {**UNSEEN, "use_bias": False, "tie_word_embeddings": False}),
    *(Row(*of, saved=of[0] not in UNSAVED) for of in (*ENDS, *HYBRIDS, *MORE, *SPARSE)),
)
