"""One training step of a model: interpreted, by a generated file on one device, and by one on many ranks."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from specc.passes.mesh import mesh_of
from specc.spec.core import Layout
from specc.verify.course import LR, SEED, Given, Own, course, state, whole


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
    exec(compile(source, f"{name}.py", "exec", dont_inherit=True), module.__dict__)
    if torch.get_default_dtype() == torch.float64:
        module.__dict__.update({key: torch.float64 for key in ("COMPUTE", "REDUCE") if key in module.__dict__})
    return module


def on_this_rank(
    source: str, name: str, layout: Layout, initial: dict[str, Tensor], given: Given
) -> dict[str, Any] | None:
    """A course of the file's own trainer on one rank of many; the first data and tensor rank of each stage reports.

    All report only `strange` where parameters are not those of the model. `shipped` is the loss of a step in the
    precision of the layout, all else is computed in float64.
    """
    logging.getLogger("torch.distributed.tensor").setLevel(logging.ERROR)  # on every full_tensor over two axes
    torch.set_default_dtype(torch.float64)  # of this process, which ends with the course
    file = load_file(source, name)
    mesh = file.device_mesh("cpu")
    mine = partial(own, layout=layout, mesh=mesh)
    make = partial(_made, file, mesh, [mine(x) for x in given.first.tensors])
    module: nn.Module = make().module
    if strange := _strange(module, given.weights):
        return {"strange": strange}
    unequal = [key for key, p in state(module) if not torch.equal(whole(p), initial[key].double())]
    found = course(make, given, mine, fill)
    following = _following(file, make().module, mesh, given) if layout.generate else None
    torch.set_default_dtype(torch.float32)
    make = partial(_made, load_file(source, name), mesh, [mine(x) for x in given.first.tensors])
    shipped = as_shipped(make(), given, mine)
    if any(mesh.get_local_rank(axis.name) for axis in mesh_of(layout)):
        return None
    return {"found": found, "init": unequal, "shipped": shipped, "next": following}


def _following(file: ModuleType, module: nn.Module, mesh: DeviceMesh, given: Given) -> Tensor:
    """The likeliest tokens behind all but the last ones of the batch."""
    for name, p in state(module):
        fill(p, given.weights[name])
    tokens = given.first.inputs[0][:, :-1]
    return file.generate(module, mesh, tokens, 1)[:, tokens.size(1) :]


def _made(file: ModuleType, mesh: DeviceMesh, batch: list[Tensor]) -> Any:
    lengths = dict.fromkeys(x.size(1) for x in batch[:-1] if not x.is_floating_point())  # segments have that of tokens
    return file.Trainer(mesh, torch.device("cpu"), len(batch[-1]), *lengths, seed=SEED, lr=LR)


def as_shipped(trainer: Any, given: Given, mine: Own) -> dict[str, Any]:
    """The loss of a step in the precision of a file, whether its norm is finite, and dtypes that are not float32."""
    module: nn.Module = trainer.module.eval()
    for name, p in state(module):
        fill(p, given.weights[name])
    loss, norm = trainer.step(*(x.float() if x.is_floating_point() else x for x in map(mine, given.first.tensors)))
    kept = {name: x for name, p in module.named_parameters() for x in (p, p.grad) if x is not None}
    others = [f"{name} {x.dtype}" for name, x in kept.items() if x.dtype != torch.float32]
    return {"loss": loss.item(), "finite": bool(norm.isfinite() & (norm > 0)), "others": others}


def own(x: Tensor, layout: Layout, mesh: DeviceMesh | None = None) -> Tensor:
    """What this rank, or without a mesh the first one, is fed of a tensor [batch, tokens, ...]: whole rows."""
    for axis in mesh_of(layout):
        if axis.data and "batch" in axis.tokens:
            x = x.chunk(axis.size, 0)[0 if mesh is None else mesh.get_local_rank(axis.name)]
    return x.contiguous()


def _strange(module: nn.Module, weights: dict[str, Tensor]) -> list[str]:
    """Parameters, of the stages of all ranks, that the model has not, or in another shape."""
    own = [key for key, p in state(module) if key not in weights or p.shape != weights[key].shape]
    found: list[list[str]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(found, own)
    return sorted({key for keys in found for key in keys})


@torch.no_grad()
def fill(p: Tensor, value: Tensor) -> None:
    """Copy a whole weight into a parameter of this rank."""
    if not isinstance(p, DTensor):
        p.copy_(value)
        return
    shape, offset = compute_local_shape_and_global_offset(p.shape, p.device_mesh, p.placements)
    part = value[tuple(slice(o, o + n) for o, n in zip(offset, shape, strict=True))]
    p.to_local().copy_(part)


def world_size(layout: Layout) -> int:
    """Ranks of a layout."""
    return math.prod((layout.pp.ranks, *(axis.size for axis in mesh_of(layout))))
