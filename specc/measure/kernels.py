"""Seconds of matrix products, attention, memory and the begin of a kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import torch
import torch.nn.functional as F
from torch import Tensor

from specc.cost.device import AttentionTime, MatmulTime

MATMULS = (
    *((512, 512, 512), (2048, 2048, 2048), (4096, 4096, 4096), (8192, 8192, 8192)),
    *((4096, 14336, 4096), (4096, 4096, 14336), (4096, 32000, 4096), (16384, 4096, 4096)),
    *((8192, 1024, 8192), (8192, 8192, 1024), (2048, 512, 4096), (1024, 1024, 4096)),
)
"""m, n and k: square ones for the curve, others as layers have them, whole and shared out by tensor parallelism."""
QUICK = ((256, 256, 256), (512, 256, 1024), (1024, 1024, 256))
HEADS = (8, 32, 64)
TOKENS, HEAD_DIM = 4096, 128
VALUES = 2**27
"""Elements that are read and written to measure memory: more than any cache holds."""
REPEATS, LEAST = 10, 0.2
"""Timed runs at most, and seconds after which no more are begun."""


@dataclass(frozen=True)
class Bench:
    """Where and in which type. `quick` shrinks every size, for a first look."""

    device: torch.device
    dtype: torch.dtype
    quick: bool = False

    @property
    def slower(self) -> int:
        """What sizes are divided by where an accelerator's would take hours."""
        return 4 if self.device.type == "cpu" else 1

    def wait(self) -> None:
        """Until all that was begun is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, run: Callable[[], object], times: int = 1) -> float:
        """Of one run, the median of several of `times` each, after one that is not counted."""
        run()
        took: list[float] = []
        while len(took) < (3 if self.quick else REPEATS) and (sum(took) < LEAST or len(took) < 3):
            self.wait()
            start = perf_counter()
            for _ in range(times):
                run()
            self.wait()
            took.append(perf_counter() - start)
        return median(took) / times

    def made(self, *shape: int) -> Tensor:
        """Random numbers."""
        return torch.randn(shape, device=self.device, dtype=self.dtype)


def matmuls(bench: Bench) -> list[MatmulTime]:
    """Every shape in three layouts."""
    found: list[MatmulTime] = []
    for shape in QUICK if bench.quick else MATMULS:
        m, n, k = shape if bench.quick else (size // bench.slower for size in shape)
        nt, nn, tn = (
            bench.seconds(lambda a=a, b=b: a @ b)
            for a, b in (
                (bench.made(m, k), bench.made(n, k).T),
                (bench.made(m, k), bench.made(k, n)),
                (bench.made(k, m).T, bench.made(k, n)),
            )
        )
        found.append(MatmulTime(m=m, n=n, k=k, nt=nt, nn=nn, tn=tn))
    return found


def attention_times(bench: Bench) -> list[AttentionTime]:
    """Causal, forward and backward, at several numbers of heads."""
    tokens, dim = (256, 64) if bench.quick else (TOKENS // bench.slower, HEAD_DIM)
    found: list[AttentionTime] = []
    for heads in HEADS[:1] if bench.quick else HEADS:
        q, k, v = (bench.made(1, heads, tokens, dim).requires_grad_() for _ in range(3))

        def ahead(q: Tensor = q, k: Tensor = k, v: Tensor = v) -> Tensor:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)

        out = ahead()
        given = torch.randn_like(out)

        def back(out: Tensor = out, given: Tensor = given, of: tuple[Tensor, ...] = (q, k, v)) -> object:
            return torch.autograd.grad(out, of, given, retain_graph=True)

        took = (bench.seconds(ahead), bench.seconds(back))
        row = AttentionTime(batch=1, heads=heads, tokens=tokens, head_dim=dim, forward=took[0], backward=took[1])
        found.append(row)
    return found


def bandwidth(bench: Bench) -> float:
    """Bytes a second that an op on each element reads and writes."""
    x = bench.made(2**22 if bench.quick else VALUES // bench.slower)
    out = torch.empty_like(x)
    return 2 * x.nbytes / bench.seconds(lambda: torch.mul(x, 2, out=out))


def begin(bench: Bench) -> float:
    """Seconds from one small kernel to the next."""
    x = bench.made(1)
    return bench.seconds(lambda: x.mul_(1), 200)
