"""The SPMD checker: derives the type of every value again, from facts about what ops do to their indices.

It uses no signature and shares nothing with placing. On each mesh axis, where operands are sharded by an index i:
every operand that has i is sharded by it, every other one is R (its gradient is partial). If the op sums over i, the
result is a partial sum; if elements along i meet, a communicating lowering must be named; else the result is sharded
by i. Partial sums pass only through what is linear. What is whole is R throughout or I throughout.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from specc.ir.graph import Graph
from specc.ir.op import Likeness, Op, OpError, Param, Path, Ref, dotted, likeness
from specc.ir.tree import leaving
from specc.ir.types import UNEVEN, Axis, I, MeshAxis, P, Place, R, S, Spmd, TensorType
from specc.ops import Facts
from specc.spec.core import Layout

LINKS = frozenset({"PI", "PS", "PR", "IR", "SR", "SI", "IS", "RS", "SS"})
"""Conversions that exist. R to I is none: partial gradients would be counted as whole ones. Nothing becomes P."""

CARRIES = frozenset({"repeat", "end", "cut"})


Alike = tuple[Likeness, tuple[tuple[str, str], ...]]


class SpmdError(OpError):
    """A placed graph that would compute something else than the unplaced one: a bug of placing."""

    def __init__(self, op: Op, mesh: str, problem: str):
        super().__init__(op, f"{op.kind} on {mesh}: {problem}")


@dataclass(frozen=True)
class _Operand:
    """An input or parameter: its type, and which index of the op each of its axes (as they shard) is."""

    number: int
    name: str
    spmd: Spmd
    grad: bool
    indices: Mapping[str, str]

    def at(self, mesh: MeshAxis) -> Place:
        """Without gradient R and I are the same type, R."""
        place = self.spmd.at(mesh.name)
        return R if place == I and not self.grad else place

    def has(self, index: str) -> bool:
        return index in self.indices.values()


def check(graph: Graph, layout: Layout) -> Graph:
    """The same graph. Raises SpmdError naming op and mesh axis."""
    storage: dict[Path, Spmd] = {}
    passed: set[Alike] = set()
    for op in graph.ops:
        if (like := _alike(graph, op)) not in passed:
            _check_recorded(graph, op)
            for number in range(len(op.params)):
                _check_use(graph, op, number)
            for number, derived in enumerate(derive(graph, op)):
                _compare(graph, op, number, derived)
            passed.add(like)
        for param, use in zip(op.params, op.uses, strict=True):
            if storage.setdefault(param.path, use.stored) != use.stored:
                raise SpmdError(op, "the mesh", f"{dotted(param.path)} is stored as {use.stored} here, elsewhere not")
        if op.kind in CARRIES:
            _check_carries(graph, op, op.inputs)
    for repeat in graph.repeats:
        for block in repeat.blocks:
            _check_carries(graph, repeat.op, leaving(graph, graph.ops_at.get(block, ()), ()))
    _check_ends(graph)
    return graph


def _alike(graph: Graph, op: Op) -> Alike:
    """Equal for ops of which the same holds: all that is checked of one by itself, but for its parameters' names."""
    given = (*graph.ins(op), *graph.given(op))
    return likeness(op, (*given, *op.outs, *op.types, *op.uses)), op.lowering


def stream_type(type: TensorType, mesh: MeshAxis) -> Place:
    """The type on a mesh axis of what enters or leaves a block, a repeat or a stage."""
    named = [axis for axis in type.axes if axis.shard_name in mesh.shards and type.grad and not axis.whole]
    split = [axis.shard_name for axis in named if axis.shard_name in UNEVEN or axis.divides(mesh.size)]
    tokens = [axis.shard_name for axis in type.axes if axis.shard_name in mesh.tokens and axis.divides(mesh.size)]
    if not (type.grad or mesh.data):
        tokens = []
    if split or tokens:
        return S([*split, *tokens][0])
    if mesh.data and type.grad and not type.axes:
        return P  # a sum over tokens
    return R if mesh.data or not type.grad else I


