"""Mixtures of experts of others in small, as specs: what has a mapping of its own stands in `tests/families.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

HEAD = "specc: 1\nname: small\nd_model: 32\nvocab: 96\nmax_seq: 64\n"
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 96,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
EXPERTS = {
    "layers.{i}.moe.{gate,up}.weight": {
        "hf": "model.layers.{i}.mlp.experts.gate_up_proj",
        "axes": "experts ([gate up] ffn) d_model",
    },
    "layers.{i}.moe.down.weight": "model.layers.{i}.mlp.experts.down_proj",
}
SHARED = {
    "layers.{i}.moe.shared.{gate,up,down}.weight": "model.layers.{i}.mlp.shared_experts.{gate,up,down}_proj.weight"
}
ENDS = {
    "embedding.weight": "model.embed_tokens.weight",
    "norm.*": "model.norm.*",
    "head.weight": "lm_head.weight",
}
PRE = {
    **ENDS,
    "layers.{i}.attention_norm.*": "model.layers.{i}.input_layernorm.*",
    "layers.{i}.attention.{q,k,v,o}.*": "model.layers.{i}.self_attn.{q,k,v,o}_proj.*",
}


@dataclass(frozen=True)
class Case:
    """A config and class of others, the same as a spec, and where its parameters are there."""

    architecture: str
    sizes: Mapping[str, Any]
    spec: str
    weights: Mapping[str, Any]
    attention: str = "sdpa"
    training: bool = False
    fewer: Mapping[str, int] = field(default_factory=dict[str, int])
    """Tensors that have unused rows, by a part of their name: rows that are used."""


# without rope, whose angles that class makes complex numbers of 32 bits, and without temperatures (parity_scores.py)
LLAMA4 = """\
norm: {eps: 1e-5}
blocks:
  chunked: [attention: {heads: 4, kv_heads: 2, head_dim: 8, chunk: 8}]
  global: {like: chunked, with: {attention: {chunk: null}}}
  dense: [ffn: {kind: gated, hidden: 40}]
  sparse:
    - moe:
        experts: 6
        top_k: 2
        kind: gated
        hidden: 24
        apply_to: input
        router: {score: sigmoid, normalize: false}
        shared: {hidden: 24}
decoder: {layers: 4, patterns: {mixer: [chunked*2, global], ffn: [dense, sparse]}}
"""
GEMMA4 = """\
norm: {eps: 1e-6, placement: sandwich}
embedding: {scale: sqrt(d_model), tied: true}
blocks:
  local:
    - attention:
        {heads: 4, kv_heads: 2, head_dim: 8, scale: 1, qk_norm: true, v_norm: {weight: false}, window: 8, rope: {}}
  global:
    like: local
    with:
      attention:
        {head_dim: 16, window: null, rope: {theta: 1000000, scaling: {kind: proportional, fraction: 0.25}}}
  experts:
    - parallel:
        - {ffn: {kind: gated, hidden: 48, activation: gelu_tanh}, pre: true, post: true}
        - moe:
            experts: 6
            top_k: 3
            kind: gated
            hidden: 24
            activation: gelu_tanh
            router: {reads: stream, norm: true, in_scale: d_model ** -0.5, expert_scale: true}
          pre: true
          post: true
      norm: false
      post: true
      after_scale: 1
decoder: {layers: 4, patterns: {mixer: [local*2, global], ffn: [experts]}}
"""
LATENT = "{heads: 4, q_rank: 20, kv_rank: 12, nope_dim: 6, rope_dim: 4, v_head_dim: 10, norm: {eps: 1e-6}, "
LATENT += (
    "q_scale: sqrt(d_model / q_rank), kv_scale: sqrt(d_model / kv_rank), rope: {theta: 10000000, pairing: adjacent}}"
)
LONGCAT = f"""\
decoder:
  layers: 2
  block:
    - mla: {LATENT}
    - parallel:
        - ffn: {{kind: gated, hidden: 48}}
        - moe:
            experts: 5
            zero_experts: 3
            top_k: 3
            kind: gated
            hidden: 24
            router: {{normalize: false, scale: "6 * sqrt(top_k)", correction: true}}
          into: shortcut
    - mla: {LATENT}
    - ffn: {{kind: gated, hidden: 48}}
      add: [shortcut]
