"""Run a function on several ranks: forked processes that talk over gloo. A start takes about a tenth of a second."""

from __future__ import annotations

import ctypes
import faulthandler
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path
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

GRACE = 0.2  # seconds in which the death of a rank is noticed after another has failed because of it


class RankError(RuntimeError):
    """A rank raised, died or did not end; the message holds its traceback."""


class RankDied(RankError):
    """The process of a rank ended without a word: it was killed, mostly for memory."""


def run_ranks(world: int, function: Callable[..., Any], *args: Any, timeout: float = 120.0) -> list[Any]:
    """`function(*args)` on `world` ranks of a gloo group; the results by rank, tensors in them as numpy arrays.

    Raises RankDied for a rank that was killed, RankError for the first that fails and for those still running after
    `timeout` seconds. Needs an operating system that forks.
    """
    _warm()
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe(duplex=False) for _ in range(world)]
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            context.Process(
                target=_rank, args=(rank, world, Path(folder), timeout, pipes[rank][1], function, args), daemon=True
            )
            for rank in range(world)
        ]
        try:
            for process in processes:
                process.start()
            for _, sender in pipes:
                sender.close()
            receivers = {rank: receiver for rank, (receiver, _) in enumerate(pipes)}
            return _collect(_Ranks(Path(folder), receivers, dict(enumerate(processes))), timeout)
        finally:
            for process in processes:
                process.kill()
            for process in processes:
                process.join()
            for receiver, _ in pipes:
                receiver.close()


@dataclass
class _Ranks:
    """What is known of the ranks. A failure has the moment at which its rank told it: others fail because of it."""

    folder: Path  # where each writes what it did when it crashed
    pipes: dict[int, Connection]
    processes: dict[int, ForkProcess]  # those that are not known to have ended
    results: dict[int, Any] = field(default_factory=dict[int, Any])
    failed: list[tuple[float, int, str]] = field(default_factory=list[tuple[float, int, str]])
    died: dict[int, int] = field(default_factory=dict[int, int])  # exit codes

    def look(self, seconds: float) -> bool:
        """Wait until some rank says something or ends; False where none does."""
        ends = {process.sentinel: rank for rank, process in self.processes.items()}
        ready = wait([*self.pipes.values(), *ends], timeout=max(0.0, seconds))
        ended = [rank for sentinel, rank in ends.items() if sentinel in ready]
        for rank, pipe in list(self.pipes.items()):
            if pipe in ready or (rank in ended and pipe.poll()):
                self._hear(rank, self.pipes.pop(rank))
        for rank in ended:
            process = self.processes.pop(rank)
            process.join()
            told = rank in self.results or any(rank == other for _, other, _ in self.failed)
            if process.exitcode or not told:
                self.died[rank] = process.exitcode or 0
        return bool(ready)

    def how(self, rank: int) -> str:
        """The end of a rank's process in words, and where it was if it crashed."""
        code = self.died[rank]
        if code >= 0:
            return f"ended with exit code {code}"
        known = {int(number): number.name for number in signal.Signals}
        crash = _crash(self.folder, rank)
        trace = crash.read_text(errors="replace").partition("\nExtension modules")[0] if crash.exists() else ""
        return "\n".join((f"was killed by {known.get(-code, f'signal {-code}')}", *trace.splitlines()))

    def _hear(self, rank: int, pipe: Connection) -> None:
        try:
            moment, good, value = pipe.recv()
        except (EOFError, OSError):  # its end is told by its process
            return
        if good:
            self.results[rank] = value
        else:
            self.failed.append((moment, rank, value))


def _crash(folder: Path, rank: int) -> Path:
    return folder / f"crash{rank}"


def _collect(ranks: _Ranks, timeout: float) -> list[Any]:
    deadline = time.monotonic() + timeout
    world = len(ranks.processes)
    while len(ranks.results) < world:
        if not ranks.look(deadline - time.monotonic()):
            late = ", ".join(str(rank) for rank in range(world) if rank not in ranks.results)
            raise RankError(f"no result from rank {late} of {world} after {timeout:.0f} s")
        end = time.monotonic() + GRACE
        while ranks.failed and not ranks.died and ranks.look(end - time.monotonic()):
            pass  # the rank whose death made this one fail may be told next
        failures = [f"rank {rank} of {world} failed\n{text}" for _, rank, text in sorted(ranks.failed)]
        for rank, code in ranks.died.items():
            more = [] if -code in (signal.SIGKILL, signal.SIGTERM) else failures[:1]
            raise RankDied("\n".join((f"rank {rank} of {world} {ranks.how(rank)}", *more)))
        if failures:
            raise RankError(failures[0])
    return [ranks.results[rank] for rank in range(world)]


def _rank(
    rank: int, world: int, folder: Path, timeout: float, pipe: Connection, function: Callable[..., Any], args: Any
) -> None:
    faulthandler.enable(os.open(_crash(folder, rank), os.O_CREAT | os.O_WRONLY))
    try:
        _end_with_parent()
        torch.set_num_threads(1)
        _clear_sharding_prop_cache()  # its specs hold meshes on which this process still has its parent's rank
        limit = timedelta(seconds=timeout)
        store = dist.FileStore(str(folder / "store"), world)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=limit)
        result = tree_map_only(torch.Tensor, _plain, function(*args))
        pipe.send((time.monotonic(), True, result))
        dist.barrier()  # nobody leaves while another still talks to it
    except BaseException:  # whatever ended this rank is reported
        pipe.send((time.monotonic(), False, traceback.format_exc()))
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
