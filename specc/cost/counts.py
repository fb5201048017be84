"""What a compiled graph costs: flops, collectives, bytes at the cuts. Arithmetic on repeats, no walk over layers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from specc.ir.graph import Graph, inside
from specc.ir.op import Layer, Op
from specc.ir.types import Place
from specc.ops import definition

FORWARD = {"PI": "all-reduce", "PS": "reduce-scatter", "SR": "all-gather", "PR": "all-reduce"}
BACKWARD = {"IR": "all-reduce", "PS": "all-gather", "SR": "reduce-scatter", "PR": "all-reduce"}
BYTES = {"float": 2, "int64": 8, "bool": 1, "float32": 4}  # of an element, activations in bfloat16


@dataclass(frozen=True)
class StageCost:
    """Layers by stack, parameters held, and the share of the model's flops of one pipeline stage."""

    layers: tuple[tuple[str, int, int], ...]  # stack, first, last
    parameters: int
    flops: int


def stage_number(op: Op) -> int:
    """The pipeline stage an op stands in."""
    first = str(op.scope[0]) if op.scope else ""
    return int(first.removeprefix("stage")) if first.startswith("stage") else 0


def layers_of(graph: Graph, op: Op) -> int:
    """How often an op runs in a forward pass."""
    for n, part in enumerate(op.scope):
        if isinstance(part, Layer):
            outer = op.scope[:n]
            repeat = next(
                r
                for r in graph.ops
                if r.kind == "repeat" and (*r.scope, r.text("path")) == outer and r.number("run") == part.run
            )
            start, n_layers, period = repeat.number("start"), repeat.number("n"), repeat.number("period")
            return len(range(start + (part.offset - start) % period, start + n_layers, period))
    return 1


def flops(graph: Graph, ops: Iterable[Op], tokens: int) -> int:
    """Of a forward pass over one sequence of that many tokens."""
    symbols = {axis.size: tokens for op in graph.ops for t in op.outs for axis in t.axes if isinstance(axis.size, str)}
    symbols["batch"] = 1
    total = 0
    for op in ops:
        ins = tuple(graph.type(ref) for ref in op.inputs)
        total += definition(op.kind).flops(op, ins, symbols) * layers_of(graph, op)
    return total


def stage_costs(graph: Graph, stages: int, tokens: int) -> list[StageCost]:
    """One entry a stage."""
    found: list[StageCost] = []
    for stage in range(stages):
        ops = [op for op in graph.ops if op.scope[:1] != ("loss",) and op.kind != "cut" and stage_number(op) == stage]
        repeats = [op for op in ops if op.kind == "repeat"]
        layers = tuple((op.text("path"), op.number("start"), op.number("start") + op.number("n") - 1) for op in repeats)
        held: dict[tuple[object, ...], int] = {}
        for op in ops:
            for param in op.params:
                size = prod(axis.size for axis in param.axes if isinstance(axis.size, int))
                held[param.path] = size * layers_of(graph, op)
        found.append(StageCost(layers, sum(held.values()), flops(graph, ops, tokens)))
    return found


def collectives(ops: Iterable[Op]) -> tuple[dict[str, int], dict[str, int]]:
    """Forward and backward counts by kind."""
    forward: dict[str, int] = {}
    backward: dict[str, int] = {}
    for op in ops:
        if op.kind != "convert":
            continue
        source, target = op.attr("src"), op.attr("dst")
        assert isinstance(source, Place) and isinstance(target, Place)
        key = source.kind + target.kind
        for table, counts in ((FORWARD, forward), (BACKWARD, backward)):
            if key in table and (op.outs[0].grad or table is FORWARD):
                counts[table[key]] = counts.get(table[key], 0) + 1
    return forward, backward


def blocks(graph: Graph) -> list[tuple[str, list[Op]]]:
    """Distinct blocks by name with their ops; stages that run the same block are one."""
    found: dict[str, list[Op]] = {}
    for scope in graph.scopes:
        if scope.path and isinstance(scope.path[-1], Layer):
            layer = scope.path[-1]
            name = ".".join(str(part) for part in scope.path[:-1] if not str(part).startswith("stage"))
            name += f" run {layer.run}" * bool(layer.run) + f" +{layer.offset}" * bool(layer.offset)
            found.setdefault(name, [op for op in graph.ops if inside(op.scope, scope.path)])
    return list(found.items())


def crossing(graph: Graph) -> list[tuple[str, list[tuple[str, str, float]]]]:
    """What each cut carries: (name of the value, its type, bytes a token on one rank)."""
    found: list[tuple[str, list[tuple[str, str, float]]]] = []
    sizes = {axis.name: axis.size for axis in graph.mesh if not axis.data}
    for op in graph.ops:
        if op.kind != "cut":
            continue
        values: list[tuple[str, str, float]] = []
        for n, out in enumerate(op.outs):
            elements = prod(axis.size for axis in out.axes if isinstance(axis.size, int))
            ranks = prod(sizes.get(name, 1) for _, names in op.types[n].nesting for name in names)
            values.append((op.inputs[n].op.split(".")[-1], str(out), elements * BYTES[out.dtype] / ranks))
        found.append((op.id, values))
    return found
