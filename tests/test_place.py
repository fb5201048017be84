"""Placing offers what generated code can write, and says where that is not enough."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import product

import pytest

from specc.cost.counts import collectives
from specc.emit.expr import expression
from specc.extension import Extension
from specc.ir.graph import Graph
from specc.ir.op import Init, Op, OpError
from specc.ir.types import Axis, I, P, Place, R, S, Spmd, TensorType
from specc.lower.builder import Builder
from specc.ops.base import Traffic
from specc.ops.conversions import CONVERSIONS
from specc.passes import compile_graph
from specc.passes.check import LINKS
from specc.passes.mesh import mesh_of
from specc.spec.core import Layout
from specc.tables import tables
from tests.models import D_MODEL, INIT, VOCAB

TP = Layout(tp=2)
KINDS = {(item.source, item.target) for item in CONVERSIONS}


def writable(src: Place, dst: Place) -> bool:
    """Whether an expression of generated code makes dst of src."""
    hidden = TensorType((Axis("batch", "batch"), Axis("seq", "seq"), Axis("ffn", 8)))
    x = Op("x", "input", outs=(hidden,), types=(Spmd.of({"tp": src}),))
    attrs = (("mesh", "tp"), ("src", src), ("dst", dst))
    op = Op("y", "convert", (x.ref,), attrs=attrs, outs=(hidden,), types=(Spmd.of({"tp": dst}),))
    try:
        expression(Graph.of([x, op], (), (op.ref,), op.ref, mesh_of(TP)), op)
    except OpError:
        return False
    return True


def test_every_conversion_that_is_offered_can_be_written() -> None:
    pairs = [(a, b) for a, b in product((R, I, P, S("seq"), S("ffn")), repeat=2) if a != b]
    assert {(a.kind, b.kind) for a, b in pairs if writable(a, b)} == KINDS


def test_what_an_op_of_an_extension_exchanges_is_counted() -> None:
    def traffic(op: Op, lowering: str) -> Traffic:
        return Traffic({"all-to-all": 2}, {"all-to-all": 1}) if lowering == "swapped" else Traffic()

    swap = replace(tables().op("mul"), kind="swap", traffic=traffic)
    known = tables((Extension("swaps", ops=(swap,)),))
    x = Op("x", "input")
    plain, swapped = (
        Op(name, "swap", (x.ref,), lowering=how) for name, how in (("a", ()), ("b", (("tp", "swapped"),)))
    )
    graph = Graph.of([x, plain, swapped], (), (swapped.ref,), swapped.ref, known=known)
    assert collectives(graph, [plain]) == ({}, {})
    assert collectives(graph, graph.ops) == ({"all-to-all": 2}, {"all-to-all": 1})


def test_every_conversion_that_is_offered_is_sound() -> None:
    assert {a + b for a, b in KINDS} < LINKS


def test_what_cannot_be_written_is_told_where_it_is_placed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A linear that reads the partial sums of a vocabulary-parallel embedding needs R, which nothing makes of them."""
    places = sys.modules["specc.passes.place"]  # the package has the function under that name
    offered = places.conversion
    monkeypatch.setattr(places, "conversion", lambda a, b: None if (a, b) == (P, R) else offered(a, b))
    b = Builder(INIT)
    features, hidden = Axis("d_model", D_MODEL), Axis("ffn", 16)
    tokens = b.op("input", name="tokens", hint="tokens", axes=("batch", "seq"), dtype="int64")
    table = b.param("embedding", "weight", (Axis("vocab", VOCAB), features), Init("normal", 1.0), "embedding")
    x = b.linear(b.op("embedding", tokens, name="embedding", params=(table,)), "up", hidden, features, False)
    logits = b.linear(x, "head", Axis("vocab", VOCAB), hidden, False)
    with b.scope("loss", (logits,), ("loss",)):
        labels = b.op("input", name="labels", hint="labels", axes=("batch", "seq"), dtype="int64")
        loss = b.op("cross_entropy", logits, labels, hint="loss")
    graph = b.graph((logits,), loss, max_seq=64)
    with pytest.raises(OpError, match=r"up: no signature of linear accepts \(P\) on tp") as found:
        compile_graph(graph, TP)
    assert found.value.op.id == "up"
