"""What must hold of a graph after every pass. A graph that breaks it is a bug, and the exception names the op."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from specc.ir.graph import Graph
from specc.ir.op import Op, OpError, Path, Ref, dotted, likeness
from specc.ir.parameters import clashes
from specc.ir.repeat import Repeat, layer_of, layer_scope
from specc.ir.tree import Call, Loop, loops, tree
from specc.ir.types import UNEVEN, Axis, Spmd
from specc.passes.mesh import mesh_of
from specc.spec.core import Layout

MAY_LEAVE_DEAD = frozenset({"lower", "shapes", "rules"})


class IllegalGraph(OpError):
    """A graph that no pass may give. `where` is an op, a scope or the graph; `op` then is the first one there."""

    def __init__(self, graph: Graph, where: str, problem: str):
        named = (op for op in graph.ops if where in (op.id, *(dotted(op.scope[:n]) for n in range(len(op.scope) + 1))))
        super().__init__(next(named, graph.ops[0]), problem)
        self.args = (f"{where}: {problem}",)


@dataclass(frozen=True)
class _View:
    """A graph, and how far it has come."""

    graph: Graph
    layout: Layout
    typed: bool
    placed: bool

    @cached_property
    def distinct(self) -> tuple[Op, ...]:
        """The first of each that are alike in all but their names: what concerns one op alone is asked of these."""
        found: dict[tuple[object, ...], Op] = {}
        for op in self.graph.ops:
            given = [object for ref in op.inputs for object in self._given(ref)]
            found.setdefault((likeness(op, (*given, *op.outs, *op.types, *op.uses)), op.lowering), op)
        return tuple(found.values())

    def _given(self, ref: Ref) -> Iterable[object]:
        op = self.graph.op(ref.op)
        return (*op.outs[ref.out : ref.out + 1], *op.types[ref.out : ref.out + 1])


Problems = Iterator[tuple[str, str]]
"""Which op or scope, and what is wrong."""


def legality(graph: Graph, layout: Layout, after: str = "legality") -> Graph:
    """The same graph. Raises IllegalGraph naming the op or scope.

    `after` names the pass that has run: before `dead` there may be ops that nobody needs. Whether types and placement
    must be complete is read off the graph: all ops have them or none.
    """
    view = _View(graph, layout, any(op.outs for op in graph.ops), any(op.types for op in graph.ops))
    alive = () if after in MAY_LEAVE_DEAD else (_alive,)
    # later rules rely on earlier ones
    rules: tuple[Callable[[_View], Problems], ...] = (_ordered, _wired, *alive, _typed, _scoped, _repeated, _nested)
    for rule in (*rules, _handed_on, _parameters, _placed, _divisible, _kept):
        for where, problem in rule(view):
            raise IllegalGraph(graph, where, problem)
    return graph


def _ordered(view: _View) -> Problems:
    """No cycle, and op order is a topological order."""
    graph = view.graph
    for op in graph.ops:
        if op.kind not in graph.tables.ops:
            yield op.id, f"is of no known kind: {op.kind}"
    if graph.orderly:
        return
    from networkx import is_directed_acyclic_graph, strongly_connected_components

    if not is_directed_acyclic_graph(graph.nx):
        cycle = next((c for c in strongly_connected_components(graph.nx) if len(c) > 1), set(graph.nx))
        yield min(cycle), "is in a cycle"
    place = {op.id: n for n, op in enumerate(graph.ops)}
    for node, op in zip(graph.nx.nodes, graph.ops, strict=True):
        if node != op.id:
            yield op.id, f"stands under the name {node}"
    for producer, user in graph.nx.edges():
        if place[producer] >= place[user]:
            yield user, f"stands before {producer}, which it uses"


def _wired(view: _View) -> Problems:
    """Each operand has one producer, edges say what operands say, and the graph but for idle inputs is one piece."""
    graph = view.graph
    if graph.orderly:
        return
    from networkx import weakly_connected_components

    for op in graph.ops:
        edges = sorted((data["operand"], a, data["out"]) for a, _, data in graph.nx.in_edges(op.id, data=True))
        if edges != [(n, ref.op, ref.out) for n, ref in enumerate(op.inputs)]:
            yield op.id, f"operands are {[str(ref) for ref in op.inputs]}, but edges {edges}"
    for what, ref in (*(("output", ref) for ref in graph.outputs), ("loss", graph.loss)):
        if ref.op not in graph.nx:
            yield ref.op, f"is the {what}, but not in the graph"
    idle = {op.id for op in graph.ops if op.kind == "input" and not graph.users(op.ref)}
    pieces = [part for part in weakly_connected_components(graph.nx) if not part <= idle]
    if len(pieces) != 1:
        yield min(min(pieces, key=len, default=idle)), "is not connected to the rest"


def _alive(view: _View) -> Problems:
    """Every value is needed, for the model's output or the loss; inputs of the model may be idle."""
    graph = view.graph
    needed = {ref.op for ref in (*graph.outputs, graph.loss)}
    carries = {op.id: len(op.inputs) for op in graph.ops if op.kind == "repeat"}
    ends = [op for op in graph.ops if op.kind == "end"]
    handed_on = {Ref(op.id, n) for op in ends for n in range(carries.get(op.text("repeat"), 0))}
    asked = {*graph.outputs, graph.loss, *handed_on}
    for op in reversed(graph.ops):
        if op.id in needed:
            needed.update([ref.op for ref in op.inputs])
    for op in graph.ops:
        if op.id not in needed and op.kind != "input":
            yield op.id, "is dead: neither output nor loss needs it"
        for out in range(len(op.outs)):
            ref = Ref(op.id, out)
            if op.id in needed and not graph.readers(ref) and ref not in asked:
                yield op.id, f"output {out} is dead: nobody uses it"


