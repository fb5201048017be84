"""Differential attention (Ye et al. 2024): of what two softmaxes attend to, the second is subtracted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from specc.components import mask, norm, rope
from specc.components.base import Component, Config, Dim, Formula, Given, Problem, Problems, Table
from specc.components.mask import Mask
from specc.components.norm import Norm
from specc.components.rope import Rope
from specc.emit.expr.base import member
from specc.emit.forms.base import Form, Values
from specc.emit.parts import Expr, Use
from specc.extension import Extension
from specc.ir.graph import Graph
from specc.ir.op import Init, Op, Ref
from specc.ir.types import Axis, MeshAxis
from specc.ops.base import Facts, OpDef, Signature, Stream, Types, as_first
from specc.ops.places import use_of, whole_or_tokens

if TYPE_CHECKING:
    from specc.lower.builder import Builder

LEARNED = ("q1", "k1", "q2", "k2")


class Differential(Config):
    """Causal self-attention of pairs of heads."""

    heads: Dim
    """Pairs of query heads, each with a value head of twice their features."""
    head_dim: Dim | None = None
    """Features of a query head. Default: d_model / (2 * heads)."""
    start: Formula = 0.8
    """The factor at the start; the paper has 0.8 - 0.6 * exp(-0.3 * layer)."""
    rope: Rope | None = None
    """Rotary positions."""


def resolve(config: Differential, d_model: int, role: str) -> Differential:
    """With head_dim filled in."""
    return config.model_copy(update={"head_dim": config.head_dim or max(1, d_model // (2 * config.heads))})


def size(config: Differential) -> int:
    """head_dim of a resolved config."""
    assert config.head_dim is not None
    return config.head_dim


def rules(config: Differential, d_model: int, stated: Callable[[str], bool]) -> Problems:
    """Pairs of features are rotated."""
    if config.rope is not None:
        if config.rope.dim is None and size(config) % 2:
            yield Problem(
                "E212", ("rope",), f"rope rotates pairs, but head_dim = {size(config)} is odd", "make it even"
            )
        yield from rope.rules(config.rope, ("rope",), size(config))


def tables(config: Differential) -> tuple[Table, ...]:
    """Of rope, and which keys a query sees."""
    rotary = () if config.rope is None else (rope.table(config.rope, size(config)),)
    return (*rotary, *mask.table(Mask(causal=True)))


def lower(config: Differential, b: Builder, x: Ref, given: Given, features: Axis) -> Ref:
    """x [batch, seq, d_model] -> the same."""
    found = {table.name: given[table] for table in tables(config)}
    start = float(config.start)
    made: dict[str, Ref] = {}
    for name in (*LEARNED, "v"):
        width = size(config) * (2 if name == "v" else 1)
        flat = b.linear(x, name, Axis.of(heads=config.heads, head_dim=width), features, False, hint=name)
        made[name] = b.op("split", flat, name=f"{name}_heads", hint=name, heads=config.heads)
        if config.rope is not None and name != "v":
            made[name] = rope.turn(config.rope, b, made[name], found["rope"], name)
    seen = [
        b.op(
            "attention",
            *(made[f"q{n}"], made[f"k{n}"], made["v"], found["mask"]),
            **{"name": f"core{n}", "hint": f"x{n}", "causal": False, "scale": None, "dropout": 0.0, "grouped": False},
        )
        for n in (1, 2)
    ]
    vector = (Axis("learned", size(config)),)
    params = tuple(b.param("difference", name, vector, Init("normal", 0.1), "differ") for name in LEARNED)
    mixed = b.op("differ", *seen, name="difference", params=params, start=start)
    inner = Axis("head_dim", 2 * size(config))
    mixed = norm.lower(Norm(kind="rms", eps=1e-5, weight=False).resolved(), b, mixed, "sub_norm", inner)
    mixed = b.op("merge", b.op("scale", mixed, factor=1 - start))
    return b.linear(mixed, "o", features, Axis.of(heads=config.heads, head_dim=inner.length), False, last=True)


DIFFERENTIAL = Component(
    "differential",
    Differential,
    "Differential",
    lower,
    smallest={"heads": 1},
    shards=("heads",),
    split_by_tp=lambda config: (("heads", config.heads),),
    results=lambda config: (*LEARNED, "v", "core1", "core2", "o"),
    shrink=lambda config, tp: config.model_copy(update={"heads": 2 * tp, "head_dim": 8}),
    tables=tables,
    resolve=resolve,
    rules=rules,
    decided=lambda config, role: {"head_dim": (config.head_dim, "d_model / (2 * heads)")},
)


def _signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    """Each element by itself, as it comes; what is learned is whole."""
    places = whole_or_tokens(ins[0], mesh, stream(ins[0]), ())
    return [Signature((t, t), (t,), (use_of(t),) * len(op.params)) for t in places]


DIFFER = OpDef(
    "differ",
    as_first,
    _signatures,
    lambda op, ins: Facts(mix=("learned",)),  # within a vector elements meet
    flops=lambda op, ins, symbols: 2 * ins[0].numel(symbols),
    saves=lambda op: ("in1",),
)


def _differ(values: Values, optional: bool) -> list[str]:
    return [f"return differ(x, y, {', '.join(values[name] for name in LEARNED)}, self.start)"]


DIFFERENCE = Form(
    "differ",
    "Difference",
    "The factor of what is subtracted is made of four vectors.",
    dict.fromkeys(LEARNED, ("dim",)),
    ("dim",),
    "x: Tensor, y: Tensor",
    _differ,
    attrs=("start",),
)


def _write(graph: Graph, op: Op) -> Expr:
    module = member(op, op.params[0]).rpartition(".")[0]
    return Expr((f"{module}(", Use(op.inputs[0]), ", ", Use(op.inputs[1]), ")"), calls=("differ",))


EXTENSION = Extension(
    "differential",
    (DIFFERENTIAL,),
    (DIFFER,),
    (DIFFERENCE,),
    {"differ": _write},
    kernels=(Path(__file__).with_name("differential_kernels.py"),),
    functions="differential_kernels:FUNCTIONS",
)
