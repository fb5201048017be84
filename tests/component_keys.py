"""For every key of attention, rope and ffn, a spec and a change of that key, which makes another file."""

from __future__ import annotations

from typing import Any

from tests.broken import BOTH, DECODER, FFN
from tests.mixer_keys import MIXER_BLOCK, MIXER_CHANGES, MIXER_KEYS
from tests.scaling_keys import SCALINGS

QK_NORM = DECODER.replace("heads: 4, ", "heads: 4, qk_norm: {}, ")
GATED = DECODER.replace("heads: 4, ", "heads: 4, output_gate: {}, ")
HEATED = DECODER.replace("heads: 4, ", "heads: 4, temperature: {floor: 8, scale: 0.1}, ")
FULL = DECODER.replace("{save: [attention.core]}", "full")
MOE = "moe: {experts: 4, top_k: 2, hidden: 16, "
GATED_MOE = "moe: {kind: gated, experts: 4, top_k: 2, hidden: 16, "
ROUTED, GATES = (DECODER.replace(FFN, f"- {text}}}") for text in (MOE, GATED_MOE))
GROUPED = ROUTED.replace("experts: 4, ", "experts: 8, router: {groups: {count: 4, keep: 2}}, ")
SHARED = ROUTED.replace(MOE, f"{MOE}shared: {{hidden: 16}}, ")
CROSS = "cross_attention: {heads: 4, head_dim: 8"
ALIBI = DECODER.replace("heads: 4, ", "heads: 6, head_dim: 8, alibi: {}, ")
RELATIVE = DECODER.replace("heads: 4, ", "heads: 4, relative_bias: {}, ")
SHARING = (
    DECODER.partition("decoder:")[0]
    + """\
blocks:
  a: [attention: {heads: 4, rope: {theta: 10000}, kv_to: one}]
  b: [attention: {heads: 4, kv_to: two}]
  c: [attention: {heads: 4, rope: {theta: 10000}, value_residual: {from: one}}]
decoder: {layers: 4, pattern: [a, b, c]}
"""
)
LATENT = "mla: {heads: 4, kv_rank: 8, nope_dim: 8, rope_dim: 4"
MLA = FULL.replace("attention: {heads: 4, rope: {theta: 10000}", LATENT)
KEYS: dict[str, tuple[str, str, str]] = {
    **{
        f"Attention.{key}": (FULL, "heads: 4, rope: {theta: 10000}", change)
        for key, change in {
            "heads": "heads: 8, rope: {theta: 10000}",
            "kv_heads": "heads: 4, kv_heads: 2, rope: {theta: 10000}",
            "head_dim": "heads: 4, head_dim: 16, rope: {theta: 10000}",
            "bias": "heads: 4, bias: [q], rope: {theta: 10000}",
            "scale": "heads: 4, scale: 2 / head_dim, rope: {theta: 10000}",
            "dropout": "heads: 4, dropout: 0.1, rope: {theta: 10000}",
            "causal": "heads: 4, causal: false, rope: {theta: 10000}",
            "rope": "heads: 4",
            **{
                key: f"heads: 4, {key}: {value}, rope: {{theta: 10000}}"
                for key, value in {
                    "v_head_dim": 4,
                    "softcap": 50,
                    "qk_norm": "true",
                    "output_gate": "true",
                    "sub_norm": "true",
                    "window": 8,
                    "chunk": 8,
                    "clip": 2,
                    "temperature": "{floor: 8, scale: 0.1}",
                    "sinks": "true",
                    "alibi": "true",
                    "relative_bias": "{}",
                    "v_norm": "true",
                    "tied_kv": "true",
                }.items()
            },
        }.items()
    },
    **{
        f"CrossAttention.{key}": (BOTH, CROSS, f"{CROSS}, {key}: {value}")
        for key, value in {
            "kv_heads": 2,
            "bias": "[o]",
            "scale": 0.3,
            "dropout": 0.1,
            "v_head_dim": 4,
            "softcap": 50,
            "qk_norm": "true",
            "output_gate": "true",
            "sub_norm": "true",
        }.items()
    },
    **{
        f"QkNorm.{key}": (QK_NORM, "qk_norm: {", f"qk_norm: {{{key}: {value}, ")
        for key, value in {
            "kind": "layer",
            "eps": 0.1,
            "bias": "true",
            "weight": "per_head",
            "over": "width",
            "after_rope": "true",
            "weight_offset": 0.5,
            "groups": 2,
        }.items()
    },
    **{
        f"OutputGate.{key}": (GATED, "output_gate: {", f"output_gate: {{{key}: {value}, ")
        for key, value in {"activation": "softplus", "per": "head", "rank": 4, "bias": "true"}.items()
    },
    **{
        f"Mla.{key}": (MLA, old, new)
        for key, old, new in (
            ("heads", "heads: 4", "heads: 8"),
            ("kv_rank", "kv_rank: 8", "kv_rank: 12"),
            ("nope_dim", "nope_dim: 8", "nope_dim: 6"),
            ("rope_dim", "rope_dim: 4", "rope_dim: 6"),
        )
    },
    **{
        f"Mla.{key}": (MLA, LATENT, f"{LATENT}, {key}: {value}")
        for key, value in {
            "q_rank": 12,
            "v_head_dim": 6,
            "norm": "false",
            "bias": "[kv]",
            "scale": "kv_rank ** -0.5",
            "q_scale": "sqrt(d_model / kv_rank)",
            "kv_scale": 0.5,
            "dropout": 0.1,
            "causal": "false",
            "window": 8,
            "rope": "{theta: 100}",
            "output_gate": "true",
        }.items()
    },
    "Attention.kv_to": (SHARING, "kv_to: two", "kv_to: one"),
    "Attention.kv_from": (SHARING, "value_residual: {from: one}", "kv_from: one"),
    "Attention.value_residual": (SHARING, ", value_residual: {from: one}", ""),
    "ValueResidual.from": (SHARING, "from: one", "from: two"),
    **{
        f"ValueResidual.{key}": (SHARING, "from: one", f"from: one, {key}: {value}")
        for key, value in {"own": 1, "other": 1, "learned": "true"}.items()
    },
    "Alibi.slopes": (ALIBI, "alibi: {}", "alibi: {slopes: above}"),
    "Alibi.scale": (ALIBI, "alibi: {}", "alibi: {scale: 1 / sqrt(head_dim)}"),
    "RelativeBias.buckets": (RELATIVE, "relative_bias: {}", "relative_bias: {buckets: 16}"),
    "RelativeBias.max_distance": (RELATIVE, "relative_bias: {}", "relative_bias: {max_distance: 64}"),
    "RelativeBias.shared": (RELATIVE, "relative_bias: {}", "relative_bias: {shared: false}"),
    "Temperature.floor": (HEATED, "floor: 8", "floor: 9"),
    "Temperature.scale": (HEATED, "scale: 0.1", "scale: 0.2"),
    "Temperature.offset": (HEATED, "scale: 0.1", "scale: 0.1, offset: 1"),
    "CrossAttention.heads": (BOTH, CROSS, "cross_attention: {heads: 8, head_dim: 8"),
    "CrossAttention.head_dim": (BOTH, CROSS, "cross_attention: {heads: 4, head_dim: 16"),
    "Rope.theta": (DECODER, "theta: 10000", "theta: 10000 * 8 ** (head_dim / (head_dim - 2))"),
    "Rope.dim": (DECODER, "theta: 10000", "theta: 10000, dim: 4"),
    "Rope.pairing": (DECODER, "theta: 10000", "theta: 10000, pairing: adjacent"),
    "Rope.scaling": (DECODER, "theta: 10000", "theta: 10000, scaling: {kind: linear, factor: 2}"),
    **SCALINGS,
    **{
        f"Ffn.{key}": (DECODER, FFN, f"- ffn: {{{change}}}")
        for key, change in {
            "kind": "kind: gated, hidden: 64, activation: silu",
            "hidden": "hidden: 32, activation: silu",
            "activation": "hidden: 64, activation: relu",
            "bias": "hidden: 64, activation: silu, bias: [up]",
            "dropout": "hidden: 64, activation: silu, dropout: 0.1",
            "sub_norm": "hidden: 64, activation: silu, sub_norm: true",
        }.items()
    },
    **{
        f"Ffn.{key}": (DECODER.replace("hidden: 64", "kind: gated, hidden: 64"), "hidden: 64", f"hidden: 64, {key}: 2")
        for key in ("clamp", "up_offset", "gate_scale")
    },
    **MIXER_KEYS,
    **{
        f"Moe.{key}": (ROUTED, MOE, change)
        for key, change in {
            "experts": MOE.replace("4", "8"),
            "top_k": MOE.replace("2", "3"),
            "hidden": MOE.replace("16", "32"),
            **{
                key: f"{MOE}{key}: {value}, "
                for key, value in {
                    "kind": "gated",
                    "activation": "relu",
                    "bias": "[up]",
                    "router": "{score: sigmoid}",
                    "shared": "{hidden: 16}",
                    "balance_loss": 0.1,
                    "z_loss": 0.1,
                    "latent": 12,
                    "zero_experts": 1,
                    "apply_to": "input",
                }.items()
            },
        }.items()
    },
    **{f"Moe.{key}": (GATES, GATED_MOE, f"{GATED_MOE}{key}: 2, ") for key in ("clamp", "up_offset")},
    **{
        f"Router.{key}": (ROUTED, MOE, f"{MOE}router: {{{key}: {value}}}, ")
        for key, value in {
            "score": "sqrt_softplus",
            "normalize": "false",
            "eps": 0.1,
            "scale": 2,
            "bias": "true",
            "correction": "true",
            "groups": "{count: 2, keep: 1}",
            "softcap": 30,
            "norm": "true",
            "in_scale": "1 / sqrt(d_model)",
            "reads": "stream",
            "expert_scale": "true",
            "jitter": 0.1,
        }.items()
    },
    **{
        f"Groups.{key}": (GROUPED, "count: 4, keep: 2", change)
        for key, change in {
            "count": "count: 2, keep: 2",
            "keep": "count: 4, keep: 3",
            "score": "count: 4, keep: 2, score: max",
            "fill": "count: 4, keep: 2, fill: zero",
        }.items()
    },
    "Shared.hidden": (SHARED, "shared: {hidden: 16", "shared: {hidden: 32"),
    **{
        f"Shared.{key}": (
            SHARED.replace("hidden: 16, ", "kind: gated, hidden: 16, "),
            "shared: {",
            f"shared: {{{key}: {value}, ",
        )
        for key, value in {"gate": "true", "bias": "true", "clamp": 2}.items()
    },
}

