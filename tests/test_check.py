"""The rules of the SPMD checker, one by one on hand-placed ops."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from specc.ir.graph import Graph
from specc.ir.op import Attr, Init, Op, Param, Use
from specc.ir.types import Axis, I, MeshAxis, P, Place, R, S, Spmd, TensorType
from specc.passes.check import SpmdError, derive, stream_type
from specc.tables import tables

TP = MeshAxis("tp", 2, tokens=("seq",), shards=("heads", "kv_heads", "ffn", "vocab"))
DP = MeshAxis("dp", 2, tokens=("batch",), data=True)
CP = MeshAxis("cp", 2, tokens=("seq",), data=True)
HIDDEN = "batch seq d_model=32"


def axes(text: str) -> tuple[Axis, ...]:
    pairs = [part.partition("=") for part in text.split()]
    return tuple(_axis(name, size) for name, _, size in pairs)


def _axis(name: str, size: str) -> Axis:
    if "*" in size:
        return Axis.of(**dict(zip(name.split("*"), map(int, size.split("*")), strict=True)))
    return Axis(name, int(size) if size else name)


def spmd(text: str, mesh: tuple[MeshAxis, ...]) -> Spmd:
    """`S(seq)` on the one axis of the mesh, or `dp:R tp:S(seq)`."""
    pairs = [part.rpartition(":") for part in text.split()]
    found = {name or mesh[0].name: value for name, _, value in pairs}
    return Spmd.of({name: S(value[2:-1]) if value.startswith("S(") else Place(value) for name, value in found.items()})


def derived(
    kind: str,
    *operands: tuple[str, str],
    params: tuple[tuple[str, str], ...] = (),
    over: tuple[MeshAxis, ...] = (TP,),
    lowering: dict[str, str] | None = None,
    **attrs: Attr,
) -> str:
    """The type of an op's result, given (axes, type) of operands and parameters; `-` before axes: no gradient."""
    ops: list[Op] = []
    for n, (shape, placed) in enumerate(operands):
        out = TensorType(axes(shape.removeprefix("-")), grad=not shape.startswith("-"))
        ops.append(Op(f"x{n}", "input", outs=(out,), types=(spmd(placed, over),)))
    weights = tuple(Param((f"w{n}",), axes(shape), Init("ones"), "") for n, (shape, _) in enumerate(params))
    uses = tuple(Use(spmd(used, over), spmd(used, over)) for _, used in params)
    inputs = tuple(op.ref for op in ops)
    op = Op("op", kind, inputs, weights, tuple(attrs.items()), uses=uses, lowering=tuple((lowering or {}).items()))
    op = replace(op, outs=tables().op(kind).infer(op, tuple(op.outs[0] for op in ops)))
    graph = Graph.of([*ops, op], (), (op.ref,), op.ref, over)
    (result,) = derive(graph, op)
    return str(result).removeprefix(f"{over[0].name}:") if len(over) == 1 else str(result)


COLUMN = ("ffn=64 d_model=32", "S(ffn)")
ROW = ("d_model=32 ffn=64", "S(ffn)")
HEADS = "batch heads=4 seq head_dim=8"
KV = "batch kv_heads=2 seq head_dim=8"
VOCAB = {"tp": "vocab_parallel"}

