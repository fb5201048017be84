"""Ops on each element by itself."""

from __future__ import annotations

from dataclasses import replace

from specc.ir.op import Op
from specc.ir.types import I, MeshAxis, P, R
from specc.ops.base import Facts, OpDef, Signature, Stream, Types
from specc.ops.places import demand, shards_of, use_of, whole_or_tokens


def _widest(op: Op, ins: Types) -> Types:
    """Operands broadcast from the right; the widest gives the axes."""
    widest = max(ins, key=lambda t: len(t.axes))
    grad = any(t.grad for t in ins)
    return (widest if widest.grad == grad else replace(widest, grad=grad),)


def _same_everywhere(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    out = _widest(op, ins)[0]
    return [Signature(tuple(demand(x, t) for x in ins), (t,)) for t in whole_or_tokens(out, mesh, stream(out), ())]


def _same_with_numbers(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    """Parameters have no axis that anything is split by."""
    places = whole_or_tokens(ins[0], mesh, stream(ins[0]), ())
    return [Signature((t,), (t,), (use_of(t),) * len(op.params)) for t in places]


def _add_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    partial = [Signature((P,) * len(ins), (P,))] if all(x.grad for x in ins) else []
    return [*partial, *_same_everywhere(op, ins, mesh, stream)]


def _scale_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    places = [P, *shards_of(ins[0], mesh), R, *(() if mesh.data else (I,))]
    return [Signature((t,), (t,)) for t in places]


ACTIVATION = OpDef(
    "activation",
    _widest,
    _same_everywhere,
    lambda op, ins: Facts(),
    flops=lambda op, ins, symbols: 4 * ins[0].numel(symbols),
    saves=lambda op: ("in0",),
)
DROPOUT = OpDef(
    "dropout",
    _widest,
    _same_everywhere,
    lambda op, ins: Facts(),
    saves=lambda op: ("mask",),
    random=lambda op: True,
)
DROP_PATH = OpDef(  # of whole samples; ranks that hold parts of one draw the same
    "drop_path",
    _widest,
    _same_everywhere,
    lambda op, ins: Facts(),
    saves=lambda op: ("mask",),
    random=lambda op: True,
)
JITTER = OpDef(  # times noise around 1
    "jitter",
    _widest,
    _same_everywhere,
    lambda op, ins: Facts(),
    saves=lambda op: ("noise",),
    random=lambda op: True,
)
ADD = OpDef("add", _widest, _add_signatures, lambda op, ins: Facts(additive=True))
SUB = OpDef("sub", _widest, _same_everywhere, lambda op, ins: Facts())


def _mul_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    """A partial sum times what every rank has is one."""
    return [*_same_everywhere(op, ins, mesh, stream), Signature((P, R), (P,))]


MUL = OpDef("mul", _widest, _mul_signatures, lambda op, ins: Facts(linear=(0, 1)), saves=lambda op: ("in0", "in1"))
XIELU = OpDef(  # of two numbers that are learned
    "xielu",
    _widest,
    _same_with_numbers,
    lambda op, ins: Facts(),
    flops=lambda op, ins, symbols: 8 * ins[0].numel(symbols),
    saves=lambda op: ("in0",),
)
CLAMP = OpDef(  # to low..high, of which either may be None
    "clamp", _widest, _same_everywhere, lambda op, ins: Facts(), saves=lambda op: ("in0",)
)
SHIFT = OpDef("shift", _widest, _same_everywhere, lambda op, ins: Facts())  # by a constant
SOFTCAP = OpDef(  # cap * tanh(x / cap)
    "softcap",
    _widest,
    _same_everywhere,
    lambda op, ins: Facts(),
    flops=lambda op, ins, symbols: 6 * ins[0].numel(symbols),
    saves=lambda op: ("out0",),
)
SCALE = OpDef("scale", _widest, _scale_signatures, lambda op, ins: Facts(linear=(0,)))

OPS = (ACTIVATION, XIELU, DROPOUT, DROP_PATH, JITTER, ADD, SUB, MUL, CLAMP, SHIFT, SOFTCAP, SCALE)