def derive(graph: Graph, op: Op) -> tuple[Spmd, ...]:
    """Types of an op's outputs, from those of its inputs and the uses of its parameters. Raises SpmdError."""
    if op.kind == "convert":
        return (_converted(graph, op),)
    if op.kind in CARRIES:
        if op.params or op.lowering:
            raise SpmdError(op, "the mesh", "carries values, but has parameters or a lowering")
        return tuple(graph.spmd(ref) for ref in op.inputs)
    facts = graph.facts(op)
    operands = [o for o in _operands(graph, op, facts) if o.number not in facts.shape_only]
    known = {mesh.name for mesh in graph.mesh}
    for name, lowering in op.lowering:
        if name not in known:
            raise SpmdError(op, name, f"lowering {lowering} on a mesh axis that does not exist")
    places = {mesh.name: _places(graph, op, facts, operands, mesh) for mesh in graph.mesh}
    exchanged = [name for name, how in op.lowering if how in facts.exchanges]
    order = _order(op, facts, operands, exchanged) if operands else {}
    return tuple(_assembled(graph, op, facts, n, places, order) for n in range(len(op.outs)))


def _check_recorded(graph: Graph, op: Op) -> None:
    """What placing wrote down is complete and well formed."""
    if len(op.types) != len(op.outs) or len(op.uses) != len(op.params):
        raise SpmdError(op, "the mesh", f"{len(op.types)} types of {len(op.outs)} outputs, {len(op.uses)} uses")
    for out, spmd in zip(op.outs, op.types, strict=True):
        _check_formed(graph, op, out.axes, spmd, "result")
        for mesh in graph.mesh:
            if not out.grad and spmd.at(mesh.name) == I:
                raise SpmdError(op, mesh.name, "I of a value without gradient, which is written R")


def _check_formed(graph: Graph, op: Op, axes: tuple[Axis, ...], spmd: Spmd, what: str) -> None:
    places, nesting = dict(spmd.places), dict(spmd.nesting)
    if places.keys() != {mesh.name for mesh in graph.mesh}:
        raise SpmdError(op, "the mesh", f"{what} has types on {sorted(places)}")
    for mesh in graph.mesh:
        place = places[mesh.name]
        if place.kind not in ("R", "I", "P", "S") or (place.kind == "S") != bool(place.axis):
            raise SpmdError(op, mesh.name, f"{what} is {place}, which is no type")
        if place.kind == "S" and place.axis not in [axis.shard_name for axis in axes]:
            raise SpmdError(op, mesh.name, f"{what} is {place}, but has no such axis")
        if (
            place.kind == "S"
            and place.axis in mesh.shards
            and any(axis.whole for axis in axes if axis.shard_name == place.axis)
        ):
            raise SpmdError(op, mesh.name, f"{what} is {place}, which the layout keeps whole")
        if place.kind == "S" and place.axis not in (*mesh.tokens, *mesh.shards, *mesh.heads):
            raise SpmdError(op, mesh.name, f"{what} is {place}, an axis that {mesh.name} does not split")
    nested = [(place.axis, name) for name, place in places.items() if place.kind == "S"]
    told = [(axis, name) for axis, names in nesting.items() for name in names]
    if nested != told and sorted(nested) != sorted(told):
        raise SpmdError(op, "the mesh", f"{what} is {spmd}, but its shards nest as {spmd.nesting}")


