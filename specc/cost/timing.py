"""Seconds of what runs between two steps of a schedule: each distinct block timed once, layers added up by stage."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Literal

from specc.cost.counts import copies, run_again
from specc.cost.roofline import Roofline
from specc.cost.sizes import BYTES, Sizes
from specc.cost.work import CHAINED, VIEWS, work
from specc.ir.graph import Graph
from specc.ir.op import Op, Path, Ref
from specc.ir.repeat import layer_of
from specc.ir.segments import segments
from specc.ops.conversions import conversion
from specc.ops.work import Passes, Work
from specc.spec.schedules import ScheduleName

FUSED = "attention"  # the kind of op that is one kernel where scores are not written out


@dataclass(frozen=True)
class Run:
    """How a step is run, beside its layout. The first choice of each is what a generated file does on CUDA."""

    compiled: bool = False  # torch.compile joins ops on each element
    scores: Literal["fused", "written"] = "fused"  # attention as one kernel, or with its scores in memory
    selective: tuple[str, ...] = ()  # kinds of ops that run again in backward, whatever the layout says
    whole: bool = False  # what runs again runs to its end; torch stops at the last value that is needed
    cast: bool = True  # weights are in float32 and cast where they are used; else held in half, gradients in float32
    schedule: ScheduleName | None = None  # None: the layout's
    virtual: int = 1  # stages of a rank; one of the layout, which has one a rank, is cut into so many


@dataclass(frozen=True)
class Parts:
    """Seconds of one microbatch by what they are spent on."""

    matmuls: float = 0.0
    attention: float = 0.0
    elements: float = 0.0  # whatever reads and writes memory
    weights: float = 0.0  # casts of parameters, and adding up of gradients
    collectives: float = 0.0  # within a layer
    gathers: float = 0.0  # weights and gradients of data ranks, as far as they are waited for

    def __add__(self, other: Parts) -> Parts:
        return Parts(
            self.matmuls + other.matmuls,
            self.attention + other.attention,
            self.elements + other.elements,
            self.weights + other.weights,
            self.collectives + other.collectives,
            self.gathers + other.gathers,
        )

    def times(self, count: float) -> Parts:
        """Of so many."""
        matmuls, attention, elements = self.matmuls * count, self.attention * count, self.elements * count
        return Parts(matmuls, attention, elements, self.weights * count, self.collectives * count, self.gathers * count)

    @property
    def total(self) -> float:
        return self.matmuls + self.attention + self.elements + self.weights + self.collectives + self.gathers


@dataclass(frozen=True)
class Flops:
    """Of products of matrices and of attention, as torch's FlopCounterMode counts."""

    forward: int = 0
    backward: int = 0
    again: int = 0
    split: int = 0  # what runs again once more where gradients of weights come apart

    def __add__(self, other: Flops) -> Flops:
        forward, backward = self.forward + other.forward, self.backward + other.backward
        return Flops(forward, backward, self.again + other.again, self.split + other.split)

    def times(self, count: int) -> Flops:
        """Of so many."""
        return Flops(self.forward * count, self.backward * count, self.again * count, self.split * count)


@dataclass(frozen=True)
class Timed:
    """Of ops that run once. `weights` is the part of `backward` that are gradients of weights.

    `split`: what runs again once more where a schedule has these gradients apart.
    """

    forward: Parts = Parts()
    backward: Parts = Parts()
    again: Parts = Parts()
    weights: float = 0.0
    flops: Flops = Flops()
    split: float = 0.0
    modelled: float = 0.0  # seconds of products, forward and backward, that nothing measured is near

    def __add__(self, other: Timed) -> Timed:
        return Timed(
            self.forward + other.forward,
            self.backward + other.backward,
            self.again + other.again,
            self.weights + other.weights,
            self.flops + other.flops,
            self.split + other.split,
            self.modelled + other.modelled,
        )

    def times(self, count: int) -> Timed:
        """Of so many."""
        parts = (self.forward.times(count), self.backward.times(count), self.again.times(count))
        rest = (self.split * count, self.modelled * count)
        return Timed(*parts, self.weights * count, self.flops.times(count), *rest)


@dataclass(frozen=True)
class Unit:
    """Layers of a stage that are alike: how many, how many of them run again, what one takes, its parameters."""

    layers: int
    recomputed: int
    timed: Timed
    elements: int  # of parameters, on a rank before data ranks share them out; without those they do not
    held: int  # of parameters that it has for good


