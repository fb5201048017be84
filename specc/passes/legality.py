"""What must hold of a graph after every pass. A graph that breaks it is a bug: the exception names the op."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import networkx

from specc.ir.graph import Graph
from specc.ir.op import Op, Param, Path, dotted
from specc.ir.tree import tree
from specc.ops import definition
from specc.spec.core import Layout

nx: Any = cast(Any, networkx)  # its algorithms have no types


class IllegalGraph(Exception):
    """A graph that no pass may give."""


def legality(graph: Graph, layout: Layout) -> Graph:
    """The same graph. Raises IllegalGraph naming the op and the rule."""
    for rule in RULES:
        for problem in rule(graph):
            raise IllegalGraph(f"{rule.__name__}: {problem}")
    return graph


def acyclic(graph: Graph) -> list[str]:
    """networkx finds no cycle, and op order is a topological order."""
    if not nx.is_directed_acyclic_graph(graph.nx):
        return [f"a cycle through {nx.find_cycle(graph.nx)[0][0]}"]
    place = {op.id: n for n, op in enumerate(graph.ops)}
    return [f"{b} stands before {a}, which it uses" for a, b in graph.nx.edges() if place[a] >= place[b]]


def connected(graph: Graph) -> list[str]:
    """One component; every op but inputs leads to the loss or the output."""
    if not nx.is_weakly_connected(graph.nx):
        return ["the graph falls into parts"]
    alive = nx.ancestors(graph.nx, graph.loss.op) | nx.ancestors(graph.nx, graph.output.op)
    alive |= {graph.loss.op, graph.output.op}
    return [f"{op.id} is dead" for op in graph.ops if op.id not in alive and op.kind != "input"]


def wired(graph: Graph) -> list[str]:
    """Edges say what operands say, and operands name outputs that exist."""
    found: list[str] = []
    for op in graph.ops:
        edges = sorted((data["operand"], a, data["out"]) for a, _, data in graph.nx.in_edges(op.id, data=True))
        if edges != [(n, ref.op, ref.out) for n, ref in enumerate(op.inputs)]:
            found.append(f"{op.id}: edges and operands differ")
        found += [
            f"{op.id} uses {r}, which does not exist" for r in op.inputs if r.out >= max(1, len(graph.op(r.op).outs))
        ]
    return found


def typed(graph: Graph) -> list[str]:
    """Shapes are there for all ops or none, and are what the ops' rules give."""
    if not any(op.outs for op in graph.ops):
        return []
    return [
        f"{op.id} has type {[str(t) for t in op.outs]}"
        for op in graph.ops
        if op.outs != definition(op.kind).infer(op, tuple(graph.type(ref) for ref in op.inputs))
    ]


def placed(graph: Graph) -> list[str]:
    """Once a value has an SPMD type, every value and every parameter has one on each mesh axis, and sizes divide."""
    if not any(op.types for op in graph.ops):
        return []
    names = [axis.name for axis in graph.mesh]
    found: list[str] = []
    for op in graph.ops:
        if len(op.types) != len(op.outs) or len(op.uses) != len(op.params):
            found.append(f"{op.id} is placed in part")
            continue
        spmd = [*op.types, *(use.stored for use in op.uses)]
        found += [f"{op.id} has no type on some mesh axis" for t in spmd if sorted(dict(t.places)) != sorted(names)]
        found += _uneven(graph, op)
    return found


def _uneven(graph: Graph, op: Op) -> list[str]:
    sizes = {axis.name: axis.size for axis in graph.mesh}
    pairs = [*zip((out.axes for out in op.outs), op.types, strict=True)]
    pairs += [(param.axes, use.stored) for param, use in zip(op.params, op.uses, strict=True)]
    found: list[str] = []
    for axes, spmd in pairs:
        for axis in axes:
            ranks = 1
            for name in spmd.shards(axis):
                ranks *= sizes[name]
            if isinstance(axis.size, int) and axis.shard_name != "vocab" and axis.size % ranks:
                found.append(f"{op.id}: {axis.name} = {axis.size} over {ranks} ranks")
    return found


def scoped(graph: Graph) -> list[str]:
    """Ops of a scope stand together, scopes declare what they use, repeats close, carries keep their type."""
    if not any(op.outs for op in graph.ops):
        return []
    try:
        tree(graph)
    except (ValueError, KeyError, StopIteration) as error:
        return [f"the nested view: {error!r}"]
    ends = {op.text("repeat"): op for op in graph.ops if op.kind == "end"}
    repeats = [op for op in graph.ops if op.kind == "repeat"]
    found = [f"{op.id} runs {op.number('n')} layers" for op in repeats if op.number("n") < 1]
    if sorted(ends) != sorted(op.id for op in repeats):
        return [*found, "repeats and ends do not match"]
    return found + [f"{op.id} changes its carry" for op in repeats if op.outs != ends[op.id].outs]


def named(graph: Graph) -> list[str]:
    """A parameter's name stands for one thing."""
    seen: dict[Path, tuple[Param, object]] = {}
    found: list[str] = []
    for op in graph.ops:
        for n, param in enumerate(op.params):
            storage = op.uses[n].stored if op.uses else None
            known, stored = seen.setdefault(param.path, (param, storage))
            if known != param or stored != storage:
                found.append(f"{op.id}: {dotted(param.path)} is another parameter elsewhere")
    return found


RULES: tuple[Callable[[Graph], list[str]], ...] = (acyclic, connected, wired, typed, placed, scoped, named)
