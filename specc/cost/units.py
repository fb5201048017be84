"""What FSDP2 gathers, holds and reduces: a unit is a layer of a stack, or all that stands outside of layers.

As torch 2.13 does it (torch/distributed/fsdp/_fully_shard): buffers of gathers and reductions are let go of when the
next one is through.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from specc.cost.sizes import BYTES
from specc.cost.storage import Live, Storage
from specc.cost.trace import GRADIENTS, Trace, Unit
from specc.ir.op import Op, Path

GATHERED, BUFFERS = "gathered weights", "buffers of collectives"


@dataclass(frozen=True)
class Held:
    """Elements of a unit: gathered, with rows that fill up, and in the shards of a rank."""

    gathered: int
    shard: int


class Units:
    """The state of all units of a rank. `stays`: what is gathered stays so until the end of the step (pipelines)."""

    def __init__(self, run: Trace, held: Mapping[Unit, Held], used: str, stays: bool):
        self.run, self.held, self.stays = run, held, stays
        self.used, self.reduced = BYTES[used], BYTES[run.sizes.dtype]
        self._order = list(held)
        self._full: dict[Unit, Storage] = {}
        self._early: dict[Unit, Storage] = {}
        self._shards: dict[Unit, Storage] = {}
        self._gather: Storage | None = None
        self._reduce: Storage | None = None
        self.last = True  # microbatch of a step, after which gradients are reduced

    @property
    def live(self) -> Live:
        return self.run.live

    def gather(self, unit: Unit, forward: bool) -> None:
        """Before a unit runs; in backward the one before it is gathered ahead of time."""
        if unit not in self.held:
            return
        if unit not in self._full:
            size = self.held[unit].gathered * self.used
            buffer = self._early.pop(unit, None) or self.live.make(size, BUFFERS)
            self._full[unit] = self.live.make(size, GATHERED)
            self._let_go()
            if forward:
                self._gather = buffer
            else:
                self.live.drop(buffer)
        if not forward and not self.stays:
            at = self._order.index(unit)
            before = self._order[at - 1] if at else None
            if before is not None and before not in self._full and before not in self._early:
                self._early[before] = self.live.make(self.held[before].gathered * self.used, BUFFERS)

    def _let_go(self) -> None:
        if self._gather is not None:
            self.live.drop(self._gather)
            self._gather = None

    def free(self, unit: Unit) -> None:
        """After a unit ran forward."""
        if unit is None:
            self._let_go()
        elif not self.stays and unit in self._full:
            self.live.drop(self._full.pop(unit))

    def finish(self, unit: Unit) -> None:
        """After a unit ran backward: gradients are reduced, or summed up where that comes later."""
        if unit not in self.held or (self.stays and unit is not None):
            return
        if unit is not None and unit in self._full:
            self.live.drop(self._full.pop(unit))
        if self.last and not self.stays:
            self._reduced(unit)

    def end(self) -> None:
        """After the last backward of a step."""
        for unit in reversed(self._order) if self.stays else ():
            if unit is not None:
                if unit in self._full:
                    self.live.drop(self._full.pop(unit))
                self._reduced(unit)
        if self.stays and None in self.held:
            self._reduced(None)
        if None in self._full:
            self.live.drop(self._full.pop(None))
        if self._reduce is not None:
            self.live.drop(self._reduce)
            self._reduce = None

    def _reduced(self, unit: Unit) -> None:
        self.live.place = f"reduction of gradients of {_name(unit)}"
        keys = self.run.graded.pop(unit, ())
        buffer = self.live.make(self.held[unit].gathered * self.reduced, BUFFERS)
        for key in keys:
            self.live.drop(self.run.gradients.pop(key))
        if unit not in self._shards:
            self._shards[unit] = self.live.make(self.held[unit].shard * self.reduced, GRADIENTS)
        if self._reduce is not None:
            self.live.drop(self._reduce)
        self._reduce = buffer


def _name(unit: Unit) -> str:
    return "what stands outside of layers" if unit is None else f"layer {unit[1]}"


def held_of(run: Trace, ops: Mapping[Unit, list[Op]], without: Collection[Path] = ()) -> dict[Unit, Held]:
    """Units in the order in which they run; rows of parameters are split over the ranks that sum up their gradients,
    and filled up. Where there are none, the rank has them for itself.
    """
    found: dict[Unit, Held] = {}
    for unit, own in ops.items():
        seen: set[Path] = set()
        gathered = shard = 0
        for op in own:
            for n, param in enumerate(op.params):
                if param.path in seen or not param.trained or (unit is None and param.path in without):
                    continue
                seen.add(param.path)
                size, rows = run.sizes.param(op, n), run.sizes.used(op, n)[0]
                ranks = run.sizes.shared(op, n) or 1
                part = -(-rows // ranks) * (size // rows)
                gathered, shard = gathered + part * ranks * (ranks > 1), shard + part
        found[unit] = Held(gathered, shard)
    return found
