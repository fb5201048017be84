"""Values without gradient: inputs of the model, positions, tables and masks made from them."""

from __future__ import annotations

from dataclasses import replace

from specc.ir.op import Op
from specc.ir.types import Axis, MeshAxis, R, S, TensorType
from specc.ops.base import Facts, OpDef, Signature, Stream, Types, as_first, made_in
from specc.ops.places import demand, shards_of


def _symbols(op: Op) -> tuple[Axis, ...]:
    """Names of lengths, and axes of a size that is known."""
    axes = op.attr("axes")
    assert isinstance(axes, tuple)
    return tuple(name if isinstance(name, Axis) else Axis(str(name), str(name)) for name in axes)


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
    own = shards_of(ins[0], mesh)
    places = [*own, R] if mesh.data else [R, *own]  # what ranks are fed is theirs alone
    return [Signature((t, *((None,) * (len(ins) - 1))), (t,)) for t in places]


def _rope_table_out(op: Op, ins: Types) -> Types:
    """[pair, seq, head_dim]: cosines, then sines; of positions that differ by row [pair, batch, 1, seq, head_dim]."""
    *rows, seq = ins[0].axes
    heads = (*rows, Axis("1", 1)) if rows else ()
    axes = (Axis("pair", 2), *heads, seq, Axis("head_dim", op.number("head_dim")))
    return (TensorType(axes, made_in(op, "float32"), grad=False),)


ROPE_TABLE = OpDef("rope_table", _rope_table_out, _per_position, lambda op, ins: Facts())


def _temperature_out(op: Op, ins: Types) -> Types:
    """[seq, 1]; of positions that differ by row [batch, 1, seq, 1]."""
    *rows, seq = ins[0].axes
    one = Axis("1", 1)
    return (TensorType((*rows, *(one for _ in rows), seq, one), made_in(op, "float32"), grad=False),)


TEMPERATURE = OpDef("temperature", _temperature_out, _per_position, lambda op, ins: Facts())


def _sinusoid_out(op: Op, ins: Types) -> Types:
    return (TensorType((*ins[0].axes, Axis("d_model", op.number("d_model"))), ins[1].dtype, grad=False),)


SINUSOID = OpDef(  # of the second operand only the dtype is read
    "sinusoid", _sinusoid_out, _per_position, lambda op, ins: Facts(shape_only=(1,))
)


def _of_data(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    places = [*(shards_of(ins[0], mesh) if mesh.data else ()), R]
    return [Signature((t,), (t,)) for t in places]


REAL = OpDef(  # of tokens, those that are no padding
    "real", lambda op, ins: (replace(ins[0], dtype="bool"),), _of_data, lambda op, ins: Facts()
)


def _starts_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    own = (S("batch"),) if mesh.data and "batch" in mesh.tokens else ()
    return [Signature((t,), (t,)) for t in (*own, R)]


def _rows_whole(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    own = (S("batch"),) if mesh.data and "batch" in mesh.tokens else ()
    return [Signature((t,) * len(ins), (t,)) for t in (*own, R)]


AHEAD = OpDef(  # of numbers of a row, those one place on; the last has a 0
    "tokens_ahead", as_first, _rows_whole, lambda op, ins: Facts(mix=(ins[0].axes[1].name,))
)
LATER = OpDef(  # of labels, those one place on where the second operand has a label, too; else -100
    "labels_ahead", as_first, _rows_whole, lambda op, ins: Facts(mix=(ins[0].axes[1].name,))
)


TOKEN_IS = OpDef(  # of tokens, those that are a certain one
    "token_is", lambda op, ins: (replace(ins[0], dtype="bool"),), _of_data, lambda op, ins: Facts()
)


DOCUMENT_STARTS = OpDef(  # index of the first token of the run of equal numbers that each token is in
    "document_starts",
    lambda op, ins: (replace(ins[0], dtype="int64"),),
    _starts_signatures,
    lambda op, ins: Facts(mix=(ins[0].axes[1].name,)),
)


REAL_POSITIONS = OpDef(  # of which are no padding: the place of each among these; padding has -1
    "real_positions",
    lambda op, ins: (replace(ins[0], dtype="int64"),),
    _starts_signatures,
    lambda op, ins: Facts(mix=(ins[0].axes[1].name,)),
)


def masked(op: Op) -> dict[str, int]:
    """Numbers of a mask's operands by what they are.

    A query sees a key if all hold that there are: `queries`, positions of queries [seq], and `keys`, those of keys:
    the key stands not behind; `near` and `near of keys`, the same: they are fewer than `window` apart; `chunks` and
    `chunks of keys`, positions [seq] or [batch, seq]: both are in one chunk of `chunk` tokens; `documents` and
    `documents of keys` [batch, seq]: they are the same; `real` [batch, seq]: the key is no padding.
    A key that is `marked` [batch, seq] may stand behind.
    """
    of = op.attr("of")
    assert isinstance(of, tuple)
    return {str(name): n for n, name in enumerate(of)}


def _mask_out(op: Op, ins: Types) -> Types:
    """[seq, keys], or [batch, 1, seq, keys] where rows differ, with 1 in place of seq where queries do not."""
    of_queries, of_keys = (tuple(ins[n].axes for n in numbers) for numbers in _sides(op))
    one, keys = Axis("1", 1), Axis("keys", of_keys[0][-1].size)
    rows = next((axes[0] for axes in of_keys if len(axes) > 1), None)
    batch = () if rows is None else (rows, one)
    return (TensorType((*batch, of_queries[0][-1] if of_queries else one, keys), "bool", grad=False),)


def _sides(op: Op) -> tuple[list[int], list[int]]:
    """Numbers of the operands that speak of queries, and of those that speak of keys."""
    queries = [n for name, n in masked(op).items() if name in ("queries", "near", "chunks", "documents")]
    return queries, [n for n in range(len(op.inputs)) if n not in queries]


def _mask_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    """Whole, or by rows or queries on ranks that are fed different ones. Keys are whole."""
    out, (queries, _) = _mask_out(op, ins)[0], _sides(op)
    places = [*(shards_of(out, mesh) if mesh.data else ()), R]
    return [
        Signature(tuple(demand(t, p) if n in queries or p == S("batch") else R for n, t in enumerate(ins)), (p,))
        for p in places
    ]


def _mask_facts(op: Op, ins: Types) -> Facts:
    return Facts(rename={n: {ins[n].axes[-1].name: "keys"} for n in _sides(op)[1]})


MASK = OpDef("mask", _mask_out, _mask_signatures, _mask_facts)

MASK_BIAS = OpDef(  # what a mask adds to scores: 0, and -inf where it hides
    "mask_bias",
    lambda op, ins: (replace(ins[0], dtype=made_in(op)),),
    _of_data,
    lambda op, ins: Facts(),
)

CAUSAL_BIAS = OpDef(  # of positions of queries [seq]: each sees the keys up to itself; two of zigzag, one a chunk
    "causal_bias",
    lambda op, ins: (replace(ins[0], dtype="bool"),) * op.number("chunks"),
    lambda op, ins, mesh, stream: [
        Signature((t,), (t,) * op.number("chunks")) for t in (*(shards_of(ins[0], mesh) if mesh.data else ()), R)
    ],
    lambda op, ins: Facts(),
)

OPS = (
    INPUT,
    POSITIONS,
    ROPE_TABLE,
    TEMPERATURE,
    SINUSOID,
    REAL,
    AHEAD,
    LATER,
    TOKEN_IS,
    DOCUMENT_STARTS,
    REAL_POSITIONS,
    MASK,
    MASK_BIAS,
    CAUSAL_BIAS,
)