def _typed(view: _View) -> Problems:
    """All ops have tensor types or none, and they are what the ops' rules give."""
    graph, distinct = view.graph, {op.id for op in view.distinct}
    for op in graph.ops if view.typed else ():
        for ref in op.inputs:
            if ref.out >= len(graph.op(ref.op).outs):
                yield op.id, f"uses {ref}, which does not exist"
        if op.id not in distinct:
            continue
        expected = graph.definition(op).infer(op, tuple(graph.type(ref) for ref in op.inputs))
        if op.outs != expected:
            yield op.id, f"has types {[str(t) for t in op.outs]}, its rule gives {[str(t) for t in expected]}"
    if view.typed and graph.type(graph.loss).axes:
        yield graph.loss.op, f"is the loss, but {graph.type(graph.loss)}"


def _scoped(view: _View) -> Problems:
    """Every scope is declared once, with names for its class; the loss stands behind the model."""
    graph = view.graph
    counts = Counter(scope.path for scope in graph.scopes)
    for scope in graph.scopes:
        where = dotted(scope.path)
        if not scope.path or counts[scope.path] > 1:
            yield where, "is declared twice, or is the root"
        if not scope.names or not all(name.isidentifier() for name in scope.names):
            yield where, f"has no name for its class: {scope.names}"
    containers = {(*op.scope, op.text("path")) for op in graph.ops if op.kind == "repeat"}
    behind = False
    for path, ops in groupby(graph.ops, lambda op: op.scope):
        op = next(ops)
        if path == ("loss",):
            behind = True
            if path not in graph.scope_at:
                yield op.id, "stands in loss, which is not declared"
            continue
        if behind:
            yield op.id, "is of the model, but stands behind the loss"
        for depth in range(1, len(path) + 1):
            if path[:depth] not in graph.scope_at and path[:depth] not in containers:
                yield op.id, f"stands in {dotted(path[:depth])}, which is not declared"
        if path in containers:
            yield op.id, "stands in a repeat, but in no layer of it"
    if graph.op(graph.loss.op).scope != ("loss",) or any(graph.op(ref.op).scope == ("loss",) for ref in graph.outputs):
        yield graph.loss.op, "the loss stands outside the model, the output inside"