def _check_use(graph: Graph, op: Op, number: int) -> None:
    param, use = op.params[number], op.uses[number]
    name = dotted(param.path)
    _check_formed(graph, op, param.axes, use.stored, f"storage of {name}")
    _check_formed(graph, op, param.axes, use.used, f"use of {name}")
    for mesh in graph.mesh:
        stored, used = use.stored.at(mesh.name), use.used.at(mesh.name)
        if stored.kind not in ("R", "S") or used.kind == "P":
            raise SpmdError(op, mesh.name, f"{name} is stored as {stored}, used as {used}")
        if stored.kind == "S" and stored.axis not in mesh.shards:
            raise SpmdError(op, mesh.name, f"{name} is stored as {stored}, but {mesh.name} splits no parameter so")
        if "S" in (stored.kind, used.kind) and stored != used:
            raise SpmdError(op, mesh.name, f"{name} is stored as {stored}, but used as {used}")
        if mesh.data and used == I:
            raise SpmdError(op, mesh.name, f"{name} is used as I, but its gradient is partial on a data axis")
    if use.stored.nesting != use.used.nesting:
        raise SpmdError(op, "the mesh", f"{name} is stored as {use.stored.nesting}, but used as {use.used.nesting}")


def _compare(graph: Graph, op: Op, number: int, derived: Spmd) -> None:
    recorded = op.types[number]
    if recorded == derived:
        return
    for mesh in graph.mesh:
        if recorded.at(mesh.name) != derived.at(mesh.name):
            raise SpmdError(op, mesh.name, f"is {derived.at(mesh.name)}, recorded as {recorded.at(mesh.name)}")
    if dict(recorded.nesting) != dict(derived.nesting):
        raise SpmdError(op, "the mesh", f"shards nest as {derived.nesting}, recorded as {recorded.nesting}")


def _operands(graph: Graph, op: Op, facts: Facts) -> Iterator[_Operand]:
    values = [(str(ref), graph.type(ref).axes, graph.spmd(ref), graph.type(ref).grad) for ref in op.inputs]
    params: list[Param] = list(op.params)
    values += [(dotted(p.path), p.axes, use.used, True) for p, use in zip(params, op.uses, strict=True)]
    for number, (name, axes, spmd, grad) in enumerate(values):
        rename = facts.rename.get(number, {})
        indices = {axis.shard_name: rename.get(axis.shard_name, axis.shard_name) for axis in axes}
        indices = {axis: facts.regroup.get(index, index) for axis, index in indices.items()}
        yield _Operand(number, name, spmd, grad, indices)


def _places(graph: Graph, op: Op, facts: Facts, operands: list[_Operand], mesh: MeshAxis) -> list[Place]:
    """Types of the outputs on one mesh axis."""
    lowering = dict(op.lowering).get(mesh.name)
    sharded = dict.fromkeys(o.indices[p.axis] for o in operands if (p := o.at(mesh)).kind == "S")
    partial = [o for o in operands if o.at(mesh) == P]
    if lowering is not None and lowering in facts.exchanges:
        exchange = facts.exchanges[lowering]
        if [o.at(mesh) for o in operands] != [S(axis) for axis in exchange.operands]:
            raise SpmdError(op, mesh.name, f"{lowering} of {', '.join(f'{o.name} {o.at(mesh)}' for o in operands)}")
        return [S(exchange.results) for _ in op.outs]
    if lowering is not None and lowering in facts.selects:
        if any(o.at(mesh) != R for o in operands):
            raise SpmdError(op, mesh.name, f"{lowering} of {', '.join(f'{o.name} {o.at(mesh)}' for o in operands)}")
        return [S(facts.selects[lowering]) for _ in op.outs]
    if len(sharded) == 1 and not partial:
        return _sharded(op, facts, operands, mesh, next(iter(sharded)), lowering)
    if lowering is not None:
        raise SpmdError(op, mesh.name, f"lowering {lowering}, but no operand is sharded")
    if len(sharded) > 1 or (sharded and partial):
        kinds = ", ".join(f"{o.name} {o.at(mesh)}" for o in operands)
        raise SpmdError(op, mesh.name, f"operands are sharded in different ways: {kinds}")
    if partial:
        return _partial(graph, op, facts, operands, mesh)
    if not operands:
        return _made(op, facts, mesh)
    kinds = dict.fromkeys(o.at(mesh) for o in operands if o.grad)
    if len(kinds) > 1:
        raise SpmdError(op, mesh.name, f"mixes I and R: {', '.join(f'{o.name} {o.at(mesh)}' for o in operands)}")
    whole = next(iter(kinds), R)
    return [whole if out.grad else R for out in op.outs]


