"""The bytes of a rank in a step of training, and where their peak is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TypeVar

from specc.cost.device import Device
from specc.cost.replay import Most, measured
from specc.cost.rows import ROWS
from specc.cost.schedule import Do
from specc.cost.schedules import ordered
from specc.cost.sizes import BYTES, Sizes
from specc.cost.stage import StageRun, items
from specc.cost.storage import Live, Storage
from specc.cost.trace import FLOWING, Env, Tape, Trace, Unit, Value, unit_of
from specc.cost.units import Units, held_of
from specc.ir.graph import Graph
from specc.ir.op import Op, Path, Ref
from specc.ir.repeat import Repeat, layer_of
from specc.ir.tree import LOSS, Loop
from specc.spec.core import Layout
from specc.spec.schedules import ScheduleName

T = TypeVar("T")
GIB = 2**30
TURNS: tuple[ScheduleName, ...] = ("1f1b", "gpipe")
"""Schedules in which microbatches go back in the order in which they came."""
OUTSIDE = 2.0
"""GiB that are on a device beside what torch allocates: its context, libraries and their buffers."""
WEIGHTS, OPTIMIZER, BATCH, PIPELINE = "weights", "optimizer states", "batch", "pipeline buffers"


@dataclass(frozen=True)
class Kind:
    """Whose kernels run ("cpu", "cuda"), the type of parameters, and bytes of states for each of their elements."""

    on: str = "cpu"
    dtype: str = "float32"
    states: int = 8

    @property
    def held(self) -> int:
        """Bytes of a parameter that stay: it and its states."""
        return BYTES[self.dtype] + self.states


@dataclass(frozen=True)
class Memory:
    """Bytes of a rank: `parts` at the peak, which is at `where`; `saved` is what the first forward leaves behind."""

    peak: int
    where: str
    parts: Mapping[str, int]
    saved: int


class _Second:
    """What the second microbatch needs, which those behind it need too: gradients of parameters are there."""

    def __init__(self, live: Live):
        self.live = live
        self._most: dict[str, Most] = {}
        self._left: dict[str, int] = {}

    def seen(self, do: Do, number: int, act: Callable[[], T]) -> T:
        """Run a microbatch, and remember what it needs if it is the second."""
        if number != 1:
            return act()
        made, self._most[do], left = measured(self.live, act)
        if do == "F":
            self._left = left
        return made

    def again(self, do: Do) -> None:
        """Of another microbatch, only the sums."""
        live, most = self.live, self._most[do]
        live.place = most.where
        live.surge(most.parts)
        live.change(self._left, 1 if do == "F" else -1)


def enough(schedule: ScheduleName, stages: int, microbatches: int) -> int:
    """How many microbatches show the peak: once all that are on their way at a time are, one forward and one backward
    take turns until the last.
    """
    return min(microbatches, stages + 2) if schedule == "1f1b" else microbatches


def undeclared(graph: Graph) -> tuple[str, ...]:
    """Kinds of ops of which only is known what they declare to save."""
    carried = ("repeat", "end", "cut")
    return tuple(dict.fromkeys(op.kind for op in graph.ops if op.kind not in (*ROWS, *carried)))


def memories(
    graph: Graph, layout: Layout, symbols: Mapping[str, int], kind: Kind | None = None, whole: bool = False
) -> list[Memory]:
    """Of every rank of the pipeline."""
    return [memory(graph, layout, symbols, rank, kind, whole) for rank in range(layout.pp.ranks)]


def most(graph: Graph, layout: Layout, symbols: Mapping[str, int], kind: Kind | None = None) -> int:
    """Bytes at the peak of the rank that needs most."""
    ranks = _unlike(graph, layout) if layout.pp.per_rank == 1 else range(layout.pp.ranks)
    return max(memory(graph, layout, symbols, rank, kind).peak for rank in ranks)


def _unlike(graph: Graph, layout: Layout) -> list[int]:
    """The first of stages that run the same layers: those behind it have no more microbatches on their way."""
    every = layout.checkpoint.every or 1
    first: dict[tuple[tuple[str, ...], ...], int] = {}
    for stage in range(layout.pp.stages):
        known: list[tuple[str, ...]] = []
        for item in items(graph, stage):
            if isinstance(item, Loop):
                repeat = Repeat.of(item.repeat)
                span = repeat.span(stage)
                known.append((item.repeat.id, *map(str, (span.n, span.start % every, span.start % repeat.period))))
            else:
                known.append((item.id,))
        first.setdefault(tuple(known), stage)
    return list(first.values())


def fits(bytes: float, device: Device) -> bool:
    """Whether a device has as much as is allocated, and what is not torch's."""
    return bytes + OUTSIDE * GIB <= device.memory


@dataclass
class _Microbatch:
    """On its way through a stage."""

    tape: Tape
    outs: list[Value]
    ends: list[Value]  # where backward starts


