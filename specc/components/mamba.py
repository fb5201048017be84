"""A selective state space for each channel (Gu and Dao 2023)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from specc.components import convolution, norm
from specc.components.base import Component, Config, Dim, Given, Problems, too_large
from specc.components.norm import Norm, OwnNorm
from specc.ir.op import Init, Ref
from specc.ir.types import Axis

if TYPE_CHECKING:
    from specc.lower.builder import Builder


class Mamba(Config):
    """Selective state space, a state for each channel."""

    hidden: Dim | None = None
    """Channels. Default: 2 * d_model."""
    state: Dim = 16
    """Rows of a state."""
    conv: Dim = 4
    """Positions that the convolution reads."""
    dt_rank: Dim | None = None
    """Features that steps are made of. Default: d_model / 16, rounded up."""
    bias: bool = False
    """Biases of x, z and out."""
    conv_bias: bool = True
    """A bias of the convolution."""
    inner_norm: OwnNorm = False
    """Norms on what steps are made of, what is written to states and what is read of them."""


def resolve(config: Mamba, d_model: int, role: str) -> Mamba:
    """With sizes filled in."""
    sizes = {"hidden": config.hidden or 2 * d_model, "dt_rank": config.dt_rank or -(-d_model // 16)}
    return config.model_copy(update=sizes)


def sizes(config: Mamba) -> tuple[int, int]:
    """hidden and dt_rank of a resolved config."""
    assert config.hidden is not None and config.dt_rank is not None, "defaults are filled in first"
    return config.hidden, config.dt_rank


def normed(config: Mamba, model: Norm) -> Mamba:
    """With its norms, given the model's."""
    return config.model_copy(update={"inner_norm": norm.own(config.inner_norm, model)})


def rules(config: Mamba, d_model: int, stated: Callable[[str], bool]) -> Problems:
    """Its matrices fit somewhere, and its norms what they are of."""
    hidden, dt_rank = sizes(config)
    yield from too_large(("hidden",), f"hidden = {hidden}", hidden, max(d_model, config.state, dt_rank))
    for features in (dt_rank, config.state):
        yield from norm.inner(config.inner_norm, features, "inner_norm")


def shrink(config: Mamba, tp: int) -> Mamba:
    """A few channels a rank, and small states."""
    hidden, dt_rank = sizes(config)
    few = min(hidden, 16 * tp)
    small = {"hidden": few - few % tp or few, "dt_rank": min(dt_rank, 4), "state": min(config.state, 6)}
    return config.model_copy(update={**small, "conv": min(config.conv, 4)})


def lower(config: Mamba, b: Builder, x: Ref, given: Given, features: Axis) -> Ref:
    """x [batch, seq, d_model] -> the same."""
    hidden, dt_rank = sizes(config)
    channels, state, rank = Axis("channels", hidden), Axis("state", config.state), Axis("dt_rank", dt_rank)
    u = b.linear(x, "x", channels, features, config.bias, hint="u")
    u = convolution.lower(b, u, "conv", channels, config.conv, config.conv_bias, given, "u")
    u = b.op("activation", u, name="conv_act", hint="u", function="silu")
    found: dict[str, Ref] = {}
    for name, axis in (("dt_a", rank), ("b", state), ("c", state)):
        hint = name.removesuffix("_a")
        found[hint] = b.linear(u, name, axis, channels, False, hint=hint)
        if isinstance(config.inner_norm, Norm):
            found[hint] = norm.lower(config.inner_norm, b, found[hint], f"{hint}_norm", axis, hint)
    dt = b.linear(found["dt"], "dt_b", channels, rank, False, hint="dt")
    params = (
        b.param("a_log", "weight", (channels, state), Init("log_columns"), "per_state"),
        b.param("d", "weight", (channels,), Init("ones"), "per_channel"),
        b.param("dt_bias", "weight", (channels,), Init("small_steps"), "per_channel"),
    )
    documents = (given["documents"],) if "documents" in given else ()
    inputs = (u, dt, found["b"], found["c"], *documents)
    y = b.op("selective_scan", *inputs, name="scan", hint="y", params=params)
    z = b.linear(x, "z", channels, features, config.bias, hint="z")
    y = b.op("mul", y, b.op("activation", z, name="z_act", hint="z", function="silu"), hint="y")
    return b.linear(y, "out", features, channels, config.bias, last=True)


MAMBA = Component(
    "mamba",
    Mamba,
    "Mamba",
    lower,
    smallest={},
    shards=("channels",),
    grows=("hidden", "dt_rank"),
    split_by_tp=lambda config: (("hidden", sizes(config)[0]),),
    results=lambda config: ("x", "conv", "conv_act", "dt_a", "b", "c", "dt_b", "scan", "z", "z_act", "out"),
    shrink=shrink,
    normed=normed,
    reads=("documents",),
    resolve=resolve,
    rules=rules,
    decided=lambda config, role: {
        "hidden": (config.hidden, "2 * d_model"),
        "dt_rank": (config.dt_rank, "d_model / 16, rounded up"),
    },
    verb="mix",
    synonyms={
        "mamba": ("mamba1", "ssm", "s6"),
        "dt_rank": ("time_step_rank", "mamba_dt_rank"),
        "state": ("d_state", "ssm_state_size", "state_size"),
        "conv": ("d_conv", "conv_kernel"),
        "hidden": ("expand",),
    },
)
