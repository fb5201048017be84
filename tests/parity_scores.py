"""Families of Hugging Face whose scores are made in other ways: of latents, of other layers' keys, or with a bias."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from tests.models import PAD
from tests.parity import SEQ, From, random_ids
from tests.parity_families import GATED, LLAMA, QK, SMALL_ROPE, Family, decoder

MLA_SIZES = {
    "num_key_value_heads": 4,
    "first_k_dense_replace": 3,
    "q_lora_rank": 12,
    "kv_lora_rank": 10,
    "qk_nope_head_dim": 6,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
}
MLA_NAMES: dict[str, str | From] = {
    **{f"mla.{name}": f"model.layers.{{}}.self_attn.{name}_proj" for name in ("q", "q_a", "q_b", "kv_b", "o")},
    **{f"mla.{name}_norm": f"model.layers.{{}}.self_attn.{name}_layernorm" for name in ("q_a", "kv_a")},
    "mla.kv_a": "model.layers.{}.self_attn.kv_a_proj_with_mqa",
}
LATENT = "kv_rank: 10, nope_dim: 6, rope_dim: 4, v_head_dim: 8, norm: {eps: 1e-6}"


def paired(module: nn.Module) -> None:
    """It takes source and target, as ours do."""
    forward = module.forward

    def run(source: Tensor, target: Tensor) -> Any:
        return forward(input_ids=source, attention_mask=source.ne(PAD).long(), decoder_input_ids=target)

    module.forward = run


def unscaled(module: nn.Module) -> None:
    """Their head is told that it is not tied when it is, so that nothing is scaled before it."""
    config: Any = module.config
    config.tie_word_embeddings = False
    paired(module)


PAIR = (random_ids(3, padded=True, seq=19), random_ids(4))
T5_SIZES = {
    "num_decoder_layers": 2,
    "d_kv": 10,
    "d_ff": 48,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
    "layer_norm_epsilon": 1e-2,
    "scale_decoder_outputs": False,
    "pad_token_id": PAD,
    "decoder_start_token_id": PAD,
}


def t5_names(kinds: tuple[str, ...], own: bool) -> dict[str, str | From]:
    """`kinds`: what linears of theirs are called that ours calls gate, up and down; `own`: a bias of each layer."""
    names: dict[str, str | From] = {"embedding": "shared"}
    for role, last in (("encoder", 1), ("decoder", 2)):
        parts = {"attention": (0, "SelfAttention")} | ({"cross_attention": (1, "EncDecAttention")} if last == 2 else {})
        for part, (n, theirs) in parts.items():
            names |= {f"{role}.{part}.{x}": f"{role}.block.{{}}.layer.{n}.{theirs}.{x}" for x in "qkvo"}
            names[f"{role}.{part}_norm"] = f"{role}.block.{{}}.layer.{n}.layer_norm"
        linears = zip(("gate", "up", "down")[-len(kinds) :], kinds, strict=True)
        names |= {f"{role}.ffn.{x}": f"{role}.block.{{}}.layer.{last}.DenseReluDense.{y}" for x, y in linears}
        names[f"{role}.ffn_norm"] = f"{role}.block.{{}}.layer.{last}.layer_norm"
        names[f"{role}_norm"] = f"{role}.final_layer_norm"
        bias = f"{role}.block.{'{}' if own else 0}.layer.0.SelfAttention.relative_attention_bias"
        names[f"{role}.attention.relative_bias" if own else f"{role}_relative_bias"] = bias
    return names


def t5_spec(bias: str, ffn: str) -> str:
    own = f"attention: {{heads: 4, head_dim: 10, scale: 1, relative_bias: {{buckets: 8, max_distance: 20{bias}}}}}"
    return (
        f"pad: {PAD}\nnorm: {{eps: 1e-2}}\nembedding: {{tied: true}}\nencoder: {{layers: 3, block: [{own}, {ffn}]}}\n"
        f"decoder: {{layers: 2, block: [{own}, cross_attention: {{heads: 4, head_dim: 10, scale: 1}}, {ffn}]}}\n"
    )


def unrounded(module: nn.Module) -> None:
    """The factor of their embedding is no float32."""
    module.get_submodule("model.embed_tokens").embed_scale = torch.tensor(32**0.5, dtype=torch.float64)


def lengthened(module: nn.Module) -> None:
    """Their frequencies of a row of SEQ tokens, of which they make a float32 first."""
    rotary: Any = module.get_submodule("model.rotary_emb")
    rotary.inv_freq, _ = ROPE_INIT_FUNCTIONS["dynamic"](rotary.config, torch.device("cpu"), seq_len=SEQ)
    rotary.max_seq_len_cached = SEQ


REUSE = """\
blocks:
  local:
    - attention: {heads: 4, kv_heads: 2, head_dim: 10, scale: 1, qk_norm: true, v_norm: {weight: false}, window: 7,
                  kv_to: local, rope: {theta: 100}}
    - ffn: {kind: gated, hidden: 48, activation: gelu_tanh}
  global:
    like: local
    with:
      attention: {head_dim: 16, window: null, kv_to: global,
                  rope: {theta: 1000, scaling: {kind: proportional, fraction: 0.25}}}
  local_reuse: {like: local, with: {attention: {kv_to: null, kv_from: local, v_norm: false}}}
  global_reuse: {like: global, with: {attention: {kv_to: null, kv_from: global, v_norm: false}}}
