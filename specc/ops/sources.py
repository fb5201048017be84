"""Values without gradient: inputs of the model, positions, tables and masks made from them."""

from __future__ import annotations

from dataclasses import replace

from specc.ir.op import Op
from specc.ir.types import Axis, MeshAxis, R, S, TensorType
from specc.ops.base import Facts, OpDef, Signature, Stream, Types
from specc.ops.places import demand, shards_of


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


def _of_data(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    places = [*(shards_of(ins[0], mesh) if mesh.data else ()), R]
    return [Signature((t,), (t,)) for t in places]


REAL = OpDef(  # of tokens, those that are no padding
    "real", lambda op, ins: (replace(ins[0], dtype="bool"),), _of_data, lambda op, ins: Facts()
)


def masked(op: Op) -> dict[str, int]:
    """Numbers of a mask's operands by what they are.

    A query sees a key if all hold that there are: `queries`, positions of queries [seq], and `keys`, those of keys:
    the key stands not behind; `real` [batch, seq]: the key is no padding.
    """
    of = op.attr("of")
    assert isinstance(of, tuple)
    return {str(name): n for n, name in enumerate(of)}


def _mask_out(op: Op, ins: Types) -> Types:
    """[seq, keys], or [batch, 1, seq, keys] where rows differ, with 1 in place of seq where queries do not."""
    at = {name: ins[n].axes for name, n in masked(op).items()}
    size = (at["keys"] if "keys" in at else at["real"])[-1].size
    one, keys = Axis("1", 1), Axis("keys", size)
    batch = (at["real"][0], one) if "real" in at else ()
    return (TensorType((*batch, at["queries"][0] if "queries" in at else one, keys), "bool", grad=False),)


def _mask_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    """Whole, or by rows or queries on ranks that are fed different ones. Keys are whole."""
    out, queries = _mask_out(op, ins)[0], masked(op).get("queries")
    places = [*(shards_of(out, mesh) if mesh.data else ()), R]
    return [
        Signature(tuple(demand(t, p) if n == queries or p == S("batch") else R for n, t in enumerate(ins)), (p,))
        for p in places
    ]


def _mask_facts(op: Op, ins: Types) -> Facts:
    """All but queries are of keys."""
    keys = {n: ins[n].axes[-1].name for name, n in masked(op).items() if name != "queries"}
    return Facts(rename={n: {axis: "keys"} for n, axis in keys.items()})


MASK = OpDef("mask", _mask_out, _mask_signatures, _mask_facts)

OPS = (INPUT, POSITIONS, ROPE_TABLE, SINUSOID, REAL, MASK)
