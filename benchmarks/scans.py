"""What scans in chunks cost against loops over time, forward and backward.

    python benchmarks/scans.py [runs]

Prints medians, both in turn in one process with the same inputs, whose results are compared before anything is timed.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from specc.kernels import delta, scans

SEQ, HEADS, GROUPS, FEATURES, STATE = 2048, 8, 2, 64, 64
LEAST = 5.0  # how many times faster chunks must be


@dataclass(frozen=True)
class Case:
    """A scan in chunks, the same as a loop, and the shapes of what they take for a length of sequences."""

    name: str
    chunks: Callable[..., Tensor]
    loop: Callable[..., Tensor]
    shapes: Callable[[int], tuple[tuple[int, ...], ...]]


def state_space(x: Tensor, dt: Tensor, b: Tensor, c: Tensor, a_log: Tensor, d: Tensor, dt_bias: Tensor) -> Tensor:
    """One position after the other."""
    steps = F.softplus(dt + dt_bias)
    b, c = (z.repeat_interleave(x.size(1) // z.size(1), 1) for z in (b, c))
    decay, written = (-a_log.exp() * steps).exp(), x * steps.transpose(1, 2).unsqueeze(-1)
    state = x.new_zeros(*x.shape[:2], x.size(-1), b.size(-1))
    out: list[Tensor] = []
    for t in range(x.size(2)):
        state = decay[:, t, :, None, None] * state + written[:, :, t, :, None] * b[:, :, t, None]
        out.append((state @ c[:, :, t, :, None]).squeeze(-1))
    return torch.stack(out, 2) + d[:, None, None] * x


def delta_rule(q: Tensor, k: Tensor, v: Tensor, a: Tensor, beta: Tensor, a_log: Tensor, dt_bias: Tensor) -> Tensor:
    """One position after the other."""
    decay = (-a_log.exp() * F.softplus(a + dt_bias)).exp()
    q, k = (delta.unit(z).repeat_interleave(v.size(1) // z.size(1), 1) for z in (q, k))
    q = q * q.size(-1) ** -0.5
    state = v.new_zeros(*v.shape[:2], v.size(-1), k.size(-1))
    out: list[Tensor] = []
    for t in range(v.size(2)):
        state = decay[:, t, :, None, None] * state
        key = k[:, :, t, :, None]
        new = (v[:, :, t] - (state @ key).squeeze(-1)) * beta[:, t, :, None]
        state = state + new.unsqueeze(-1) * key.mT
        out.append((state @ q[:, :, t, :, None]).squeeze(-1))
    return torch.stack(out, 2)


CASES = (
    Case(
        "state space",
        scans.state_space,
        state_space,
        lambda seq: (
            (1, HEADS, seq, FEATURES),
            (1, seq, HEADS),
            *((1, GROUPS, seq, STATE),) * 2,
            *((HEADS,),) * 3,
        ),
    ),
    Case(
        "gated delta",
        delta.delta_rule,
        delta_rule,
        lambda seq: (
            *((1, GROUPS, seq, STATE),) * 2,
            (1, HEADS, seq, FEATURES),
            *((1, seq, HEADS),) * 2,
            *((HEADS,),) * 2,
        ),
    ),
)


def step(function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> tuple[float, Tensor, tuple[Tensor, ...]]:
    """Seconds of forward and backward, the result and all gradients."""
    start = time.perf_counter()
    made = function(*inputs)
    gradients = torch.autograd.grad(made.sum(), inputs)
    return time.perf_counter() - start, made.detach(), gradients


def measure(case: Case, runs: int, seq: int = SEQ) -> float:
    """How many times faster chunks are; a row of the table. Raises SystemExit where results differ."""
    g = torch.Generator().manual_seed(0)
    inputs = tuple(torch.randn(*shape, generator=g).requires_grad_() for shape in case.shapes(seq))
    _, ours, own = step(case.chunks, inputs)
    _, theirs, other = step(case.loop, inputs)
    for a, b in zip((ours, *own), (theirs, *other), strict=True):
        if not (a - b).abs().max() <= 1e-3 * max(1.0, b.abs().max().item()):
            raise SystemExit(f"{case.name}: not the same")
    seconds: dict[str, list[float]] = {"chunks": [], "loop": []}
    for _ in range(runs):
        seconds["chunks"].append(step(case.chunks, inputs)[0])
        seconds["loop"].append(step(case.loop, inputs)[0])
    chunks, loop = (statistics.median(values) for values in seconds.values())
    print(f"{case.name:<12} {chunks:8.3f} {loop:8.3f} {loop / chunks:6.1f}")
    return loop / chunks


def main(runs: int) -> None:
    """The table; fails where chunks are not fast enough."""
    print(f"forward and backward of {SEQ} positions, medians of {runs}, {torch.get_num_threads()} threads, seconds")
    print(f"{'scan':<12} {'chunks':>8} {'loop':>8} {'times':>6}")
    slow = [case.name for case in CASES if measure(case, runs) < LEAST]
    if slow:
        raise SystemExit(f"not {LEAST:g} times faster: {', '.join(slow)}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
