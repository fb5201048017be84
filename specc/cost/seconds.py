"""Seconds of a training step: what each stage takes for a microbatch, its schedule, data ranks, the optimizer.

What is not measured on the device is modelled from its data sheet, so a step has a range; how layouts rank against each
other is firmer than the number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from specc.cost.counts import active
from specc.cost.device import Device
from specc.cost.roofline import Roofline
from specc.cost.schedule import StageSeconds, simulated
from specc.cost.schedules import SCHEDULES, ordered
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

    Raises KeyError for a schedule that there is not, ValueError where microbatches do not go with it.
    """
    return Step.of(graph, layout, device, symbols, run).seconds()


@dataclass(frozen=True, eq=False)
class Step:
    """A step of which stages are timed, and microbatches not yet in an order. `each`: what a stage takes for one."""

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
        once = max(data.once(stage, count > 1) for stage in stages)
        return Step(timing, layout, stages, data, each, once, max(_optimizer(stage, timing, data) for stage in stages))

    @cached_property
    def timed(self) -> tuple[StageSeconds, ...]:
        """What the schedule knows of stages."""
        pairs = zip(self.stages, self.each, strict=True)
        return tuple(StageSeconds(ahead.total, back.total, stage.weights) for stage, (ahead, back) in pairs)

    @property
    def slowest(self) -> int:
        """The stage that takes longest."""
        return max(range(len(self.timed)), key=lambda n: self.timed[n].forward + self.timed[n].backward)

    @property
    def least(self) -> float:
        """Seconds that no schedule is faster than: those of the slowest stage without waiting."""
        slowest = self.timed[self.slowest]
        return self.layout.microbatches * (slowest.forward + slowest.backward) + self.once + self.states

    def seconds(self) -> Seconds:
        """With all microbatches in the order of the schedule."""
        timing, layout, slowest, device = self.timing, self.layout, self.slowest, self.timing.roofline.device
        took, sent = _scheduled(self.timed, timing, layout, timing.how)
        both = (self.each[slowest][0] + self.each[slowest][1]).times(layout.microbatches)
        unknown = unmeasured(self.stages[slowest], device, layout.dtype, timing.ranks * len(self.stages) > 1)
        parts = _parts(both, took - both.total, sent, self.once, self.states, unknown)
        total = took + self.once + self.states
        sheet = {"matrix products", "memory"} & set(unknown)
        low, high = (device.range.low, device.range.high) if sheet else MEASURED
        used = _utilised(self.stages, timing, layout, device, total)
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
    def elements(self) -> int:
        """Of parameters on a rank, before data ranks share them out."""
        return sum(unit.elements * unit.layers for unit in (*self.units, self.rest))

    @property
    def flops(self) -> tuple[int, int]:
        """Of a microbatch on a rank: of the model, three times a forward pass, and those that are done."""
        model = done = 0
        for unit in (*self.units, self.rest):
            flops = unit.timed.flops
            model += 3 * flops.forward * unit.layers
            done += (flops.forward + flops.backward) * unit.layers + flops.again * unit.recomputed
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

    def once(self, stage: Stage, piped: bool) -> float:
        """Seconds a step that nothing hides: half of those of the unit that holds the rest; in a pipeline gradients of
        all units at the end, and what the first microbatch waits for.
        """
        if self.ranks == 1:
            return 0.0
        rest = (self.gather(stage.rest) * (1 if piped else self.microbatches) + self.reduce(stage.rest)) / 2
        if not piped:
            return rest
        waits = sum(unit.layers * max(0.0, self.gather(unit) - unit.timed.forward.total) for unit in stage.units)
        return rest + waits + sum(unit.layers * self.reduce(unit) for unit in stage.units)


def _scheduled(stages: Sequence[StageSeconds], timing: Timing, layout: Layout, run: Run) -> tuple[float, float]:
    """Seconds of all microbatches, and how long one value takes from stage to stage."""
    count, device = len(stages), timing.roofline.device
    if count == 1:
        return layout.microbatches * (stages[0].forward + stages[0].backward), 0.0
    near = timing.ranks * count <= device.node
    crossing = max((sum(map(timing.sizes.bytes, op.inputs)) for op in timing.graph.ops if op.kind == "cut"), default=0)
    sent = timing.roofline.sent(crossing, near)
    name = run.schedule or layout.pp.schedule
    schedule = SCHEDULES[name]
    orders = ordered(name, count, layout.microbatches, run.virtual)
    cut = [stages[schedule.rank(stage, count)] for stage in range(count * run.virtual)]
    each = [StageSeconds(x.forward / run.virtual, x.backward / run.virtual, x.weights / run.virtual) for x in cut]
    return simulated(orders, each, sent), sent


def _optimizer(stage: Stage, timing: Timing, data: Data) -> float:
    return timing.roofline.moved(stage.elements / data.ranks * (STATES + CLIP))


def _parts(
    both: Parts, waiting: float, sent: float, once: float, states: float, unknown: tuple[str, ...]
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
        Part("waiting for weights and gradients", both.gathers + once, link),
        Part(
            "waiting in the pipeline",
            waiting if sent else 0.0,
            f"simulated, {float(f'{1e6 * sent:.1e}'):,.0f} us between stages",
        ),
        Part("optimizer", states, memory),
    )
    return tuple(row for row in rows if row.seconds > 0)


def unmeasured(stage: Stage, device: Device, dtype: str, several: bool) -> tuple[str, ...]:
    """What the step has that is modelled from the sheet: products where a tenth of their time or more is.

    `several`: there are ranks to talk to.
    """
    found, any_dtype = device.measured_in(dtype), device.measured
    modelled = sum(unit.timed.modelled * unit.layers for unit in (*stage.units, stage.rest))
    products = sum(
        (unit.timed.forward.matmuls + unit.timed.backward.matmuls) * unit.layers for unit in (*stage.units, stage.rest)
    )
    known = {
        "matrix products": modelled < 0.1 * products,
        "attention": bool(found and found.attention) or not any(unit.timed.forward.attention for unit in stage.units),
        "memory": any_dtype is not None and any_dtype.bandwidth is not None,
        "collectives": bool(any_dtype and any_dtype.collectives) or not several,
    }
    return tuple(name for name, is_known in known.items() if not is_known)


def _utilised(
    stages: Sequence[Stage], timing: Timing, layout: Layout, device: Device, total: float
) -> tuple[int, int, float, float, float]:
    """Tokens, ranks, and the three shares of the peak."""
    graph, symbols = timing.graph, timing.sizes.symbols
    fed = graph.groups.size(graph.groups.data)
    ranks = len(stages) * timing.ranks
    lengths = [symbols[name] for name in ("seq", "source", "target") if name in symbols] or [0]
    tokens = symbols.get("batch", 1) * sum(lengths) * layout.microbatches * fed
    most = device.peak(layout.dtype) * total * ranks
    flops = [stage.flops for stage in stages]
    alike = timing.ranks * layout.microbatches  # every rank of a stage does the same
    model, done = (sum(pair[n] for pair in flops) * alike for n in (0, 1))
    return tokens, ranks, 6 * active(graph) * tokens / most, model / most, done / most
