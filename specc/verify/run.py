"""One training step of a model: interpreted, by a generated file on one device, and by one on many ranks."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from torch.utils._pytree import tree_map_only

from specc.passes.mesh import mesh_of
from specc.spec.core import Layout

LR, MAX_NORM, SEED = 1e-2, 1.0, 5


@dataclass
class Step:
    """What a step gave, by global parameter name. `norm` is that of all gradients before clipping."""

    loss: float
    norm: float
    outputs: tuple[Tensor, ...]
    gradients: dict[str, Tensor]
    weights: dict[str, Tensor]


@dataclass(frozen=True)
class Batch:
    """Inputs of the model in order, and labels, -100 where there is none; all ranks' together."""

    inputs: tuple[Tensor, ...]
    labels: Tensor


@contextmanager
def in_double() -> Iterator[None]:
    """What is made inside is float64 unless it says otherwise."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def load_file(source: str, name: str) -> ModuleType:
    """A generated file as a module; where torch's default is float64, so is all that it computes."""
    module = ModuleType(name)
    exec(compile(source, f"{name}.py", "exec"), module.__dict__)
    if torch.get_default_dtype() == torch.float64:
        module.__dict__.update({key: torch.float64 for key in ("COMPUTE", "REDUCE") if key in module.__dict__})
    return module


def adamw(module: nn.Module) -> torch.optim.AdamW:
    """What `Trainer` has: decay on matrices that are no embedding."""
    named = dict(module.named_parameters())
    decays = [name for name, p in named.items() if p.ndim > 1 and "embedding" not in name]
    groups = [
        {"params": [p for name, p in named.items() if name in decays], "weight_decay": 0.1},
        {"params": [p for name, p in named.items() if name not in decays], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.95), eps=1e-8)


def one_device(module: nn.Module, loss: Callable[..., Tensor], batch: Batch) -> Step:
    """A step of a plain module, with clipping and AdamW written out by torch alone.

    `loss` takes what the module returns, labels and a scale.
    """
    optimizer = adamw(module)
    outputs = module(*batch.inputs)
    value = loss(outputs, batch.labels, 1 / batch.labels.ne(-100).sum())
    value.backward()
    gradients = {name: _grad(name, p).clone() for name, p in module.named_parameters()}
    norm = nn.utils.clip_grad_norm_(module.parameters(), MAX_NORM)
    optimizer.step()
    weights = {name: p.detach() for name, p in module.named_parameters()}
    shown = tree_map_only(Tensor, Tensor.detach, outputs)
    return Step(value.item(), norm.item(), shown if isinstance(shown, tuple) else (shown,), gradients, weights)


def _grad(name: str, p: Tensor) -> Tensor:
    if p.grad is None:
        raise ValueError(f"{name} got no gradient")
    return p.grad


def on_this_rank(
    source: str, name: str, layout: Layout, weights: dict[str, Tensor], initial: dict[str, Tensor], batch: Batch
) -> dict[str, Any] | None:
    """A step of the file's own trainer on one rank of many; the first data and tensor rank of each stage reports.

    All report only `strange` where parameters are not those of the model.
    """
    torch.set_default_dtype(torch.float64)  # of this process, which ends with the step
    logging.getLogger("torch.distributed.tensor").setLevel(logging.ERROR)  # on every full_tensor over two axes
    file = load_file(source, name)
    mesh = file.device_mesh("cpu")
    inputs, labels = tuple(_own(x, layout, mesh) for x in batch.inputs), _own(batch.labels, layout, mesh)
    device = torch.device("cpu")
    lengths = dict.fromkeys(x.size(1) for x in inputs)  # segments have that of tokens
    trainer = file.Trainer(mesh, device, len(labels), *lengths, seed=SEED, lr=LR)
    module: nn.Module = trainer.module.eval()
    if strange := _strange(module, weights):
        return {"strange": strange}
    init = {key: _whole(p) for key, p in module.named_parameters()}
    unequal = [key for key, value in init.items() if not torch.equal(value, initial[key].double())]
    for key, p in module.named_parameters():
        _fill(p, weights[key])
    loss = trainer.forward_backward(*inputs, labels).item()
    gradients = {key: _whole(_grad(key, p)).clone() for key, p in module.named_parameters()}
    norm = trainer.clip_gradients(MAX_NORM).item()
    trainer.optimizer.step()
    after = {key: _whole(p) for key, p in module.named_parameters()}
    if any(mesh.get_local_rank(axis.name) for axis in mesh_of(layout)):
        return None
    return {"loss": loss, "norm": norm, "init": unequal, "gradients": gradients, "weights": after}


def _own(x: Tensor, layout: Layout, mesh: DeviceMesh) -> Tensor:
    """What this rank is fed of a tensor [batch, tokens]."""
    for axis in mesh_of(layout):
        if axis.data:
            x = x.chunk(axis.size, 0 if "batch" in axis.tokens else 1)[mesh.get_local_rank(axis.name)]
    return x.contiguous()


def _strange(module: nn.Module, weights: dict[str, Tensor]) -> list[str]:
    """Parameters, of the stages of all ranks, that the model has not, or in another shape."""
    own = [key for key, p in module.named_parameters() if key not in weights or p.shape != weights[key].shape]
    found: list[list[str]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(found, own)
    return sorted({key for keys in found for key in keys})


@torch.no_grad()
def _whole(p: Tensor) -> Tensor:
    return p.full_tensor() if isinstance(p, DTensor) else p.detach()


@torch.no_grad()
def _fill(p: Tensor, value: Tensor) -> None:
    if not isinstance(p, DTensor):
        p.copy_(value)
        return
    shape, offset = compute_local_shape_and_global_offset(p.shape, p.device_mesh, p.placements)
    part = value[tuple(slice(o, o + n) for o, n in zip(offset, shape, strict=True))]
    p.to_local().copy_(part)


def world_size(layout: Layout) -> int:
    """Ranks of a layout."""
    return math.prod((layout.pp.stages, *(axis.size for axis in mesh_of(layout))))
