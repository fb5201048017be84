"""Layouts of so many devices: which there are, which fit, and which are fastest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from specc.cost.device import Device
from specc.cost.memory import GIB, Kind, Memory, fits, memories, memory
from specc.cost.seconds import Seconds, step
from specc.ir.graph import Graph
from specc.spec.core import Layout

MOST = 5  # layouts that are told


@dataclass(frozen=True)
class Split:
    """How ranks are shared out: tp within a node, stages, and data ranks with what is left."""

    tp: int
    stages: int
    data: int

    def text(self, microbatches: int, checkpoint: str, precision: str) -> str:
        """The layout as it stands in a spec; what is 1, or the default, is left out."""
        keys: dict[str, int | str] = {"tp": self.tp} | ({"sequence_parallel": "true"} if self.tp > 1 else {})
        keys |= {"pp": self.stages, "dp": self.data, "microbatches": microbatches}
        keys |= {} if checkpoint == "none" else {"checkpoint": checkpoint}
        keys |= {} if precision == "fp32" else {"precision": precision}
        return f"{{{', '.join(f'{name}: {value}' for name, value in keys.items() if value != 1)}}}"


Compiled = tuple[Layout, Graph]
Make = Callable[[str], Compiled | None]
"""A layout by its text, with the placed graph; None where the model does not allow it."""
Feed = Callable[[Layout, Graph], Mapping[str, int] | None]
"""What a rank is fed, None where the batch cannot be shared out."""


@dataclass(frozen=True)
class Found:
    """A layout that fits, as text too."""

    text: str
    layout: Layout
    seconds: Seconds
    stages: tuple[Memory, ...]

    @property
    def peak(self) -> int:
        """Bytes of the stage that needs most."""
        return max(stage.peak for stage in self.stages)


@dataclass(frozen=True)
class _Timed:
    text: str
    split: Split
    layout: Layout
    graph: Graph
    fed: Mapping[str, int]
    seconds: Seconds


@dataclass(frozen=True)
class Wish:
    """So many devices for `rows` sequences of a step; `keep` are results that may be kept where layers run again."""

    device: Device
    ranks: int
    rows: int
    keep: tuple[str, ...] = ()

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """From what is fastest to what needs the fewest bytes."""
        some = (f"{{save: [{', '.join(self.keep)}]}}",) if self.keep else ()
        return ("none", *some, "full")


def search(wish: Wish, layers: int, precision: str, make: Make, feed: Feed) -> list[Found]:
    """The fastest that fit, at most one of each way to share out ranks."""
    device = wish.device
    every = splits(device, wish.ranks, layers)
    timed = [item for split in every for item in _timed(split, wish, precision, make, feed)]
    kind = Kind("cpu" if device.name == "cpu" else "cuda")
    found: dict[Split, Found] = {}
    for item in sorted(timed, key=lambda item: item.seconds.step):
        if len(found) == MOST:
            break
        first = memory(item.graph, item.layout, item.fed, 0, kind) if item.split not in found else None
        if first is None or not fits(first.peak, device):
            continue
        stages = tuple(memories(item.graph, item.layout, item.fed, kind))
        made = Found(item.text, item.layout, item.seconds, stages)
        if fits(made.peak, device):
            found[item.split] = made
    return list(found.values())


def splits(device: Device, ranks: int, layers: int) -> Iterator[Split]:
    """Powers of 2; tp does not leave its node."""
    for tp in _powers(min(device.node, ranks)):
        for stages in _powers(min(layers, ranks // tp)):
            if ranks % (tp * stages) == 0:
                yield Split(tp, stages, ranks // (tp * stages))


def _powers(most: int) -> list[int]:
    return [2**n for n in range(most.bit_length()) if 2**n <= most]


def _timed(split: Split, wish: Wish, precision: str, make: Make, feed: Feed) -> Iterator[_Timed]:
    """Every number of microbatches, with every checkpointing that the model allows."""
    if wish.rows % split.data:
        return
    own = wish.rows // split.data
    counts = [own // each for each in _powers(own) if own % each == 0 and own // each >= split.stages]
    for checkpoint in wish.checkpoints if counts else ():
        compiled = make(split.text(counts[0], checkpoint, precision))
        for count in counts if compiled is not None else ():
            assert compiled is not None
            layout = replace(compiled[0], microbatches=count)
            fed = feed(layout, compiled[1])
            if fed is not None:
                seconds = step(compiled[1], layout, wish.device, fed)
                yield _Timed(split.text(count, checkpoint, precision), split, layout, compiled[1], fed, seconds)


def reason(one: Found, before: Found) -> str:
    """What differs from the one before: bytes, and the part of a step that takes most more."""
    gib = (one.peak - before.peak) / GIB
    parts = {part.name: part.seconds for part in before.seconds.parts}
    more = {part.name: part.seconds - parts.get(part.name, 0.0) for part in one.seconds.parts}
    name = max(more, key=lambda key: more[key])
    share = 100 * more[name] / before.seconds.step
    return f"{gib:+.1f} GiB, {name} {share:+.0f} % of a step"
