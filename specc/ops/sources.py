"""Values without gradient: inputs of the model, positions, tables and masks made from them."""

from __future__ import annotations

from specc.ir.op import Op
from specc.ir.types import Axis, MeshAxis, R, S, TensorType
from specc.ops.base import Facts, OpDef, Signature, Stream, Types
from specc.ops.places import shards_of


def _symbols(op: Op) -> tuple[Axis, ...]:
    axes = op.attr("axes")
    assert isinstance(axes, tuple)
    return tuple(Axis(str(name), str(name)) for name in axes)


def _input_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    """Every rank of a model axis is fed the same tokens, every rank of a data axis its own."""
    return [Signature((), (stream(_input_out(op, ins)[0]) if mesh.data else R,))]


def _input_out(op: Op, ins: Types) -> Types:
    return (TensorType(_symbols(op), op.text("dtype"), grad=False),)


INPUT = OpDef("input", _input_out, _input_signatures, lambda op, ins: Facts(source=True))


def _from_shapes(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    return [Signature((None,) * len(ins), (R,))]


POSITIONS = OpDef(
    "positions",  # 0 .. length - 1 of an axis of the operand
    lambda op, ins: (TensorType(_symbols(op), "int64", grad=False),),
    _from_shapes,
    lambda op, ins: Facts(shape_only=(0,), source=True),
)


def _per_position(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    places = [R, *shards_of(ins[0], mesh)]
    return [Signature((t, *((None,) * (len(ins) - 1))), (t,)) for t in places]


def _rope_table_out(op: Op, ins: Types) -> Types:
    """[pair, seq, head_dim]: cosines, then sines."""
    return (
        TensorType((Axis("pair", 2), *ins[0].axes, Axis("head_dim", op.number("head_dim"))), "float32", grad=False),
    )


ROPE_TABLE = OpDef("rope_table", _rope_table_out, _per_position, lambda op, ins: Facts())


def _sinusoid_out(op: Op, ins: Types) -> Types:
    return (TensorType((*ins[0].axes, Axis("d_model", op.number("d_model"))), grad=False),)


SINUSOID = OpDef(  # of the second operand only the dtype is read
    "sinusoid", _sinusoid_out, _per_position, lambda op, ins: Facts(shape_only=(1,))
)


def _mask_out(op: Op, ins: Types) -> Types:
    """[batch, 1, 1, source]: true where a key may be seen."""
    batch, keys = ins[0].axes
    return (TensorType((batch, Axis("1", 1), Axis("1", 1), keys), "bool", grad=False),)


def _mask_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    return [Signature((t,), (t,)) for t in (R, *(S("batch") for _ in mesh.tokens if mesh.data))]


PADDING_MASK = OpDef("padding_mask", _mask_out, _mask_signatures, lambda op, ins: Facts())

OPS = (INPUT, POSITIONS, ROPE_TABLE, SINUSOID, PADDING_MASK)