def memory(
    graph: Graph,
    layout: Layout,
    symbols: Mapping[str, int],
    rank: int = 0,
    kind: Kind | None = None,
    whole: bool = False,
) -> Memory:
    """Of a step after the first. `symbols`: rows, and tokens of each, of a microbatch on one rank. `whole`: every layer
    is run, where else each block is once, and sums are done again for layers that are alike.
    """
    live, pp = Live(), layout.pp
    stages: dict[int, _Stage] = {}
    for stage in pp.held(rank):
        known = {path for other in stages.values() for path in other.outside}
        stages[stage] = _Stage(live, graph, layout, symbols, stage, kind or Kind(), whole, known)
    next(iter(stages.values())).feed()
    for stage in stages.values():
        stage.start()
    schedule = pp.schedule if pp.stages > 1 else "1f1b"  # one rank goes back at once
    few = enough(schedule, pp.stages, layout.microbatches)
    order = ordered(schedule, pp.ranks, few, pp.per_rank)[rank]
    run = {0, 1, few - 1} if schedule in TURNS else {action.microbatch for action in order}
    last = {action.stage: action.microbatch for action in order if action.do in ("B", "W")}
    second = _Second(live)
    for action in order:
        stage, number = stages[action.stage], action.microbatch
        if number not in run:
            second.again(action.do)
        elif action.do == "F":
            second.seen("F", number, partial(stage.forward, number))
        elif action.do == "I":
            stage.split(number)
        else:
            ends = number == last[action.stage]
            second.seen("B", number, partial(stage.backward, number, ends))
            if ends:
                stage.end()
    parts = {part: size for part, size in live.at_peak.items() if size}
    return Memory(live.peak, live.where, parts, sum(stage.saved for stage in stages.values()))


