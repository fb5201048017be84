"""Layouts of so many devices: which there are, which fit, and which are fastest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush

from specc.cost.device import Device
from specc.cost.memory import GIB, Kind, fits, memory, most
from specc.cost.seconds import Seconds, Step
from specc.cost.timing import Timed
from specc.ir.graph import Graph
from specc.spec.core import Layout

MOST = 5  # layouts that are told
PART = 8192  # tokens of a row that a rank of cp has at least: shorter ones are no work to share out


@dataclass(frozen=True)
class Split:
    """How ranks are shared out: tp within a node, stages, parts of rows, and data ranks with what is left."""

    tp: int
    stages: int
    data: int
    parts: int = 1

    def text(self, microbatches: int, checkpoint: str, precision: str) -> str:
        """The layout as it stands in a spec; what is 1, or the default, is left out."""
        keys: dict[str, int | str] = {"tp": self.tp} | ({"sequence_parallel": "true"} if self.tp > 1 else {})
        keys |= {"cp": self.parts, "pp": self.stages, "dp": self.data, "microbatches": microbatches}
        keys |= {} if checkpoint == "none" else {"checkpoint": checkpoint}
        keys |= {} if precision == "fp32" else {"precision": precision}
        return f"{{{', '.join(f'{name}: {value}' for name, value in keys.items() if value != 1)}}}"


Made = tuple[Layout, Graph]
Make = Callable[[str], Made | None]
"""A layout by its text, with the placed graph; None where the model does not allow it."""
Feed = Callable[[Layout, Graph], Mapping[str, int] | None]
"""What a rank is fed, None where the batch cannot be shared out."""


@dataclass(frozen=True)
class Found:
    """A layout that fits, as text too; `peak` is bytes of the stage that needs most."""

    text: str
    layout: Layout
    seconds: Seconds
    peak: int


@dataclass(frozen=True, eq=False)
class _Tried:
    """A layout whose stages are timed. `rows` are those of a microbatch."""

    text: str
    split: Split
    checkpoint: str
    rows: int
    layout: Layout
    graph: Graph
    fed: Mapping[str, int]
    step: Step

    @property
    def way(self) -> tuple[Split, str]:
        """What it has in common with others that differ in microbatches alone."""
        return self.split, self.checkpoint


@dataclass(frozen=True)
class Wish:
    """So many devices for `rows` sequences of a step, each of `length` tokens; `keep` are results that may be kept
    where layers run again.
    """

    device: Device
    ranks: int
    rows: int
    keep: tuple[str, ...] = ()
    length: int = 0

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """From what is fastest to what needs the fewest bytes."""
        some = (f"{{save: [{', '.join(self.keep)}]}}",) if self.keep else ()
        return ("none", *some, "full")


def search(wish: Wish, layers: int, precision: str, make: Make, feed: Feed) -> list[Found]:
    """The fastest that fit, at most one of each way to share out ranks."""
    every = splits(wish.device, wish.ranks, layers, wish.length)
    tried = [item for split in every for item in _tried(split, wish, precision, make, feed)]
    fitting = _Fitting(wish.device, tried)
    found: dict[Split, Found] = {}
    waiting: list[tuple[float, int, Seconds | None]] = [(item.step.least, n, None) for n, item in enumerate(tried)]
    heapify(waiting)
    while waiting and len(found) < MOST:
        _, n, seconds = heappop(waiting)
        item = tried[n]
        if item.split in found or not fitting.first(item):
            continue
        if seconds is None:  # a schedule is run only when no other layout could be faster
            seconds = item.step.seconds()
            heappush(waiting, (seconds.step, n, seconds))
        else:
            peak = most(item.graph, item.layout, item.fed, fitting.kind)
            if fits(peak, wish.device):
                found[item.split] = Found(item.text, item.layout, seconds, peak)
    return list(found.values())


class _Fitting:
    """What is known to fit or not: more rows of a microbatch need more bytes, whatever else is alike."""

    def __init__(self, device: Device, tried: Sequence[_Tried]):
        self.device = device
        self.kind = Kind("cpu" if device.name == "cpu" else "cuda")
        self._least = {item.way: item for item in sorted(tried, key=lambda item: -item.rows)}
        self._fit: dict[tuple[Split, str], int] = {}  # the most rows that do
        self._over: dict[tuple[Split, str], int] = {}  # the fewest that do not

    def first(self, item: _Tried) -> bool:
        """Whether the first stage does, in as few runs as can be."""
        if not fits(item.step.stages[0].held * self.kind.held, self.device):
            return False
        for one in (self._least[item.way], item):
            if one.rows > self._fit.get(item.way, 0) and one.rows < self._over.get(item.way, one.rows + 1):
                fit = fits(memory(one.graph, one.layout, one.fed, 0, self.kind).peak, self.device)
                (self._fit if fit else self._over)[item.way] = one.rows
        return item.rows <= self._fit.get(item.way, 0)


def splits(device: Device, ranks: int, layers: int, length: int = 0) -> Iterator[Split]:
    """Powers of 2; tp does not leave its node, and only long rows are shared out."""
    for tp in _powers(min(device.node, ranks)):
        for stages in _powers(min(layers, ranks // tp)):
            for parts in _powers(max(1, min(length // PART, ranks // (tp * stages)))):
                if ranks % (tp * stages * parts) == 0:
                    yield Split(tp, stages, ranks // (tp * stages * parts), parts)


def _powers(most: int) -> list[int]:
    return [2**n for n in range(most.bit_length()) if 2**n <= most]


def _tried(split: Split, wish: Wish, precision: str, make: Make, feed: Feed) -> Iterator[_Tried]:
    """Every number of microbatches, with every checkpointing that the model allows."""
    if wish.rows % split.data:
        return
    own = wish.rows // split.data
    counts = [own // each for each in _powers(own) if own % each == 0 and own // each >= split.stages]
    known: dict[int, dict[str, Timed]] = {count: {} for count in counts}
    for checkpoint in wish.checkpoints if counts else ():
        compiled = make(split.text(counts[0], checkpoint, precision))
        for count in counts if compiled is not None else ():
            assert compiled is not None
            layout = replace(compiled[0], microbatches=count)
            fed = feed(layout, compiled[1])
            if fed is not None:
                step = Step.of(compiled[1], layout, wish.device, fed, known=known[count])
                text = split.text(count, checkpoint, precision)
                yield _Tried(text, split, checkpoint, own // count, layout, compiled[1], fed, step)


def reason(one: Found, before: Found) -> str:
    """What differs from the one before: bytes, and the part of a step that takes most more."""
    gib = (one.peak - before.peak) / GIB
    parts = {part.name: part.seconds for part in before.seconds.parts}
    more = {part.name: part.seconds - parts.get(part.name, 0.0) for part in one.seconds.parts}
    name = max(more, key=lambda key: more[key])
    share = 100 * more[name] / before.seconds.step
    return f"{gib:+.1f} GiB, {name} {share:+.0f} % of a step"