def _made(op: Op, facts: Facts, mesh: MeshAxis) -> list[Place]:
    """Of a source: every rank makes the same, but each data rank is fed its own tokens."""
    if facts.zero:
        return [stream_type(out, mesh) for out in op.outs]
    if not facts.source or any(out.grad for out in op.outs):
        raise SpmdError(op, mesh.name, "reads nothing, but is no source without gradient")
    return [R if op.inputs else stream_type(out, mesh) for out in op.outs]


def _partial(graph: Graph, op: Op, facts: Facts, operands: list[_Operand], mesh: MeshAxis) -> list[Place]:
    """Some operand is a partial sum, none is sharded."""
    if graph.definition(op).random(op):
        raise SpmdError(op, mesh.name, "draws random numbers on a partial sum")
    first, *more = [o for o in operands if o.at(mesh) == P]
    # a sum needs all its terms partial: one that is whole would be added on every rank
    if not (facts.additive and 1 + len(more) == len(operands)):
        if more or first.number not in facts.linear:
            raise SpmdError(op, mesh.name, f"is not linear in {', '.join(o.name for o in (first, *more))}, which is P")
        for other in operands:
            if other is not first and other.at(mesh) != R:
                raise SpmdError(op, mesh.name, f"{other.name} is {other.at(mesh)}, but {first.name} is P: must be R")
    return [P for _ in op.outs]


def _sharded(
    op: Op, facts: Facts, operands: list[_Operand], mesh: MeshAxis, index: str, lowering: str | None
) -> list[Place]:
    """Operands are sharded by that index, or whole."""
    for o in operands:
        place = o.at(mesh)
        if o.has(index) and place.kind != "S":
            raise SpmdError(op, mesh.name, f"{o.name} is {place}, other operands are sharded by {index}")
        if not o.has(index) and place != R:
            raise SpmdError(op, mesh.name, f"{o.name} is {place}, but {index} is sharded: its gradient is partial")
    parts = dict.fromkeys(o.at(mesh).axis for o in operands if o.at(mesh).axis in facts.regroup)
    if len(parts) > 1:
        raise SpmdError(op, mesh.name, f"operands are sharded in different ways: by {' and '.join(parts)}")
    wanted = facts.lowered.get(index)
    if lowering != wanted:
        raise SpmdError(op, mesh.name, f"{index} is sharded, so lowering must be {wanted}, not {lowering}")
    if index in facts.contract:
        for o in operands:  # what is no factor of the summed terms might be added on every rank
            if o.grad and not o.has(index) and o.number not in facts.linear:
                raise SpmdError(op, mesh.name, f"sums over {index}, which is sharded, but not with {o.name} as factor")
        return [P for _ in op.outs]
    if index in facts.mix:
        if wanted is None:
            raise SpmdError(op, mesh.name, f"needs {index} whole, which is sharded")
        axes = [_axis_of(facts, n, out, index) for n, out in enumerate(op.outs)]
        return [I if axis is None else S(axis) for axis in axes]  # what is exchanged, all ranks have
    found = [_axis_of(facts, n, out, index, tuple(parts)) for n, out in enumerate(op.outs)]
    if any(axis is None for axis in found):
        raise SpmdError(op, mesh.name, f"{index} is sharded, and gone in the result though not summed over")
    return [S(axis) for axis in found if axis is not None]


def _axis_of(facts: Facts, number: int, out: TensorType, index: str, parts: tuple[str, ...] = ()) -> str | None:
    """The axis of an output that is that index, or that one of its parts."""
    names = {axis.shard_name: axis.shard_name for axis in out.axes} | dict(facts.results.get(number, {}))
    axes = (a.shard_name for name in (index, *parts) for a in out.axes if names[a.shard_name] == name)
    return next(axes, None)