RIGHT: tuple[tuple[str, tuple[Any, ...], dict[str, Any], str], ...] = (
    ("column-parallel", ("linear", (HIDDEN, "R")), {"params": (COLUMN,)}, "S(ffn)"),
    ("row-parallel", ("linear", ("batch seq ffn=64", "S(ffn)")), {"params": (ROW,)}, "P"),
    ("own tokens", ("linear", (HIDDEN, "S(seq)")), {"params": (("router=4 d_model=32", "R"),)}, "S(seq)"),
    ("partial through linear", ("linear", (HIDDEN, "P")), {"params": (("a=4 d_model=32", "R"),)}, "P"),
    ("invariant", ("linear", (HIDDEN, "I")), {"params": (("a=4 d_model=32", "I"),)}, "I"),
    ("norm on own tokens", ("rms_norm", (HIDDEN, "S(seq)")), {"params": (("d_model=32", "R"),)}, "S(seq)"),
    ("norm on heads", ("rms_norm", (HEADS, "S(heads)")), {"params": (("head_dim=8", "R"),)}, "S(heads)"),
    ("sum of partials", ("add", (HIDDEN, "P"), (HIDDEN, "P")), {}, "P"),
    ("table on own tokens", ("add", (HIDDEN, "S(seq)"), ("-seq d_model=32", "S(seq)")), {}, "S(seq)"),
    ("layerscale of a partial", ("channel_scale", (HIDDEN, "P")), {"params": (("d_model=32", "R"),)}, "P"),
    ("mask without gradient", ("mul", (HIDDEN, "I"), ("-batch seq d_model=32", "R")), {}, "I"),
    ("rows of the table", ("embedding", ("-batch seq", "R")), {"params": (("vocab=9 d_model=32", "S(vocab)"),)}, "P"),
    ("ids of own tokens", ("embedding", ("-batch seq", "S(seq)")), {"params": (("vocab=9 d=32", "R"),)}, "S(seq)"),
    ("split", ("split", ("batch seq heads*head_dim=4*8", "S(heads)")), {"heads": 4}, "S(heads)"),
    ("rope of a partial", ("rope", (HEADS, "P"), ("-pair=2 seq head_dim=8", "R")), {}, "P"),
    ("attention", ("attention", (HEADS, "S(heads)"), (KV, "S(kv_heads)"), (KV, "S(kv_heads)")), {}, "S(heads)"),
    ("gathered keys", ("attention", (HEADS, "S(seq)"), (KV, "R"), (KV, "R")), {}, "S(seq)"),
    ("partial values", ("attention", (HEADS, "R"), (KV, "R"), (KV, "P")), {}, "P"),
    ("split logits", ("cross_entropy", ("batch seq vocab=9", "S(vocab)"), ("-batch seq", "R")), {}, "I"),
    ("loss of own samples", ("cross_entropy", ("batch seq vocab=9", "S(batch)"), ("-batch seq", "S(batch)")), {}, "P"),
    ("positions", ("positions", ("-batch seq", "S(batch)")), {"axes": ("seq",)}, "R"),
    ("like of another type", ("sinusoid", ("-seq", "R"), (HIDDEN, "P")), {"d_model": 32}, "R"),
)

