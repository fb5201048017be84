"""A plug-in: a component with an op, a module of parameters and a kernel that specc does not have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from specc.components.base import Component, Config, Dim, Given, Problem, Problems
from specc.emit.expr.base import hole, member
from specc.emit.forms.base import Form, Values
from specc.emit.parts import Expr, Use
from specc.extension import Extension
from specc.ir.graph import Graph
from specc.ir.op import Init, Op, Ref
from specc.ir.types import Axis, I, MeshAxis, R, S, TensorType
from specc.ops.base import Facts, OpDef, Signature, Stream, Types, as_first, shardable

if TYPE_CHECKING:
    from specc.lower.builder import Builder


class Bottleneck(Config):
    """A narrow layer between two linears (Houlsby et al. 2019)."""

    width: Dim | None = None
    """Features between the linears. Default: d_model / 4."""
    cap: float = 5.0
    """They stay between this and its negative."""


def resolve(config: Bottleneck, d_model: int, role: str) -> Bottleneck:
    """With the width filled in."""
    return config.model_copy(update={"width": config.width or max(1, d_model // 4)})


def width(config: Bottleneck) -> int:
    """Of a resolved config."""
    assert config.width is not None
    return config.width


def rules(config: Bottleneck, d_model: int, stated: Callable[[str], bool]) -> Problems:
    """A bottleneck is narrow."""
    if width(config) >= d_model:
        message = f"width = {width(config)} is no bottleneck of d_model = {d_model}"
        yield Problem("E290", ("width",), message, f"at most {d_model - 1}")


def lower(config: Bottleneck, b: Builder, x: Ref, given: Given, features: Axis) -> Ref:
    """x [batch, seq, d_model] -> the same."""
    narrow = Axis("width", width(config))
    x = b.linear(x, "down", narrow, features, bias=True)
    gain = b.param("gain", "weight", (narrow,), Init("zeros"), "gain")
    x = b.op("gain", x, name="gain", params=(gain,))
    x = b.op("soft_cap", x, name="cap", cap=config.cap)
    return b.linear(x, "up", features, narrow, bias=True, last=True)


BOTTLENECK = Component(
    "bottleneck",
    Bottleneck,
    "Bottleneck",
    lower,
    smallest={"width": 1},
    shards=("width",),
    split_by_tp=lambda config: (("width", width(config)),),
    results=lambda config: ("down", "gain", "cap", "up"),
    shrink=lambda config, tp: config.model_copy(update={"width": 4 * tp}),
    resolve=resolve,
    rules=rules,
    decided=lambda config, role: {"width": (config.width, "d_model / 4")},
    synonyms={"bottleneck": ("adapter",)},
)


def _each(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    """Each element by itself: as it comes, with what is learned split as its features are."""
    type: TensorType = ins[0]
    features = type.axes[-1]
    learned = (R,) * len(op.params)
    found = [Signature((R,), (R,), learned)]
    if not mesh.data:
        found.append(Signature((I,), (I,), (I,) * len(op.params)))
    if shardable(features, mesh):
        own = S(features.shard_name)
        found.append(Signature((own,), (own,), (own,) * len(op.params)))
    found += [Signature((S(axis.shard_name),), (S(axis.shard_name),), learned) for axis in type.axes[:-1]]
    return found


OPS = (
    OpDef("gain", as_first, _each, lambda op, ins: Facts(linear=(0,)), saves=lambda op: ("in0",)),
    OpDef("soft_cap", as_first, _each, lambda op, ins: Facts(), saves=lambda op: ("out0",)),
)


def _gain(values: Values, optional: bool) -> list[str]:
    return [f"return x * (1 + {values['weight']})"]


GAIN = Form("gain", "Gain", "A learned gain for each feature.", {"weight": ("dim",)}, ("dim",), "x: Tensor", _gain)


def _write_gain(graph: Graph, op: Op) -> Expr:
    return Expr((f"{member(op, op.params[0]).rpartition('.')[0]}(", Use(op.inputs[0]), ")"))


def _write_cap(graph: Graph, op: Op) -> Expr:
    return Expr(("soft_cap(", Use(op.inputs[0]), ", ", hole(op, "cap", op.attr("cap")), ")"), calls=("soft_cap",))


TOY = Extension(
    "toy",
    (BOTTLENECK,),
    OPS,
    (GAIN,),
    {"gain": _write_gain, "soft_cap": _write_cap},
    kernels=(Path(__file__).with_name("toy_kernels.py"),),
    functions="tests.toy_kernels:FUNCTIONS",
)
