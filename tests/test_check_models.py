"""The SPMD checker on placed models: accepted as they are, rejected with one thing wrong."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from specc.ir.graph import Graph
from specc.ir.op import Attr, Layer, Op, Path, Ref, Stage, Use
from specc.ir.types import I, P, Place, R, S, Spmd
from specc.lower import lower
from specc.passes import typed
from specc.passes.check import SpmdError, check
from specc.passes.legalise import legalise
from specc.passes.place import place
from specc.passes.stages import stages
from specc.spec.core import Layout, Model, Pipeline
from tests.models import MODELS, SMALL, gpt2, llama, patterned, transformer
from tests.mutants import mutants, retyped


def placed(model: Model, layout: Layout) -> Graph:
    graph = typed(lower(model), layout)
    for step in (stages, legalise, place):
        graph = step(graph, layout)
    return graph


def layouts(*, tp: tuple[int, ...] = (1, 2), stages: tuple[int, ...] = (1, 2)) -> list[Layout]:
    return [
        Layout(tp=t, sequence_parallel=sp, dp=dp, pp=Pipeline(stages=s))
        for t in tp
        for sp in ((False, True) if t > 1 else (False,))
        for dp in (1, 2)
        for s in stages
    ]


@pytest.mark.parametrize("name", MODELS)
def test_accepts_what_is_placed(name: str) -> None:
    wide = name in ("gpt2", "transformer")  # the others have 2 kv_heads
    for layout in layouts(tp=(1, 2, 4) if wide else (1, 2)):
        graph = placed(MODELS[name], layout)
        assert check(graph, layout) is graph


@pytest.mark.parametrize("sequence_parallel", [False, True])
@pytest.mark.parametrize("name", SMALL)
def test_rejects_every_mutant(name: str, sequence_parallel: bool) -> None:
    """As recorded, and with all types derived again, where only the rules can tell."""
    layout = Layout(
        tp=2, sequence_parallel=sequence_parallel, dp=2, pp=Pipeline(stages=2 if name == "patterned" else 1)
    )
    survivors: list[str] = []
    count = 0
    for description, mutant in mutants(placed(SMALL[name], layout)):
        count += 1
        for again in (False, True):
            try:
                check(retyped(mutant) if again else mutant, layout)
                survivors.append(f"{description}{' derived again' * again}")
            except SpmdError:
                pass
    assert count > 400 and survivors == []


def test_retyping_changes_nothing_that_is_right() -> None:
    layout = Layout(tp=2, sequence_parallel=True, dp=2)
    graph = placed(transformer(), layout)
    assert [op.types for op in retyped(graph).ops] == [op.types for op in graph.ops]


def _changed(graph: Graph, id: str, **fields: Any) -> Graph:
    return graph.with_ops(replace(op, **fields) if op.id == id else op for op in graph.ops)


def test_names_op_and_mesh_axis() -> None:
    layout = Layout(tp=2)
    graph = placed(llama(layers=1), layout)
    wrong = _changed(graph, "layers.+0.ffn.act", types=(Spmd.of({"tp": R}),))
    with pytest.raises(SpmdError, match=r"layers\.\+0\.ffn\.act: activation on tp: is S\(ffn\), recorded as R"):
        check(wrong, layout)
    with pytest.raises(SpmdError, match="embedding"):
        check(_changed(graph, "embedding", types=()), layout)


def test_tied_parameters_are_stored_alike() -> None:
    layout = Layout(tp=2)
    graph = placed(gpt2(layers=1), layout)
    whole = Spmd.of({"tp": R})
    copy = Spmd.of({"tp": I})
    head = graph.op("head")
    ops: list[Op] = []
    for op in graph.ops:  # a head that is right by itself: whole weight, then logits cut by vocab
        if op.id == "head":
            before = head.inputs[0]
            source = graph.op(before.op).inputs[0] if graph.op(before.op).kind == "convert" else before
            flat = replace(op, inputs=(source,), uses=(Use(whole, copy),), types=(copy,))
            cut = Op(
                "cut_head",
                "convert",
                (flat.ref,),
                attrs=(("mesh", "tp"), ("src", I), ("dst", S("vocab"))),
                outs=op.outs,
                types=op.types,
            )
            ops += [flat, cut]
        elif op.kind == "cross_entropy":
            ops.append(replace(op, inputs=(Ref("cut_head"), op.inputs[1])))
        else:
            ops.append(op)
    with pytest.raises(SpmdError, match=r"embedding\.weight is stored as tp:R here"):
        check(Graph.of(ops, graph.scopes, (Ref("cut_head"),), graph.loss, graph.mesh), layout)


WHOLE, INVARIANT = Spmd.of({"dp": R, "tp": R}), Spmd.of({"dp": R, "tp": I})
VOCAB_SPLIT = Spmd.of({"dp": R, "tp": S("vocab")})
USES: tuple[tuple[str, Use, str], ...] = (
    ("norm", Use(WHOLE, Spmd.of({"dp": I, "tp": I})), "on dp: norm.weight is used as I, but its gradient"),
    ("norm", Use(INVARIANT, INVARIANT), "on tp: norm.weight is stored as I"),
    ("norm", Use(WHOLE, Spmd.of({"dp": R, "tp": P})), "on tp: norm.weight is stored as R, used as P"),
    ("norm", Use(WHOLE, Spmd.of({"dp": R, "tp": S("ffn")})), "is S(ffn), but has no such axis"),
    ("norm", Use(WHOLE, Spmd.of({"dp": R, "tp": S("d_model")})), "an axis that tp does not split"),
    ("norm", Use(WHOLE, Spmd.of({"tp": R})), "use of norm.weight has types on ['tp']"),
    ("head", Use(WHOLE, VOCAB_SPLIT), "is stored as R, but used as S(vocab)"),
    ("head", Use(VOCAB_SPLIT, WHOLE), "is stored as S(vocab), but used as R"),
    ("head", Use(VOCAB_SPLIT, replace(VOCAB_SPLIT, nesting=())), "but its shards nest as ()"),
)


@pytest.mark.parametrize(("id", "use", "problem"), USES)
def test_storage_and_use(id: str, use: Use, problem: str) -> None:
    layout = Layout(tp=2, dp=2)
    with pytest.raises(SpmdError, match=re.escape(problem)):
        check(_changed(placed(llama(layers=1), layout), id, uses=(use,)), layout)


RECORDED: tuple[tuple[str, Spmd, str], ...] = (
    ("tokens", Spmd.of({"dp": S("batch"), "tp": I}), "on tp: I of a value without gradient"),
    ("norm", Spmd.of({"dp": S("batch"), "tp": Place("V")}), "is V, which is no type"),
    ("layers_end", Spmd.of({"dp": S("batch"), "tp": R}), "is I, recorded as R"),
    ("loss.cross_entropy", Spmd.of({"dp": R, "tp": I}), "on dp: is P, recorded as R"),
)


@pytest.mark.parametrize(("id", "type", "problem"), RECORDED)
def test_recorded_types(id: str, type: Spmd, problem: str) -> None:
    layout = Layout(tp=2, dp=2)
    with pytest.raises(SpmdError, match=re.escape(problem)):
        check(_changed(placed(llama(layers=1), layout), id, types=(type,)), layout)


def _convert(graph: Graph, id: str, source: Ref, src: Place, dst: Place, scope: Path) -> Op:
    attrs: tuple[tuple[str, Attr], ...] = (("mesh", "tp"), ("src", src), ("dst", dst))
    outs, types = (graph.type(graph.origin(source)),), (Spmd.of({"tp": dst}),)
    return Op(id, "convert", (source,), attrs=attrs, scope=scope, outs=outs, types=types)


def test_blocks_exchange_the_stream_type() -> None:
    """Gathered at the end of a block and cut at the start of the next, all types fit, but layers repeat."""
    layout = Layout(tp=2, sequence_parallel=True)
    graph = placed(patterned(layers=2), layout)
    first, second = (("layers", Layer(n)) for n in (0, 1))
    carry = Ref("layers.+0.ffn_residual")
    gather = _convert(graph, "gather", carry, S("seq"), R, first)
    cut = replace(_convert(graph, "cut", carry, R, S("seq"), second), inputs=(gather.ref,))
    ops: list[Op] = []
    for op in graph.ops:
        if op.scope[:2] == second:
            op = replace(op, inputs=tuple(cut.ref if ref == carry else ref for ref in op.inputs))
        ops += [op, gather, cut] if op.ref == carry else [op]
    scopes = tuple(
        replace(scope, inputs=(gather.ref, *scope.inputs)) if scope.path == second else scope for scope in graph.scopes
    )
    wrong = replace(graph.with_ops(ops), scopes=scopes)
    with pytest.raises(SpmdError, match=r"%gather is R, must be S\(seq\) here"):
        check(wrong, layout)


def test_stages_exchange_the_stream_type() -> None:
    layout = Layout(tp=2, sequence_parallel=True, pp=Pipeline(stages=2))
    graph = placed(llama(layers=2), layout)
    gather = _convert(graph, "gather", graph.op("cut1").inputs[0], S("seq"), R, (Stage(0),))
    ops: list[Op] = []
    for op in graph.ops:
        ops += [gather, replace(op, inputs=(gather.ref,), types=gather.types)] if op.id == "cut1" else [op]
    with pytest.raises(SpmdError, match=r"%gather is R, must be S\(seq\) here"):
        check(graph.with_ops(ops), layout)


def test_loss_is_a_sum_over_data_ranks_and_whole_on_model_ranks() -> None:
    layout = Layout(tp=2, dp=2)
    graph = placed(llama(layers=1), layout)
    with pytest.raises(SpmdError, match="the loss is S"):
        check(replace(graph, loss=Ref("layers.+0.ffn.act")), layout)


def test_partial_sums_do_not_leave_the_model() -> None:
    layout = Layout(tp=2)
    graph = placed(llama(layers=1), layout)
    with pytest.raises(SpmdError, match="is a partial sum, but the model's output"):
        check(replace(graph, outputs=(Ref("layers.+0.ffn.down"),)), layout)
