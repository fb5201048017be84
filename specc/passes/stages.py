"""Cut the graph into pipeline stages by liveness.

A stage is one more scope; between two stages stands the op `cut`, which carries every value alive there. What the model
is fed does not travel: where a stage behind the first needs some of it, all behind the first have ops `input` for that.
What comes of these and of shapes alone (positions, masks) is computed again in each stage. Layers are the units: what
stands before a repeat goes with its first layer, what follows the last repeat with the last layer. Consecutive stages
that run the same blocks and nothing else, and hand on all that they take, are held once, as layers are: the repeat of
that scope covers the layers of all, and its `spans` lists for each stage its number, first layer and number of layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from specc.ir.graph import Graph, Scope
from specc.ir.op import Op, OpError, Path, Ref, Span, Stage
from specc.ir.tree import LOSS
from specc.passes.balance import starts_of
from specc.passes.dead import dead
from specc.passes.parts import Held, Part, Section, alive, held, made_again, sections, shapes_of
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
    needed = alive(graph, plan)
    previous = 0
    for stage, parts in enumerate(plan):
        if stage and all(_inner(plan[n], needed[n], needed[n + 1]) for n in (stage - 1, stage)):
            before, part = merged[previous][0], parts[0]
            own = Span(stage, part.layers.start, len(part.layers))
            spans = (before.spans or (Span(previous, before.layers.start, len(before.layers)),)) + (own,)
            merged[previous] = [replace(before, layers=range(before.layers.start, part.layers.stop), spans=spans)]
        else:
            merged[stage] = parts
            previous = stage
    return merged


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
    passed: list[Op] = field(default_factory=list[Op])  # inputs of the model that stages behind the first are fed

    @cached_property
    def order(self) -> dict[str, int]:
        return {op.id: n for n, op in enumerate(self.graph.ops)}

    def cut(self, plan: Plan) -> Graph:
        needed = alive(self.graph, plan.values())
        self.passed = [op for op in self.graph.inputs if any(op.ref in refs for refs in needed[1:-1])]
        for (stage, parts), before, after in zip(plan.items(), needed[:-1], needed[1:], strict=True):
            if stage:
                self._cut_op(stage, before)
            self._stage(stage, max(plan), parts, self._ordered(after))
        self._returned(tuple(self.env[ref] for ref in self.graph.outputs))
        for op in self.graph.ops:
            if op.scope[:1] == LOSS:
                self.ops.append(op.changed(inputs=tuple(self.env.get(ref, ref) for ref in op.inputs)))
        for scope in self.graph.scopes:
            if scope.path[:1] == LOSS:
                self.scopes.append(scope.moved(self.env))
        return self.graph.with_ops(self.ops, self.scopes, self.env)

    def _ordered(self, refs: frozenset[Ref]) -> list[Ref]:
        """The latest first."""
        return sorted(refs, key=lambda ref: (-self.order[ref.op], ref.out))

    def _returned(self, outputs: tuple[Ref, ...]) -> None:
        """What the stage that was written last returns."""
        at = max(n for n, scope in enumerate(self.scopes) if len(scope.path) == 1)
        self.scopes[at] = replace(self.scopes[at], outputs=outputs)

    def _cut_op(self, stage: int, needed: frozenset[Ref]) -> None:
        id = f"cut{stage}"
        source = {op.id: op for op in self.ops}
        refs = self._ordered(needed - {op.ref for op in self.passed})
        inputs = tuple(self.env[ref] for ref in refs)
        outs = tuple(source[ref.op].outs[ref.out] for ref in inputs)
        self._returned(inputs)
        self.ops.append(Op(id, "cut", inputs, scope=(), hint="cut", outs=outs))
        self.env = {ref: Ref(id, n) for n, ref in enumerate(refs)}

    def _stage(self, stage: int, last: int, parts: list[Part], after: Sequence[Ref]) -> None:
        prefix = Stage(stage)
        names = ("First",) if stage == 0 else ("Last",) if stage == last else ("Middle",)
        self.scopes.append(Scope((prefix,), tuple(self.env.values()), (*names, f"Stage{stage}")))
        for op in self.passed if stage else ():
            self._clone(op, prefix)
        for part in parts:
            if part.first:
                for op in part.of.before:
                    self._clone(op, prefix)
            ends = [*part.exported, *(Ref(part.of.end.id, n) for n in range(part.of.repeat.carries))]
            self._part(part, held(self.graph, part), prefix, ends if part.last else after)
            if part.last:
                self._after(part.of.after, prefix)

    def _after(self, ops: Sequence[Op], prefix: Stage) -> None:
        """What follows a repeat, with its scopes; what these need from shapes alone stands in front of them."""
        own = {op.id for op in ops}
        for ref in (ref for op in ops for ref in op.inputs if op.scope and ref.op not in own):
            self._recompute(ref, prefix)
        for op in ops:
            self._clone(op, prefix)
        paths = {op.scope[:n] for op in ops for n in range(1, len(op.scope) + 1)}
        for scope in self.graph.scopes:
            if scope.path in paths:
                inputs = tuple(self.env[ref] for ref in scope.inputs if ref in self.env)
                outputs = tuple(self.env[ref] for ref in scope.outputs)
                self.scopes.append(replace(scope, path=(prefix, *scope.path), inputs=inputs, outputs=outputs))

    def _part(self, part: Part, found: Held, prefix: Stage, after: Sequence[Ref]) -> None:
        """A repeat of these layers. What they read and make is a carry; what they only make leaves where it is needed.

        `after`: what is needed behind them, as the whole graph knows it.
        """
        repeat = part.of.op
        for op in part.body:  # invariants that are made again stand in front of the repeat
            for ref in op.inputs:
                if ref.op not in part.of.ids:
                    self._recompute(ref, prefix)
        outer = {n: self.env[ref] for n, ref in enumerate(part.start) if ref in self.env}
        carried = [key for key in found.entering if key in found.made]
        inputs = tuple(outer[key] if isinstance(key, int) else self.env[key] for key in carried)
        outs = tuple(repeat.outs[key] if isinstance(key, int) else self.graph.type(key) for key in carried)
        new = replace(repeat, id=f"{prefix}.{repeat.id}", inputs=inputs, scope=(prefix,), outs=outs)
        new = new.having(start=part.layers.start, n=len(part.layers))
        self.ops.append(new.having(spans=part.spans) if part.spans else new)
        known: dict[int | Ref, Ref] = {**outer, **{key: Ref(new.id, n) for n, key in enumerate(carried)}}
        for layer in part.blocks:
            taken = tuple(known[key] for key in carried)
            self.env |= {ref: known[n] for n, ref in enumerate(part.taken(self.graph, layer)) if n in known}
            self.env |= {key: known[key] for key in carried if isinstance(key, Ref)}
            for op in self.graph.ops_at[layer]:
                self._clone(op, prefix)
            known |= {n: self.env[ref] for n, ref in enumerate(part.given(self.graph, layer)) if ref in self.env}
            known |= {key: self.env[key] for key in found.made if isinstance(key, Ref) and key in self.env}
            self._scopes(layer, prefix, taken, tuple(known[key] for key in carried))
        self._close(part, new, found.made, carried, known, after)

    def _close(
        self,
        part: Part,
        repeat: Op,
        made: Sequence[int | Ref],
        carried: Sequence[int | Ref],
        known: Mapping[int | Ref, Ref],
        after: Sequence[Ref],
    ) -> None:
        """The end of a repeat, and what its results are in the whole graph."""
        end = part.of.end
        names = {key: Ref(end.id, key) if isinstance(key, int) else key for key in (*carried, *made)}
        leaving = [key for key in made if key not in carried and names[key] in after]
        inputs = tuple(known[key] for key in (*carried, *leaving))
        outs = tuple(map(self.graph.type, (names[key] for key in (*carried, *leaving))))
        hint = end.hint if part.last else part.of.op.hint
        closing = replace(
            end, id=f"{repeat.scope[0]}.{end.id}", inputs=inputs, scope=repeat.scope, hint=hint, outs=outs
        )
        closing = closing.having(repeat=repeat.id)
        self.ops.append(closing)
        unchanged = {Ref(end.id, n): known[n] for n in range(part.of.repeat.carries) if n in known and n not in made}
        results = {names[key]: Ref(closing.id, n) for n, key in enumerate((*carried, *leaving))}
        self.env |= {**unchanged, **results}
        if part.last:
            count = part.of.repeat.carries
            self.env |= {Ref(end.id, count + n): self.env[ref] for n, ref in enumerate(part.exported)}

    def _scopes(self, layer: Path, prefix: Stage, taken: tuple[Ref, ...], given: tuple[Ref, ...]) -> None:
        """The scopes of a block; its own declares the carries first."""
        for scope in self.graph.scopes_at[layer]:
            ends: list[tuple[Ref, ...]] = []
            for refs, first in ((scope.inputs, taken), (scope.outputs, given)):
                carried = first if scope.path == layer else tuple[Ref, ...]()
                known = (self.env[ref] for ref in refs if ref in self.env)
                ends.append((*carried, *(ref for ref in known if ref not in carried)))
            self.scopes.append(replace(scope, path=(prefix, *scope.path), inputs=ends[0], outputs=ends[1]))

    def _recompute(self, ref: Ref, prefix: Stage) -> None:
        """Make a value from shapes again where this stage does not have it."""
        op = self.graph.op(ref.op)
        if ref not in self.env and made_again(self.graph, op):
            self._clone(op, prefix)

    def _clone(self, op: Op, prefix: Stage) -> None:
        inputs = tuple([self.env.get(ref) or self._known(op, n, prefix) for n, ref in enumerate(op.inputs)])
        id = f"{prefix}.{op.id}"
        self.ops.append(op.changed(id=id, inputs=inputs, scope=(prefix, *op.scope)))
        for out in range(len(op.outs)):
            self.env[Ref(op.id, out)] = Ref(id, out)

    def _known(self, op: Op, number: int, prefix: Stage) -> Ref:
        """What an operand is in this stage, which does not have it yet."""
        ref, shape_only = op.inputs[number], number in shapes_of(self.graph, op)
        if not shape_only:
            self._recompute(ref, prefix)
        return self.env[ref] if ref in self.env else self._like(op, ref, shape_only)

    def _like(self, op: Op, ref: Ref, shape_only: bool) -> Ref:
        """Any value of this stage with the axis whose size a source op reads."""
        if shape_only:
            names = {axis.name for axis in op.outs[0].axes} & {axis.name for axis in self.graph.type(ref).axes}
            fed = {op.ref for op in self.passed}  # is whole on every rank
            for known, here in sorted(self.env.items(), key=lambda pair: pair[0] not in fed):
                if names <= {axis.name for axis in self.graph.type(known).axes}:
                    return here
        raise OpError(op, f"{ref} is not alive in this stage")
