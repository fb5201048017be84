"""Wrong variants of a placed graph, each of which the checker must reject."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from specc.ir.graph import Graph
from specc.ir.op import Op, Ref, Use, dotted
from specc.ir.types import Axis, I, MeshAxis, P, Place, R, S, Spmd
from specc.passes.check import derive


def mutants(graph: Graph) -> Iterator[tuple[str, Graph]]:
    """What was changed, and the graph with that change alone; types after it stay as recorded.

    Conversions are dropped or lead elsewhere, parameters are stored or used otherwise, lowerings come or go.
    """
    for op in graph.ops:
        if op.kind == "convert":
            yield f"{op.id} dropped", dropped(graph, op)
            for place in _places(graph.type(op.ref).axes, graph.type(op.ref).grad):
                if place != op.attr("dst"):
                    yield f"{op.id} to {place}", _with(graph, _redirected(graph, op, place))
        for number, param in enumerate(op.params):
            for mesh in graph.mesh:
                for what, use in _uses(op.uses[number], param.axes, mesh):
                    uses = (*op.uses[:number], use, *op.uses[number + 1 :])
                    yield f"{op.id}: {dotted(param.path)} {what}", _with(graph, replace(op, uses=uses))
        for mesh in graph.mesh:
            lowering = {name: how for name, how in op.lowering if name != mesh.name}
            if len(lowering) == len(op.lowering):
                lowering[mesh.name] = "vocab_parallel"
            changed = replace(op, lowering=tuple(lowering.items()))
            yield f"{op.id}: lowering on {mesh.name} {dict(changed.lowering)}", _with(graph, changed)


def short_cut(graph: Graph) -> Iterator[tuple[str, Graph]]:
    """Graphs without an op that exchanges elements between ranks, or with one that does so over another mesh axis."""
    for op in graph.ops:
        kinds = graph.definition(op).facts(op, tuple(map(graph.type, op.inputs))).exchanges
        for axis, how in ((axis, how) for axis, how in op.lowering if how in kinds):
            users = [user for user in graph.ops if any(ref.op == op.id for ref in user.inputs)]
            taken = [ref for ref in op.inputs if ref.op != op.id]

            def moved(ref: Ref, gone: str = op.id, taken: list[Ref] = taken) -> Ref:
                return taken[min(ref.out, len(taken) - 1)] if ref.op == gone else ref

            around = {user.id: replace(user, inputs=tuple(map(moved, user.inputs))) for user in users}
            ops = [around.get(other.id, other) for other in graph.ops if other.id != op.id]
            yield f"{op.id} left out", graph.with_ops(ops)
            for mesh in graph.mesh:
                if mesh.name != axis:
                    yield f"{op.id} over {mesh.name}", _with(graph, replace(op, lowering=((mesh.name, how),)))


@dataclass(frozen=True, eq=False)
class _Growing(Graph):
    """A graph of which only the ops retyped so far are known."""

    done: dict[str, Op] = field(default_factory=dict[str, Op])

    def op(self, id: str) -> Op:
        return self.done[id]


def retyped(graph: Graph) -> Graph:
    """The graph with all types derived again in op order. Raises SpmdError where none can be."""
    growing = _Growing(graph.ops, graph.scopes, graph.outputs, graph.loss, graph.mesh, tables=graph.tables)
    for op in graph.ops:
        growing.done[op.id] = replace(op, types=derive(growing, op))
    return graph.with_ops(growing.done.values())


def dropped(graph: Graph, gone: Op) -> Graph:
    """Without a conversion; its users take what it took."""
    old, new = gone.ref, gone.inputs[0]

    def moved(ref: Ref) -> Ref:
        return new if ref == old else ref

    ops = [replace(op, inputs=tuple(map(moved, op.inputs))) for op in graph.ops if op.id != gone.id]
    return Graph.of(ops, graph.scopes, tuple(map(moved, graph.outputs)), graph.loss, graph.mesh, known=graph.tables)


def _with(graph: Graph, changed: Op) -> Graph:
    return graph.with_ops(changed if op.id == changed.id else op for op in graph.ops)


def _redirected(graph: Graph, op: Op, place: Place) -> Op:
    """A conversion that leads to another type, and says so."""
    return replace(op.having(dst=place), types=(_put(op.types[0], op.text("mesh"), place),))


def _put(spmd: Spmd, mesh: str, place: Place) -> Spmd:
    return spmd.put(mesh, R).put(mesh, place)


def _places(axes: tuple[Axis, ...], grad: bool) -> list[Place]:
    """All types that differ; without gradient R and I do not."""
    shards = [S(axis.shard_name) for axis in axes if axis.size != 1]
    return [R, *([I] if grad else []), P, *shards]


def _uses(use: Use, axes: tuple[Axis, ...], mesh: MeshAxis) -> Iterator[tuple[str, Use]]:
    """Every other use, every other storage, and both at once."""
    stored, used = use.stored.at(mesh.name), use.used.at(mesh.name)
    changes: tuple[tuple[str, Place, Callable[[Place], Use]], ...] = (
        ("used", used, lambda place: replace(use, used=_put(use.used, mesh.name, place))),
        ("stored", stored, lambda place: replace(use, stored=_put(use.stored, mesh.name, place))),
    )
    for what, now, change in changes:
        for place in _places(axes, True):
            if place != now:
                yield f"{what} as {place} on {mesh.name}", change(place)
    for place in _places(axes, True):
        if place.kind in ("R", "S") and place != stored:
            both = Use(_put(use.stored, mesh.name, place), _put(use.used, mesh.name, place))
            yield f"stored and used as {place} on {mesh.name}", both