"""
LAGUNA = """\
norm: {eps: 1e-6}
blocks:
  full:
    - attention:
        heads: 4
        kv_heads: 2
        head_dim: 8
        qk_norm: true
        output_gate: {activation: softplus, per: head}
        rope: {theta: 500000, dim: 4}
  local: {like: full, with: {attention: {window: 8, rope: {theta: 10000, dim: 8}}}}
  dense: [ffn: {kind: gated, hidden: 48}]
  moe:
    - moe:
        experts: 6
        top_k: 3
        kind: gated
        hidden: 24
        router: {score: sigmoid, correction: true, softcap: 0.5, scale: 1.5}
        shared: {hidden: 20}
decoder: {layers: 4, patterns: {mixer: [full, local*3], ffn: {head: [dense], cycle: [moe]}}}
"""
ERNIE = """\
embedding: {tied: true}
blocks:
  mixer: [attention: {heads: 4, kv_heads: 2, head_dim: 8, rope: {theta: 500000, pairing: adjacent}}]
  dense: [ffn: {kind: gated, hidden: 48}]
  moe:
    - moe:
        experts: 6
        top_k: 3
        kind: gated
        hidden: 24
        router: {correction: true}
        shared: {hidden: 48}
decoder: {layers: 4, patterns: {mixer: [mixer], ffn: {head: [dense], cycle: [moe]}}}
"""
MIXTRAL = """\
decoder:
  layers: 4
  block:
    - attention: {heads: 4, kv_heads: 2, head_dim: 8, rope: {theta: 1000000}}
    - moe: {experts: 6, top_k: 3, kind: gated, hidden: 48, router: {jitter: 0.2}}
"""
NEMOTRON = """\
blocks:
  attention: [attention: {heads: 4, kv_heads: 2, head_dim: 8}]
  moe:
    - moe:
        experts: 6
        top_k: 3
        hidden: 24
        activation: relu2
        latent: 12
        router: {score: sigmoid, eps: 1e-20, correction: true, scale: 1.5}
        shared: {hidden: 40}
