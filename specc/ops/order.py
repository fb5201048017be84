"""The order of axes."""

from __future__ import annotations

from dataclasses import replace

from specc.ir.op import Op
from specc.ir.types import Axis, I, MeshAxis, R
from specc.ops.base import Facts, OpDef, Signature, Stream, Types
from specc.ops.places import shards_of


def _swapped(op: Op, ins: Types) -> Types:
    first, second, *rest = ins[0].axes
    return (replace(ins[0], axes=(second, first, *rest)),)


def _with_one(op: Op, ins: Types) -> Types:
    first, *rest = ins[0].axes
    return (replace(ins[0], axes=(first, Axis("1", 1), *rest)),)


def _whole_first(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    """Tokens are joined before they are transposed, along the first axis."""
    if mesh.data:
        return [Signature((t,), (t,)) for t in (*shards_of(ins[0], mesh), R)]
    places = (I, R) if ins[0].grad and "mixed" in dict(op.attrs) else (R, I)
    return [Signature((t,), (t,)) for t in places]


def _as_it_comes(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    places = [*shards_of(ins[0], mesh), R, *(() if mesh.data else (I,))]
    return [Signature((t,), (t,)) for t in places]


TRANSPOSE = OpDef("transpose", _swapped, _whole_first, lambda op, ins: Facts(linear=(0,)))
UNSQUEEZE = OpDef("unsqueeze", _with_one, _as_it_comes, lambda op, ins: Facts(linear=(0,)))

OPS = (TRANSPOSE, UNSQUEEZE)