WRONG: tuple[tuple[str, tuple[Any, ...], dict[str, Any], str], ...] = (
    ("I into column", ("linear", (HIDDEN, "I")), {"params": (COLUMN,)}, "%x0 is I, but ffn is sharded"),
    ("P into column", ("linear", (HIDDEN, "P")), {"params": (COLUMN,)}, "in different ways"),
    ("whole weight", ("linear", ("batch seq ffn=64", "S(ffn)")), {"params": (("d_model=32 ffn=64", "R"),)}, "w0 is R"),
    ("two shards", ("linear", (HIDDEN, "S(seq)")), {"params": (COLUMN,)}, "in different ways"),
    (
        "bias of a row-parallel linear",
        ("linear", ("batch seq ffn=64", "S(ffn)")),
        {"params": (ROW, ("d_model=32", "R"))},
        "not with w1 as factor",
    ),
    ("bias of a partial", ("add_bias", (HIDDEN, "P")), {"params": (("d_model=32", "R"),)}, "is not linear in %x0"),
    ("invariant norm", ("rms_norm", (HIDDEN, "S(seq)")), {"params": (("d_model=32", "I"),)}, "w0 is I, but seq"),
    (
        "norm of a shard",
        ("rms_norm", (HIDDEN, "S(d_model)")),
        {"params": (("d_model=32", "S(d_model)"),)},
        "sum_statistic",
    ),
    ("norm of a partial", ("rms_norm", (HIDDEN, "P")), {"params": (("d_model=32", "R"),)}, "not linear in %x0"),
    ("partial and whole", ("add", (HIDDEN, "P"), (HIDDEN, "R")), {}, "not linear in %x0"),
    ("partial and table", ("add", (HIDDEN, "P"), ("-seq d_model=32", "R")), {}, "not linear in %x0"),
    ("product of partials", ("mul", (HIDDEN, "P"), (HIDDEN, "P")), {}, "not linear in %x0, %x1"),
    ("partial times invariant", ("mul", (HIDDEN, "P"), (HIDDEN, "I")), {}, "%x1 is I, but %x0 is P"),
    ("I and R", ("mul", (HIDDEN, "I"), (HIDDEN, "R")), {}, "mixes I and R"),
    ("I and R weight", ("channel_scale", (HIDDEN, "I")), {"params": (("d_model=32", "R"),)}, "mixes I and R"),
    ("activation of a partial", ("activation", (HIDDEN, "P")), {}, "not linear"),
    ("dropout of a partial", ("dropout", (HIDDEN, "P")), {}, "random numbers on a partial sum"),
    ("whole table", ("add", (HIDDEN, "S(seq)"), ("-seq d_model=32", "R")), {}, "%x1 is R"),
    ("ids of own tokens", ("embedding", ("-batch seq", "S(seq)")), {"params": (("vocab=9 d=32", "I"),)}, "w0 is I"),
    (
        "keys apart",
        ("attention", (HEADS, "S(heads)"), (KV, "R"), (KV, "R")),
        {},
        "%x1 is R, other operands are sharded",
    ),
    ("keys sharded", ("attention", (HEADS, "R"), (KV, "S(seq)"), (KV, "S(seq)")), {}, "needs keys whole"),
    (
        "causal queries apart",
        ("attention", (HEADS, "S(seq)"), (KV, "R"), (KV, "R")),
        {"causal": True},
        "needs seq whole",
    ),
    ("partial queries", ("attention", (HEADS, "P"), (KV, "R"), (KV, "R")), {}, "not linear in %x0"),
    (
        "dropout in attention of partial values",
        ("attention", (HEADS, "R"), (KV, "R"), (KV, "P")),
        {"dropout": 0.1},
        "random numbers",
    ),
    ("labels apart", ("cross_entropy", ("batch seq vocab=9", "S(seq)"), ("-batch seq", "R")), {}, "%x1 is R"),
    ("lowering for nothing", ("linear", (HIDDEN, "R")), {"params": (COLUMN,), "lowering": VOCAB}, "must be None"),
    ("lowering of whole values", ("activation", (HIDDEN, "R")), {"lowering": VOCAB}, "no operand is sharded"),
    ("lowering on no axis", ("activation", (HIDDEN, "R")), {"lowering": {"ep": "ring"}}, "does not exist"),
)

NEEDS = {"attention": {"dropout": 0.0, "causal": False}, "embedding": {}, "cross_entropy": {}}


def _arguments(given: tuple[Any, ...], more: dict[str, Any]) -> dict[str, Any]:
    shards = [text for _, text in (*given[1:], *more.get("params", ()))]
    lowering = {"lowering": VOCAB} if "S(vocab)" in shards else {}
    return {**NEEDS.get(given[0], {}), **lowering, **more}


@pytest.mark.parametrize(("given", "more", "expected"), [case[1:] for case in RIGHT], ids=[case[0] for case in RIGHT])
def test_derives(given: tuple[Any, ...], more: dict[str, Any], expected: str) -> None:
    assert derived(*given, **_arguments(given, more)) == expected


