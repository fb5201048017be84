"""Placing: give every value its SPMD type on every mesh axis and insert the conversions between them.

The layout fixes the stream type of carries, cuts and what a block returns. Every other op chooses, for each mesh axis
by itself, the signature that is cheapest for the types its operands were produced with; what every rank has in part of
its own anyway is not parted for nothing, and else ties go in declared order. Every
distinct (value, type) demanded is one conversion, so the result does not depend on the order of ops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import groupby

from specc.ir.graph import Graph, common
from specc.ir.op import Likeness, Op, OpError, Path, Ref, Use, likeness
from specc.ir.repeat import layer_scope
from specc.ir.types import UNEVEN, I, MeshAxis, P, Place, R, S, Spmd, TensorType
from specc.ops import Signature
from specc.ops.base import shardable, splits_tokens
from specc.ops.conversions import conversion
from specc.passes.mesh import mesh_of
from specc.spec.core import Layout

SYMBOLS = 1024  # stands for every size that is known only when the model runs


def stream(mesh: MeshAxis) -> Callable[[TensorType], Place]:
    """The layout's type of a value on a mesh axis: see the design, "The layout fixes the stream type"."""

    def type_of(value: TensorType) -> Place:
        names = [a.shard_name for a in value.axes if splits_tokens(a, mesh) or shardable(a, mesh)]
        split = mesh.tokens if mesh.data or value.grad else ()
        by = [name for name in (*(mesh.shards if value.grad else ()), *split) if name in names]
        if by:
            return S(by[0])
        if mesh.data and value.grad and not value.axes:
            return P  # a sum over tokens
        whole = any(a.shard_name in mesh.tokens for a in value.axes)  # what comes of it may be split
        return I if value.grad and not (mesh.data or whole) else R

    return type_of


Demand = tuple[Op, int]
"""An op, and the number of its operand."""


@dataclass(frozen=True)
class _Choice:
    """What is chosen for an op: the types of its operands, outputs and parameters, and how it communicates."""

    wanted: tuple[Spmd, ...]
    types: tuple[Spmd, ...]
    uses: tuple[Use, ...]
    lowering: tuple[tuple[str, str], ...]


Alike = tuple[Likeness, tuple[int, ...], tuple[bool, ...]]


@dataclass
class _Placing:
    """Types of values so far, and who demands which; what was chosen serves all ops alike."""

    graph: Graph
    returned: frozenset[Ref]  # what leaves a block of a repeat
    chosen: dict[Alike, _Choice] = field(default_factory=dict[Alike, _Choice])
    types: dict[Ref, Spmd] = field(default_factory=dict[Ref, Spmd])
    demands: dict[tuple[Ref, Spmd], list[Demand]] = field(default_factory=dict[tuple[Ref, Spmd], list[Demand]])


def place(graph: Graph, layout: Layout) -> Graph:
    """Raises OpError where no signature fits."""
    mesh = mesh_of(layout)
    graph = graph.with_mesh(mesh)
    if not mesh:
        return graph.with_ops(op.changed(types=(Spmd(),) * len(op.outs), uses=_uses(op, {})) for op in graph.ops)
    work = _Placing(graph, _returned(graph))
    placed = {op.id: _place_op(work, op, mesh) for op in graph.ops}
    return _insert(work, placed)


def _returned(graph: Graph) -> frozenset[Ref]:
    found: list[Ref] = []
    for layer, ops in graph.ops_at.items():
        own = {op.id for op in ops}
        for ref in (Ref(op.id, out) for op in ops if layer is not None for out in range(len(op.outs))):
            if any(user.id not in own for user in graph.users(ref)):
                found.append(ref)
    return frozenset(found)


def _place_op(work: _Placing, op: Op, mesh: tuple[MeshAxis, ...]) -> Op:
    ins = work.graph.ins(op)
    produced = tuple([work.types[ref] for ref in op.inputs])
    results = [Ref(op.id, out) for out in range(len(op.outs))]
    pinned = tuple([ref in work.returned for ref in results])
    key = (likeness(op, (*ins, *op.outs)), tuple(map(id, produced)), pinned)
    choice = work.chosen.get(key)
    if choice is None:
        choice = work.chosen[key] = _chosen(work.graph, op, ins, produced, pinned, mesh)
    for number, (ref, wanted) in enumerate(zip(op.inputs, choice.wanted, strict=True)):
        if wanted is not produced[number]:
            work.demands.setdefault((ref, wanted), []).append((op, number))
    work.types.update(zip(results, choice.types, strict=True))
    return op.changed(types=choice.types, uses=choice.uses, lowering=choice.lowering)


