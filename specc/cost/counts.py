"""What a compiled graph costs: flops, collectives, bytes at the cuts. Arithmetic on repeats, no walk over layers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import prod

from specc.cost.sizes import BYTES
from specc.ir.graph import Graph
from specc.ir.op import Op, Param, Path, Ref
from specc.ir.repeat import Repeat, layer_of, layer_scope
from specc.ir.segments import Segment, segments
from specc.ir.stored import stored
from specc.ir.types import Spmd
from specc.ops.conversions import conversion
from specc.spec.core import Model


@dataclass(frozen=True)
class StageCost:
    """Layers by stack, parameters held in all and by one rank, and the flops of one pipeline stage."""

    layers: tuple[tuple[str, int, int], ...]  # stack, first, last
    parameters: int
    local: int
    flops: int


def local_shape(param: Param, stored: Spmd, graph: Graph) -> tuple[int, ...]:
    """What the first rank, which has the most, holds of a parameter: split by tp, then its rows by dp (FSDP2)."""
    local = [axis.length for axis in param.axes]
    names = [axis.shard_name for axis in param.axes]
    for axis in reversed(graph.mesh):
        place = stored.at(axis.name)
        dim = names.index(place.axis) if place.kind == "S" else 0 if axis.data else None
        if dim is not None:
            local[dim] = -(-local[dim] // axis.size)
    return tuple(local)


def runs_of(graph: Graph, op: Op, stage: int) -> int:
    """How often a stage runs an op in a forward pass."""
    layer, repeat = layer_of(op.scope), graph.repeat_of(op.scope)
    return 1 if layer is None or repeat is None else len(repeat.layers(layer.offset, repeat.span(stage)))


def stage_costs(graph: Graph, stages: int) -> list[StageCost]:
    """One entry a stage; flops are those of a forward pass over one sequence."""
    model = [op for op in graph.ops if op.scope[:1] != ("loss",) and op.kind != "cut"]
    found: list[StageCost] = []
    for stage in range(stages):
        ops = [op for op in model if stage in graph.stages_of(op.scope)]
        layers: list[tuple[str, int, int]] = []
        for op in ops:
            if op.kind == "repeat":
                span = Repeat.of(op).span(stage)
                path, start, last = op.text("path"), span.start, span.start + span.n - 1
                if layers and layers[-1][0] == path:  # runs of a pattern follow each other
                    start = layers.pop()[1]
                layers.append((path, start, last))
        held: dict[Path, tuple[int, int]] = {}
        flops = 0
        for op in ops:
            runs = runs_of(graph, op, stage)
            for n, param in enumerate(op.params):
                if not param.trained:
                    continue
                local = local_shape(param, op.uses[n].stored if op.uses else Spmd(), graph)
                copies = 1 if layer_of(param.path) is None else runs
                held[param.path] = (prod(axis.length for axis in param.axes) * copies, prod(local) * copies)
            ins = tuple(graph.type(ref) for ref in op.inputs)
            flops += graph.definition(op).flops(op, ins, graph.symbols) * runs
        whole, part = (sum(pair[n] for pair in held.values()) for n in (0, 1))
        found.append(StageCost(tuple(layers), whole, part, flops))
    return found


def active(graph: Graph) -> int:
    """Parameters that one token meets at most: all, but of experts and the like those alone that it is sent to."""
    shares: dict[Path, Fraction] = {}
    for op in graph.ops:
        owned = graph.definition(op).owned
        if owned is None:
            continue
        per = prod(n for axis in op.outs[0].axes if axis.name == owned.axis for _, n in axis.factors)
        params = (
            param for user in graph.ops_at[layer_scope(op.scope)] if user.scope == op.scope for param in user.params
        )
        for param in params:
            for count in [axis.length for axis in param.axes if axis.shard_name == owned.owners]:
                shares[param.path] = Fraction(min(per, count), count)
    rows = (row for row in stored(graph) if row.param.trained)
    return int(sum(row.count * shares.get(row.param.path, 1) for row in rows))


def collectives(graph: Graph, ops: Iterable[Op]) -> tuple[dict[str, int], dict[str, int]]:
    """Forward and backward counts by kind, of ops that run once; what is recomputed is not counted again."""
    forward: dict[str, int] = {}
    backward: dict[str, int] = {}
    for op in ops:
        for lowering in [how for _, how in op.lowering] or ["plain"]:
            traffic = graph.definition(op).traffic(op, lowering)
            for found, counts in ((traffic.forward, forward), (traffic.backward, backward)):
                for kind, count in found.items():
                    counts[kind] = counts.get(kind, 0) + count
    return forward, backward


def copies(op: Op) -> bool:
    """Whether torch copies what a collective cuts or joins: it does so along the first dim, others are turned there."""
    if op.kind != "convert":
        return False
    source, target = op.place("src"), op.place("dst")
    link = conversion(source, target)
    split = source if source.kind == "S" else target
    talks = link is not None and bool(link.forward or link.backward)
    return talks and split.kind == "S" and (source.kind == target.kind or bool(op.outs[0].dim(split.axis)))


def copied(graph: Graph, ops: Iterable[Op]) -> tuple[dict[str, int], dict[str, int]]:
    """Those of `collectives` around which torch copies."""
    return collectives(graph, [op for op in ops if copies(op)])


def again(graph: Graph, block: Iterable[Op]) -> dict[str, int]:
    """Collectives that run again in backward where a layer is recomputed: of each part of it, up to the last value that
    backward needs. What a cut keeps stands at the end of a part, behind that value.

    `block` has the layer's ops.
    """
    total: dict[str, int] = {}
    path = next((path for op in block if (path := layer_scope(op.scope)) is not None), ())
    for part in segments(graph).get(path, ()):
        for kind, count in collectives(graph, run_again(graph, part))[0].items():
            total[kind] = total.get(kind, 0) + count
    return total


def run_again(graph: Graph, part: Segment) -> tuple[Op, ...]:
    """Those ops of a part that run again in backward: all in front of the last that backward needs a value for."""
    needed = [n for n, op in enumerate(part.ops) if graph.definition(op).saves(op)]
    return part.ops[: needed[-1]] if part.again and needed else ()


def blocks(graph: Graph, model: Model) -> list[tuple[str, tuple[Op, ...]]]:
    """Distinct blocks by name with their ops; those that stand in several places are taken once."""
    found: dict[str, tuple[Op, ...]] = {}
    for repeat in graph.repeats:
        stack = next(stack for stack in model.stacks if stack.path == repeat.path[-1])
        run = stack.runs[repeat.run]
        start = sum(before.layers for before in stack.runs[: repeat.run])
        for offset, scope in zip(repeat.offsets, repeat.blocks, strict=True):
            block = run.blocks[(offset - start) % repeat.period]
            name = stack.role if block.name == "block" else f"{stack.role}.{block.name}"
            found.setdefault(name, graph.ops_at[scope])
    return list(found.items())


@dataclass(frozen=True)
class Crossing:
    """A value that a stage takes from the one before it."""

    name: str
    ref: Ref
    bytes: float  # a token, on one rank


def crossing(graph: Graph, stages: int) -> list[tuple[Crossing, ...]]:
    """What each stage but the first takes."""
    found: list[tuple[Crossing, ...]] = []
    sizes = {axis.name: axis.size for axis in graph.mesh if not axis.data}
    cut = {op.id: op for op in graph.ops if op.kind == "cut"}
    for stage in range(1, stages):
        op = cut.get(f"cut{stage}")
        if op is None:  # an equal stage runs before this one: it takes what that takes
            found.append(found[-1])
            continue
        values: list[Crossing] = []
        for n, out in enumerate(op.outs):
            elements = prod(axis.size for axis in out.axes if isinstance(axis.size, int))
            ranks = prod(sizes.get(name, 1) for _, names in (op.types[n].nesting if op.types else ()) for name in names)
            values.append(Crossing(graph.hint(op.inputs[n]), Ref(op.id, n), elements * BYTES[out.dtype] / ranks))
        found.append(tuple(values))
    return found