decoder: {layers: 4, pattern: [attention, moe]}
"""
FFN = "layers.{i}.ffn.{gate,up,down}.weight"
CASES = {
    "llama4": Case(
        "Llama4ForCausalLM",
        {
            **SIZES,
            "model": "llama4_text",
            "intermediate_size": 24,
            "intermediate_size_mlp": 40,
            "num_experts_per_tok": 2,
            "num_local_experts": 6,
            "interleave_moe_layer_step": 2,
            "no_rope_layers": [0] * 4,
            "layer_types": ["chunked_attention", "chunked_attention", "full_attention", "chunked_attention"],
            "attention_chunk_size": 8,
            "attn_temperature_tuning": False,
        },
        LLAMA4,
        {
            **PRE,
            "layers.{i}.{ffn,moe}_norm.*": "model.layers.{i}.{post_attention_layernorm,post_attention_layernorm}.*",
            FFN: "model.layers.{i}.feed_forward.{gate,up,down}_proj.weight",
            "layers.{i}.moe.router.weight": "model.layers.{i}.feed_forward.router.weight",
            "layers.{i}.moe.{gate,up}.weight": {
                "hf": "model.layers.{i}.feed_forward.experts.gate_up_proj",
                "axes": "experts d_model ([gate up] ffn)",
            },
            "layers.{i}.moe.down.weight": {
                "hf": "model.layers.{i}.feed_forward.experts.down_proj",
                "axes": "experts ffn d_model",
            },
            "layers.{i}.moe.shared.{gate,up,down}.weight": (
                "model.layers.{i}.feed_forward.shared_expert.{gate,up,down}_proj.weight"
            ),
        },
    ),
    "gemma4": Case(
        "Gemma4ForCausalLM",
        {
            **SIZES,
            "model": "gemma4_text",
            "global_head_dim": 16,
            "intermediate_size": 48,
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "full_attention"],
            "enable_moe_block": True,
            "num_experts": 6,
            "top_k_experts": 3,
            "moe_intermediate_size": 24,
            "hidden_size_per_layer_input": 0,
            "hidden_size": 64,
            "num_kv_shared_layers": 0,
        },
        GEMMA4.replace("[local*2, global]", "[local*2, global*2]"),
        {
            **ENDS,
            "layers.{i}.attention_norm.*": "model.layers.{i}.input_layernorm.*",
            "layers.{i}.attention_post_norm.*": "model.layers.{i}.post_attention_layernorm.*",
            "layers.{i}.attention.{q,k,v,o}.*": "model.layers.{i}.self_attn.{q,k,v,o}_proj.*",
            "layers.{i}.attention.{q,k}_norm.weight": "model.layers.{i}.self_attn.{q,k}_norm.weight",
            "layers.{i}.ffn_norm.*": "model.layers.{i}.pre_feedforward_layernorm.*",
            "layers.{i}.ffn_post_norm.*": "model.layers.{i}.post_feedforward_layernorm_1.*",
            "layers.{i}.moe_norm.*": "model.layers.{i}.pre_feedforward_layernorm_2.*",
            "layers.{i}.moe_post_norm.*": "model.layers.{i}.post_feedforward_layernorm_2.*",
            "layers.{i}.parallel_post_norm.*": "model.layers.{i}.post_feedforward_layernorm.*",
            "layers.{i}.ffn_after_scale.weight": "model.layers.{i}.layer_scalar",
            FFN: "model.layers.{i}.mlp.{gate,up,down}_proj.weight",
            "layers.{i}.moe.router_norm.weight": "model.layers.{i}.router.scale",
            "layers.{i}.moe.router.weight": "model.layers.{i}.router.proj.weight",
            "layers.{i}.moe.expert_scale.weight": "model.layers.{i}.router.per_expert_scale",
            "layers.{i}.moe.{gate,up}.weight": {
                "hf": "model.layers.{i}.experts.gate_up_proj",
                "axes": "experts ([gate up] ffn) d_model",
            },
            "layers.{i}.moe.down.weight": "model.layers.{i}.experts.down_proj",
        },
    ),
    "longcat": Case(
        "LongcatFlashForCausalLM",
        {
            **{key: value for key, value in SIZES.items() if key not in ("num_key_value_heads", "head_dim")},
            "model": "longcat_flash",
            "head_dim": 4,
            "num_layers": 2,
            "ffn_hidden_size": 48,
            "q_lora_rank": 20,
            "kv_lora_rank": 12,
            "qk_nope_head_dim": 6,
            "qk_rope_head_dim": 4,
            "v_head_dim": 10,
            "moe_topk": 3,
            "n_routed_experts": 5,
            "zero_expert_num": 3,
            "expert_ffn_hidden_size": 24,
            "routed_scaling_factor": 6 * 3**0.5,
        },
        LONGCAT,
        {
            **ENDS,
            "layers.{i}.{mla,mla2}_norm.*": "model.layers.{i}.input_layernorm.{0,1}.*",
            "layers.{i}.mla.{q_a,q_b,kv_b,o}.*": "model.layers.{i}.self_attn.0.{q_a,q_b,kv_b,o}_proj.*",
            "layers.{i}.mla.kv_a.*": "model.layers.{i}.self_attn.0.kv_a_proj_with_mqa.*",
            "layers.{i}.mla.{q_a,kv_a}_norm.*": "model.layers.{i}.self_attn.0.{q_a,kv_a}_layernorm.*",
            "layers.{i}.mla2.{q_a,q_b,kv_b,o}.*": "model.layers.{i}.self_attn.1.{q_a,q_b,kv_b,o}_proj.*",
            "layers.{i}.mla2.kv_a.*": "model.layers.{i}.self_attn.1.kv_a_proj_with_mqa.*",
            "layers.{i}.mla2.{q_a,kv_a}_norm.*": "model.layers.{i}.self_attn.1.{q_a,kv_a}_layernorm.*",
            "layers.{i}.{norm2,ffn2_norm}.*": "model.layers.{i}.post_attention_layernorm.{0,1}.*",
            FFN: "model.layers.{i}.mlps.0.{gate,up,down}_proj.weight",
            "layers.{i}.ffn2.{gate,up,down}.weight": "model.layers.{i}.mlps.1.{gate,up,down}_proj.weight",
            "layers.{i}.moe.router.weight": "model.layers.{i}.mlp.router.classifier.weight",
            "layers.{i}.moe.router.correction": "model.layers.{i}.mlp.router.e_score_correction_bias",
            **EXPERTS,
        },
        fewer={"mlp.experts.gate_up_proj": 5},
    ),
    "laguna": Case(
        "LagunaForCausalLM",
        {
            **SIZES,
            "model": "laguna",
            "intermediate_size": 48,
            "sliding_window": 8,
            "layer_types": ["full_attention", *["sliding_attention"] * 3],
            "num_experts": 6,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 24,
            "shared_expert_intermediate_size": 20,
            "moe_routed_scaling_factor": 1.5,
            "moe_router_logit_softcapping": 0.5,
        },
        LAGUNA,
        {
            **PRE,
            **EXPERTS,
            **SHARED,
            "layers.{i}.attention.gate.weight": "model.layers.{i}.self_attn.g_proj.weight",
            "layers.{i}.attention.{q,k}_norm.weight": "model.layers.{i}.self_attn.{q,k}_norm.weight",
            "layers.{i}.{ffn,moe}_norm.*": "model.layers.{i}.{post_attention_layernorm,post_attention_layernorm}.*",
            FFN: "model.layers.{i}.mlp.{gate,up,down}_proj.weight",
            "layers.{i}.moe.router.weight": "model.layers.{i}.mlp.gate.weight",
            "layers.{i}.moe.router.correction": "model.layers.{i}.mlp.gate.e_score_correction_bias",
        },
    ),
    "ernie": Case(
        "Ernie4_5_MoeForCausalLM",
        {
            **SIZES,
            "model": "ernie4_5_moe",
            "intermediate_size": 48,
            "moe_k": 3,
            "moe_num_experts": 6,
            "moe_intermediate_size": 24,
        },
        ERNIE,
        {
            **PRE,
            **EXPERTS,
            **SHARED,
            "layers.{i}.{ffn,moe}_norm.*": "model.layers.{i}.{post_attention_layernorm,post_attention_layernorm}.*",
            FFN: "model.layers.{i}.mlp.{gate,up,down}_proj.weight",
            "layers.{i}.moe.router.weight": "model.layers.{i}.mlp.gate.weight",
            "layers.{i}.moe.router.correction": {
                "hf": "model.layers.{i}.mlp.gate.moe_statics.e_score_correction_bias",
                "axes": "1 choices",
            },
        },
    ),
    "mixtral": Case(
        "MixtralForCausalLM",
        {
            **SIZES,
            "model": "mixtral",
            "intermediate_size": 48,
            "num_local_experts": 6,
            "num_experts_per_tok": 3,
            "router_jitter_noise": 0.2,
        },
        MIXTRAL,
        {
            **PRE,
            **EXPERTS,
            "layers.{i}.moe_norm.*": "model.layers.{i}.post_attention_layernorm.*",
            "layers.{i}.moe.router.weight": "model.layers.{i}.mlp.gate.weight",
        },
        training=True,
    ),
    "nemotron_h": Case(
        "NemotronHForCausalLM",
        {
            **{key: value for key, value in SIZES.items() if key != "num_hidden_layers"},
            "model": "nemotron_h",
            "layers_block_type": ["full_attention", "moe"] * 2,
            "n_routed_experts": 6,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 24,
            "moe_shared_expert_intermediate_size": 40,
            "moe_latent_size": 12,
            "routed_scaling_factor": 1.5,
        },
        NEMOTRON,
        {
            "embedding.weight": "model.embeddings.weight",
            "norm.*": "model.norm_f.*",
            "head.weight": "lm_head.weight",
            "layers.{i}.{attention,moe}_norm.*": "model.layers.{i}.{norm,norm}.*",
            "layers.{i}.attention.{q,k,v,o}.*": "model.layers.{i}.mixer.{q,k,v,o}_proj.*",
            "layers.{i}.moe.router.weight": "model.layers.{i}.mixer.gate.weight",
            "layers.{i}.moe.router.correction": "model.layers.{i}.mixer.gate.e_score_correction_bias",
            "layers.{i}.moe.{up,down}.weight": "model.layers.{i}.mixer.experts.{up,down}_proj",
            "layers.{i}.moe.latent_{in,out}.weight": "model.layers.{i}.mixer.{fc1,fc2}_latent_proj.weight",
            "layers.{i}.moe.shared.{up,down}.weight": "model.layers.{i}.mixer.shared_experts.{up,down}_proj.weight",
        },
        attention="eager",
    ),
}
