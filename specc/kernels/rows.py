"""Whole rows, and the parts of them that ranks hold."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh


def part_of_rows(x: Tensor, cp: DeviceMesh) -> Tensor:
    """This rank's part of whole rows [rows, length], in the order of ranks."""
    return x.chunk(cp.size(), 1)[cp.get_local_rank()].contiguous()


def whole_rows(x: Tensor, cp: DeviceMesh) -> Tensor:
    """Whole rows [rows, length, ...] of the parts that ranks hold."""
    parts = [torch.empty_like(x) for _ in range(cp.size())]
    dist.all_gather(parts, x.contiguous(), cp.get_group())
    return torch.cat(parts, 1)
