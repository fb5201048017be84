"""Run a function on several ranks: forked processes that talk over gloo. A start takes about a tenth of a second."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as fc
import torch.distributed.fsdp
import torch.distributed.pipelining
import torch.distributed.tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.debug import _clear_sharding_prop_cache
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._pytree import tree_map_only


class RankError(RuntimeError):
    """A rank raised, died or did not end; the message holds its traceback."""


def run_ranks(world: int, function: Callable[..., Any], *args: Any, timeout: float = 120.0) -> list[Any]:
    """`function(*args)` on `world` ranks of a gloo group; the results by rank, tensors in them as numpy arrays.

    Raises RankError for the first rank that fails, and for the ranks still running after `timeout` seconds. Needs an
    operating system that forks.
    """
    _warm()
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe(duplex=False) for _ in range(world)]
    with tempfile.TemporaryDirectory() as folder:
        store = os.path.join(folder, "store")
        processes = [
            context.Process(
                target=_rank, args=(rank, world, store, timeout, pipes[rank][1], function, args), daemon=True
            )
            for rank in range(world)
        ]
        try:
            for process in processes:
                process.start()
            for _, sender in pipes:
                sender.close()
            return _collect({receiver: rank for rank, (receiver, _) in enumerate(pipes)}, timeout)
        finally:
            for process in processes:
                process.kill()
            for process in processes:
                process.join()
            for receiver, _ in pipes:
                receiver.close()


def _collect(open_pipes: dict[Connection, int], timeout: float) -> list[Any]:
    results: dict[int, Any] = {}
    deadline = time.monotonic() + timeout
    world = len(open_pipes)
    while open_pipes:
        ready = wait(list(open_pipes), timeout=max(0.0, deadline - time.monotonic()))
        if not ready:
            ranks = ", ".join(str(rank) for rank in sorted(open_pipes.values()))
            raise RankError(f"no result from rank {ranks} of {world} after {timeout:.0f} s")
        for pipe in ready:
            assert isinstance(pipe, Connection)
            rank = open_pipes.pop(pipe)
            try:
                good, value = pipe.recv()
            except EOFError:
                raise RankError(f"rank {rank} of {world} died") from None
            if not good:
                raise RankError(f"rank {rank} of {world} failed\n{value}")
            results[rank] = value
    return [results[rank] for rank in range(world)]


def _rank(
    rank: int, world: int, store: str, timeout: float, pipe: Connection, function: Callable[..., Any], args: Any
) -> None:
    try:
        _end_with_parent()
        torch.set_num_threads(1)
        _clear_sharding_prop_cache()  # its specs hold meshes on which this process still has its parent's rank
        limit = timedelta(seconds=timeout)
        dist.init_process_group("gloo", store=dist.FileStore(store, world), rank=rank, world_size=world, timeout=limit)
        pipe.send((True, tree_map_only(torch.Tensor, _plain, function(*args))))
        dist.barrier()  # nobody leaves while another still talks to it
    except BaseException:  # whatever ended this rank is reported
        pipe.send((False, traceback.format_exc()))
    finally:
        pipe.close()
        os._exit(0)  # a forked copy of the parent must not run its exit handlers


def _end_with_parent() -> None:
    """On Linux, whatever ends the parent ends this process, too; elsewhere its timeout does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _plain(tensor: torch.Tensor) -> Any:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


@cache
def _warm() -> None:
    """Do once, before the fork, what each rank would do on its first collective: it takes most of a second."""
    if dist.is_initialized():
        return
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("tp",))
    placed = torch.distributed.tensor.distribute_tensor(torch.ones(2, requires_grad=True), mesh, src_data_rank=None)
    fc.wait_tensor(fc.all_reduce(placed.to_local(), "sum", mesh)).sum().backward()
    dist.destroy_process_group()