"""
SANDWICH: dict[str, str | From] = {
    "attention_post_norm": "model.layers.{}.post_attention_layernorm",
    "ffn_norm": "model.layers.{}.pre_feedforward_layernorm",
    "ffn_post_norm": "model.layers.{}.post_feedforward_layernorm",
}
FAMILIES: dict[str, Family] = {
    "gemma4_text": Family(
        f"norm: {{eps: 1e-2, placement: sandwich}}\nembedding: {{scale: sqrt(d_model), tied: true}}\n{REUSE}"
        "decoder: {layers: 6, pattern: [local, local, global, local_reuse, local_reuse, global_reuse]}\n",
        "Gemma4ForCausalLM",
        {
            "num_hidden_layers": 6,
            "head_dim": 10,
            "global_head_dim": 16,
            "num_kv_shared_layers": 3,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
            "sliding_window": 7,
            "hidden_size_per_layer_input": 0,
            "vocab_size_per_layer_input": 96,
            "rope_parameters": {
                "sliding_attention": SMALL_ROPE,
                "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1000.0},
            },
        },
        {**LLAMA, **QK, **SANDWICH},
        unrounded,
        config_class="Gemma4TextConfig",
    ),
    "t5": Family(
        t5_spec("", "ffn: {hidden: 48, activation: relu}"),
        "T5ForConditionalGeneration",
        {**T5_SIZES, "feed_forward_proj": "relu"},
        t5_names(("wi", "wo"), own=False),
        paired,
        PAIR,
    ),
    "mt5": Family(
        t5_spec("", "ffn: {kind: gated, hidden: 48, activation: gelu_tanh}"),
        "MT5ForConditionalGeneration",
        {key: value for key, value in T5_SIZES.items() if key != "scale_decoder_outputs"},
        t5_names(("wi_0", "wi_1", "wo"), own=False),
        paired,
        PAIR,
    ),
    "umt5": Family(
        t5_spec(", shared: false", "ffn: {kind: gated, hidden: 48, activation: gelu_tanh}"),
        "UMT5ForConditionalGeneration",
        {**T5_SIZES, "feed_forward_proj": "gated-gelu"},
        t5_names(("wi_0", "wi_1", "wo"), own=True),
        unscaled,
        PAIR,
    ),
    "deepseek_v3": Family(
        decoder(
            f"block: [mla: {{heads: 4, q_rank: 12, {LATENT}, "
            "scale: (nope_dim + rope_dim) ** -0.5 * (0.08 * log(4) + 1) ** 2, rope: {theta: 100, pairing: adjacent, "
            "scaling: {kind: yarn, factor: 4, original_seq: 16, amplitude: 1.0249613}}}, "
            "ffn: {kind: gated, hidden: 48}]",
        ),
        "DeepseekV3ForCausalLM",
        {
            **MLA_SIZES,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 100.0,
                "factor": 4.0,
                "original_max_position_embeddings": 16,
                "attention_factor": 1.0249613,
                "mscale_all_dim": 0.8,
            },
        },
        {**LLAMA, **MLA_NAMES, "mla_norm": LLAMA["attention_norm"]},
    ),
    "deepseek_v3 without a rank of queries": Family(
        decoder(
            f"block: [mla: {{heads: 4, {LATENT}, bias: [kv, o], rope: {{theta: 100}}}}, {GATED}]",
        ),
        "DeepseekV3ForCausalLM",
        {
            **MLA_SIZES,
            "q_lora_rank": None,
            "attention_bias": True,
            "rope_interleave": False,
            "rope_parameters": SMALL_ROPE,
        },
        {**LLAMA, **MLA_NAMES, "mla_norm": LLAMA["attention_norm"]},
    ),
    "minicpm3": Family(
        decoder(
            f"block: [mla: {{heads: 4, q_rank: 12, {LATENT}, rope: {{theta: 100}}}}, {GATED}]",
            more="residual: {beta: 1.4 / sqrt(layers)}\nembedding: {scale: 12, tied: true}\n",
        ),
        "MiniCPM3ForCausalLM",
        {**MLA_SIZES, "scale_depth": 1.4, "scale_emb": 12, "dim_model_base": None, "rope_parameters": SMALL_ROPE},
        {**LLAMA, **MLA_NAMES, "mla_norm": LLAMA["attention_norm"]},
    ),
    "llama with a base by length": Family(
        decoder(
            "block: [attention: {heads: 4, kv_heads: 2, rope: {theta: 100, scaling: {kind: dynamic, factor: 4, "
            f"original_seq: 16}}}}}}, {GATED}]"
        ),
        "LlamaForCausalLM",
        {
            "max_position_embeddings": 16,
            "rope_parameters": {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 4.0},
        },
        LLAMA,
        lengthened,
    ),
    "gemma2": Family(
        decoder(
            "pattern: [near, far]",
            norm="{eps: 1e-2, placement: sandwich, weight_offset: 1}",
            more="embedding: {scale: sqrt(d_model), tied: true}\n",
            blocks="blocks:\n  near: [attention: {heads: 4, kv_heads: 2, head_dim: 10, scale: 0.25, softcap: 2, "
            "window: 7, rope: {theta: 100}}, ffn: {kind: gated, hidden: 48, activation: gelu_tanh}]\n"
            "  far: {like: near, with: {attention: {window: null}}}\n",
        ),
        "Gemma2ForCausalLM",
        {
            "head_dim": 10,
            "query_pre_attn_scalar": 16,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": None,
            "sliding_window": 7,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "rope_parameters": SMALL_ROPE,
        },
        {**LLAMA, **SANDWICH},
        unrounded,
    ),
    "granite_swa": Family(
        decoder(
            "pattern: [near, far]",
            more="embedding: {tied: true}\nresidual: {beta: 0.7}\n",
            blocks="blocks:\n  near: [attention: {heads: 4, kv_heads: 2, scale: 0.4, sinks: true, window: 7, "
            f"rope: {{theta: 100}}}}, {GATED}]\n  far: {{like: near, with: {{attention: {{window: null}}}}}}\n",
        ),
        "GraniteSWAForCausalLM",
        {
            "attention_multiplier": 0.4,
            "residual_multiplier": 0.7,
            "sliding_window": 7,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "layer_rope_theta": [100.0] * 3,
            "rope_parameters": SMALL_ROPE,
        },
        {**LLAMA, "attention.sinks": From("model.layers.{}.self_attn.sinks")},
    ),
    "llama4_text": Family(
        decoder(
            "pattern: [near, far]",
            blocks="blocks:\n  near: [attention: {heads: 4, kv_heads: 2, head_dim: 10, chunk: 6, "
            f"temperature: {{floor: 4, scale: 0.3, offset: 1}}}}, {GATED}]\n"
            "  far: {like: near, with: {attention: {chunk: null}}}\n",
        ),
        "Llama4ForCausalLM",
        {
            "head_dim": 10,
            "intermediate_size_mlp": 48,
            "moe_layers": [],
            "no_rope_layers": [0, 0, 0],
            "layer_types": ["chunked_attention", "full_attention", "chunked_attention"],
            "attention_chunk_size": 6,
            "floor_scale": 4,
            "attn_scale": 0.3,
            "rope_parameters": SMALL_ROPE,
        },
        {**LLAMA, **{f"ffn.{name}": f"model.layers.{{}}.feed_forward.{name}_proj" for name in ("gate", "up", "down")}},
        config_class="Llama4TextConfig",
    ),
}
