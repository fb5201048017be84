"""Seconds of kernels and collectives on a device: numbers of its sheet by shape, corrected by what was measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from math import exp, log

from specc.cost.device import AttentionTime, Device
from specc.ops.work import Matmul, Passes, Work

NEAR = 8.0  # how many times larger or smaller, in each of its sizes, a measured shape may be to be asked
TILE, DEPTH = 96, 192
"""A product whose smaller side, or whose depth, is as long has half of the best share of the peak: tiles do not fill
the device, and its pipeline is not full. Chosen before any published time was compared."""

Shape = tuple[float, ...]
Known = tuple[tuple[Shape, float], ...]
"""Measured shapes, each with how many times as long as modelled it took."""


@dataclass(frozen=True, eq=False)
class Roofline:
    """Of a device, in one dtype."""

    device: Device
    dtype: str
    element: int  # bytes

    def matmul(self, product: Matmul) -> float:
        """Of one kernel; `count` products share it."""
        return self._matmul(product) * _nearby(self._matmuls.get(product.layout, ()), _shape(product))

    def knows(self, product: Matmul) -> bool:
        """Whether something like it was measured."""
        return any(_near(shape, _shape(product)) for shape, _ in self._matmuls.get(product.layout, ()))

    def _matmul(self, product: Matmul) -> float:
        side, depth = min(product.m, product.n), product.k
        share = self.device.shares.matmul * side / (side + TILE) * depth / (depth + DEPTH)
        computed = product.flops / (self.device.peak(self.dtype) * share)
        return max(computed, self.moved(self.element * product.elements)) + self.begin

    def moved(self, bytes: float) -> float:
        """Of reading and writing so many bytes."""
        return bytes / self.bandwidth

    def kernels(self, work: Work, engine: str, backward: bool) -> float:
        """Of what is no product: bytes or flops, whatever takes longer, and the begin of each kernel."""
        computed = 0.0
        if engine == "fused":
            computed = self._fused(work.flops * work.done, backward)
        return max(computed, self.moved(work.bytes)) + work.kernels * self.begin

    def attention(self, passes: Passes, shape: Shape, backward: bool) -> float:
        """Of the attention kernel; `shape`: batch x heads, tokens, head_dim."""
        modelled = self.kernels(passes.backward if backward else passes.forward, "fused", backward)
        return modelled * _nearby(self._attention[backward], shape)

    def _fused(self, flops: float, backward: bool) -> float:
        shares = self.device.shares
        share = shares.attention_backward if backward else shares.attention_forward
        return flops / (self.device.peak(self.dtype) * share)

    def collective(self, kind: str, bytes: float, ranks: int, near: int) -> float:
        """Of a whole value of so many bytes over ranks, `near` of which are in one node.

        Rings (an all-reduce is two), each rank sends (n - 1) / n of the value; across nodes, ranks of a node share out
        what leaves it.
        """
        if ranks == 1:
            return 0.0
        return self._collective(kind, bytes, ranks, near) * _nearby(self._collectives.get(kind, ()), (ranks, bytes))

    def _collective(self, kind: str, bytes: float, ranks: int, near: int) -> float:
        device = self.device
        rate, begin = device.link * device.shares.link, device.latency.link
        if near < ranks:
            across = device.network * device.shares.network
            rate, begin = min(rate, across * (1 if kind == "all-to-all" else near)), device.latency.network
        rounds = 2 if kind == "all-reduce" else 1
        return rounds * (ranks - 1) / ranks * bytes / rate + begin * (1 + 0.05 * (ranks - 1))

    def sent(self, bytes: float, near: bool) -> float:
        """From one pipeline stage to the next."""
        device = self.device
        rate = device.link * device.shares.link if near else device.network * device.shares.network
        return bytes / rate + (device.latency.link if near else device.latency.network)

    @cached_property
    def bandwidth(self) -> float:
        """Bytes a second that kernels reach."""
        found = self.device.measured
        if found is not None and found.bandwidth is not None:
            return found.bandwidth
        return self.device.bandwidth * self.device.shares.bandwidth

    @cached_property
    def begin(self) -> float:
        """Seconds until a kernel begins."""
        found = self.device.measured
        return self.device.latency.kernel if found is None or found.kernel is None else found.kernel

    @cached_property
    def _matmuls(self) -> dict[str, Known]:
        found = self.device.measured_in(self.dtype)
        rows = [] if found is None else found.matmuls
        return {
            layout: tuple(
                ((row.m, row.n, row.k, 1), getattr(row, layout) / self._matmul(Matmul(row.m, row.n, row.k, layout)))
                for row in rows
            )
            for layout in ("nt", "nn", "tn")
        }

    @cached_property
    def _attention(self) -> tuple[Known, Known]:
        """Forward and backward."""
        found = self.device.measured_in(self.dtype)
        rows = [] if found is None else found.attention
        return self._ratios(rows, False), self._ratios(rows, True)

    def _ratios(self, rows: Iterable[AttentionTime], backward: bool) -> Known:
        known: list[tuple[Shape, float]] = []
        for row in rows:
            many = row.batch * row.heads
            moved = self.element * many * row.tokens * row.head_dim * (8 if backward else 4)
            done = 0.5 + 0.5 / row.tokens
            flops = 4 * many * row.tokens**2 * row.head_dim * (2.5 if backward else 1)
            modelled = self.kernels(Work((), round(flops), moved, 1, done), "fused", backward)
            took = row.backward if backward else row.forward
            known.append(((many, row.tokens, row.head_dim), took / modelled))
        return tuple(known)

    @cached_property
    def _collectives(self) -> dict[str, Known]:
        rows = [] if self.device.measured is None else self.device.measured.collectives
        known: dict[str, list[tuple[Shape, float]]] = {}
        for row in rows:
            modelled = self._collective(row.kind, row.bytes, row.ranks, min(row.ranks, self.device.node))
            known.setdefault(row.kind, []).append(((row.ranks, row.bytes), row.seconds / modelled))
        return {kind: tuple(found) for kind, found in known.items()}


def _shape(product: Matmul) -> Shape:
    return (product.m, product.n, product.k, product.count)


def _far(shape: Shape, at: Shape) -> list[float]:
    """In each size, the logarithm of how many times as large the larger is."""
    return [abs(log(a / b)) for a, b in zip(shape, at, strict=True)]


def _near(shape: Shape, at: Shape) -> bool:
    return max(_far(shape, at)) <= log(NEAR)


def _nearby(known: Known, at: Shape) -> float:
    """How many times as long as modelled what is near took: a mean, in which nearer shapes have more weight."""
    total = weights = 0.0
    for shape, ratio in known:
        if _near(shape, at):
            weight = 1 / (1e-6 + sum(x * x for x in _far(shape, at)))
            total, weights = total + weight * log(ratio), weights + weight
    return exp(total / weights) if weights else 1.0
