"""What a trainer is given: checked, filled up to the size it is built for, and read without training."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Shard


def filled(batch: Mapping[str, Tensor], sizes: Mapping[str, tuple[int, int]], blanks: tuple) -> list[Tensor]:
    """All [rows, length] filled up to their sizes, each with two blanks: behind rows, below them. Raises ValueError."""
    told = ", ".join(f"{name} {str(x.dtype)[6:]} {tuple(x.shape)}" for name, x in batch.items())
    *_, last, labels = batch.values()
    if any(x.dtype != torch.int64 for x in batch.values()) or labels.shape != last.shape:
        raise ValueError(f"{told} are given; all must be int64, and labels of the shape of what they label")
    shapes = [(*x.shape, *sizes[name]) for name, x in batch.items()]
    if any(len(s) != 4 or s[0] != len(labels) or s[0] > s[2] or s[1] > s[3] for s in shapes):
        built = ", ".join(map(str, sizes.values()))
        raise ValueError(f"{told} are given, but the trainer is built for at most {built}")
    return [
        F.pad(F.pad(x, (0, s[3] - s[1]), value=end), (0, 0, 0, s[2] - s[0]), value=row)
        for x, s, (end, row) in zip(batch.values(), shapes, blanks, strict=True)
    ]


def filled_of(batch: Mapping[str, Tensor], sizes: Mapping[str, tuple], blanks: tuple, shared: int) -> list[Tensor]:
    """All filled up to their sizes, each with two blanks: behind rows, below them. Raises ValueError.

    Labels have `shared` dims of the input before them, [rows] or [rows, length]. What has floating point blanks is
    numbers; where nothing may stand behind rows, that blank is None.
    """
    told = ", ".join(f"{name} {str(x.dtype)[6:]} {tuple(x.shape)}" for name, x in batch.items())
    *_, last, labels = batch.values()
    kinds = [
        x.is_floating_point() == isinstance(row, float) for x, (_, row) in zip(batch.values(), blanks, strict=True)
    ]
    if not all(kinds) or labels.shape[:shared] != last.shape[:shared]:
        wanted = (
            f"{name} {'of numbers' if isinstance(row, float) else 'int64'}"
            for name, (_, row) in zip(batch, blanks, strict=True)
        )
        raise ValueError(f"{told} are given; must be {', '.join(wanted)}, and labels of the shape of what they label")
    fits = [
        x.ndim == len(size) and len(x) == len(labels) for x, size in zip(batch.values(), sizes.values(), strict=True)
    ]
    if not all(fits) or any(
        n > most for name, x in batch.items() for n, most in zip(x.shape, sizes[name], strict=True)
    ):
        built = ", ".join(map(str, sizes.values()))
        raise ValueError(f"{told} are given, but the trainer is built for at most {built}")
    for (name, x), (end, _) in zip(batch.items(), blanks, strict=True):
        if end is None and x.shape[1:] != sizes[name][1:]:
            raise ValueError(f"{told} are given, but each of {name} must be {sizes[name][1:]}")
    found = list(batch.values())
    for dim in (1, 0):
        for n, (name, blank) in enumerate(zip(batch, blanks, strict=True)):
            x = found[n]
            if dim < x.ndim and blank[1 - dim] is not None:
                missing = (*x.shape[:dim], sizes[name][dim] - x.size(dim), *x.shape[dim + 1 :])
                found[n] = torch.cat((x, x.new_full(missing, blank[1 - dim])), dim)
    return found


def check_length(name: str, x: Tensor, size: tuple[int, int]) -> None:
    """Raise ValueError where x [rows, length] would have to be filled up with tokens that others see."""
    if x.size(1) != size[1]:
        raise ValueError(f"{name} of {x.size(1)} tokens cannot be filled up to {size[1]}: other tokens would see that")


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Without dropout."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


@contextmanager
def resharding(module: nn.Module) -> Iterator[None]:
    """Lets go of gathered weights, as nothing else does without backward."""
    yield
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def whole(logits: Tensor, vocab: int, tp: DeviceMesh) -> Tensor:
    """Logits [batch, seq, vocab] of logits [batch, seq, vocab/tp]."""
    shape = torch.Size((*logits.shape[:-1], vocab))
    stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(logits, tp, [Shard(2)], shape=shape, stride=stride).full_tensor()
