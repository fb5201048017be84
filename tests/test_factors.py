"""Axes of several factors are split by the first one, whole elements of it; ragged ones anywhere."""

from __future__ import annotations

from dataclasses import replace

import pytest

from specc.components.base import Component, Config, Dim, Given
from specc.extension import Extension
from specc.ir.op import OpError, Ref
from specc.ir.types import Axis, I, MeshAxis, R, S, TensorType
from specc.lower import lower as lower_model
from specc.lower.builder import Builder
from specc.ops.base import shardable
from specc.ops.places import shards_of
from specc.passes import compile_graph
from specc.passes.check import SpmdError, check, stream_type
from specc.passes.legality import legality
from specc.passes.place import stream
from specc.spec.core import Block, Branch, Layout, Model, Run, Sublayer
from specc.tables import tables
from tests.models import llama
from tests.sharing import NORM

TP = MeshAxis("tp", 2, tokens=("seq",), shards=("groups", "slots"))
BATCH, SEQ = Axis("batch", "batch"), Axis("seq", "seq")


@pytest.mark.parametrize(("groups", "split"), [(1, False), (2, True), (3, False), (4, True)])
def test_a_shard_holds_whole_elements_of_the_first_factor(groups: int, split: bool) -> None:
    joint = Axis.of(groups=groups, state=4)
    assert (joint.name, joint.size, joint.shard_name) == ("groups*state", 4 * groups, "groups")
    assert shardable(joint, TP) == split
    value = TensorType((BATCH, SEQ, joint))
    assert shards_of(value, TP) == [S("seq"), *[S("groups")] * split]
    for axes in ((joint,), (BATCH, joint)):
        expected = S("groups") if split else I
        assert stream(TP)(TensorType(axes)) == stream_type(TensorType(axes), TP) == expected


def test_what_is_ragged_is_split_anywhere() -> None:
    slots = Axis("slots", "slots", ragged=True)
    assert slots.divides(7) and shardable(slots, TP)
    assert stream(TP)(TensorType((slots,))) == stream_type(TensorType((slots,)), TP) == S("slots")
    assert stream(TP)(TensorType((slots,), grad=False)) == R


class Grouped(Config):
    """Two linears around groups of states."""

    groups: Dim = 1
    """Groups."""


def lower(config: Grouped, b: Builder, x: Ref, given: Given, features: Axis) -> Ref:
    """x [batch, seq, d_model] -> the same."""
    joint = Axis.of(groups=config.groups, state=4)
    return b.linear(b.linear(x, "in", joint, features, False), "out", features, joint, False, last=True)


GROUPED = Component(
    "grouped",
    Grouped,
    "Grouped",
    lower,
    smallest={},
    shards=("groups",),
    split_by_tp=lambda config: (),
    results=lambda config: ("in", "out"),
    shrink=lambda config, tp: config,
)
TABLES = tables((Extension("grouped", (GROUPED,)),))


def model(groups: int) -> Model:
    own = Sublayer((Branch("grouped", Grouped(groups=groups), ("block", "grouped"), pre=NORM),))
    stack = replace(llama().stacks[0], runs=(Run((Block("block", (own,), ("decoder",)),), 2),))
    return replace(llama(), stacks=(stack,), tables=TABLES)


@pytest.mark.parametrize(("groups", "split"), [(1, False), (2, True), (3, False)])
def test_one_group_stays_whole_on_two_ranks(groups: int, split: bool) -> None:
    layout = Layout(tp=2, tables=TABLES)
    graph = check(compile_graph(lower_model(model(groups)), layout), layout)
    (weight,) = graph.op("layers.+0.grouped.in").uses
    assert weight.stored.at("tp") == (S("groups") if split else R)


def test_half_a_group_is_a_bug() -> None:
    layout = Layout(tp=2, tables=TABLES)
    graph = lower_model(model(1))
    joint, half = Axis.of(groups=1, state=4), Axis("groups*state", 4)

    def change(axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
        return tuple(half if axis == joint else axis for axis in axes)

    ops = [replace(op, params=tuple(replace(p, axes=change(p.axes)) for p in op.params)) for op in graph.ops]
    split = compile_graph(graph.with_ops(ops), layout)  # as if 4 whole elements were there: nothing tells
    wrong = [
        replace(
            op,
            params=tuple(replace(p, axes=tuple(joint if a == half else a for a in p.axes)) for p in op.params),
            outs=tuple(replace(t, axes=tuple(joint if a == half else a for a in t.axes)) for t in op.outs),
        )
        for op in split.ops
    ]
    with pytest.raises((SpmdError, OpError), match=r"groups\*state = 4 cannot be split over 2 ranks"):
        legality(check(split.with_ops(wrong), layout), layout)