def _repeated(view: _View) -> Problems:
    """Every repeat has one end and at least one layer; in between stand its blocks; layers are numbered through."""
    opened: Op | None = None
    ends = Counter(op.text("repeat") for op in view.graph.ops if op.kind == "end")
    blocks: frozenset[Path | None] = frozenset()  # of the repeat
    layers: dict[str, int] = {}
    scope, layer = (), None  # of the op before, as most have it
    for op in view.graph.ops:
        if op.scope != scope:
            scope, layer = op.scope, layer_scope(op.scope)
        if op.kind == "repeat":
            if opened is not None:
                yield op.id, f"is in the repeat {opened.id}"
            opened, repeat, path = op, Repeat.of(op), op.text("path")
            if repeat.n < 1 or repeat.period < 1 or not op.inputs:
                yield op.id, f"runs {repeat.n} layers of period {repeat.period} over {len(op.inputs)} carries"
            if repeat.start != layers.get(path, 0):
                yield op.id, f"starts at layer {repeat.start} of {path}, {layers.get(path, 0)} come before"
            layers[path] = repeat.start + repeat.n
            yield from _spanned(repeat)
            blocks = frozenset(repeat.blocks)
            if ends[op.id] != 1:
                yield op.id, f"has {ends[op.id]} ends"
        elif op.kind == "end":
            if opened is None or op.text("repeat") != opened.id or op.scope != opened.scope:
                yield op.id, f"ends {op.text('repeat')}, but {opened.id if opened else 'nothing'} is open here"
            opened = None
        elif opened is None:
            if layer is not None:
                yield op.id, "stands in a layer, but in no repeat"
        elif layer not in blocks:
            yield op.id, f"stands in {opened.id}, but in none of its layers"


def _spanned(repeat: Repeat) -> Problems:
    """Where one scope is several pipeline stages, they share out its layers in order."""
    stage, layer = None, repeat.start
    shown = [(span.stage, span.start, span.n) for span in repeat.spans]
    for span in repeat.spans:
        if span.start != layer or span.n < repeat.period or (stage is not None and span.stage != stage + 1):
            yield repeat.op.id, f"has the spans {shown}, which do not follow each other"
        stage, layer = span.stage, span.start + span.n
    if repeat.spans and layer != repeat.start + repeat.n:
        yield repeat.op.id, f"has the spans {shown}, but layers up to {repeat.start + repeat.n - 1}"


def _nested(view: _View) -> Problems:
    """Scopes are contiguous and declare what they take and return; each block takes what the one before it gave."""
    try:
        root = tree(view.graph)
    except ValueError as error:
        yield "the graph", str(error)
        return
    for loop in loops(root) if view.typed else ():
        carried, types = [Ref(loop.repeat.id, n) for n in range(loop.carries)], loop.repeat.outs
        if [block.path for block in loop.blocks] != [*Repeat.of(loop.repeat).blocks]:
            yield loop.repeat.id, f"has the blocks {[dotted(block.path) for block in loop.blocks]}"
        for block in loop.blocks:
            where, count = dotted(block.path), loop.carries
            if [*block.scope.inputs[:count]] != carried:
                yield where, f"takes {_shown(block.scope.inputs)}, not {_shown(carried)} first"
            carried = [*block.scope.outputs[:count]]
            given = tuple(map(view.graph.type, carried))
            if given != types:
                yield where, f"returns {[str(t) for t in given]}, the carries are {[str(t) for t in types]}"
        if [*loop.end.inputs[: loop.carries]] != carried:
            yield loop.end.id, f"carries {_shown(loop.end.inputs)} out, the last layer gave {_shown(carried)}"
        yield from _local(view.graph, loop)


def _local(graph: Graph, loop: Loop) -> Problems:
    """What goes from layer to layer beside the carries, and what leaves, is declared by its block, and no carry."""
    made = {ref: block for block in loop.blocks for ref in block.outputs}
    for block in loop.blocks:
        for ref in block.inputs:
            if ref in made and ref not in (*block.scope.inputs[: loop.carries], *_locals(graph, made[ref], loop)):
                yield dotted(block.path), f"takes {ref}, a carry of an earlier layer"
    for ref in loop.exports:
        if ref not in made or ref not in _locals(graph, made[ref], loop):
            yield loop.end.id, f"exports {ref}, which no layer gives"


def _locals(graph: Graph, block: Call, loop: Loop) -> tuple[Ref, ...]:
    return tuple(ref for ref in block.outputs if graph.origin(ref) in block.scope.outputs[loop.carries :])


def _shown(refs: Iterable[Ref]) -> str:
    return ", ".join(map(str, refs))