def _chosen(
    graph: Graph,
    op: Op,
    ins: tuple[TensorType, ...],
    produced: tuple[Spmd, ...],
    pinned: tuple[bool, ...],
    mesh: tuple[MeshAxis, ...],
) -> _Choice:
    """`pinned` says of each output whether it must have the stream type."""
    chosen = {axis.name: _choose(graph, op, ins, produced, pinned, axis) for axis in mesh}
    wanted = [_wanted(t, {name: s.inputs[n] for name, s in chosen.items()}) for n, t in enumerate(produced)]
    types = [_made({axis: chosen[axis.name].outputs[out] for axis in mesh}) for out in range(len(op.outs))]
    lowering = tuple((name, s.lowering) for name, s in chosen.items() if s.lowering != "plain")
    return _Choice(tuple(wanted), tuple(types), _uses(op, chosen), lowering)


def _made(places: dict[MeshAxis, Place]) -> Spmd:
    """The type of a result: shards of one axis nest as mesh axes do, but what was exchanged for them is innermost."""
    exchanged = [axis for axis, place in places.items() if place.axis in axis.heads]
    made = Spmd.of({axis.name: R if axis in exchanged else place for axis, place in places.items()})
    for axis in exchanged:
        made = made.put(axis.name, places[axis])
    return made


def _wanted(produced: Spmd, places: dict[str, Place | None]) -> Spmd:
    """The type with these places, outer to inner: shards leave from the inside and come from the outside."""
    changed = {name: p for name, p in places.items() if p is not None and p != produced.at(name)}
    wanted = produced
    for name in reversed(changed):
        wanted = wanted.put(name, R)
    for name, place in changed.items():
        wanted = wanted.put(name, place)
    return wanted


def _uses(op: Op, chosen: dict[str, Signature]) -> tuple[Use, ...]:
    """A parameter is stored sharded where it is used so, else whole."""
    uses: list[Use] = []
    for number in range(len(op.params)):
        used = {name: signature.params[number] for name, signature in chosen.items()}
        stored = {name: place if place.kind == "S" else R for name, place in used.items()}
        uses.append(Use(Spmd.of(stored), Spmd.of(used)))
    return tuple(uses)


def _choose(
    graph: Graph,
    op: Op,
    ins: tuple[TensorType, ...],
    produced: tuple[Spmd, ...],
    pinned: tuple[bool, ...],
    mesh: MeshAxis,
) -> Signature:
    places = [type.at(mesh.name) for type in produced]
    best: tuple[tuple[int, int], Signature] | None = None
    offered = graph.definition(op).signatures(op, ins, mesh, stream(mesh))
    for out in (out for out in range(len(op.outs)) if pinned[out]):
        offered = [s for s in offered if s.outputs[out] == stream(mesh)(op.outs[out])]
    for signature in offered:
        costs = [_cost(t, a, b, mesh) for t, a, b in zip(ins, places, signature.inputs, strict=True)]
        known = [cost for cost in costs if cost is not None]
        parted = sum(t.grad and a == R != b for t, a, b in zip(ins, places, signature.inputs, strict=True))
        if len(known) == len(costs) and (best is None or (sum(known), parted) < best[0]):
            best = ((sum(known), parted), signature)
    if best is None:
        types = ", ".join(map(str, places))
        raise OpError(op, f"no signature of {op.kind} accepts ({types}) on {mesh.name}")
    return best[1]


def _cost(value: TensorType, produced: Place, wanted: Place | None, mesh: MeshAxis) -> int | None:
    if wanted is None or produced == wanted:
        return 0
    odd = [axis.shard_name for axis in value.axes if axis.shard_name in UNEVEN and not axis.divides(mesh.size)]
    if any(place.axis in odd for place in (produced, wanted)):
        return None
    if produced == P and not value.grad:
        return None
    link = conversion(produced, wanted)
    if link is None or (produced.kind == wanted.kind == "S" and not mesh.heads):
        return None
    if not link.moved:
        return 0
    symbols = {axis.size: SYMBOLS for axis in value.axes if isinstance(axis.size, str)}
    return link.moved * value.numel(symbols)


@dataclass
class _Made:
    """A conversion of a value, and the ops that it serves; `early` ones stand right behind what makes the value."""

    op: Op
    of: Ref
    early: bool
    users: list[Op] = field(default_factory=list[Op])


def _insert(work: _Placing, placed: dict[str, Op]) -> Graph:
    """Put the conversions where they belong and rewire the operands that asked for them."""
    graph = work.graph
    made: dict[str, _Made] = {}  # each before those that convert it further
    rewired: dict[tuple[str, int], Ref] = {}
    for (ref, wanted), demands in [one for every in work.demands.items() for one in _by_layer(graph, *every)]:
        value, type = ref, work.types[ref]
        if wanted == type:
            continue
        links = _links(type, wanted, tuple(axis.name for axis in graph.mesh))
        block = _reader(graph, ref, demands)
        for n, (mesh_axis, target) in enumerate(links):
            early = any(type.at(name) == P for name, _ in links[n:])
            source, type = type.at(mesh_axis), type.put(mesh_axis, target)
            op = _conversion(graph, value, ref, mesh_axis, source, target, type)
            op = op.changed(id=f"{op.id}{block}") if block and not early else op
            known = made.setdefault(op.id, _Made(op, ref, early))
            known.early |= early
            known.users += [user for user, _ in demands]
            value = op.ref
        rewired |= {(user.id, number): value for user, number in demands}
    before, after = _positions(graph, made.values())
    asking = {id for id, _ in rewired}
    ops: list[Op] = []
    for op in graph.ops:
        ops.extend(before.get(op.id, []))
        known = placed[op.id]
        if op.id in asking:
            known = known.changed(
                inputs=tuple(rewired.get((op.id, number), ref) for number, ref in enumerate(op.inputs))
            )
        ops.append(known)
        ops.extend(after.get(op.id, []))
    return graph.with_ops(ops)


