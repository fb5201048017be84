"""The nested view of a graph that both backends walk: scopes as calls, repeats as loops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from specc.ir.graph import Graph, Scope, inside
from specc.ir.op import Layer, Op, Path, PathPart, Ref
from specc.ir.repeat import Repeat

LOSS: Path = ("loss",)


@dataclass(frozen=True)
class Call:
    """A scope: what it takes, does and returns, in the declared order, as the values now in their place.

    What is declared but not used is left out, so a block takes the carries that it reads and returns those it changes.
    """

    scope: Scope
    inputs: tuple[Ref, ...]
    items: tuple[Op | Call | Loop, ...]
    outputs: tuple[Ref, ...]

    @property
    def path(self) -> Path:
        return self.scope.path


@dataclass(frozen=True)
class Loop:
    """Layers start .. start + n - 1; layer i runs the block at i % period. Blocks stand in the order they first run."""

    repeat: Op
    blocks: tuple[Call, ...]
    end: Op

    @property
    def start(self) -> int:
        return self.repeat.number("start")

    @property
    def n(self) -> int:
        return self.repeat.number("n")

    @property
    def path(self) -> Path:
        return self.blocks[0].path[:-1]

    @property
    def carries(self) -> int:
        """How many of the values that each block declares first go from layer to layer."""
        return len(self.repeat.inputs)

    @property
    def exports(self) -> tuple[Ref, ...]:
        """Values of blocks that code behind the loop reads, as further results of its end."""
        return self.end.inputs[self.carries :]


@lru_cache(maxsize=2)
def tree(graph: Graph) -> Call:
    """The root call. Its inputs are none (inputs are ops) and its output is the model's.

    Raises ValueError where the ops of a scope are not contiguous.
    """
    ops = [op for op in graph.ops if op.scope[:1] != LOSS]
    return replace(_call(graph, Scope((), ()), ops, extra=graph.outputs), outputs=graph.outputs)


def loss_tree(graph: Graph) -> Call:
    """The call that takes the outputs and what else the loss is fed, in order, and returns the loss."""
    ops = [op for op in graph.ops if op.scope[:1] == LOSS]
    fed = tuple(op.ref for op in ops if op.kind == "input")
    call = _call(graph, graph.scope_at[LOSS], ops, extra=(graph.loss,))
    return replace(call, inputs=(*graph.outputs, *fed), outputs=(graph.loss,))


def _call(graph: Graph, scope: Scope, ops: list[Op], extra: tuple[Ref, ...] = ()) -> Call:
    depth = len(scope.path)
    items: list[Op | Call | Loop] = []
    seen: set[Path] = set()
    at = 0
    while at < len(ops):
        op = ops[at]
        if op.kind == "repeat" and len(op.scope) == depth:
            stop = next(i for i in range(at, len(ops)) if ops[i].kind == "end" and ops[i].text("repeat") == op.id)
            items.append(_loop(graph, op, ops[at + 1 : stop], ops[stop]))
            at = stop + 1
        elif len(op.scope) == depth:
            items.append(op)
            at += 1
        else:
            path = op.scope[: depth + 1]
            if path in seen:
                raise ValueError(f"the ops of scope {path} are not contiguous: {op.id}")
            seen.add(path)
            stop = next((i for i in range(at, len(ops)) if not inside(ops[i].scope, path)), len(ops))
            items.append(_call(graph, graph.scope_at[path], ops[at:stop]))
            at = stop
    return Call(scope, _inputs(graph, scope, ops), tuple(items), _outputs(graph, scope, ops, extra))


def _loop(graph: Graph, repeat: Op, ops: list[Op], end: Op) -> Loop:
    of = Repeat.of(repeat)
    found = [scope for scope in graph.scopes if scope.path[:-1] == of.path and _of_run(scope.path[-1], of.run)]
    bodies: dict[Path, list[Op]] = {scope.path: [] for scope in found}
    for op in ops:
        bodies.setdefault(op.scope[: len(of.path) + 1], []).append(op)
    return Loop(repeat, tuple(_call(graph, scope, bodies[scope.path]) for scope in found), end)


def _of_run(part: PathPart, run: int) -> bool:
    return isinstance(part, Layer) and part.run == run


def loops(call: Call) -> Iterator[Loop]:
    """Every loop of a call, in op order; none stands in another."""
    for item in call.items:
        if isinstance(item, Loop):
            yield item
        elif isinstance(item, Call):
            yield from loops(item)


def _inputs(graph: Graph, scope: Scope, ops: list[Op]) -> tuple[Ref, ...]:
    made = {op.id for op in ops}
    external = tuple(dict.fromkeys([ref for op in ops for ref in op.inputs if ref.op not in made]))
    if not scope.path:
        return external
    order = {ref: n for n, ref in enumerate(scope.inputs)}
    places = {ref: order.get(graph.origin(ref)) for ref in external}
    for ref, place in places.items():
        if place is None:
            raise ValueError(f"scope {scope.path} uses {ref}, which is not among its inputs")
    return _sorted(places)


def _outputs(graph: Graph, scope: Scope, ops: list[Op], extra: tuple[Ref, ...]) -> tuple[Ref, ...]:
    refs = leaving(graph, ops, extra)
    if not scope.path:
        return refs
    order = {ref: n for n, ref in reversed([*enumerate(scope.outputs)])}
    places = {ref: order.get(graph.origin(ref)) for ref in refs}
    for ref, place in places.items():
        if place is None:
            made = {op.id for op in ops}
            if any(inside(op.scope, scope.path) for op in graph.ops if op.id not in made):
                raise ValueError(f"the ops of scope {scope.path} are not contiguous: {ref.op}")
            raise ValueError(f"{ref} leaves scope {scope.path}, but is not among its outputs")
    return _sorted(places)


def _sorted(places: dict[Ref, int | None]) -> tuple[Ref, ...]:
    return tuple(sorted(places, key=lambda ref: places[ref] or 0))


def leaving(graph: Graph, ops: Sequence[Op], extra: tuple[Ref, ...]) -> tuple[Ref, ...]:
    """Values of these ops that others use, and those of `extra`; before shapes are known, the first of each op only."""
    made = {op.id for op in ops}
    if not extra:
        return tuple([ref for op in ops for ref, users in graph.read(op) if not made.issuperset(users)])
    refs = [Ref(op.id, out) for op in ops for out in range(len(op.outs) or 1)]
    return tuple([ref for ref in refs if ref in extra or not made.issuperset(graph.readers(ref))])