def _handed_on(view: _View) -> Problems:
    """Where one scope is several pipeline stages, each hands on what the next takes: the cuts around them are alike."""
    ends = {op.text("repeat"): op for op in view.graph.ops if op.kind == "end"}
    before: Op | None = None
    spanned: Op | None = None
    for op in view.graph.ops:
        if op.kind == "repeat" and Repeat.of(op).spans:
            spanned = op
        elif op.kind == "cut":
            if spanned is not None and (
                before is None or not _alike(view.graph, before, spanned, ends[spanned.id], op)
            ):
                shown = [] if before is None else [str(t) for t in before.outs]
                yield spanned.id, f"is several stages: {shown} enters, {[str(t) for t in op.outs]} leaves by {op.id}"
            before, spanned = op, None
    if spanned is not None:
        yield spanned.id, "is several stages, but the last of all is among them"


def _alike(graph: Graph, before: Op, repeat: Op, end: Op, after: Op) -> bool:
    """Whether one cut gives what the other took, with the layers' results in the place of what they were given."""
    carried = {graph.origin(ref): Ref(end.id, n) for n, ref in enumerate(repeat.inputs)}
    taken = [Ref(before.id, n) for n in range(len(before.outs))]
    handed_on = [carried.get(ref, ref) for ref in taken]
    return [graph.origin(ref) for ref in after.inputs] == handed_on and after.types == before.types


def _parameters(view: _View) -> Problems:
    """A global name stands for one parameter."""
    yield from clashes(view.graph)


def _placed(view: _View) -> Problems:
    """Once an op is placed all are, on every axis of the layout's mesh; before, none is, and nothing is converted."""
    graph = view.graph
    mesh = {axis.name: axis.size for axis in graph.mesh}
    if not view.placed:
        for op in graph.ops:
            if op.kind == "convert" or op.uses or op.lowering:
                yield op.id, "is placed, though other ops are not"
        return
    wanted = {axis.name: axis.size for axis in mesh_of(view.layout)}
    if mesh != wanted or len(mesh) != len(graph.mesh):
        yield "the graph", f"is placed on the mesh {mesh}, the layout has {wanted}"
    for op in view.distinct:
        if len(op.types) != len(op.outs) or len(op.uses) != len(op.params):
            yield op.id, f"{len(op.types)} types for {len(op.outs)} outputs, {len(op.uses)} uses for {len(op.params)}"
        for spmd in (*op.types, *(spmd for use in op.uses for spmd in (use.stored, use.used))):
            if [name for name, _ in spmd.places] != list(mesh):
                yield op.id, f"has the type {spmd} on the mesh {mesh}"


def _divisible(view: _View) -> Problems:
    """Every mesh axis that splits a tensor axis splits it evenly, but for what may be uneven unless converted."""
    graph = view.graph
    for op in view.distinct if view.placed else ():
        pairs = [*zip((out.axes for out in op.outs), op.types, strict=True)]
        pairs += [(param.axes, use.stored) for param, use in zip(op.params, op.uses, strict=True)]
        converted = [op.place("src").axis, op.place("dst").axis] if op.kind == "convert" else []
        pairs += [(graph.type(ref).axes, graph.spmd(ref)) for ref in op.inputs if converted]
        uneven = () if set(UNEVEN) & set(converted) else UNEVEN
        for axes, spmd in pairs:
            for axis in axes if spmd.nesting else ():
                ranks = _ranks(graph, axis, spmd)
                if isinstance(axis.size, int) and axis.shard_name not in uneven and not axis.divides(ranks):
                    yield op.id, f"{axis.name} = {axis.size} cannot be split over {ranks} ranks"


def _ranks(graph: Graph, axis: Axis, spmd: Spmd) -> int:
    ranks = 1
    for mesh in graph.mesh:
        ranks *= mesh.size if mesh.name in spmd.shards(axis) else 1
    return ranks


def _kept(view: _View) -> Problems:
    """Results are kept by name in layers only, where the layout or their kind says so."""
    for op in view.graph.ops:
        said = op.kept in view.layout.checkpoint.save or view.graph.definition(op).stays
        if op.kept and (layer_of(op.scope) is None or not said):
            yield op.id, f"is kept as {op.kept}, but is not in a layer or the layout does not say so"