CHANGES: dict[str, dict[str, Any]] = {
    "attention": {
        "heads": 8,
        "kv_heads": 2,
        "head_dim": 16,
        "bias": True,
        "scale": 0.5,
        "dropout": 0.1,
        "causal": False,
        "rope": {"theta": 100},
        "v_head_dim": 4,
        "softcap": 50,
        "qk_norm": True,
        "output_gate": True,
        "sub_norm": True,
        "window": 8,
        "chunk": 8,
        "clip": 2,
        "temperature": {"floor": 8, "scale": 0.1},
        "sinks": True,
        "alibi": True,
        "relative_bias": {"buckets": 16},
        "kv_from": "one",
        "value_residual": {"from": "one"},
        "v_norm": True,
        "tied_kv": True,
    },
    "cross_attention": {
        "heads": 8,
        "kv_heads": 2,
        "head_dim": 16,
        "bias": ["q", "o"],
        "scale": 0.5,
        "dropout": 0.1,
        "v_head_dim": 4,
        "softcap": 50,
        "qk_norm": True,
        "output_gate": True,
        "sub_norm": True,
    },
    "mla": {
        "heads": 8,
        "q_rank": 12,
        "kv_rank": 12,
        "nope_dim": 6,
        "rope_dim": 6,
        "v_head_dim": 6,
        "norm": False,
        "bias": ["q", "o"],
        "scale": 0.5,
        "q_scale": 0.5,
        "kv_scale": 0.5,
        "dropout": 0.1,
        "causal": False,
        "window": 8,
        "rope": {"theta": 100},
        "output_gate": True,
    },
    "ffn": {
        "kind": "plain",
        "hidden": 32,
        "activation": "relu",
        "bias": ["gate"],
        "dropout": 0.1,
        "clamp": 2,
        "up_offset": 1,
        "gate_scale": 0.5,
        "sub_norm": True,
    },
    "moe": {
        "kind": "plain",
        "experts": 8,
        "top_k": 1,
        "hidden": 32,
        "activation": "relu",
        "bias": ["gate"],
        "clamp": 2,
        "up_offset": 1,
        "router": {"scale": 2},
        "shared": {"hidden": 8},
        "balance_loss": 0.1,
        "z_loss": 0.1,
        "latent": 12,
        "zero_experts": 1,
        "apply_to": "input",
    },
    **MIXER_CHANGES,
}
"""By component, a change of each key in a block that is like another."""

BLOCK = {
    "attention": "{heads: 4, kv_to: one}",
    "cross_attention": "{heads: 4}",
    "mla": "{heads: 4, kv_rank: 8, nope_dim: 8, rope_dim: 4}",
    "ffn": "{kind: gated, hidden: 64}",
    "moe": "{kind: gated, experts: 4, top_k: 2, hidden: 64}",
    **MIXER_BLOCK,
}
"""That other, which has all of them."""