class _Stage:
    """One of those of a rank. `known`: weights that an earlier one has, too: a copy of them has no states."""

    def __init__(
        self,
        live: Live,
        graph: Graph,
        layout: Layout,
        symbols: Mapping[str, int],
        stage: int,
        kind: Kind,
        whole: bool,
        known: Collection[Path],
    ):
        self.graph, self.layout, self.stage = graph, layout, stage
        self.sizes = Sizes(graph, symbols, kind.dtype, kind.on)
        self.live = live
        self.run = Trace(self.sizes, ROWS, self.live)
        self.work = StageRun(self.run, stage, whole)
        self.stages, self.last = layout.pp.stages, stage == layout.pp.stages - 1
        self.loss = tuple(op for op in graph.ops if op.scope[:1] == LOSS and op.kind != "input") if self.last else ()
        self.saved = 0
        units = self._by_unit()
        held, own = held_of(self.run, units), held_of(self.run, units, known)
        self.live.make(sum(part.shard for part in held.values()) * self.sizes.stored + self._buffers(), WEIGHTS)
        self.live.make(sum(part.shard for part in own.values()) * kind.states, OPTIMIZER)
        self.waiting: dict[int, _Microbatch] = {}
        self.received: list[Storage] = []
        self.apart: dict[int, Storage] = {}
        if graph.groups.data:
            used = layout.dtype if layout.precision != "fp32" else kind.dtype
            self.work.units = Units(self.run, held, used, stays=self.stages > 1)
            self.run.gradient = self.work.units.used

    def _ops(self) -> Iterator[tuple[int | None, Op]]:
        """Of the stage, those of loops once for each layer."""
        for item in self.work.items:
            if not isinstance(item, Loop):
                yield None, item
                continue
            span, period = Repeat.of(item.repeat).span(self.stage), Repeat.of(item.repeat).period
            for layer in range(span.start, span.start + span.n):
                for op in self.work.bodies(item)[layer % period].ops:
                    yield layer, op

    def _by_unit(self) -> dict[Unit, list[Op]]:
        found: dict[Unit, list[Op]] = {None: []}
        for layer, op in self._ops():
            for param in op.params:
                own = layer if layer_of(param.path) is not None else None
                found.setdefault(unit_of(param.path, own), []).append(op)
        return {unit: list(dict.fromkeys(ops)) for unit, ops in found.items()}

    def _buffers(self) -> int:
        """Of the state of the model beside what is trained, which every rank has whole."""
        found = {
            (param.path, layer): self.sizes.param(op, n)
            for layer, op in self._ops()
            for n, param in enumerate(op.params)
            if not param.trained
        }
        return sum(found.values()) * self.sizes.stored

    @property
    def outside(self) -> set[Path]:
        """Weights that stand outside of layers."""
        return {p.path for layer, op in self._ops() if layer is None for p in op.params if p.trained}

    def feed(self) -> None:
        """The batch of a rank."""
        count = self.layout.microbatches
        labels = [op for op in self.graph.ops if op.scope[:1] == LOSS and op.kind == "input" and op.outs[0].axes]
        batch = [op.ref for op in (*self.graph.inputs, *labels)]
        copies = 2 if self.graph.mesh or count > 1 else 1  # the trainer's, filled up
        if self.sizes.parts:
            copies = 1 + max(self.sizes.parts.values())  # what is given are whole rows
        self.live.make(sum(self.sizes.bytes(ref) for ref in batch) * count * copies, BATCH)

    def start(self) -> None:
        """Before a step."""
        if self.stages > 1:
            self.received = self._pipeline(self._crossing, self.layout.microbatches)

    def forward(self, number: int) -> None:
        """Of a microbatch."""
        self.waiting[number] = self._forward(self._crossing)

    def split(self, number: int) -> None:
        """Gradients of the input alone: nothing is freed, and what comes to each weight is kept. The first has none."""
        if self.stage:
            weighty = (op for _, op in self._ops() if any(param.trained for param in op.params))
            refs = [Ref(op.id, n) for op in weighty for n in range(len(op.outs))]
            self.apart[number] = self.live.make(sum(map(self.sizes.bytes, refs)), FLOWING)

    def backward(self, number: int, last: bool) -> None:
        """Of a microbatch, as a whole or of weights; gradients are reduced after the last."""
        if self.work.units is not None:
            self.work.units.last = last
        self._backward(self.waiting.pop(number), self.received[number] if self.received else None)
        if number in self.apart:
            self.live.drop(self.apart.pop(number))

    def end(self) -> None:
        """After the last microbatch of a step."""
        if self.work.units is not None:
            self.work.units.end()

    @cached_property
    def _crossing(self) -> tuple[Ref, ...]:
        """What the stage takes from the one before it."""
        made = {op.id for _, op in self._ops()} | {item.end.id for item in self.work.items if isinstance(item, Loop)}
        made |= {item.repeat.id for item in self.work.items if isinstance(item, Loop)}
        refs = dict.fromkeys(ref for _, op in self._ops() for ref in op.inputs if ref.op not in made)
        loops = (item for item in self.work.items if isinstance(item, Loop))
        refs |= dict.fromkeys(ref for loop in loops for ref in loop.repeat.inputs if ref.op not in made)
        refs |= dict.fromkeys(self._leaving)  # some go through
        return tuple(ref for ref in refs if self.graph.op(ref.op).kind == "cut")

    @cached_property
    def _leaving(self) -> tuple[Ref, ...]:
        if self.last:
            return self.graph.outputs
        cuts = [op for op in self.graph.ops if op.kind == "cut"]
        known = {op.id for _, op in self._ops()} | {item.end.id for item in self.work.items if isinstance(item, Loop)}
        own = next((cut for cut in cuts if any(ref.op in known for ref in cut.inputs)), None)
        assert own is not None, f"stage {self.stage} hands nothing on"
        return tuple(dict.fromkeys(own.inputs))

    def _pipeline(self, crossing: tuple[Ref, ...], count: int) -> list[Storage]:
        """Buffers for what comes from both sides, of every microbatch, and for what is on its way to them."""
        size, live = self.sizes.bytes, self.live
        taken = sum(map(size, crossing))
        graded = sum(size(ref) for ref in crossing if self.graph.type(ref).grad)
        given = 0 if self.last else sum(map(size, self._leaving))
        live.make(taken * count + graded + given, PIPELINE)
        return [live.make(given, PIPELINE) for _ in range(count)] if given else []

    def _forward(self, crossing: tuple[Ref, ...]) -> _Microbatch:
        live, size, units = self.live, self.sizes.bytes, self.work.units
        inputs = [item for item in self.work.items if isinstance(item, Op) and item.kind == "input"]
        refs = [*(op.ref for op in inputs), *crossing]
        fed = {ref: Value(live.make(0, BATCH), size(ref), self.graph.type(ref).grad) for ref in refs}
        tape: Tape = []
        before = live.bytes
        if units is not None:
            units.gather(None, forward=True)
        outs = self.work.forward(fed, tape, self._leaving)
        if units is not None:
            units.free(None)
        self.saved = self.saved or live.bytes - before
        ends = list(outs.values())
        if self.loss:
            given = {
                op.ref: Value(live.make(0, BATCH), size(op.ref), False) for op in self.graph.ops if op.kind == "input"
            }
            env: Env = {**given, **outs}
            ends = [self.run.forward(self.loss, None, env, tape, (self.graph.loss,))[self.graph.loss]]
        held = [] if self.loss and self.stages == 1 else list(outs.values())
        if self.loss and self.stages == 1:
            for value in outs.values():
                self._drop(value)
        return _Microbatch(tape, held, ends)

    def _drop(self, value: Value) -> None:
        assert value.storage is not None
        self.live.drop(value.storage)

    def _backward(self, batch: _Microbatch, received: Storage | None) -> None:
        live = self.live
        grads: dict[Value, Storage] = {}
        for value in batch.ends:
            if value.grad:
                grads[value] = live.hold(received) if received is not None else live.make(value.bytes, FLOWING)
        self.run.backward(batch.tape, grads)
        if self.work.units is not None:
            self.work.units.finish(None)
        for storage in grads.values():
            live.drop(storage)
        for value in batch.outs:
            self._drop(value)
        if self.loss:
            self._drop(batch.ends[0])
