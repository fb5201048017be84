"""Where placing puts conversions on a mesh of several axes that split one token axis, and whom each serves."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from specc.extension import Extension
from specc.ir.graph import Graph
from specc.ir.op import Init, Op, Param, Ref, Stage
from specc.ir.types import Axis, MeshAxis, R, S
from specc.ops import Facts, OpDef, Signature
from specc.passes.place import place
from specc.passes.shapes import shapes
from specc.spec.core import Layout
from specc.tables import tables

MESH = (MeshAxis("a", 2, tokens=("seq",), data=True), MeshAxis("b", 2, tokens=("seq",), data=True))
FEATURES = Axis("d_model", 8)
TABLE = Param(("table", "weight"), (Axis("positions", 64), FEATURES), Init("zeros"), "embedding")
TOKENS = Op("tokens", "input", attrs=(("axes", ("batch", "seq")), ("dtype", "int64")), hint="tokens")
POSITIONS = Op("positions", "positions", (TOKENS.ref,), attrs=(("axes", ("seq",)),), scope=(Stage(0),))


def toy(kind: str, ins: int, signature: Callable[[MeshAxis], Signature]) -> OpDef:
    """An op on each element by itself, whose result is like its first operand."""
    return OpDef(
        kind,
        lambda op, given: (given[0],),
        lambda op, given, mesh, stream: [signature(mesh)],
        lambda op, given: Facts(),
    )


def placed(monkeypatch: pytest.MonkeyPatch, ops: list[Op], *toys: OpDef) -> Graph:
    monkeypatch.setattr(sys.modules["specc.passes.place"], "mesh_of", lambda layout: MESH)
    known = tables((Extension("toys", ops=toys),))
    graph = Graph.of(ops, (), (ops[-1].ref,), ops[-1].ref, known=known)
    return place(shapes(graph, Layout()), Layout())


def conversions(graph: Graph) -> list[str]:
    return [op.id for op in graph.ops if op.kind == "convert"]


def test_shards_of_one_axis_nest_from_the_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions are whole, what is added to them is split over both axes."""
    x = Op(
        "x",
        "embedding",
        (TOKENS.ref,),
        (Param(("e", "weight"), (Axis("rows", 64), FEATURES), Init("zeros"), "embedding"),),
    )
    at = Op("at", "embedding", (POSITIONS.ref,), (TABLE,))
    graph = placed(monkeypatch, [TOKENS, x, POSITIONS, at, Op("sum", "add", (x.ref, at.ref))])
    assert conversions(graph) == ["positions.a_s_seq", "positions.a_s_seq.b_s_seq"]
    assert graph.spmd(Ref("sum")).nesting == (("seq", ("a", "b")),) == graph.spmd(Ref("at")).nesting


def test_what_a_cut_demands_is_made_in_the_stage_that_hands_it_on(monkeypatch: pytest.MonkeyPatch) -> None:
    cut = Op("cut1", "cut", (POSITIONS.ref,))
    at = Op("at", "embedding", (cut.ref,), (TABLE,), scope=(Stage(1),))
    graph = placed(monkeypatch, [TOKENS, POSITIONS, cut, at])
    assert [op.scope for op in graph.ops if op.kind == "convert"] == [(Stage(0),)] * 2


def test_an_op_may_use_one_value_under_two_types(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = toy("pair", 2, lambda mesh: Signature((S("seq"), R), (S("seq"),)))
    graph = placed(monkeypatch, [TOKENS, Op("pair", "pair", (TOKENS.ref, TOKENS.ref))], pair)
    own, other = graph.op("pair").inputs
    assert own == TOKENS.ref
    assert [graph.spmd(other).at(mesh.name) for mesh in MESH] == [R, R]


def test_ops_share_the_conversions_that_their_demands_begin_with(monkeypatch: pytest.MonkeyPatch) -> None:
    one = toy(
        "one", 1, lambda mesh: Signature((R if mesh.name == "b" else S("seq"),), (R if mesh.name == "b" else S("seq"),))
    )
    both = toy("both", 1, lambda mesh: Signature((R,), (R,)))
    ops = [TOKENS, Op("one", "one", (TOKENS.ref,)), Op("both", "both", (TOKENS.ref,))]
    graph = placed(monkeypatch, [*ops, Op("end", "both", (Ref("both"),))], one, both)
    assert conversions(graph) == ["tokens.b_r", "tokens.b_r.a_r"]
    assert graph.op("one").inputs == (Ref("tokens.b_r"),)
