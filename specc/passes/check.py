"""The SPMD checker: derives the type of every value again, from what ops do to their indices, and compares.

It knows nothing of signatures or costs. One rule covers all ops: a sharded index that is summed over gives a partial;
one along which elements meet must be whole, unless the op names how it communicates; an operand that lacks the sharded
index must be R, since its gradient is partial; partial sums pass only where the op is linear; I and R do not meet.
"""

from __future__ import annotations

from dataclasses import dataclass

from specc.ir.graph import Graph
from specc.ir.op import Layer, Op, Ref, dotted
from specc.ir.types import Axis, I, MeshAxis, P, Place, R, S, Spmd, TensorType
from specc.ops import Facts, definition
from specc.spec.core import Layout


class SpmdError(Exception):
    """A graph that would compute something else on many ranks: a bug in placing."""


LINKS = ("PI", "PS", "PR", "IR", "SR", "SI", "IS", "RS", "SS")
"""Conversions that exist, as source and target."""


@dataclass(frozen=True)
class Operand:
    """A value or a parameter as an op reads it on one mesh axis, its axes in the op's index space."""

    place: Place
    indices: dict[str, str]  # axis by the name it shards by -> index of the op
    grad: bool
    number: int


def check(graph: Graph, layout: Layout) -> Graph:
    """The same graph. Raises SpmdError naming op, mesh axis and what is wrong."""
    for op in graph.ops:
        for mesh in graph.mesh:
            problem = _problem(graph, op, mesh)
            if problem:
                raise SpmdError(f"{op.id} on {mesh.name}: {problem}")
        problem = _nesting(graph, op)
        if problem:
            raise SpmdError(f"{op.id}: {problem}")
    _borders(graph)
    return graph


def stream_type(value: TensorType, mesh: MeshAxis) -> Place:
    """What a layout makes of values at the borders of blocks and stages."""
    names = [axis.shard_name for axis in value.axes]
    if value.grad:
        for name in mesh.shards:
            if name in names:
                return S(name)
    if value.grad or mesh.data:
        for name in mesh.tokens:
            if name in names:
                return S(name)
    return R if mesh.data or not value.grad else I


def _problem(graph: Graph, op: Op, mesh: MeshAxis) -> str | None:
    have = [type.at(mesh.name) for type in op.types]
    for n, place in enumerate(have):
        if place.kind == "S" and op.outs[n].dim(place.axis) is None:
            return f"a value without {place.axis} is split by it"
        if not op.outs[n].grad and place.kind in ("I", "P"):
            return f"a value without gradient is {place}"
    if op.kind == "convert":
        return _convert(graph, op, mesh)
    problem = _parameters(op, mesh)
    if problem:
        return problem
    if op.kind in ("repeat", "end", "cut"):
        return _carried(graph, op, mesh)
    facts = definition(op.kind).facts(op, tuple(graph.type(ref) for ref in op.inputs))
    if op.kind == "input":
        want = S("batch") if mesh.data else R
        return None if have == [want] else f"an input is {have[0]}, not {want}"
    try:
        derived = _derive(graph, op, mesh, facts)
    except SpmdError as error:
        return str(error)
    for n, place in enumerate(have):
        if derived[n] != place:
            return f"output {n} is {derived[n]}, but typed {place}"
    return None


def _parameters(op: Op, mesh: MeshAxis) -> str | None:
    for param, use in zip(op.params, op.uses, strict=True):
        stored, used = use.stored.at(mesh.name), use.used.at(mesh.name)
        name = dotted(param.path)
        if stored.kind not in ("R", "S"):
            return f"{name} is stored {stored}"
        if stored.kind == "S" and stored.axis not in mesh.shards:
            return f"{name} is split by {stored.axis}, which {mesh.name} does not split parameters by"
        if (stored.kind == "S" or used.kind == "S") and stored != used:
            return f"{name} is stored {stored} and used {used}"
        if used.kind not in ("R", "I", "S"):
            return f"{name} is used {used}"
        if mesh.data and used == I:
            return f"{name} is used I on a data axis: its gradient is partial there"
    return None


def _carried(graph: Graph, op: Op, mesh: MeshAxis) -> str | None:
    for n, ref in enumerate(op.inputs):
        want = stream_type(graph.type(ref), mesh)
        if graph.spmd(ref).at(mesh.name) != want or op.types[n].at(mesh.name) != want:
            return f"{ref} is carried as {graph.spmd(ref).at(mesh.name)} and {op.types[n].at(mesh.name)}, not {want}"
    return None


def _convert(graph: Graph, op: Op, mesh: MeshAxis) -> str | None:
    ref = op.inputs[0]
    before, after = graph.spmd(ref).at(mesh.name), op.types[0].at(mesh.name)
    if op.attr("mesh") != mesh.name:
        return None if before == after else f"{before} becomes {after} in a conversion on {op.attr('mesh')}"
    if (op.attr("src"), op.attr("dst")) != (before, after):
        return f"{op.attr('src')} -> {op.attr('dst')} is written, {before} -> {after} is typed"
    if before.kind + after.kind not in LINKS or before == after:
        return f"there is no conversion {before} -> {after}"
    return None