@dataclass(frozen=True, eq=False)
class Timing:
    """Of a placed graph on a device; blocks are timed when they are first asked for, once."""

    graph: Graph
    sizes: Sizes
    roofline: Roofline
    how: Run
    microbatches: int
    ops: dict[str, Timed] = field(default_factory=dict[str, Timed], repr=False)
    """By id, those that were timed; a graph that differs only in what runs again can have them of another."""
    _known: dict[Path, tuple[Timed, int, int]] = field(default_factory=dict[Path, tuple[Timed, int, int]], repr=False)
    _around: dict[tuple[str, ...], Unit] = field(default_factory=dict[tuple[str, ...], Unit], repr=False)

    def stage(self, number: int, last: bool) -> tuple[list[Unit], Unit]:
        """Layers of a pipeline stage, and what else it runs; the last one has the loss."""
        units: list[Unit] = []
        for path, ops in self.graph.ops_at.items():
            layer, repeat = (None, None) if path is None else (layer_of(path), self.graph.repeat_of(path))
            if path is None or layer is None or repeat is None or number not in self.graph.stages_of(path):
                continue
            numbers = repeat.layers(layer.offset, repeat.span(number))
            every = dict(repeat.op.attrs).get("recompute")
            again = [n for n in numbers if n % every == 0] if isinstance(every, int) else []
            if path not in self._known:
                self._known[path] = self._with_weights(ops, path)
            units.append(Unit(len(numbers), len(again), *self._known[path]))
        return units, self._outside(number, last)

    def _outside(self, number: int, last: bool) -> Unit:
        """Embedding, head and loss; parameters of the rest are a unit of FSDP by themselves."""
        ops = tuple(
            op
            for op in self.graph.ops_at.get(None, ())
            if (last if op.scope[:1] == ("loss",) else number in self.graph.stages_of(op.scope))
        )
        alike = tuple(op.id for op in ops)
        if alike not in self._around:
            self._around[alike] = Unit(1, 0, *self._with_weights(ops))
        return self._around[alike]

    def _with_weights(self, ops: Iterable[Op], path: Path | None = None) -> tuple[Timed, int, int]:
        """Timed with what is done to parameters, and how many there are, see `Unit`."""
        ops = tuple(ops)
        each = self.elements(ops)
        shared, held = sum(size for size, ranks in each if ranks > 1), sum(-(-size // ranks) for size, ranks in each)
        bytes = [(size, self._weights(ranks)) for size, ranks in each]
        ahead, back = (Parts(weights=self.roofline.moved(sum(size * both[n] for size, both in bytes))) for n in (0, 1))
        return self.timed(ops, path) + Timed(ahead, back, ahead), shared, held

    def _weights(self, ranks: int) -> tuple[float, float]:
        """Bytes of a parameter and a microbatch, forward and backward, where so many data ranks share it out.

        Cast: read in float32 and written, its gradient the other way; FSDP casts shards alone. Gradients are added up
        from the second microbatch on, under FSDP and where weights are held in half from the first.
        """
        whole, half = BYTES["float32"], self.roofline.element
        later = 1 - 1 / self.microbatches
        if ranks > 1:
            return (whole + half) / ranks, (half + 2 * whole) * later
        if not self.how.cast:
            return 0.0, half + 2 * whole
        cast = whole + half if half != whole else 0
        return cast, cast + 3 * whole * later

    def elements(self, ops: Iterable[Op]) -> list[tuple[int, int]]:
        """Of each trained parameter once, and how many data ranks share it out."""
        found = {
            param.path: (self.sizes.param(op, n), self.sizes.shared(op, n) or 1)
            for op in ops
            for n, param in enumerate(op.params)
            if param.trained
        }
        return list(found.values())

    def timed(self, ops: Iterable[Op], path: Path | None = None) -> Timed:
        """Of ops that run once; with the path of a block, what of it runs again."""
        ops = tuple(ops)
        self.ops.update((op.id, self._op(op)) for op in ops if op.id not in self.ops)
        again: dict[str, int] = {}  # with the weights of its part
        for part in segments(self.graph).get(path, ()) if path is not None else ():
            redone = part.ops if self.how.whole and part.again else run_again(self.graph, part)
            again |= {op.id: part.weights for op in redone if not part.keeps(op)}
        total = Timed()
        for op in ops:
            found = self.ops[op.id]
            total += found
            if op.kind in self.how.selective:
                total += Timed(backward=found.forward, flops=Flops(backward=found.flops.forward))
            elif op.id in again:
                flops, times = found.flops.forward, again[op.id]
                flops = Flops(again=flops, split=times * flops)
                total += Timed(again=found.forward, flops=flops, split=times * found.forward.total)
        return total

    def _op(self, op: Op) -> Timed:
        if op.kind in VIEWS:
            forward, backward = self._exchanged(op)
            there, back = self._copied(op)
            return Timed(Parts(collectives=forward, elements=there), Parts(collectives=backward, elements=back))
        passes = work(self.graph, op, self.sizes, self.how.scores == "written")
        if self.how.compiled and op.kind in CHAINED:
            passes = self._chained(op, passes)
        ahead, back = self._exchanged(op)
        forward, _ = self._pass(op, passes, False)
        backward, weights = self._pass(op, passes, True)
        products = (*passes.forward.matmuls, *passes.backward.matmuls)
        modelled = sum((self.roofline.matmul(product) for product in products if not self.roofline.knows(product)), 0.0)
        flops = Flops(passes.counted(passes.forward), passes.counted(passes.backward))
        parts = (forward + Parts(collectives=ahead), backward + Parts(collectives=back))
        return Timed(*parts, weights=weights, flops=flops, modelled=modelled)

    def _pass(self, op: Op, passes: Passes, backward: bool) -> tuple[Parts, float]:
        """Seconds, and of these gradients of weights."""
        done = passes.backward if backward else passes.forward
        found = {product: self.roofline.matmul(product) for product in done.matmuls}
        products = sum(found[product] for product in done.matmuls)
        weights = sum(found[product] for product in done.matmuls if product.layout == "tn" and op.params)
        if op.kind == FUSED and self.how.scores == "fused":
            rest = self._attention(op, passes, backward)
            return Parts(attention=rest), 0.0
        rest = self.roofline.kernels(done, passes.engine, backward) if done.kernels else 0.0
        if op.kind == FUSED:
            return Parts(attention=products + rest), 0.0
        return Parts(matmuls=products, elements=rest), weights

    def _attention(self, op: Op, passes: Passes, backward: bool) -> float:
        batch, heads, tokens, dim = self.sizes.dims(op.inputs[0])
        return self.roofline.attention(passes, (batch * heads, tokens, dim), backward)

    def _chained(self, op: Op, passes: Passes) -> Passes:
        """What is handed on within a chain is neither written nor read, and the chain is one kernel."""
        before = [ref for ref in op.inputs if self._handed_on(ref)]
        inside = self._handed_on(op.ref)
        out = self.sizes.bytes(op.ref)
        extra = self.sizes.numel(op.ref) if op.kind == "dropout" else 0  # the mask
        read = sum(self._read(ref, out) for ref in op.inputs if ref not in before)
        forward = Work(flops=passes.forward.flops, bytes=read + extra + out * (not inside), kernels=int(not inside))
        if passes.backward == Work():
            return Passes(forward)
        needed = out * (op.kind in ("mul", "activation"))
        backward = Work((), passes.backward.flops, read + out + needed + extra, int(not inside))
        return Passes(forward, backward)

    def _read(self, ref: Ref, most: int) -> int:
        """Of an operand; tables are small."""
        return min(self.sizes.bytes(ref), most) if self.graph.type(ref).grad else 0

    def _handed_on(self, ref: Ref) -> bool:
        """Whether one op of a chain makes it for the next one alone."""
        users = self.graph.users(ref)
        return self.graph.op(ref.op).kind in CHAINED and len(users) == 1 and users[0].kind in CHAINED

    def _exchanged(self, op: Op) -> tuple[float, float]:
        """Of collectives, forward and backward."""
        if op.kind == "convert":
            link = conversion(op.place("src"), op.place("dst"))
            if link is None:
                return 0.0, 0.0
            whole = max(self.sizes.bytes(op.inputs[0]), self.sizes.bytes(op.ref))
            back = link.backward if op.outs[0].grad else ""
            return tuple(self._over(op.text("mesh"), kind, whole) for kind in (link.forward, back))  # pyright: ignore
        ahead = back = 0.0
        for mesh, lowering in op.lowering:
            traffic = self.graph.definition(op).traffic(op, lowering)
            ahead += sum(
                count * self._over(mesh, kind, self._sent(op, kind)) for kind, count in traffic.forward.items()
            )
            back += sum(
                count * self._over(mesh, kind, self._sent(op, kind)) for kind, count in traffic.backward.items()
            )
        return ahead, back

    def _copied(self, op: Op) -> tuple[float, float]:
        """Of what torch copies around a collective: what goes in, forward and backward."""
        if not copies(op):
            return 0.0, 0.0
        sizes = (self.sizes.bytes(op.inputs[0]), self.sizes.bytes(op.ref))
        there, back = (self.roofline.kernels(Work(bytes=2 * size, kernels=1), "memory", False) for size in sizes)
        return there, back if op.outs[0].grad else 0.0

    def _sent(self, op: Op, kind: str) -> int:
        """Bytes that an op exchanges by itself: rows that go elsewhere, or a number of float32 for each row."""
        first = op.inputs[0]
        return self.sizes.bytes(first) if kind == "all-to-all" else BYTES["float32"] * prod(self.sizes.dims(first)[:-1])

    def _over(self, mesh: str, kind: str, bytes: int) -> float:
        if not kind:
            return 0.0
        return self.roofline.collective(kind, bytes, self.sizes.ranks[mesh], self.near((mesh,)))

    def near(self, axes: tuple[str, ...]) -> int:
        """How many ranks of a group over these mesh axes are in one node; inner axes are next to each other."""
        names = list(self.sizes.ranks)
        inner = prod(size for name, size in self.sizes.ranks.items() if names.index(name) > names.index(axes[-1]))
        return max(1, min(prod(self.sizes.ranks[name] for name in axes), self.roofline.device.node // inner))

    @cached_property
    def ranks(self) -> int:
        """Of one pipeline stage."""
        return prod(self.sizes.ranks.values())