def _order(op: Op, facts: Facts, operands: list[_Operand], exchanged: list[str]) -> dict[str, tuple[str, ...]]:
    """Per index the mesh axes that split it, outer to inner; operands must agree but for axes that exchange it."""
    order: dict[str, tuple[str, ...]] = {}
    for o in operands:
        for axis, names in o.spmd.nesting:
            index = axis if axis in facts.regroup else o.indices[axis]
            names = tuple(name for name in names if name not in exchanged)
            if order.setdefault(index, names) != names:
                raise SpmdError(op, "the mesh", f"{o.name} has {index} split over {names}, others over {order[index]}")
    return order


def _assembled(
    graph: Graph, op: Op, facts: Facts, n: int, places: dict[str, list[Place]], order: dict[str, tuple[str, ...]]
) -> Spmd:
    """One output's type over the whole mesh, its shards nested as those of the operands."""
    here = {name: found[n] for name, found in places.items()}
    renamed = facts.results.get(n, {})
    nesting: dict[str, tuple[str, ...]] = {}
    for axis in dict.fromkeys(place.axis for place in here.values() if place.kind == "S"):
        known = order.get(renamed.get(axis, axis), tuple(mesh.name for mesh in graph.mesh))
        new = (mesh.name for mesh in graph.mesh if mesh.name not in known)  # exchanged: the innermost
        nesting[axis] = tuple(name for name in (*known, *new) if here[name] == S(axis))
    return Spmd(tuple(here.items()), tuple(sorted(nesting.items())))


def _converted(graph: Graph, op: Op) -> Spmd:
    """One link of a conversion."""
    (ref,) = op.inputs
    name, src, dst = op.text("mesh"), op.attr("src"), op.attr("dst")
    if name not in [mesh.name for mesh in graph.mesh] or not isinstance(src, Place) or not isinstance(dst, Place):
        raise SpmdError(op, name, f"{src} to {dst} is no conversion")
    if op.params or op.lowering:
        raise SpmdError(op, name, "a conversion with parameters or a lowering")
    if src.kind + dst.kind not in LINKS or src == dst:
        raise SpmdError(op, name, f"no conversion leads from {src} to {dst}")
    if not graph.type(ref).grad and I in (src, dst):
        raise SpmdError(op, name, f"{src} to {dst} of a value without gradient")
    before = graph.spmd(ref)
    if before.at(name) != src:
        raise SpmdError(op, name, f"converts from {src}, but {ref} is {before.at(name)}")
    ranks = next(mesh.size for mesh in graph.mesh if mesh.name == name)
    odd = [axis.shard_name for axis in graph.type(ref).axes if axis.shard_name in UNEVEN and not axis.divides(ranks)]
    if any(place.axis in odd for place in (src, dst)):
        raise SpmdError(op, name, f"{src} to {dst}, but ranks hold different numbers")
    try:
        return before.put(name, dst)
    except ValueError as error:
        raise SpmdError(op, name, str(error)) from error


def _check_carries(graph: Graph, op: Op, refs: tuple[Ref, ...]) -> None:
    """What enters or leaves has the stream type."""
    for ref in refs:
        for mesh in graph.mesh:
            place, stream = graph.spmd(ref).at(mesh.name), stream_type(graph.type(ref), mesh)
            if place != stream:
                raise SpmdError(op, mesh.name, f"{ref} is {place}, must be {stream} here")


def _check_ends(graph: Graph) -> None:
    """No partial sum leaves the model, and the loss is a sum over data ranks, the same on model ranks."""
    for mesh in graph.mesh:
        loss = graph.spmd(graph.loss).at(mesh.name)
        for ref in graph.outputs:
            if graph.spmd(ref).at(mesh.name) == P != stream_type(graph.type(ref), mesh):
                raise SpmdError(graph.op(ref.op), mesh.name, "is a partial sum, but the model's output")
        if loss != (P if mesh.data else I):
            raise SpmdError(graph.op(graph.loss.op), mesh.name, f"the loss is {loss}")
