"""Random numbers on sharded values."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh


@contextmanager
def own_random(tp: DeviceMesh) -> Iterator[None]:
    """Random numbers drawn inside differ on every rank of tp; the generators outside stay in step."""
    seed = int(torch.randint(2**48, (), device="cpu"))
    devices = [torch.accelerator.current_device_index()] if tp.device_type != "cpu" else []
    with torch.random.fork_rng(devices, device_type=tp.device_type):
        torch.manual_seed(seed + tp.get_local_rank())
        yield


def drop_path(x: Tensor, rate: float, training: bool, dim: int = 0) -> Tensor:
    """x with some samples along dim zero and the others scaled up, so that their mean stays."""
    if not training:
        return x
    shape = [size if n == dim else 1 for n, size in enumerate(x.shape)]
    return x * (torch.rand(shape, dtype=x.dtype, device=x.device) >= rate) / (1 - rate)


def jitter(x: Tensor, rate: float, training: bool) -> Tensor:
    """x times numbers that are drawn evenly from 1 - rate to 1 + rate."""
    return x * torch.empty_like(x).uniform_(1 - rate, 1 + rate) if training else x


def shard_dropout(x: Tensor, rate: float, training: bool, tp: DeviceMesh) -> Tensor:
    """Dropout of a shard: every rank of tp draws a mask of its own."""
    if not training:
        return x
    with own_random(tp):
        return F.dropout(x, rate, training)
