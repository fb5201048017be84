"""Every mixer that goes along a sequence in order, in small."""

from __future__ import annotations

from specc.source import Source
from specc.spec import Spec, load

TEXT = """\
specc: 1
name: mixed
d_model: 32
vocab: 96
norm: {kind: rms, eps: 1e-2}
decoder:
  layers: 2
  block:
    - MIXER
    - ffn: {kind: gated, hidden: 16}
"""
MIXERS = {
    "short_conv": "short_conv: {hidden: 16, conv: 4, bias: true}",
    "mamba2": "mamba2: {heads: 4, groups: 2, head_dim: 6, state: 5, norm: {groups: 2}, dt_limit: [0.01, 3]}",
    "mamba2_one": "mamba2: {heads: 4, head_dim: 6, state: 5, norm_order: norm_first, scales: {z: 0.5}, bias: true}",
    "mamba2_bare": "mamba2: {heads: 4, groups: 4, head_dim: 6, state: 5, norm: false, conv_bias: false}",
    "delta": "gated_delta: {heads: 8, qk_heads: 4, head_dim: 6, v_head_dim: 4, conv: 3}",
    "delta_channel": "gated_delta: {heads: 4, head_dim: 6, decay: channel, decay_rank: 3, beta_scale: 2, norm: false,"
    " output_gate: {activation: sigmoid, rank: 5}}",
    "delta_bare": "gated_delta: {heads: 2, head_dim: 5, decay_rank: 3, output_gate: {per: head, bias: true}}",
    "mamba": "mamba: {hidden: 24, state: 5, dt_rank: 3, bias: true}",
    "mamba_normed": "mamba: {hidden: 16, state: 4, conv: 3, conv_bias: false, inner_norm: {eps: 1e-2}}",
    "rg_lru": "rg_lru: {hidden: 24, heads: 4, activation: silu}",
    "lightning": "lightning: {heads: 4, head_dim: 6, decay: 1 - layer / (layers + 1)}",
    "lightning_bare": "lightning: {heads: 2, norm: false, output_gate: {per: head, activation: silu}}",
}
"""By name, a sublayer. Sizes that a tp of 2 splits, and that differ from each other."""


def mixed(mixer: str, *more: str, **changes: str) -> Spec:
    """The spec of two layers of that sublayer, with more lines and other texts."""
    text = TEXT.replace("MIXER", mixer) + "".join(f"{line}\n" for line in more)
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    found = load(Source("mixed.yaml", text))
    assert isinstance(found, Spec), found
    return found
