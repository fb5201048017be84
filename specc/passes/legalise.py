"""Rewrite what placing cannot split as it stands.

The bias of a row-parallel linear is added after the reduction. Where ranks cannot hold equal parts of what heads share,
each takes what its own heads need. What is owned goes where its owners are, and back.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

from specc.ir.graph import Graph
from specc.ir.op import Op, OpError, Ref
from specc.ir.types import Axis, MeshAxis
from specc.ops.base import Owned, shardable
from specc.passes.mesh import mesh_of
from specc.passes.shapes import shapes
from specc.spec.core import Layout


def legalise(graph: Graph, layout: Layout) -> Graph:
    """linear(x, w, b) whose inner axis is split becomes add_bias(linear(x, w), b); owned elements go there and back."""
    graph = _biases_apart(graph, layout)
    for mesh in mesh_of(layout):
        graph = _own_heads(graph, layout, mesh)
    return _exchanged(graph, layout)


def _biases_apart(graph: Graph, layout: Layout) -> Graph:
    moved: dict[Ref, Ref] = {}
    ops: list[Op] = []
    for op in graph.ops:
        if moved:
            op = op.changed(inputs=tuple(moved.get(ref, ref) for ref in op.inputs))
        if op.kind == "linear" and len(op.params) == 2 and _row_parallel(op, layout):
            weight, bias = op.params
            ops.append(op.changed(params=(weight,)))
            added = op.changed(id=f"{op.id}_bias", kind="add_bias", inputs=(op.ref,), params=(bias,), attrs=())
            ops.append(added)
            moved[op.ref] = added.ref
        else:
            ops.append(op)
    return graph.with_ops(ops, moved=moved)


def _row_parallel(op: Op, layout: Layout) -> bool:
    out, inner = op.params[0].axes
    return any(shardable(inner, mesh) and not shardable(out, mesh) for mesh in mesh_of(layout))


def _own_heads(graph: Graph, layout: Layout, mesh: MeshAxis) -> Graph:
    """Each rank's own of what heads share, where heads can be split and that cannot: it is whole on every rank.

    So many times each that it can. It stands in front of where heads are split off, or behind parameters of each.
    """
    shared = {axis for op in graph.ops if (axis := _shared(graph, op, mesh)) is not None}
    if not shared:
        return graph
    behind: dict[str, list[Op]] = {}
    moved: dict[Ref, Ref] = {}
    changed: dict[str, Op] = {}
    for op in (op for op in graph.ops if op.kind == "split" and op.outs[0].axes[1] in shared):
        heads, value = op.outs[0].axes[1].length, _before_own(graph, op)
        times = mesh.size // gcd(heads, mesh.size)
        attrs = (("heads", heads), ("times", times), ("ranks", mesh.size))
        own = Op(f"{op.id}_own", "own_heads", (value,), attrs=attrs, scope=op.scope, hint=op.hint, at=op.at)
        behind.setdefault(value.op, []).append(own)
        if value in op.inputs:
            changed[op.id] = op.changed(inputs=(own.ref,)).having(heads=heads * times)
        else:
            moved[value] = own.ref
    ops: list[Op] = []
    for op in graph.ops:
        op = changed.get(op.id, op)
        ops.append(op.changed(inputs=tuple(moved.get(ref, ref) for ref in op.inputs)))
        ops += behind.get(op.id, [])
    graph = shapes(graph.with_ops(ops, moved=moved), layout)
    return graph.with_ops(_grouped(graph, op) if "grouped" in dict(op.attrs) else op for op in graph.ops)


def _grouped(graph: Graph, op: Op) -> Op:
    q, k, *_ = graph.ins(op)
    return op.having(grouped=q.axes[1].length != k.axes[1].length)


def _shared(graph: Graph, op: Op, mesh: MeshAxis) -> Axis | None:
    """What heads of an op share that ranks cannot hold equal parts of, as they can of the heads."""
    pair = graph.definition(op).shares(graph.ins(op))
    if pair is None or not shardable(pair[0], mesh) or pair[1].shard_name not in mesh.shards:
        return None
    return None if shardable(pair[1], mesh) else pair[1]


def _before_own(graph: Graph, split: Op) -> Ref:
    """What heads are split off, or the last value that has them split off and was made with parameters of each."""
    axis, found, ref = split.outs[0].axes[1], split.inputs[0], split.ref
    while len(users := graph.users(ref)) == 1 and users[0].outs[0].axes[1:2] == (axis,):
        ref = users[0].ref
        if any(axis in param.axes for param in users[0].params):
            found = ref
    return found


@dataclass(frozen=True)
class _Trip:
    """Of what an op makes, to its owners and back."""

    maker: Op
    owned: Owned
    owners: Axis

    @property
    def results(self) -> tuple[Ref, ...]:
        """The elements, and the owner of each."""
        return (Ref(self.maker.id, 0), Ref(self.maker.id, 1))

    def there(self, graph: Graph) -> Op:
        hints = (graph.hint(self.results[0]), "own", "origin")
        return self._op(self.owned.there, f"{self.maker.id}_there", self.results).changed(hints=hints)

    def back(self, graph: Graph, value: Ref, user: Op, operand: int) -> Op:
        """In front of the op that takes the value."""
        operands = (value, Ref(f"{self.maker.id}_there", len(self.results)), self.results[1])
        made = self._op(self.owned.back, f"{user.id}_back{operand or ''}", operands)
        return made.changed(scope=user.scope, hint=graph.hint(value), at=user.at)

    def _op(self, kind: str, id: str, operands: tuple[Ref, ...]) -> Op:
        attrs = ((self.owners.shard_name, self.owners.length),)
        return Op(id, kind, operands, attrs=attrs, scope=self.maker.scope, at=self.maker.at)


def _exchanged(graph: Graph, layout: Layout) -> Graph:
    """See `Owned`: where ranks that are fed different tokens hold different owners, elements go there and come back."""
    trips = {op.id: trip for op in graph.ops if (trip := _trip(graph, op, layout))}
    if not trips:
        return graph
    ops: list[Op] = []
    moved: dict[Ref, Ref] = {}
    away: dict[Ref, _Trip] = {}
    for op in graph.ops:
        op = op.changed(inputs=tuple(moved.get(ref, ref) for ref in op.inputs))
        gone = {ref: away[ref] for ref in op.inputs if ref in away}
        if gone and all(_stays(op, trip) for trip in gone.values()):
            away |= {Ref(op.id, n): next(iter(gone.values())) for n in range(len(op.outs))}
        elif gone:
            back = {ref: trip.back(graph, ref, op, n) for n, (ref, trip) in enumerate(gone.items())}
            ops += back.values()
            op = op.changed(inputs=tuple(back[ref].ref if ref in back else ref for ref in op.inputs))
        ops.append(op)
        if trip := trips.get(op.id):
            there = trip.there(graph)
            ops.append(there)
            moved |= {ref: Ref(there.id, ref.out) for ref in trip.results}
            away |= {Ref(there.id, ref.out): trip for ref in trip.results}
    return shapes(graph.with_ops(ops, moved=moved), layout)


def _stays(op: Op, trip: _Trip) -> bool:
    """Whether what an op makes is still where the owners are."""
    return all(trip.owned.axis in [axis.name for axis in out.axes] for out in op.outs)


def _trip(graph: Graph, op: Op, layout: Layout) -> _Trip | None:
    """What its elements must go on, if anything. Raises OpError where no op has parameters of their owners."""
    owned = graph.definition(op).owned
    if owned is None:
        return None
    axes = (axis for user in graph.users(Ref(op.id, 1)) for param in user.params for axis in param.axes)
    owners = next((axis for axis in axes if axis.shard_name == owned.owners), None)
    if owners is None:
        raise OpError(op, f"gives what belongs to {owned.owners}, of which no op has parameters")
    shared = any(mesh.data and shardable(owners, mesh) for mesh in mesh_of(layout))
    return _Trip(op, owned, owners) if shared else None
