"""Seconds of collectives over all ranks that torchrun started."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import perf_counter

import torch
import torch.distributed as dist

from specc.cost.device import CollectiveTime
from specc.measure.kernels import Bench

SIZES = (2**18, 2**21, 2**24, 2**27)
"""Bytes of the whole value."""


def collectives(bench: Bench) -> list[CollectiveTime]:
    """Four kinds at four sizes. The process group is there."""
    ranks = dist.get_world_size()
    found: list[CollectiveTime] = []
    for bytes in SIZES[:2] if bench.quick else SIZES:
        whole = torch.ones(bytes // bench.dtype.itemsize // ranks * ranks, device=bench.device, dtype=bench.dtype)
        part = torch.ones(len(whole) // ranks, device=bench.device, dtype=bench.dtype)
        runs: dict[str, Callable[[], object]] = {
            "all-reduce": partial(dist.all_reduce, whole.clone()),
            "all-gather": partial(dist.all_gather_single, whole.clone(), part),
            "reduce-scatter": partial(dist.reduce_scatter_single, part, whole),
            "all-to-all": partial(dist.all_to_all_single, whole.clone(), whole),
        }
        for kind, run in runs.items():
            dist.barrier()
            took = _alike(bench, run)
            found.append(
                CollectiveTime.model_validate({"kind": kind, "ranks": ranks, "bytes": whole.nbytes, "seconds": took})
            )
    return found


def _alike(bench: Bench, run: Callable[[], object]) -> float:
    """Every rank runs it as often; the slowest one's time."""
    run()
    times = 3 if bench.quick else 10
    bench.wait()
    dist.barrier()
    start = perf_counter()
    for _ in range(times):
        run()
    bench.wait()
    everyone = torch.tensor(perf_counter() - start, device=bench.device)
    dist.all_reduce(everyone, dist.ReduceOp.MAX)
    return float(everyone) / times
