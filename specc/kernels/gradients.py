"""Gradients of several ranks: their norm, and the sums of weights that several pipeline stages hold."""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from specc.kernels.precision import REDUCE


def gradient_norm(parameters: list, device: str) -> Tensor:
    """Norm of the gradients of sharded parameters over all ranks; those that are partial sums are finished."""
    square = torch.zeros((), dtype=REDUCE, device=device)
    for p in parameters:
        p.grad = p.grad.redistribute(placements=p.placements)
        copies = math.prod(n for n, at in zip(p.device_mesh.shape, p.placements, strict=True) if at.is_replicate())
        square += p.grad.to_local().to(REDUCE).square().sum() / copies
    dist.all_reduce(square)
    return square.sqrt()


def stages_norm(parameters: list, device: str) -> Tensor:
    """Norm of the gradients of all stages."""
    square = torch.zeros((), dtype=REDUCE, device=device)
    for p in parameters:
        square += p.grad.to(REDUCE).square().sum()
    dist.all_reduce(square)
    return square.sqrt()


def clip_by_mesh(parameters: list, max_norm: float, norm: Tensor) -> None:
    """`clip_grads_with_norm_` of parameters that are sharded over different meshes."""
    for mesh in dict.fromkeys(p.device_mesh for p in parameters):
        own = [p for p in parameters if p.device_mesh == mesh]
        nn.utils.clip_grads_with_norm_(own, max_norm, norm)


def tied_weights(
    module: nn.Module, stages: Mapping[str, tuple[int, ...]], index: int, pipeline: dist.ProcessGroup
) -> tuple[list, set]:
    """Weights that other stages hold too, each with the group of its holders, and those that an earlier one holds."""
    ranks = dist.get_process_group_ranks(pipeline)
    held = {module.get_parameter(name): holders for name, holders in stages.items() if index in holders}
    groups = [dist.new_group([ranks[n] for n in holders], use_local_synchronization=True) for holders in held.values()]
    return list(zip(held, groups, strict=True)), {p for p, holders in held.items() if holders[0] != index}


@contextmanager
def apart(parameters: Iterable) -> Iterator[None]:
    """Gradients of earlier calls stand aside, and are added to the new ones."""
    earlier = [(p, p.grad) for p in parameters]
    for p, _ in earlier:
        p.grad = None
    yield
    for p, grad in earlier:
        if grad is not None:
            p.grad = grad if p.grad is None else p.grad.add_(grad)


def sum_copies(tied: list) -> None:
    """Sum the gradients of sharded weights over the stages that hold them."""
    for p, group in tied:
        if p.grad is not None:
            dist.all_reduce(p.grad.to_local(), group=group)


def sum_whole_copies(tied: list) -> None:
    """Sum the gradients of weights over the stages that hold them."""
    for p, group in tied:
        if p.grad is not None:
            dist.all_reduce(p.grad, group=group)