def _by_layer(
    graph: Graph, asked: tuple[Ref, Spmd], demands: list[Demand]
) -> list[tuple[tuple[Ref, Spmd], list[Demand]]]:
    """What is asked for, apart for each block that reads what another block of its repeat makes."""
    found: dict[str, list[Demand]] = {}
    for demand in demands:
        found.setdefault(_reader(graph, asked[0], [demand]), []).append(demand)
    return [(asked, own) for own in found.values()]


def _reader(graph: Graph, ref: Ref, demands: list[Demand]) -> str:
    """The block that reads a value, as the end of a name: none for the one that makes it, and outside of its repeat."""
    user, made = layer_scope(demands[0][0].scope), layer_scope(graph.op(ref.op).scope)
    return f".{user[-1]}" if user and made and user != made else ""


def _positions(graph: Graph, made: Iterable[_Made]) -> tuple[dict[str, list[Op]], dict[str, list[Op]]]:
    """Conversions by the op that they precede, and by the op that they follow."""
    order = {op.id: n for n, op in enumerate(graph.ops)}
    entered: dict[Path, str] = {}  # the first op of each scope
    for scope, ops in groupby(graph.ops, lambda op: op.scope):
        first = next(ops).id
        for depth in range(1, len(scope) + 1):
            entered.setdefault(scope[:depth], first)
    before: dict[str, list[Op]] = {}
    after: dict[str, list[Op]] = {}
    for item in made:
        if item.early:
            after.setdefault(item.of.op, []).append(item.op.changed(scope=graph.op(item.of.op).scope))
        else:
            scope, anchor = _position(graph, item.of, item.users, order, entered)
            before.setdefault(anchor, []).append(item.op.changed(scope=scope))
    return before, after


def _links(produced: Spmd, wanted: Spmd, mesh: tuple[str, ...]) -> list[tuple[str, Place]]:
    """One mesh axis a link: out of P, then shards are joined from the inside, then made from the outside.

    A shard that has to lie outside of one that is made out of P comes before it.
    """
    changed = [name for name in mesh if produced.at(name) != wanted.at(name)]
    partial = [name for name in changed if produced.at(name) == P]
    joined = [name for name in reversed(changed) if produced.at(name).kind == "S"]
    split = [name for name in changed if name not in (*partial, *joined)]
    outside = [name for name in split for inner in partial if wanted.at(name) == wanted.at(inner)]
    first = [name for name in changed if name in partial or name in outside]
    return [(name, wanted.at(name)) for name in dict.fromkeys((*first, *joined, *split))]


def _conversion(graph: Graph, value: Ref, origin: Ref, mesh: str, source: Place, target: Place, type: Spmd) -> Op:
    op = graph.op(origin.op)
    suffix = f"{target.kind}{target.axis and '_' + target.axis}".lower()
    return Op(
        f"{value.op}{f'.{value.out}' if value.out else ''}.{mesh}_{suffix}",
        "convert",
        (value,),
        attrs=(("mesh", mesh), ("src", source), ("dst", target)),
        hint=op.hint,
        at=op.at,
        outs=(graph.type(origin),),
        types=(type,),
    )


def _position(
    graph: Graph, ref: Ref, users: list[Op], order: dict[str, int], entered: dict[Path, str]
) -> tuple[Path, str]:
    """The deepest scope that holds all users, outside every repeat the value is outside of, and the op to precede."""
    places = [_hoisted(graph, ref, user) for user in users]
    scope = common(path for path, _ in places)
    first = min((anchor for _, anchor in places), key=lambda id: order[id])
    within = graph.op(first).scope
    if len(within) > len(scope):  # in front of the sibling scope that the first user stands in
        first = entered[within[: len(scope) + 1]]
    return scope, first


def _hoisted(graph: Graph, ref: Ref, user: Op) -> tuple[Path, str]:
    """Where a user could be served: its own place, or in front of its repeat if the value is no carry, made outside."""
    if user.kind == "cut":  # in the stage that hands the value on
        return graph.op(ref.op).scope[:1], user.id
    layer, repeat = layer_scope(user.scope), graph.repeat_of(user.scope)
    if layer is None or repeat is None or layer_scope(graph.op(ref.op).scope) in repeat.blocks:
        return user.scope, user.id
    carries = graph.scope_at[layer].inputs[: len(repeat.op.inputs)]
    return (user.scope, user.id) if ref in carries else (repeat.op.scope, repeat.op.id)
