"""Cut the graph into pipeline stages by liveness.

A stage is one more scope; between two stages stands the op `cut`, which carries every value alive there. Values that
depend on shapes only are computed again in each stage. Layers are the units: what stands before a repeat goes with its
first layer, what follows the last repeat with the last layer. Consecutive stages that run the same blocks and nothing
else, and hand on all that they take, are held once, as layers are: the repeat of that scope covers the layers of all,
and its `spans` lists for each stage its number, first layer and number of layers.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise

from specc.ir.graph import Graph, Scope
from specc.ir.op import Op, OpError, Ref, Span, Stage
from specc.ir.tree import LOSS
from specc.passes.balance import starts_of
from specc.passes.dead import dead
from specc.passes.parts import Part, Section, made_again, needs, sections, shapes_of
from specc.spec.core import Layout

Plan = dict[int, list[Part]]
"""Parts by the number of the first stage that runs them."""


def stages(graph: Graph, layout: Layout) -> Graph:
    """The graph cut into layout.pp.stages stages, or as it is for one."""
    if layout.pp.stages == 1:
        return graph
    # a stage may run a part of a pattern only, and then needs not all tables of it
    return dead(_Cutter(graph).cut(planned(graph, layout)), layout)


def planned(graph: Graph, layout: Layout) -> Plan:
    """What each stage runs, equal ones held once. Raises KeyError where a named start is no layer."""
    found = sections(graph)
    return _merged(graph, _split(found, [0, *starts_of(graph, found, layout)]))


def _split(found: list[Section], starts: list[int]) -> list[list[Part]]:
    plan: list[list[Part]] = [[] for _ in starts]
    bounds = [*starts, sum(len(item.layers) for item in found)]
    for stage, parts in enumerate(plan):
        first = 0
        for item in found:
            low, high = max(bounds[stage], first), min(bounds[stage + 1], first + len(item.layers))
            if low < high:
                parts.append(Part(item, item.layers[low - first : high - first]))
            first += len(item.layers)
    return plan


def _merged(graph: Graph, plan: list[list[Part]]) -> Plan:
    merged: Plan = {}
    alive = _alive(graph, plan)
    previous = 0
    for stage, parts in enumerate(plan):
        if stage and all(_inner(plan[n], alive[n], alive[n + 1]) for n in (stage - 1, stage)):
            before, part = merged[previous][0], parts[0]
            own = Span(stage, part.layers.start, len(part.layers))
            spans = (before.spans or (Span(previous, before.layers.start, len(before.layers)),)) + (own,)
            merged[previous] = [replace(before, layers=range(before.layers.start, part.layers.stop), spans=spans)]
        else:
            merged[stage] = parts
            previous = stage
    return merged


def _alive(graph: Graph, plan: list[list[Part]]) -> list[frozenset[Ref]]:
    """Values of earlier stages that are needed from each stage on, and at last nothing."""
    alive: list[frozenset[Ref]] = [frozenset()]
    for parts in reversed(plan):
        alive.insert(0, alive[0].union(needs(graph, parts)))
    return alive


def _inner(parts: list[Part], before: frozenset[Ref], after: frozenset[Ref]) -> bool:
    """Whether a stage runs only layers of one repeat, all its blocks, neither end, and hands on all that it takes."""
    part, *others = parts
    return not (others or part.first or part.last) and len(part.layers) >= part.of.repeat.period and before == after


@dataclass
class _Cutter:
    """Writes the stages one after the other."""

    graph: Graph
    ops: list[Op] = field(default_factory=list[Op])
    scopes: list[Scope] = field(default_factory=list[Scope])
    env: dict[Ref, Ref] = field(default_factory=dict[Ref, Ref])  # values of the whole graph as this stage knows them

    def cut(self, plan: Plan) -> Graph:
        wanted = {stage: needs(self.graph, parts) for stage, parts in plan.items()}
        for stage, parts in plan.items():
            if stage:
                self._cut_op(stage, [ref for later in plan if later >= stage for ref in wanted[later]])
            self._stage(stage, max(plan), parts)
        for op in self.graph.ops:
            if op.scope[:1] == LOSS:
                self.ops.append(replace(op, inputs=tuple(self.env.get(ref, ref) for ref in op.inputs)))
        for scope in self.graph.scopes:
            if scope.path[:1] == LOSS:
                self.scopes.append(replace(scope, inputs=tuple(self.env.get(ref, ref) for ref in scope.inputs)))
        return self.graph.with_ops(self.ops, self.scopes, self.env)

    def _cut_op(self, stage: int, wanted: list[Ref]) -> None:
        order = {op.id: n for n, op in enumerate(self.graph.ops)}
        alive = sorted({ref for ref in wanted if ref in self.env}, key=lambda ref: (-order[ref.op], ref.out))
        id = f"cut{stage}"
        source = {op.id: op for op in self.ops}
        inputs = tuple(self.env[ref] for ref in alive)
        outs = tuple(source[ref.op].outs[ref.out] for ref in inputs)
        self.ops.append(Op(id, "cut", inputs, scope=(), hint="cut", outs=outs))
        self.env = {ref: Ref(id, n) for n, ref in enumerate(alive)}

    def _stage(self, stage: int, last: int, parts: list[Part]) -> None:
        prefix = Stage(stage)
        names = ("First",) if stage == 0 else ("Last",) if stage == last else ("Middle",)
        self.scopes.append(Scope((prefix,), tuple(self.env.values()), (*names, f"Stage{stage}")))
        for part in parts:
            if part.first:
                for op in part.of.before:
                    self._clone(op, prefix)
            self._part(part, prefix)
            if part.last:
                for op in part.of.after:
                    self._clone(op, prefix)

    def _part(self, part: Part, prefix: Stage) -> None:
        repeat, end = part.of.op, part.of.end
        for op in part.body:  # invariants that are made again stand in front of the repeat
            for ref in op.inputs:
                self._recompute(ref, prefix)
        inputs = tuple(self.env[ref] for ref in part.start)
        new = replace(repeat, id=f"{prefix}.{repeat.id}", inputs=inputs, scope=(prefix,))
        new = new.having(start=part.layers.start, n=len(part.layers))
        self.ops.append(new.having(spans=part.spans) if part.spans else new)
        carries: tuple[Ref, ...] = tuple(Ref(new.id, n) for n in range(len(inputs)))
        blocks = part.of.repeat.blocks
        given = {block: part.taken(self.graph, following) for block, following in pairwise(blocks)}
        given[blocks[-1]] = end.inputs
        for layer in part.blocks:
            self.env |= dict(zip(part.taken(self.graph, layer), carries, strict=True))
            for op in self.graph.ops_at[layer]:
                self._clone(op, prefix)
            for inner in self.graph.scopes_at[layer]:
                known = tuple(self.env[ref] for ref in inner.inputs if ref in self.env)
                self.scopes.append(replace(inner, path=(prefix, *inner.path), inputs=known))
            carries = tuple(self.env[ref] for ref in given[layer])
        hint = end.hint if part.last else repeat.hint
        closing = replace(end, id=f"{prefix}.{end.id}", inputs=carries, scope=(prefix,), hint=hint)
        closing = closing.having(repeat=new.id)
        self.ops.append(closing)
        self.env |= {Ref(end.id, n): Ref(closing.id, n) for n in range(len(carries))}

    def _recompute(self, ref: Ref, prefix: Stage) -> None:
        """Make a value from shapes again where this stage does not have it."""
        op = self.graph.op(ref.op)
        if ref not in self.env and made_again(self.graph, op):
            self._clone(op, prefix)

    def _clone(self, op: Op, prefix: Stage) -> None:
        only = shapes_of(self.graph, op)
        inputs: list[Ref] = []
        for number, ref in enumerate(op.inputs):
            self._recompute(ref, prefix) if number not in only else None
            inputs.append(self.env[ref] if ref in self.env else self._like(op, ref, number in only))
        self.ops.append(replace(op, id=f"{prefix}.{op.id}", inputs=tuple(inputs), scope=(prefix, *op.scope)))
        for out in range(len(op.outs)):
            self.env[Ref(op.id, out)] = Ref(f"{prefix}.{op.id}", out)

    def _like(self, op: Op, ref: Ref, shape_only: bool) -> Ref:
        """Any value of this stage with the axis whose size a source op reads."""
        if shape_only:
            names = {axis.name for axis in op.outs[0].axes} & {axis.name for axis in self.graph.type(ref).axes}
            for known, here in self.env.items():
                if names <= {axis.name for axis in self.graph.type(known).axes}:
                    return here
        raise OpError(op, f"{ref} is not alive in this stage")
