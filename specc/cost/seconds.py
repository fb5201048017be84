"""Seconds of a training step: what each stage takes for a microbatch, its schedule, data ranks, the optimizer.

What is not measured on the device is modelled from its data sheet, so a step has a range; how layouts rank against each
other is firmer than the number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from specc.cost.counts import active
from specc.cost.device import Device
from specc.cost.roofline import Roofline
from specc.cost.schedule import Orders, StageSeconds, simulated
from specc.cost.schedules import gathers, ordered
from specc.cost.sizes import BYTES, Sizes
from specc.cost.timing import Parts, Run, Timed, Timing, Unit
from specc.ir.graph import Graph
from specc.spec.core import Layout

STATES = 28
"""Bytes that fused AdamW reads and writes for a parameter: it, its gradient and two states in float32, all but the
gradient back."""
CLIP = 12
"""Those of clipping: the gradient for its norm, and once more to be scaled."""
MEASURED = (1.0, 1.25)
"""The range where matrix products and memory were measured on the device."""


@dataclass(frozen=True)
class Part:
    """Seconds that the slowest stage spends on something, and where the number comes from."""

    name: str
    seconds: float
    source: str


@dataclass(frozen=True)
class Seconds:
    """A step. `low` and `high` are its range; parts add up to `step`.

    Of the peak of all ranks that the step uses: `mfu_6n` by 6 N a token, N all parameters that a token meets; `mfu`
    with those of attention instead of lookups, three times a forward pass (2204.02311, appendix B); `hfu` by all flops
    that are done, with what runs again.
    """

    step: float
    low: float
    high: float
    parts: tuple[Part, ...]
    stages: tuple[StageSeconds, ...]
    tokens: int  # of a step, over all ranks
    ranks: int
    mfu_6n: float
    mfu: float
    hfu: float
    unmeasured: tuple[str, ...]

    @property
    def tokens_per_second(self) -> float:
        """Over all ranks."""
        return self.tokens / self.step


def step(graph: Graph, layout: Layout, device: Device, symbols: Mapping[str, int], run: Run | None = None) -> Seconds:
    """Of a placed graph. `symbols` are what one rank is fed in a microbatch, as `Sizes` has them.

    Raises ValueError where microbatches do not go with the schedule.
    """
    return Step.of(graph, layout, device, symbols, run).seconds()


@dataclass(frozen=True, eq=False)
class Step:
    """A step of which stages are timed, and microbatches not yet in an order. `each`: what a stage takes for one.

    `once` and `states` are of the rank of the pipeline that spends most on them.
    """

    timing: Timing
    layout: Layout
    stages: tuple[Stage, ...]
    data: Data
    each: tuple[tuple[Parts, Parts], ...]
    once: float
    states: float

    @staticmethod
    def of(
        graph: Graph,
        layout: Layout,
        device: Device,
        symbols: Mapping[str, int],
        run: Run | None = None,
        known: dict[str, Timed] | None = None,
    ) -> Step:
        """See `step`. `known` are ops that were timed for the same symbols, of a graph that differs only in what runs
        again; those of this one are added.
        """
        roofline = Roofline(device, layout.dtype, BYTES[layout.dtype])
        sizes = Sizes(graph, symbols)
        timing = Timing(graph, sizes, roofline, run or Run(), layout.microbatches, {} if known is None else known)
        count = layout.pp.stages
        stages = tuple(Stage.of(timing, number, number == count - 1) for number in range(count))
        data = Data.of(timing, layout)
        each = tuple(data.overlapped(stage, count > 1) for stage in stages)
        held = [layout.pp.held(rank) for rank in range(layout.pp.ranks)]
        states = max(sum(_optimizer(stages[n], timing) for n in own) for own in held)
        once = max(sum(data.once(stages[n], count > 1, 1) for n in own) for own in held)
        if layout.pp.per_rank > 3:  # torch gathers some of them anew
            gathered = [gathers(order) for order in _orders(layout, timing.how)]
            once = max(sum(data.once(stages[n], True, gathered[rank][n]) for n in own) for rank, own in enumerate(held))
        return Step(timing, layout, stages, data, each, once, states)

    @cached_property
    def timed(self) -> tuple[StageSeconds, ...]:
        """What the schedule knows of stages."""
        pairs = enumerate(zip(self.stages, self.each, strict=True))
        return tuple(
            StageSeconds(ahead.total, back.total, stage.weights, stage.split if n else 0.0)
            for n, (stage, (ahead, back)) in pairs
        )

    @property
    def slowest(self) -> tuple[int, ...]:
        """The stages of the rank that takes longest."""
        pp, timed = self.layout.pp, self.timed
        held = [pp.held(rank) for rank in range(pp.ranks)]
        return max(held, key=lambda own: sum(timed[n].forward + timed[n].backward for n in own))

    @property
    def least(self) -> float:
        """Seconds that no schedule is faster than: those of the slowest rank without waiting."""
        slowest = sum(self.timed[n].forward + self.timed[n].backward for n in self.slowest)
        return self.layout.microbatches * slowest + self.once + self.states

    def seconds(self) -> Seconds:
        """With all microbatches in the order of the schedule."""
        timing, layout, slowest, device = self.timing, self.layout, self.slowest, self.timing.roofline.device
        orders = _orders(layout, timing.how)
        took, sent = _scheduled(orders, self.timed, timing, layout, timing.how)
        apart = [_apart(orders, stage) if layout.pp.splits else 0.0 for stage in range(len(self.stages))]
        both = sum((self.each[n][0] + self.each[n][1] for n in slowest), Parts()).times(layout.microbatches)
        again = sum(apart[n] * self.timed[n].again for n in slowest) * layout.microbatches
        unknown = unmeasured(
            [self.stages[n] for n in slowest], device, layout.dtype, timing.ranks * layout.pp.ranks > 1
        )
        parts = _parts(both, again, took - both.total - again, sent, self.once, self.states, unknown)
        total = took + self.once + self.states
        sheet = {"matrix products", "memory"} & set(unknown)
        low, high = (device.range.low, device.range.high) if sheet else MEASURED
        used = _utilised(self.stages, apart, timing, layout, device, total)
        return Seconds(total, total * low, total * high, parts, self.timed, *used, unknown)


@dataclass(frozen=True)
class Stage:
    """Layers of a pipeline stage, and the rest of it."""

    units: tuple[Unit, ...]
    rest: Unit

    @staticmethod
    def of(timing: Timing, number: int, last: bool) -> Stage:
        """Stage `number` of a graph."""
        units, rest = timing.stage(number, last)
        return Stage(tuple(units), rest)

    @property
    def weights(self) -> float:
        """Seconds of gradients of weights."""
        return sum((unit.timed.weights * unit.layers for unit in (*self.units, self.rest)), 0.0)

    @property
    def split(self) -> float:
        """Seconds of what runs again once more where gradients of weights come apart."""
        return sum((unit.timed.split * unit.recomputed for unit in self.units), 0.0)

    @property
    def held(self) -> int:
        """Parameters that a rank has for good."""
        return sum(unit.held * unit.layers for unit in (*self.units, self.rest))

    def flops(self, apart: float) -> tuple[int, float]:
        """Of a microbatch on a rank: of the model, three times a forward pass, and those that are done.

        `apart`: the share of microbatches whose gradients of weights come apart.
        """
        model, done = 0, 0.0
        for unit in (*self.units, self.rest):
            flops = unit.timed.flops
            model += 3 * flops.forward * unit.layers
            done += (flops.forward + flops.backward) * unit.layers
            done += (flops.again + apart * flops.split) * unit.recomputed
        return model, done


def _layer(timed: Timed, again: bool) -> tuple[Parts, Parts]:
    return timed.forward, timed.backward + timed.again if again else timed.backward


@dataclass(frozen=True)
class Data:
    """FSDP over ranks that are fed different tokens: seconds of gathering weights and of summing gradients."""

    timing: Timing
    ranks: int
    near: int
    microbatches: int

    @staticmethod
    def of(timing: Timing, layout: Layout) -> Data:
        """Over all data axes of the mesh."""
        names = timing.graph.groups.data
        near = timing.near(names) if names else 1
        return Data(timing, timing.graph.groups.size(names), near, layout.microbatches)

    def gather(self, unit: Unit) -> float:
        """Of the weights of a unit, in the dtype that they are used in."""
        element = self.timing.roofline.element
        return self.timing.roofline.collective("all-gather", unit.elements * element, self.ranks, self.near)

    def reduce(self, unit: Unit) -> float:
        """Of its gradients, in float32."""
        element = BYTES["float32"]
        return self.timing.roofline.collective("reduce-scatter", unit.elements * element, self.ranks, self.near)

    def overlapped(self, stage: Stage, piped: bool) -> tuple[Parts, Parts]:
        """Forward and backward of a microbatch of a stage, with what its layers wait for.

        A layer's weights come while the one before runs. Stages of a pipeline gather theirs once a step; else gradients
        are summed with the last microbatch.
        """
        forward, backward = _layer(stage.rest.timed, False)
        for unit in stage.units:
            for again, layers in ((True, unit.recomputed), (False, unit.layers - unit.recomputed)):
                ahead, back = _layer(unit.timed, again)
                if self.ranks > 1 and not piped:
                    gather, reduce = self.gather(unit), self.reduce(unit) / self.microbatches
                    ahead += Parts(gathers=max(0.0, gather - ahead.total))
                    back += Parts(gathers=max(0.0, gather + reduce - back.total))
                forward, backward = forward + ahead.times(layers), backward + back.times(layers)
        return forward, backward

    def once(self, stage: Stage, piped: bool, times: int) -> float:
        """Seconds a step that nothing hides: half of those of the unit that holds the rest; in a pipeline gradients of
        all units at the end, and what the first microbatch waits for, as often as weights are gathered.
        """
        if self.ranks == 1:
            return 0.0
        rest = (self.gather(stage.rest) * (times if piped else self.microbatches) + self.reduce(stage.rest)) / 2
        if not piped:
            return rest
        waits = sum(unit.layers * max(0.0, self.gather(unit) - unit.timed.forward.total) for unit in stage.units)
        return rest + times * waits + sum(unit.layers * self.reduce(unit) for unit in stage.units)


def _orders(layout: Layout, run: Run) -> Orders:
    """What each rank does. Stages of the layout may be cut further."""
    pp = layout.pp
    if pp.stages == 1:
        return ordered("1f1b", 1, layout.microbatches, 1)
    return ordered(run.schedule or pp.schedule, pp.ranks, layout.microbatches, pp.per_rank * run.virtual)


def _apart(orders: Orders, stage: int) -> float:
    """The share of its backward passes in which gradients of weights come apart from those of inputs."""
    done = Counter(action.do for order in orders for action in order if action.stage == stage)
    return done["I"] / (done["I"] + done["B"]) if stage else 0.0


def _scheduled(
    orders: Orders, stages: Sequence[StageSeconds], timing: Timing, layout: Layout, run: Run
) -> tuple[float, float]:
    """Seconds of all microbatches, and how long one value takes from stage to stage."""
    count, device = len(stages), timing.roofline.device
    if count == 1:
        return layout.microbatches * (stages[0].forward + stages[0].backward), 0.0
    near = timing.ranks * layout.pp.ranks <= device.node
    crossing = max((sum(map(timing.sizes.bytes, op.inputs)) for op in timing.graph.ops if op.kind == "cut"), default=0)
    sent = timing.roofline.sent(crossing, near)
    if run.virtual == 1:
        first = stages[0]  # torch has no input there whose gradient could come before those of weights
        return simulated(orders, [replace(first, weights=first.backward), *stages[1:]], sent), sent
    pp = replace(layout.pp, stages=count * run.virtual, per_rank=run.virtual)
    pp = replace(pp, schedule=run.schedule or pp.schedule)
    cut = [stages[pp.rank(stage)] for stage in range(pp.stages)]
    each = [StageSeconds(x.forward / run.virtual, x.backward / run.virtual, x.weights / run.virtual) for x in cut]
    return simulated(orders, each, sent), sent


def _optimizer(stage: Stage, timing: Timing) -> float:
    return timing.roofline.moved(stage.held * (STATES + CLIP))


def _parts(
    both: Parts, again: float, waiting: float, sent: float, once: float, states: float, unknown: tuple[str, ...]
) -> tuple[Part, ...]:
    def source(name: str, sheet: str, measured: str = "measured") -> str:
        return sheet if name in unknown else measured

    products = source("matrix products", "peak and shape", "measured shapes nearby")
    kernel = source("attention", "share of the peak")
    memory = source("memory", "sheet's bandwidth", "measured bandwidth")
    link = source("collectives", "sheet's links")
    rows = (
        Part("matrix products", both.matmuls, products),
        Part("attention", both.attention, kernel),
        Part("other kernels", both.elements, memory),
        Part("casts of weights, sums of gradients", both.weights, memory),
        Part("collectives in layers", both.collectives, link),
        Part("layers run again for weights", again, "once for each weight of a part"),
        Part("waiting for weights and gradients", both.gathers + once, link),
        Part(
            "waiting in the pipeline",
            waiting if sent else 0.0,
            f"simulated, {float(f'{1e6 * sent:.1e}'):,.0f} us between stages",
        ),
        Part("optimizer", states, memory),
    )
    return tuple(row for row in rows if row.seconds > 0)


def unmeasured(stages: Sequence[Stage], device: Device, dtype: str, several: bool) -> tuple[str, ...]:
    """What the step has that is modelled from the sheet: products where a tenth of their time or more is.

    `several`: there are ranks to talk to.
    """
    found, any_dtype = device.measured_in(dtype), device.measured
    units = [unit for stage in stages for unit in (*stage.units, stage.rest)]
    modelled = sum(unit.timed.modelled * unit.layers for unit in units)
    products = sum((unit.timed.forward.matmuls + unit.timed.backward.matmuls) * unit.layers for unit in units)
    known = {
        "matrix products": modelled < 0.1 * products,
        "attention": bool(found and found.attention) or not any(unit.timed.forward.attention for unit in units),
        "memory": any_dtype is not None and any_dtype.bandwidth is not None,
        "collectives": bool(any_dtype and any_dtype.collectives) or not several,
    }
    return tuple(name for name, is_known in known.items() if not is_known)


def _utilised(
    stages: Sequence[Stage], apart: Sequence[float], timing: Timing, layout: Layout, device: Device, total: float
) -> tuple[int, int, float, float, float]:
    """Tokens, ranks, and the three shares of the peak."""
    graph, symbols = timing.graph, timing.sizes.symbols
    fed = graph.groups.size(graph.groups.data)
    ranks = layout.pp.ranks * timing.ranks
    lengths = [symbols[name] for name in ("seq", "source", "target") if name in symbols] or [0]
    tokens = symbols.get("batch", 1) * sum(lengths) * layout.microbatches * fed
    most = device.peak(layout.dtype) * total * ranks
    flops = [stage.flops(share) for stage, share in zip(stages, apart, strict=True)]
    alike = timing.ranks * layout.microbatches  # every rank of a stage does the same
    model, done = (sum(pair[n] for pair in flops) * alike for n in (0, 1))
    return tokens, ranks, 6 * active(graph) * tokens / most, model / most, done / most
