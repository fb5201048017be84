"""Collectives that a generated file really issues, on one process that stands for a rank of many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode

from specc.spec.core import Layout, Model
from tests.files import file_of
from tests.graphs import ids
from tests.models import VOCAB

KINDS = {
    "allreduce_": "all-reduce",
    "_allgather_base_": "all-gather",
    "_reduce_scatter_base_": "reduce-scatter",
    "alltoall_base_": "all-to-all",
    "broadcast_": "broadcast",
}
SOURCE, TARGET = 12, 16  # lengths, divisible by tp, that tell the encoder's tokens from the decoder's


@contextmanager
def fake_group(world: int, rank: int = 0) -> Iterator[None]:
    """Collectives return at once, with values that mean nothing."""
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world)
    try:
        yield
    finally:
        dist.destroy_process_group()


@dataclass(frozen=True)
class Collective:
    """One of them: its kind, its reduction if it has one, and how many elements a rank puts in."""

    kind: str
    reduction: str
    elements: int


class Recorder(TorchDispatchMode):
    """Every collective inside."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Collective] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if DTensor in types:
            return NotImplemented  # it issues what it needs in terms of plain tensors
        if func.namespace == "_c10d_functional":
            raise ValueError(f"{func} is not public")
        if func.namespace == "c10d":
            given = args[0][0] if isinstance(args[0], list) else args[1]  # else the result comes first
            ops = [arg.op() for arg in args if isinstance(arg, torch.ScriptObject) and "ReduceOp" in str(arg)]
            reduction = "".join(dist.ReduceOp.RedOpType(op).name.lower() for op in ops)
            self.found.append(Collective(KINDS[func._opname], reduction, given.numel()))
        return func(*args, **(kwargs or {}))

    def counts(self) -> Counter[str]:
        return Counter(one.kind for one in self.found)


@dataclass(frozen=True)
class Traffic:
    """Collectives of a step on one rank, in order."""

    forward: list[Collective]
    loss: list[Collective]
    backward: list[Collective]

    def counts(self, part: str) -> Counter[str]:
        return Counter(one.kind for one in getattr(self, part))


def tokens(model: Model) -> tuple[Tensor, ...]:
    """[batch, SOURCE] and [batch, TARGET], or the latter alone, with segments where the model takes them."""
    lengths = ((SOURCE, TARGET)[-len(model.stacks) :]) + (TARGET,) * len(model.inputs)
    pairs = zip(ids(model), lengths, strict=True)
    return tuple(x if x.is_floating_point() else x[:, :length] for x, length in pairs)


def on_rank(model: Model, layout: Layout) -> tuple[nn.Module, DeviceMesh, Any]:
    """The model of the file on this rank, the mesh, and the file."""
    file = file_of(model, layout)
    mesh = file.device_mesh("cpu")
    return file.build_model(mesh, torch.device("cpu"), 0).eval(), mesh, file


def traffic(model: Model, layout: Layout, dropout: bool = False) -> Traffic:
    """Of forward, loss and backward of a generated file on rank 0 of its tensor ranks."""
    with fake_group(layout.tp):
        module, mesh, file = on_rank(model, layout)
        module.train(dropout)
        inputs = tokens(model)
        with Recorder() as forward:
            logits = module(*inputs)
        with Recorder() as loss:
            rows = torch.arange(len(inputs[-1])) if inputs[-1].is_floating_point() else inputs[-1][:, 0]
            labels = inputs[-1] % VOCAB if model.head.pool is None else rows % model.head.rows
            axes = {name: mesh[name] for name in ("tp",) if name in signature(file.loss).parameters}
            value = file.loss(logits, labels, 1.0, **axes)
        with Recorder() as backward:
            value.backward()
        return Traffic(forward.found, loss.found, backward.found)


@dataclass(frozen=True)
class Stage:
    """A pipeline stage on a rank, with zeros in the shapes that its file announces, and what it announces to return."""

    module: nn.Module
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def stages_on_rank(model: Model, layout: Layout, file: ModuleType) -> list[Stage]:
    """All stages of the file as if this rank held every one of them. Inside a fake group."""
    file.__dict__["PipelineStage"] = lambda module, index, count, device, inputs, outputs, group: Stage(
        module, (*map(_zeros, inputs), *_passed(module, len(inputs))), outputs
    )
    mesh, device = file.device_mesh("cpu"), torch.device("cpu")
    pairs = zip(model.stacks, (SOURCE, TARGET)[-len(model.stacks) :], strict=True)
    lengths = [length for stack, length in pairs if model.embed_of(stack).places is None]
    return [file.build_stage(index, mesh, device, 3, *lengths, 0) for index in range(layout.pp.stages)]


def _passed(module: nn.Module, known: int) -> Iterator[Tensor]:
    """What a stage is fed of a batch, behind what the one before it sends."""
    for name in list(signature(module.forward).parameters)[known:]:
        yield torch.zeros(3, SOURCE if name == "source" else TARGET, dtype=torch.int64)


def _zeros(meta: Tensor) -> Tensor:
    return torch.zeros(meta.shape, dtype=meta.dtype, requires_grad=meta.requires_grad)
