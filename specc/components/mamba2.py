"""A state space for each head behind a short convolution (Dao and Gu 2024)."""

from __future__ import annotations

from collections.abc import Callable
from math import gcd
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from specc.components import convolution, norm
from specc.components.base import (
    Component,
    Config,
    Dim,
    Formula,
    Given,
    Problem,
    Problems,
    Synonyms,
    choices,
    divisors,
    fewer,
    too_large,
)
from specc.components.norm import Norm, OwnNorm
from specc.ir.op import Init, Ref
from specc.ir.types import Axis
from specc.source import plural

if TYPE_CHECKING:
    from specc.lower.builder import Builder

Step = Annotated[float, Field(ge=0.0, le=1e4)]


class Scales(Config):
    """Factors on what its linears make."""

    z: Formula = 1.0
    """On the gate."""
    x: Formula = 1.0
    """On what goes into the states."""
    b: Formula = 1.0
    """On what is written to states."""
    c: Formula = 1.0
    """On what is read of states."""
    dt: Formula = 1.0
    """On the steps."""


class Mamba2(Config):
    """State space duality, a state for each head."""

    heads: Dim
    """Heads, each with a state."""
    head_dim: Dim = 64
    """Features of a head."""
    groups: Dim = 1
    """Groups of heads that share what is written to states and read of them."""
    state: Dim = 128
    """Rows of a state."""
    conv: Dim = 4
    """Positions that the convolution reads."""
    bias: bool = False
    """Biases of its linears."""
    conv_bias: bool = True
    """Biases of the convolutions."""
    norm: OwnNorm = True
    """A norm before out."""
    norm_order: Literal["gate_first", "norm_first"] = "gate_first"
    """Whether the norm is of the gated features, or the gate of the normed ones."""
    dt_limit: Annotated[list[Step | None], Field(min_length=2, max_length=2), AfterValidator(tuple)] | None = None
    """The smallest and the largest step, null where there is none."""
    scales: Scales = Scales()
    """Factors on what the linears make."""


def normed(config: Mamba2, model: Norm) -> Mamba2:
    """With its norm, given the model's."""
    return config.model_copy(update={"norm": norm.own(config.norm, model)})


def rules(config: Mamba2, d_model: int, stated: Callable[[str], bool]) -> Problems:
    """Groups are of equally many heads, and what belongs together is given together."""
    if config.heads % config.groups:
        message = f"{plural(config.heads, 'head')} cannot be parted into {plural(config.groups, 'group')} evenly"
        yield Problem("E291", ("groups",), message, f"groups can be {choices(divisors(config.heads))}")
    yield from norm.inner(config.norm, config.heads * config.head_dim, "norm")
    if stated("norm_order") and not config.norm:
        yield Problem("E292", ("norm_order",), "there is no norm that could have an order", "leave one of them out")
    low, high = config.dt_limit or (None, None)
    if low is not None and high is not None and low >= high:
        yield Problem("E293", ("dt_limit",), f"the smallest step {low:g} is not below the largest {high:g}")
    inner, shared = config.heads * config.head_dim, config.groups * config.state
    yield from too_large(("heads",), f"heads = {config.heads} of {config.head_dim}", inner, d_model)
    yield from too_large(("state",), f"state = {config.state} in {plural(config.groups, 'group')}", shared, d_model)


def shrink(config: Mamba2, tp: int) -> Mamba2:
    """Few heads a rank in as many groups, and small states."""
    groups = 1 if config.groups == 1 else fewer(config.groups, tp)
    least = 1 if config.heads % tp else tp // gcd(groups, tp)  # heads that a rank must have of each group
    shared = config.heads // config.groups // least
    heads = groups * least * min(shared, 2)
    sizes = {"head_dim": min(config.head_dim, 8), "state": min(config.state, 6), "conv": min(config.conv, 4)}
    made = config.model_copy(update={"groups": groups, "heads": heads, **sizes})
    if isinstance(config.norm, Norm) and config.norm.groups > 1:
        width = heads * made.head_dim
        parts = max(n for n in divisors(width) if (n <= min(config.norm.groups, 2 * tp) and n % tp == 0) or n == 1)
        made = made.model_copy(update={"norm": config.norm.model_copy(update={"groups": parts})})
    return made


def split_by_tp(config: Mamba2) -> tuple[tuple[str, int], ...]:
    """What tp must divide. Of groups each rank takes those of its heads."""
    return (("heads", config.heads),)


def lower(config: Mamba2, b: Builder, x: Ref, given: Given, features: Axis) -> Ref:
    """x [batch, seq, d_model] -> the same."""
    heads, inner = Axis("heads", config.heads), Axis.of(heads=config.heads, head_dim=config.head_dim)
    shared = Axis.of(groups=config.groups, state=config.state)

    def linear(name: str, axis: Axis, hint: str) -> Ref:
        made = b.linear(x, name, axis, features, config.bias, hint=hint)
        factor = float(getattr(config.scales, name))
        return made if factor == 1.0 else b.op("scale", made, name=f"{name}_scale", hint=hint, factor=factor)

    def mixed(name: str, axis: Axis, count: int, hint: str) -> Ref:
        made = linear(name, axis, hint)
        made = convolution.lower(b, made, f"{name}_conv", axis, config.conv, config.conv_bias, given, hint)
        made = b.op("activation", made, name=f"{name}_act", hint=hint, function="silu")
        return b.op("split", made, name=f"{name}_heads", hint=hint, heads=count)

    u = mixed("x", inner, config.heads, "u")
    keys, queries = mixed("b", shared, config.groups, "b"), mixed("c", shared, config.groups, "c")
    dt = linear("dt", heads, "dt")
    starts = {"a_log": Init("log_rows"), "d": Init("ones"), "dt_bias": Init("small_steps")}
    params = tuple(b.param(name, "weight", (heads,), init, "per_head") for name, init in starts.items())
    documents = (given["documents"],) if "documents" in given else ()
    low, high = config.dt_limit or (None, None)
    inputs = (u, dt, keys, queries, *documents)
    y = b.op("state_space", *inputs, name="scan", hint="y", params=params, low=low or 0.0, high=high)
    y = b.op("merge", y, hint="y")
    if isinstance(config.norm, Norm) and config.norm_order == "norm_first":
        y = norm.lower(config.norm, b, y, "norm", inner, "y")
    z = linear("z", inner, "z")
    y = b.op("mul", y, b.op("activation", z, name="z_act", hint="z", function="silu"), hint="y")
    if isinstance(config.norm, Norm) and config.norm_order == "gate_first":
        y = norm.lower(config.norm, b, y, "norm", inner, "y")
    return b.linear(y, "out", features, inner, config.bias, last=True)


SYNONYMS: Synonyms = {
    "mamba2": ("ssd", "mamba_2"),
    "state": ("d_state", "ssm_state_size", "state_size"),
    "conv": ("d_conv", "conv_kernel"),
    "groups": ("n_groups", "ngroups"),
    "dt_limit": ("time_step_limit",),
}

MAMBA2 = Component(
    "mamba2",
    Mamba2,
    "Mamba2",
    lower,
    smallest={"heads": 1},
    shards=("heads", "groups"),
    grows=("heads",),
    split_by_tp=split_by_tp,
    results=lambda config: (
        *("x", "x_conv", "x_act", "b", "b_conv", "b_act", "c", "c_conv", "c_act", "dt", "scan", "z", "z_act", "out"),
    ),
    shrink=shrink,
    normed=normed,
    reads=("documents",),
    rules=rules,
    verb="mix",
    summary=lambda config: plural(config.heads, "head"),
    synonyms=SYNONYMS,
)
