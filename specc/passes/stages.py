"""Cut the graph into pipeline stages by liveness.

A stage is one more scope; between two stages stands the op `cut`, which carries every value alive there. Values that
depend on shapes only are computed again in each stage. Layers are the units: what stands before a repeat goes with its
first layer, what follows the last repeat with the last layer. Consecutive stages that run the same blocks and nothing
else are held once, as layers are: the repeat of that scope covers the layers of all, and its `spans` lists for each
stage its number, first layer and number of layers.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise

from specc.ir.graph import Graph, Scope, inside
from specc.ir.op import Layer, Op, OpError, Path, Ref, Stage
from specc.ops import definition
from specc.passes.balance import balanced
from specc.passes.dead import dead
from specc.spec.core import Layout

TOKENS = 4096  # length at which flops are counted, for every axis of tokens


@dataclass(frozen=True)
class _Repeat:
    """A repeat, the ops of its body, and the root ops before it."""

    before: tuple[Op, ...]
    repeat: Op
    body: tuple[Op, ...]
    end: Op
    after: tuple[Op, ...] = ()  # of the last repeat only

    @property
    def layers(self) -> range:
        start = self.repeat.number("start")
        return range(start, start + self.repeat.number("n"))

    @property
    def blocks(self) -> tuple[Path, ...]:
        """Scopes of the blocks, in op order."""
        return tuple(layer for layer in dict.fromkeys(_layer(op.scope) for op in self.body) if layer is not None)


@dataclass(frozen=True)
class _Part:
    """What a stage, or several equal ones, run of a repeat; `spans` then has (stage, first layer, layers) of each."""

    of: _Repeat
    layers: range
    spans: tuple[tuple[int, int, int], ...] = ()

    @property
    def first(self) -> bool:
        return self.layers.start == self.of.layers.start

    @property
    def last(self) -> bool:
        return self.layers.stop == self.of.layers.stop

    @property
    def start(self) -> tuple[Ref, ...]:
        """What the first layer is given: of a run cut in two, what the run carries."""
        carried = range(len(self.of.repeat.inputs))
        return self.of.repeat.inputs if self.first else tuple(Ref(self.of.end.id, n) for n in carried)


def stages(graph: Graph, layout: Layout) -> Graph:
    """The graph cut into layout.pp.stages stages, or as it is for one."""
    if layout.pp.stages == 1:
        return graph
    repeats = _repeats(graph)
    starts = (
        _named(repeats, layout.pp.starts) if layout.pp.starts else balanced(_costs(repeats, graph), layout.pp.stages)
    )
    plan = _merged(_plan(repeats, [0, *starts]))
    # a stage may run a part of a pattern only, and then needs not all tables of it
    return dead(_Cutter(graph).cut(plan), layout)


def _repeats(graph: Graph) -> list[_Repeat]:
    found: list[_Repeat] = []
    before: list[Op] = []
    body: list[Op] | None = None
    repeat: Op | None = None
    for op in graph.ops:
        if op.scope[:1] == ("loss",):
            continue
        if op.kind == "repeat":
            repeat, body = op, []
        elif op.kind == "end" and repeat is not None and body is not None:
            found.append(_Repeat(tuple(before), repeat, tuple(body), op))
            before, body = [], None
        elif body is not None:
            body.append(op)
        else:
            before.append(op)
    found[-1] = replace(found[-1], after=tuple(before))
    return found


def _costs(repeats: list[_Repeat], graph: Graph) -> list[int]:
    """Flops of each layer, with what goes along with it."""
    symbols = {axis.size: TOKENS for op in graph.ops for t in op.outs for axis in t.axes if isinstance(axis.size, str)}
    symbols["batch"] = 1

    def flops(op: Op) -> int:
        return definition(op.kind).flops(op, tuple(graph.type(ref) for ref in op.inputs), symbols)

    costs: list[int] = []
    for item in repeats:
        period = item.repeat.number("period")
        each = [0] * period
        for op in item.body:
            offset = next(part.offset for part in op.scope if isinstance(part, Layer))
            each[offset] += flops(op)
        own = [each[layer % period] for layer in item.layers]
        own[0] += sum(map(flops, item.before))
        own[-1] += sum(map(flops, item.after))
        costs.extend(own)
    return costs


def _named(repeats: list[_Repeat], starts: tuple[str, ...]) -> list[int]:
    """Units by the names of layers ("decoder.2"). Raises KeyError."""
    first: dict[str, int] = {}
    total = 0
    for item in repeats:
        first.setdefault(item.repeat.text("path"), total)
        total += len(item.layers)
    return [first[name.rpartition(".")[0]] + int(name.rpartition(".")[2]) for name in starts]


def _plan(repeats: list[_Repeat], starts: list[int]) -> list[list[_Part]]:
    plan: list[list[_Part]] = [[] for _ in starts]
    bounds = [*starts, sum(len(item.layers) for item in repeats)]
    for stage, parts in enumerate(plan):
        first = 0
        for item in repeats:
            low, high = max(bounds[stage], first), min(bounds[stage + 1], first + len(item.layers))
            if low < high:
                parts.append(_Part(item, item.layers[low - first : high - first]))
            first += len(item.layers)
    return plan


def _merged(plan: list[list[_Part]]) -> dict[int, list[_Part]]:
    """Parts by the number of the first stage that runs them; equal neighbours are one."""
    merged: dict[int, list[_Part]] = {}
    previous = 0
    for stage, parts in enumerate(plan):
        if stage and _alike(merged[previous], parts):
            before, part = merged[previous][0], parts[0]
            own = (stage, part.layers.start, len(part.layers))
            spans = (before.spans or ((previous, before.layers.start, len(before.layers)),)) + (own,)
            merged[previous] = [replace(before, layers=range(before.layers.start, part.layers.stop), spans=spans)]
        else:
            merged[stage] = parts
            previous = stage
    return merged


def _alike(before: list[_Part], parts: list[_Part]) -> bool:
    """Whether both run nothing but the same blocks of one repeat."""
    if len(before) != 1 or len(parts) != 1 or before[0].of is not parts[0].of:
        return False
    period = parts[0].of.repeat.number("period")
    inner = not (before[0].first or parts[0].last)
    return inner and all(len(part.layers) >= period for part in (before[0], parts[0]))


@dataclass
class _Cutter:
    """Writes the stages one after the other."""

    graph: Graph
    ops: list[Op] = field(default_factory=list[Op])
    scopes: list[Scope] = field(default_factory=list[Scope])
    env: dict[Ref, Ref] = field(default_factory=dict[Ref, Ref])  # values of the whole graph as this stage knows them

    def cut(self, plan: dict[int, list[_Part]]) -> Graph:
        needs = {stage: self._needs(parts) for stage, parts in plan.items()}
        for stage, parts in plan.items():
            if stage:
                self._cut_op(stage, [ref for later in plan if later >= stage for ref in needs[later]])
            self._stage(stage, max(plan), parts)
        for op in self.graph.ops:
            if op.scope[:1] == ("loss",):
                self.ops.append(replace(op, inputs=tuple(self.env.get(ref, ref) for ref in op.inputs)))
        return Graph.of(self.ops, self.scopes, self.env[self.graph.output], self.graph.loss, self.graph.mesh)

    def _again(self, op: Op) -> bool:
        """Whether the op makes its value from shapes alone."""
        only = definition(op.kind).facts(op, tuple(self.graph.type(ref) for ref in op.inputs)).shape_only
        value_operands = [ref for n, ref in enumerate(op.inputs) if n not in only]
        if op.kind == "input" or any(t.grad for t in op.outs) or not op.inputs:
            return False
        return all(self._again(self.graph.op(ref.op)) for ref in value_operands)

    def _stage_ops(self, part: _Part) -> list[Op]:
        used = {layer % part.of.repeat.number("period") for layer in part.layers}
        body = [op for op in part.of.body if _offset(op.scope) in used]
        return [*(part.of.before if part.first else ()), *body, *(part.of.after if part.last else ())]

    def _needs(self, parts: list[_Part]) -> list[Ref]:
        """Values of other stages that these parts read."""
        ops = [op for part in parts for op in self._stage_ops(part)]
        made = {op.id for op in ops}
        made |= {part.of.repeat.id for part in parts} | {part.of.end.id for part in parts}
        refs: dict[Ref, None] = {}
        for part in parts:
            refs |= dict.fromkeys(part.start)
        carried = {ref for part in parts for layer in part.of.blocks for ref in self._taken(part, layer)}
        for op in ops:
            refs |= dict.fromkeys(ref for ref in op.inputs if ref not in carried)
        outside: dict[Ref, None] = {}
        pending = list(refs)
        starts_inside = {ref for part in parts if not part.first for ref in part.start}
        while pending:
            ref = pending.pop(0)
            if ref.op in made and ref not in starts_inside:
                continue
            op = self.graph.op(ref.op)
            if self._again(op):
                only = definition(op.kind).facts(op, tuple(self.graph.type(r) for r in op.inputs)).shape_only
                pending.extend(r for n, r in enumerate(op.inputs) if n not in only)
            else:
                outside[ref] = None
        return list(outside)

    def _taken(self, part: _Part, layer: Path) -> tuple[Ref, ...]:
        """The carries as a block knows them."""
        return self.graph.scope_at[layer].inputs[: len(part.of.repeat.inputs)]

    def _cut_op(self, stage: int, wanted: list[Ref]) -> None:
        order = {op.id: n for n, op in enumerate(self.graph.ops)}
        alive = sorted({ref for ref in wanted if ref in self.env}, key=lambda ref: (-order[ref.op], ref.out))
        id = f"cut{stage}"
        source = {op.id: op for op in self.ops}
        inputs = tuple(self.env[ref] for ref in alive)
        outs = tuple(source[ref.op].outs[ref.out] for ref in inputs)
        self.ops.append(Op(id, "cut", inputs, scope=(), hint="cut", outs=outs))
        self.env = {ref: Ref(id, n) for n, ref in enumerate(alive)}

    def _stage(self, stage: int, last: int, parts: list[_Part]) -> None:
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

    def _part(self, part: _Part, prefix: Stage) -> None:
        repeat, end = part.of.repeat, part.of.end
        used = {layer % repeat.number("period") for layer in part.layers}
        for op in part.of.body:  # invariants that are made again stand in front of the repeat
            for ref in op.inputs if _offset(op.scope) in used else ():
                self._recompute(ref, prefix)
        inputs = tuple(self.env[ref] for ref in part.start)
        new = replace(repeat, id=f"{prefix}.{repeat.id}", inputs=inputs, scope=(prefix,))
        new = new.having(start=part.layers.start, n=len(part.layers))
        self.ops.append(new.having(spans=part.spans) if part.spans else new)
        carries: tuple[Ref, ...] = tuple(Ref(new.id, n) for n in range(len(inputs)))
        blocks = part.of.blocks
        given = {layer: self._taken(part, following) for layer, following in pairwise(blocks)}
        given[blocks[-1]] = end.inputs
        for layer in (layer for layer in blocks if _offset(layer) in used):
            self.env |= dict(zip(self._taken(part, layer), carries, strict=True))
            for op in part.of.body:
                if inside(op.scope, layer):
                    self._clone(op, prefix)
            for inner in self.graph.scopes:
                if inside(inner.path, layer):
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
        if ref not in self.env and self._again(op):
            self._clone(op, prefix)

    def _clone(self, op: Op, prefix: Stage) -> None:
        only = definition(op.kind).facts(op, tuple(self.graph.type(ref) for ref in op.inputs)).shape_only
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


def _layer(path: Path) -> Path | None:
    return next((path[: n + 1] for n, part in enumerate(path) if isinstance(part, Layer)), None)


def _offset(path: Path) -> int | None:
    return next((part.offset for part in path if isinstance(part, Layer)), None)
