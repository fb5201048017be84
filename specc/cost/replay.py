"""A block that is run once, and of which only the sums are done again for layers that are alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from specc.cost.storage import Live, Storage
from specc.cost.trace import ACTIVATIONS, FLOWING, Env, Mark, Tape, Trace, Value
from specc.ir.op import Op, Ref

T = TypeVar("T")
Block = Callable[[Trace, Env, Tape], Env]
"""One layer on a trace: what leaves it, held once."""


@dataclass(frozen=True)
class Most:
    """The most of a run of a block beside what was there before, by part, and where that was."""

    parts: Mapping[str, int]
    where: str


@dataclass(frozen=True)
class Profile:
    """A block, beside what it is given: the most in each direction, and what it leaves for backward by part.

    `kept`: which of the values that it reads it keeps. `outs`: bytes of what leaves it, and those of them that it does
    not keep itself. `first` and `later`: the most of backward in the first
    microbatch, which makes the gradients of parameters, and in others.
    """

    forward: Most
    left: Mapping[str, int]
    kept: tuple[Ref, ...]
    outs: Mapping[Ref, tuple[int, int]]
    first: Most
    later: Most


@dataclass(eq=False)
class Replayed:
    """On a tape, in place of a block."""

    trace: Trace
    profile: Profile
    ops: tuple[Op, ...]
    layer: int
    ins: Env
    outs: Env
    held: list[Storage] = field(default_factory=list[Storage])

    def backward(self, grads: dict[Value, Storage]) -> None:
        """As the block would."""
        live, trace = self.trace.live, self.trace
        new = {
            (param.path, self.layer): trace.gradient_of(op, n)
            for op in self.ops
            for n, param in enumerate(op.params)
            if param.trained and (param.path, self.layer) not in trace.gradients
        }
        most = self.profile.first if new else self.profile.later
        live.place = most.where
        live.surge(most.parts)
        given = [grads.pop(value) for value in self.outs.values() if value in grads]
        live.change(self.profile.left, -1)
        for storage in (*self.held, *given):
            live.drop(storage)
        for key, size in new.items():
            trace.grade(key, size)
        for value in self.ins.values():
            if value.grad:
                trace.add(grads, value, live.make(value.bytes, FLOWING))


def measured(live: Live, act: Callable[[], T]) -> tuple[T, Most, dict[str, int]]:
    """What an act returns, the most of it beside what was there before, and what it leaves."""
    peak, where, at_peak = live.peak, live.where, live.at_peak
    before = live.again()
    made = act()
    most, left = Most(_more(live.at_peak, before), live.where), _more(live.parts, before)
    if peak >= live.peak:
        live.peak, live.where, live.at_peak = peak, where, at_peak
    return made, most, left


def profiled(like: Trace, block: Block, reads: Iterable[Ref], env: Mapping[Ref, Value]) -> Profile:
    """Run the block by itself, twice."""
    live = Live()
    trace = like.alone(live)
    ins = {ref: Value(live.make(env[ref].bytes, "given"), env[ref].bytes, env[ref].grad) for ref in reads}
    runs: list[Most] = []
    forward, left, kept, sizes = Most({}, ""), dict[str, int](), tuple[Ref, ...](), dict[Ref, tuple[int, int]]()
    for _ in range(2):
        tape: Tape = []
        parts = live.again()
        outs = block(trace, ins, tape)
        forward = Most(_more(live.at_peak, parts), live.where)
        for value in outs.values():
            assert value.storage is not None
            live.drop(value.storage)
        sizes = {ref: (value.bytes, 0 if _held(value) else value.bytes) for ref, value in outs.items()}
        left = _more(live.parts, parts)
        kept = tuple(ref for ref, value in ins.items() if _held(value, 2))
        grads = {value: live.make(value.bytes, FLOWING) for value in outs.values() if value.grad}
        parts = live.again()
        trace.backward(tape, grads)
        runs.append(Most(_more(live.at_peak, parts), live.where))
        for storage in grads.values():
            live.drop(storage)
    return Profile(forward, left, kept, sizes, *runs)


def _held(value: Value, times: int = 1) -> bool:
    return value.storage is not None and value.storage.holders >= times


def _more(parts: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    found = {part: size - before.get(part, 0) for part, size in parts.items()}
    return {part: size for part, size in found.items() if size}


def replay(trace: Trace, profile: Profile, ops: tuple[Op, ...], layer: int, ins: Env, tape: Tape) -> Env:
    """The block forward; what leaves it, held once."""
    live = trace.live
    live.place = profile.forward.where
    live.surge(profile.forward.parts)
    live.change(profile.left)
    types = {ref: trace.graph.type(ref) for ref in profile.outs}
    outs = {ref: Value(live.make(own, ACTIVATIONS), size, types[ref].grad) for ref, (size, own) in profile.outs.items()}
    held = [live.hold(storage) for ref in profile.kept if (storage := ins[ref].storage) is not None]
    tape.append(Mark(Replayed(trace, profile, ops, layer, ins, outs, held).backward))
    return outs