def _derive(graph: Graph, op: Op, mesh: MeshAxis, facts: Facts) -> list[Place]:
    operands = _operands(graph, op, mesh, facts)
    split = list(dict.fromkeys(o.indices[o.place.axis] for o in operands if o.place.kind == "S"))
    if len(split) > 1:
        raise SpmdError(f"operands are split by {' and '.join(split)}")
    lowering = dict(op.lowering).get(mesh.name)
    if not split:
        if lowering:
            raise SpmdError(f"{lowering} without a split index")
        return [_whole(facts, operands, out) for out in op.outs]
    index = split[0]
    for o in operands:
        if index in o.indices.values() and o.place.kind != "S":
            raise SpmdError(f"operand {o.number} is {o.place} and has {index}, which others split")
        if index not in o.indices.values() and o.place != R:
            raise SpmdError(f"operand {o.number} lacks the split {index} and must be R, not {o.place}")
    if facts.lowered.get(index) != lowering:
        raise SpmdError(f"{index} is split, lowered as {lowering or 'nothing'} instead of {facts.lowered.get(index)}")
    if index in facts.mix and lowering is None:
        raise SpmdError(f"elements along {index} meet, but it is split")
    if index in facts.contract:
        return [P for _ in op.outs]
    return [_result(facts, n, out, index, lowering) for n, out in enumerate(op.outs)]


def _operands(graph: Graph, op: Op, mesh: MeshAxis, facts: Facts) -> list[Operand]:
    found: list[Operand] = []
    for n, ref in enumerate(op.inputs):
        if n not in facts.shape_only:
            type = graph.type(ref)
            found.append(_operand(n, type.axes, graph.spmd(ref).at(mesh.name), type.grad, facts))
    for n, (param, use) in enumerate(zip(op.params, op.uses, strict=True), len(op.inputs)):
        found.append(_operand(n, param.axes, use.used.at(mesh.name), True, facts))
    return found


def _operand(n: int, axes: tuple[Axis, ...], place: Place, grad: bool, facts: Facts) -> Operand:
    rename = facts.rename.get(n, {})
    names = [axis.shard_name for axis in axes]
    if place.kind == "S" and place.axis not in names:
        raise SpmdError(f"operand {n} is split by {place.axis}, which it does not have")
    return Operand(place, {name: rename.get(name, name) for name in names}, grad, n)


def _whole(facts: Facts, operands: list[Operand], out: TensorType) -> Place:
    """The type of a result where no index is split."""
    partial = [o for o in operands if o.place == P]
    others = [o for o in operands if o.place != P]
    if partial:
        if facts.additive and not others:
            return P
        if len(partial) == 1 and partial[0].number in facts.linear and all(o.place == R for o in others):
            return P
        raise SpmdError(f"operand {partial[0].number} is a partial sum, and the op is not linear in it here")
    kinds = {o.place for o in operands if o.grad}
    if kinds == {R, I}:
        raise SpmdError("R and I meet: gradients would be summed for some operands and not for others")
    return I if kinds == {I} and out.grad else R


def _result(facts: Facts, n: int, out: TensorType, index: str, lowering: str | None) -> Place:
    rename = facts.results.get(n, {})
    for axis in out.axes:
        if rename.get(axis.shard_name, axis.shard_name) == index:
            return S(axis.shard_name)
    if lowering is None:
        raise SpmdError(f"{index} is split, but result {n} does not have it")
    return I  # what a communicating lowering gives is whole, with its whole gradient


def _nesting(graph: Graph, op: Op) -> str | None:
    """Mesh axes that split one index do so in the same order in all operands and results."""
    facts = definition(op.kind).facts(op, tuple(graph.type(ref) for ref in op.inputs))
    orders: dict[str, tuple[str, ...]] = {}
    entries: list[tuple[Spmd, dict[str, str]]] = []
    if op.kind not in ("repeat", "end", "cut", "convert"):
        entries += [
            (graph.spmd(ref), dict(facts.rename.get(n, {})))
            for n, ref in enumerate(op.inputs)
            if n not in facts.shape_only
        ]
        entries += [(use.used, dict(facts.rename.get(n, {}))) for n, use in enumerate(op.uses, len(op.inputs))]
        entries += [(type, dict(facts.results.get(n, {}))) for n, type in enumerate(op.types)]
    for spmd, rename in entries:
        for name, order in spmd.nesting:
            index = rename.get(name, name)
            if orders.setdefault(index, order) != order:
                return f"{index} is split by {orders[index]} in one operand and by {order} in another"
    for spmd in (*op.types, *(use.stored for use in op.uses)):
        split = {(m, p.axis) for m, p in spmd.places if p.kind == "S"}
        if split != {(m, name) for name, order in spmd.nesting for m in order}:
            return "the nesting of shards is not that of the type"
    if op.kind == "convert":
        try:
            want = graph.spmd(op.inputs[0]).put(str(op.attr("mesh")), op.types[0].at(str(op.attr("mesh"))))
        except ValueError as error:
            return str(error)
        return None if want == op.types[0] else "a conversion changes more than its mesh axis"
    return None


def _borders(graph: Graph) -> None:
    """What leaves the model is no partial sum, the loss is what training expects, and blocks take the stream's type."""
    for mesh in graph.mesh:
        place = graph.spmd(graph.output).at(mesh.name)
        if place == P:
            raise SpmdError(f"{graph.output} leaves the model as a partial sum over {mesh.name}")
        loss, want = graph.spmd(graph.loss).at(mesh.name), P if mesh.data else I
        if loss != want:
            raise SpmdError(f"the loss is {loss} on {mesh.name}, not {want}")
        for scope in graph.scopes:
            if scope.path and isinstance(scope.path[-1], Layer) and scope.inputs[0].op in graph.nx:
                _carry(graph, scope.inputs[0], mesh)


def _carry(graph: Graph, ref: Ref, mesh: MeshAxis) -> None:
    want = stream_type(graph.type(ref), mesh)
    if graph.spmd(ref).at(mesh.name) != want:
        raise SpmdError(f"{ref} enters a block as {graph.spmd(ref).at(mesh.name)} on {mesh.name}, not {want}")
