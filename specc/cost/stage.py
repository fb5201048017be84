"""What one pipeline stage runs, in order: ops, and loops over layers; and a symbolic run of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from specc.cost.replay import Profile, profiled, replay
from specc.cost.storage import Live
from specc.cost.trace import Env, Mark, Tape, Trace, Value
from specc.cost.units import Units
from specc.ir.graph import Graph
from specc.ir.op import Layer, Op, OpError, Path, Ref, Stage, in_model
from specc.ir.repeat import Repeat
from specc.ir.segments import Segment, segments
from specc.ir.tree import Call, Loop, tree

Item = Op | Loop


def items(graph: Graph, stage: int) -> tuple[Item, ...]:
    """Ops and loops of a stage in the order in which they run, whatever module they stand in."""
    root = tree(graph)
    own = [item for item in root.items if isinstance(item, Call) and stage in _stages(graph, item.path)]
    return tuple(_flat(own[0] if own else root))


def _stages(graph: Graph, path: Path) -> tuple[int, ...]:
    return graph.stages_of(path) if path and isinstance(path[0], Stage) else ()


def _flat(call: Call) -> Iterator[Item]:
    for item in call.items:
        if isinstance(item, Call):
            yield from _flat(item)
        elif isinstance(item, Loop) or item.kind != "cut":
            yield item


def reads(item: Item) -> tuple[Ref, ...]:
    """Values that are made before an item and that it reads, each once."""
    if isinstance(item, Op):
        return tuple(dict.fromkeys(item.inputs))
    inside = {item.repeat.id}
    found = dict.fromkeys(item.repeat.inputs)
    for block in item.blocks:
        ops = [op for op in _flat(block) if isinstance(op, Op)]
        inside |= {op.id for op in ops}
        found |= dict.fromkeys(ref for op in ops for ref in op.inputs)
    return tuple(ref for ref in found if ref.op not in inside)


@dataclass(frozen=True)
class Body:
    """A block of a loop: its parts, the carries as it knows and as it leaves them, and all that leaves it."""

    path: Path
    ops: tuple[Op, ...]
    takes: tuple[Ref, ...]
    gives: tuple[Ref, ...]
    leaving: tuple[Ref, ...]
    parts: tuple[Segment, ...]


class StageRun:
    """A symbolic run of one stage over a microbatch. `whole`: of every layer; else of each block once."""

    def __init__(self, run: Trace, stage: int, whole: bool):
        self.whole, self._profiles = whole, dict[tuple[Path, bool, tuple[int, ...]], Profile]()
        self.run, self.graph, self.stage = run, run.graph, stage
        self.items = items(run.graph, stage)
        self.units: Units | None = None
        self._bodies: dict[str, dict[int, Body]] = {}

    def forward(self, fed: Mapping[Ref, Value], tape: Tape, leaving: tuple[Ref, ...]) -> Env:
        """What leaves the stage, held once; `fed` are values that are made outside, whom others hold."""
        live = self.run.live
        env: Env = dict(fed)
        uses = Counter(ref for item in self.items for ref in reads(item))
        uses.update(leaving)
        for item in self.items:
            if isinstance(item, Loop):
                made = self.loop(item, env, tape)
            elif item.ref in fed:
                continue
            else:
                refs = tuple(Ref(item.id, n) for n in range(len(item.outs)))
                made = self.run.forward((item,), None, env, tape, refs)
            env |= made
            for ref in made:
                if not uses[ref]:
                    _drop(live, env.pop(ref))
            for ref in reads(item):
                uses[ref] -= 1
                if not uses[ref] and ref not in fed:
                    _drop(live, env.pop(ref))
        return {ref: _held(live, env[ref]) if ref in fed else env[ref] for ref in leaving}

    def bodies(self, loop: Loop) -> dict[int, Body]:
        """Blocks of a loop by their place in the period."""
        if loop.repeat.id not in self._bodies:
            self._bodies[loop.repeat.id] = dict(self._made(loop))
        return self._bodies[loop.repeat.id]

    def _made(self, loop: Loop) -> Iterator[tuple[int, Body]]:
        n = loop.carries
        for block in loop.blocks:
            last, ops = block.path[-1], self.graph.ops_at[block.path]
            assert isinstance(last, Layer)
            gives = block.scope.outputs[:n]
            leaving = tuple(dict.fromkeys((*block.outputs, *(ref for ref in gives if ref.op in {op.id for op in ops}))))
            parts = segments(self.graph).get(block.path, ())
            yield last.offset, Body(block.path, ops, block.scope.inputs[:n], gives, leaving, parts)

    def loop(self, loop: Loop, env: Env, tape: Tape) -> Env:
        """All layers of a loop that this stage runs; the results of its end, held once."""
        repeat, live = Repeat.of(loop.repeat), self.run.live
        span, every = repeat.span(self.stage), dict(loop.repeat.attrs).get("recompute")
        carries = [_held(live, env[ref]) for ref in loop.repeat.inputs]
        inner: Env = {**env, **{Ref(loop.repeat.id, n): value for n, value in enumerate(carries)}}
        local: Env = {}
        for layer in range(span.start, span.start + span.n):
            body = self.bodies(loop)[layer % repeat.period]
            inner |= dict(zip(body.takes, carries, strict=True))
            again = isinstance(every, int) and layer % every == 0
            made = self._gathered(body, layer, inner, tape, again)
            inner |= made
            new = [_held(live, inner[ref]) for ref in body.gives]
            for value in carries:
                _drop(live, value)
            carries = new
            for ref, value in made.items():
                if ref in local:
                    _drop(live, local[ref])
                local[ref] = value
        results = [*carries, *(_held(live, inner[ref]) for ref in loop.exports)]
        for value in local.values():
            _drop(live, value)
        if len(results) != len(loop.end.outs):
            raise OpError(loop.end, f"has {len(results)} results")
        return {Ref(loop.end.id, n): value for n, value in enumerate(results)}

    def _gathered(self, body: Body, layer: int, env: Env, tape: Tape, again: bool) -> Env:
        units, unit = self.units, (in_model(body.path), layer)
        if units is None:
            return self._block(body, layer, env, tape, again)
        units.gather(unit, forward=True)
        tape.append(Mark(lambda _: units.finish(unit)))
        made = self._block(body, layer, env, tape, again)
        tape.append(Mark(lambda _: units.gather(unit, forward=False)))
        units.free(unit)
        return made

    def _block(self, body: Body, layer: int, env: Env, tape: Tape, again: bool) -> Env:
        """One layer; what leaves it, held once."""
        if self.whole:
            return self._run(self.run, body, layer, env, tape, again)
        own = {op.id for op in body.ops}
        reads = {ref: env[ref] for op in body.ops for ref in op.inputs if ref.op not in own}
        key = (body.path, again, tuple(value.bytes for value in reads.values()))
        if key not in self._profiles:
            once = partial(self._alone, body, again)
            self._profiles[key] = profiled(self.run, once, reads, env)
        return replay(self.run, self._profiles[key], body.ops, layer, reads, tape)

    def _alone(self, body: Body, again: bool, trace: Trace, env: Env, tape: Tape) -> Env:
        return self._run(trace, body, 0, env, tape, again)

    def _run(self, trace: Trace, body: Body, layer: int, env: Env, tape: Tape, again: bool) -> Env:
        if not again:
            return trace.forward(body.ops, layer, env, tape, body.leaving)
        made: Env = {}
        known = dict(env)
        for n, part in enumerate(body.parts):
            later = {ref for other in body.parts[n + 1 :] for op in other.ops for ref in op.inputs} | {*body.leaving}
            own = (Ref(op.id, out) for op in part.ops for out in range(len(op.outs)))
            leaving = tuple(ref for ref in own if ref in later)
            if part.again:
                found = trace.again(part, layer, known, tape, leaving)
            else:
                found = trace.forward(part.ops, layer, known, tape, leaving)
            made |= found
            known |= found
        for ref in [ref for ref in made if ref not in body.leaving]:
            _drop(trace.live, made.pop(ref))
        return made


def _held(live: Live, value: Value) -> Value:
    assert value.storage is not None
    live.hold(value.storage)
    return value


def _drop(live: Live, value: Value) -> None:
    assert value.storage is not None
    live.drop(value.storage)
