"""What several heads share, where ranks cannot hold equal parts of it: each takes what its own heads need."""

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh


def own_head(x: Tensor, width: int, tp: DeviceMesh, dim: int = -1) -> Tensor:
    """Of fewer heads than ranks, `width` elements of `dim` each, the one that this rank shares with others."""
    head = tp.get_local_rank() * (x.size(dim) // width) // tp.size()
    return x.narrow(dim, head * width, width)


def own_heads(x: Tensor, width: int, times: int, tp: DeviceMesh, dim: int = -1) -> Tensor:
    """Of heads of `width` elements of `dim`, each `times` times in turn, the part that this rank's queries read."""
    count = x.size(dim) // width * times // tp.size()
    first = tp.get_local_rank() * count
    return torch.cat([x.narrow(dim, n // times * width, width) for n in range(first, first + count)], dim)