@pytest.mark.parametrize(("given", "more", "problem"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_rejects(given: tuple[Any, ...], more: dict[str, Any], problem: str) -> None:
    with pytest.raises(SpmdError, match=re.escape(problem)):
        derived(*given, **_arguments(given, more))


@pytest.mark.parametrize("kind", ["embedding", "cross_entropy"])
def test_needs_the_lowering_named(kind: str) -> None:
    with pytest.raises(SpmdError, match="lowering must be vocab_parallel, not None"):
        if kind == "embedding":
            derived(kind, ("-batch seq", "R"), params=(("vocab=9 d_model=32", "S(vocab)"),))
        else:
            derived(kind, ("batch seq vocab=9", "S(vocab)"), ("-batch seq", "R"))


def test_mesh_axes_do_not_mix_and_shards_nest() -> None:
    mesh = (CP, TP)
    column = ("ffn=64 d_model=32", "cp:R tp:S(ffn)")
    assert derived("linear", (HIDDEN, "cp:S(seq) tp:R"), params=(column,), over=mesh) == "cp:S(seq) tp:S(ffn)"
    both = (HIDDEN, "cp:S(seq) tp:S(seq)")
    assert derived("add", both, both, over=mesh) == "cp:S(seq) tp:S(seq)"
    with pytest.raises(SpmdError, match="split over"):
        derived("add", both, (HIDDEN, "tp:S(seq) cp:S(seq)"), over=mesh)


LEGAL = {(P, I), (P, S("seq")), (P, R), (I, R), (S("seq"), R), (R, S("seq")), (S("seq"), I), (I, S("seq"))}


@pytest.mark.parametrize("grad", [True, False])
def test_conversions(grad: bool) -> None:
    for src in (R, I, P, S("seq")):
        for dst in (R, I, P, S("seq")):
            legal = (src, dst) in LEGAL and (grad or I not in (src, dst))
            shape = ("" if grad else "-") + HIDDEN
            if legal:
                assert derived("convert", (shape, str(src)), mesh="tp", src=src, dst=dst) == str(dst)
            else:
                with pytest.raises(SpmdError, match=r"no conversion|without gradient"):
                    derived("convert", (shape, str(src)), mesh="tp", src=src, dst=dst)


def test_conversions_say_what_they_convert() -> None:
    with pytest.raises(SpmdError, match="converts from P, but %x0 is R"):
        derived("convert", (HIDDEN, "R"), mesh="tp", src=P, dst=I)
    with pytest.raises(SpmdError, match="is no conversion"):
        derived("convert", (HIDDEN, "R"), mesh="ep", src=P, dst=I)


def test_only_the_innermost_shard_is_converted() -> None:
    x = Op("x", "input", outs=(TensorType(axes(HIDDEN)),), types=(spmd("cp:S(seq) tp:S(seq)", (CP, TP)),))
    for name, legal in (("tp", True), ("cp", False)):
        op = Op("y", "convert", (x.ref,), attrs=(("mesh", name), ("src", S("seq")), ("dst", R)), outs=x.outs)
        graph = Graph.of([x, op], (), (op.ref,), op.ref, (CP, TP))
        if legal:
            assert str(derive(graph, op)[0]) == "cp:S(seq) tp:R"
        else:
            with pytest.raises(SpmdError, match="only the innermost"):
                derive(graph, op)


def test_stream_types() -> None:
    hidden, ids = TensorType(axes(HIDDEN)), TensorType(axes("batch seq"), "int64", grad=False)
    plain = replace(TP, tokens=())
    found = [str(stream_type(t, mesh)) for t in (hidden, ids) for mesh in (TP, plain, DP, CP)]
    assert found == ["S(seq)", "I", "S(batch)", "S(seq)", "R", "R", "S(batch)", "S(seq)"]
    keys = TensorType(axes(KV))
    assert [str(stream_type(keys, mesh)) for mesh in (TP, plain, DP)] == ["S(kv_heads)", "S(kv_heads)", "S(batch)"]
