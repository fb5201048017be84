"""What a compiled graph costs: flops, collectives, bytes at the cuts. Arithmetic on repeats, no walk over layers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from specc.emit.params import stages_of
from specc.ir.graph import Graph, inside
from specc.ir.op import Layer, Op, Path
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


def runs_of(graph: Graph, op: Op, stage: int) -> int:
    """How often a stage runs an op in a forward pass."""
    for n, part in enumerate(op.scope):
        if isinstance(part, Layer):
            outer = op.scope[:n]
            repeats = (r for r in graph.ops if r.kind == "repeat" and (*r.scope, r.text("path")) == outer)
            repeat = next(r for r in repeats if r.number("run") == part.run)
            start, layers = span(repeat, stage)
            period = repeat.number("period")
            return len(range(start + (part.offset - start) % period, start + layers, period))
    return 1


def span(repeat: Op, stage: int) -> tuple[int, int]:
    """First layer and number of layers that a stage runs of a repeat."""
    spans = dict(repeat.attrs).get("spans")
    for entry in spans if isinstance(spans, tuple) else ():
        if isinstance(entry, tuple) and entry[0] == stage and isinstance(entry[1], int) and isinstance(entry[2], int):
            return entry[1], entry[2]
    return repeat.number("start"), repeat.number("n")


def stage_costs(graph: Graph, stages: int, tokens: int) -> list[StageCost]:
    """One entry a stage; flops are those of a forward pass over one sequence of that many tokens."""
    symbols = {axis.size: tokens for op in graph.ops for t in op.outs for axis in t.axes if isinstance(axis.size, str)}
    symbols["batch"] = 1
    model = [op for op in graph.ops if op.scope[:1] != ("loss",) and op.kind != "cut"]
    found: list[StageCost] = []
    for stage in range(stages):
        ops = [op for op in model if stage in stages_of(op, graph)]
        layers: list[tuple[str, int, int]] = []
        for op in ops:
            if op.kind == "repeat":
                start, n = span(op, stage)
                layers.append((op.text("path"), start, start + n - 1))
        held: dict[Path, int] = {}
        flops = 0
        for op in ops:
            runs = runs_of(graph, op, stage)
            for param in op.params:
                held[param.path] = prod(axis.size for axis in param.axes if isinstance(axis.size, int)) * runs
            ins = tuple(graph.type(ref) for ref in op.inputs)
            flops += definition(op.kind).flops(op, ins, symbols) * runs
        found.append(StageCost(tuple(layers), sum(held.values()), flops))
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
