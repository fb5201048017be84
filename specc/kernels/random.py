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


def shard_dropout(x: Tensor, rate: float, training: bool, tp: DeviceMesh) -> Tensor:
    """Dropout of a shard: every rank of tp draws a mask of its own."""
    with own_random(tp):
        return F.dropout(x, rate, training)
