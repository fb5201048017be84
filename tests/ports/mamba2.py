"""Mamba 2 (Dao and Gu 2024): a short convolution and the scan of a state space for each head, gated and normed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from specc.components import norm
from specc.components.base import Component, Config, Dim, Given
from specc.components.norm import Norm
from specc.emit.forms.base import Form, Split
from specc.emit.parts import ATOM, Expr, Use
from specc.extension import Extension
from specc.ir.graph import Graph
from specc.ir.op import Init, Op, Ref
from specc.ir.types import Axis
from tests.ports import recurrent_ops
from tests.ports.text import called, module_of, turned

if TYPE_CHECKING:
    from specc.lower.builder import Builder

TAPS = 4


class Mamba2(Config):
    """State space mixer."""

    heads: Dim
    """Heads, each with a state."""
    head_dim: Dim = 8
    """Features of a head."""
    groups: Dim = 1
    """Groups of heads that share what is written to states and read of them."""
    state: Dim = 4
    """Rows of a state."""
    chunk: Dim = 4
    """Positions that are computed at once."""


def lower(config: Mamba2, b: Builder, x: Ref, given: Given, features: Axis) -> Ref:
    """x [batch, seq, d_model] -> the same."""
    inner = Axis.of(heads=config.heads, head_dim=config.head_dim)
    shared = Axis.of(groups=config.groups, state=config.state)

    def mixed(name: str, axis: Axis, count: int) -> Ref:
        flat = b.linear(x, name, axis, features, False, hint=name)
        weight = b.param(
            f"{name}_conv", "weight", (axis, Axis("taps", TAPS)), b.weight_init(axis, axis, False), "causal_conv"
        )
        bias = b.param(f"{name}_conv", "bias", (axis,), Init("zeros"), "causal_conv")
        flat = b.op("causal_conv", flat, name=f"{name}_conv", hint=name, params=(weight, bias))
        flat = b.op("activation", flat, name=f"{name}_act", hint=name, function="silu")
        return b.op("split", flat, name=f"{name}_heads", hint=name, heads=count)

    u = mixed("u", inner, config.heads)
    keys, queries = mixed("keys", shared, config.groups), mixed("queries", shared, config.groups)
    heads = Axis("heads", config.heads)
    dt = b.linear(x, "dt", heads, features, False, hint="dt")
    params = tuple(b.param(name, "weight", (heads,), Init("ones"), "per_head") for name in ("a_log", "d", "dt_bias"))
    y = b.op("scan", u, dt, keys, queries, hint="y", params=params, chunk=config.chunk)
    z = b.linear(x, "z", inner, features, False, hint="z")
    z = b.op("split", z, name="z_heads", hint="z", heads=config.heads)
    y = b.op("mul", y, b.op("activation", z, name="z_act", hint="z", function="silu"), hint="y")
    y = norm.lower(Norm(kind="rms", eps=1e-5).resolved(), b, y, "norm", Axis("head_dim", config.head_dim), "y")
    return b.linear(b.op("merge", y), "out", features, inner, False, last=True)


MAMBA2 = Component(
    "mamba2",
    Mamba2,
    "Mamba",
    lower,
    smallest={"heads": 1},
    shards=("heads", "groups"),
    split_by_tp=lambda config: (("heads", config.heads),),
    results=lambda config: ("u", "keys", "queries", "dt", "scan", "z", "out"),
    shrink=lambda config, tp: config,
)


def _own(what: str) -> Split:
    return Split("Own", f"{what} are split over {{}}")


def _conv(when: str, more: str, value: str) -> Form:
    return Form(
        "causal_conv",
        "CausalConv",
        "A convolution of each channel over positions and those before them.",
        {"weight": ("channels", "taps"), "bias": ("channels",)},
        ("channels", "taps"),
        f"x: Tensor{more}",
        lambda values, optional: [f"return causal_conv(x, {values['weight']}, {values['bias']}{value})"],
        splits={"channels": _own("Channels")},
        when=when,
    )


def _convolution(graph: Graph, op: Op) -> Expr:
    """A call of its module, with what stands in front of a rank's part of a sequence."""
    turn = turned(op.outs[0].axes)
    module, x = module_of(op), (Use(op.inputs[0], ATOM if turn else 0, named=bool(op.lowering)), turn)
    rows = op.params[0].axes[1].length - 1
    parts = [part for axis, _ in op.lowering for part in (", halo(", *x, f", {rows}, self.{axis})")]
    return Expr((f"{module}(", *x, *parts, f"){turn}"), calls=("causal_conv", *["halo"] * bool(op.lowering)))


FORMS = (
    _conv("", "", ""),
    _conv("halo", ", before: Tensor", ", before"),
    Form(
        "per_head",
        "PerHead",
        "A number for each head.",
        {"weight": ("heads",)},
        ("heads",),
        splits={"heads": _own("Heads")},
    ),
)
EXTENSION = Extension(
    "mamba2",
    (MAMBA2,),
    recurrent_ops.OPS,
    FORMS,
    {
        "causal_conv": _convolution,
        "scan": called("scan", "chunk", ordered=True, lowered={"pass_state": "scan_of_part"}),
    },
    kernels=(Path(__file__).with_name("recurrent.py"),),
    functions="tests.ports.recurrent:FUNCTIONS",
)
