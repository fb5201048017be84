"""A plug-in whose layers add to the loss: a linear, of whose results a term of each sample is made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from specc.components.base import Component, Config, Dim, Given
from specc.emit.parts import Expr, Use
from specc.extension import Extension
from specc.ir.op import Ref
from specc.ir.types import Axis, I, P, S, TensorType
from specc.ops.base import Facts, OpDef, Signature

if TYPE_CHECKING:
    from specc.lower.builder import Builder


class Even(Config):
    """A bottleneck whose features are to be used alike."""

    choices: Dim = 6
    """Features."""
    factor: float = 0.5
    """Of the term in the loss; 0: none."""


def lower(config: Even, b: Builder, x: Ref, given: Given, features: Axis) -> Ref:
    """x [batch, seq, d_model] -> the same."""
    choices = Axis("choices", config.choices)
    logits = b.linear(x, "router", choices, features, False, hint="logits")
    if config.factor:
        term = b.op("evenness", logits, hint="term")
        b.term(b.op("scale", term, name="weighed", hint="term", factor=config.factor))
    return b.linear(logits, "out", features, choices, False, last=True)


EVEN = Component(
    "even",
    Even,
    "Even",
    lower,
    smallest={},
    shards=(),
    split_by_tp=lambda config: (),
    results=lambda config: ("router", "out"),
    shrink=lambda config, tp: config,
    adds_to_loss=lambda config: bool(config.factor),
)
EVENNESS = OpDef(
    "evenness",
    lambda op, ins: (TensorType(()),),
    lambda op, ins, mesh, stream: [Signature((S("batch"),), (P,)) if mesh.data else Signature((I,), (I,))],
    lambda op, ins: Facts(contract=("batch",), mix=("seq", "choices")),
    saves=lambda op: ("in0",),
)
TERMS = Extension(
    "terms",
    (EVEN,),
    (EVENNESS,),
    expressions={
        "evenness": lambda graph, op: Expr(("evenness(", Use(op.inputs[0]), ")"), calls=("evenness",)),
    },
    kernels=(Path(__file__).with_name("terms_kernels.py"),),
    functions="tests.terms_kernels:FUNCTIONS",
)
