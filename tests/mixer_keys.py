"""The same for mixers that go along a sequence."""

from __future__ import annotations

from typing import Any

from tests.broken import DECODER, FFN

FULL = DECODER.replace("{save: [attention.core]}", "full")
DELTA = FULL.replace(FFN, "- gated_delta: {heads: 4}")
SPACE = FULL.replace(FFN, "- mamba2: {heads: 4}")
MIXER_KEYS: dict[str, tuple[str, str, str]] = {
    **{
        f"ShortConv.{key}": (FULL, FFN, f"- short_conv: {{{change}}}")
        for key, change in {"hidden": "hidden: 16", "conv": "conv: 4", "bias": "bias: true"}.items()
    },
    **{
        f"{name}.{key}": (FULL, FFN, f"- {kind}: {{{start}{key}: {value}}}")
        for name, kind, start, changes in (
            ("Mamba", "mamba", "", {"hidden": 16, "state": 8, "conv": 3, "dt_rank": 4, "bias": "true"}),
            ("Mamba", "mamba", "", {"conv_bias": "false", "inner_norm": "true"}),
            ("RgLru", "rg_lru", "", {"heads": 4}),
            ("Lightning", "lightning", "", {"heads": 4}),
        )
        for key, value in changes.items()
    },
    **{
        f"{name}.{key}": (FULL.replace(FFN, f"- {kind}: {{heads: 4}}"), f"{kind}: {{", f"{kind}: {{{key}: {value}, ")
        for name, kind, changes in (
            ("RgLru", "rg_lru", {"hidden": 16, "conv": 3, "activation": "silu"}),
            ("Lightning", "lightning", {"head_dim": 4, "decay": 0.5, "norm": "false", "output_gate": "false"}),
        )
        for key, value in changes.items()
    },
    "GatedDelta.heads": (DELTA, "gated_delta: {heads: 4", "gated_delta: {heads: 8"),
    **{
        f"GatedDelta.{key}": (DELTA, "gated_delta: {heads: 4", f"gated_delta: {{heads: 4, {key}: {value}")
        for key, value in {
            "qk_heads": 2,
            "head_dim": 8,
            "v_head_dim": 4,
            "conv": 3,
            "decay": "channel",
            "decay_rank": 4,
            "beta_scale": 2,
            "norm": "false",
            "output_gate": "false",
        }.items()
    },
    "Mamba2.heads": (SPACE, "mamba2: {heads: 4", "mamba2: {heads: 8"),
    **{
        f"Mamba2.{key}": (SPACE, "mamba2: {heads: 4", f"mamba2: {{heads: 4, {key}: {value}")
        for key, value in {
            "head_dim": 8,
            "groups": 2,
            "state": 8,
            "conv": 3,
            "bias": "true",
            "conv_bias": "false",
            "norm": "false",
            "norm_order": "norm_first",
            "dt_limit": "[null, 2]",
            "scales": "{z: 2}",
        }.items()
    },
    **{
        f"Scales.{key}": (SPACE, "mamba2: {", f"mamba2: {{scales: {{{key}: 0.5}}, ")
        for key in ("z", "x", "b", "c", "dt")
    },
}

MIXER_CHANGES: dict[str, dict[str, Any]] = {
    "short_conv": {"hidden": 16, "conv": 4, "bias": True},
    "mamba": {
        "hidden": 16,
        "state": 8,
        "conv": 3,
        "dt_rank": 4,
        "bias": True,
        "conv_bias": False,
        "inner_norm": True,
    },
    "rg_lru": {"hidden": 16, "heads": 2, "conv": 3, "activation": "silu"},
    "lightning": {"heads": 2, "head_dim": 4, "decay": 0.5, "norm": False, "output_gate": False},
    "gated_delta": {
        "heads": 8,
        "qk_heads": 2,
        "head_dim": 8,
        "v_head_dim": 4,
        "conv": 3,
        "decay": "channel",
        "decay_rank": 4,
        "beta_scale": 2,
        "norm": False,
        "output_gate": False,
    },
    "mamba2": {
        "heads": 8,
        "head_dim": 8,
        "groups": 2,
        "state": 8,
        "conv": 3,
        "bias": True,
        "conv_bias": False,
        "norm": False,
        "norm_order": "norm_first",
        "dt_limit": [0.01, None],
        "scales": {"z": 2},
    },
}

MIXER_BLOCK = {
    "short_conv": "{}",
    "mamba": "{}",
    "rg_lru": "{heads: 4}",
    "lightning": "{heads: 4}",
    "gated_delta": "{heads: 4}",
    "mamba2": "{heads: 4}",
}
