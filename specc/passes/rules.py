"""What a layout says by hand of axes: those that no mesh axis splits are whole on every rank."""

from __future__ import annotations

from dataclasses import replace

from specc.ir.graph import Graph
from specc.ir.op import Op, Param, Ref
from specc.ir.types import Axis
from specc.passes.shapes import shapes
from specc.spec.core import Layout


def rules(graph: Graph, layout: Layout) -> Graph:
    """Axes of parameters are marked where they are made; those of values follow. What heads share goes with them."""
    if not layout.rules:
        return graph
    whole: dict[str, set[str]] = {}  # by component
    features = {name for component in graph.tables.components.values() for name in component.shards}
    for op in graph.ops:
        component = graph.component(op)
        names = whole.setdefault(component, set())
        for axis in (axis for param in op.params for axis in param.axes):
            if layout.keeps_whole(component, axis.shard_name) and (component or axis.shard_name not in features):
                names.add(axis.shard_name)
        pair = graph.definition(op).shares(graph.ins(op))
        if pair is not None and layout.keeps_whole(component, pair[0].shard_name):
            names.add(pair[1].shard_name)
    marked = [_marked(graph, op, whole[graph.component(op)]) for op in graph.ops]
    graph = shapes(graph.with_ops(marked), layout)
    made = [_marked(graph, op, {"heads"}) if _for_whole(graph, op) else op for op in graph.ops]
    return shapes(graph.with_ops(made), layout)


def _marked(graph: Graph, op: Op, names: set[str]) -> Op:
    """An op that makes heads of nothing, or what experts are given, is told, too."""
    component = graph.component(op)
    makes = op.kind in MAKERS and "heads" in names
    gives = graph.definition(op).owned is not None and set(graph.tables.components[component].shards) <= names
    params = tuple(_whole(param, names) for param in op.params)
    return (op.having(whole=True) if makes or gives else op).changed(params=params)


MAKERS = ("slopes",)
"""Kinds of ops that make an axis of heads of nothing."""


def _whole(param: Param, names: set[str]) -> Param:
    axes = tuple(axis._replace(whole=True) if axis.shard_name in names else axis for axis in param.axes)
    return param if axes == param.axes else replace(param, axes=axes)


def _for_whole(graph: Graph, op: Op) -> bool:
    """Whether a bias of scores, outside of components, is for heads that are whole."""
    heads = op.kind in MAKERS or any(axis.name == "heads" for param in op.params for axis in param.axes)
    return heads and not graph.component(op) and _only_whole(graph, op)


def _only_whole(graph: Graph, op: Op) -> bool:
    users = graph.users(Ref(op.id))
    return bool(users) and all(
        _heads(graph, user).whole if graph.definition(user).shares(graph.ins(user)) else _only_whole(graph, user)
        for user in users
    )


def _heads(graph: Graph, op: Op) -> Axis:
    pair = graph.definition(op).shares(graph.ins(op))
    assert pair is not None
    return pair[0]
