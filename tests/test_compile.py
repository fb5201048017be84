"""Blocks of generated files under torch.compile, without a break in the graph: gradients are those of eager mode."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from specc.spec.core import Checkpoint, Layout, Model
from specc.verify.launch import run_ranks
from tests.comm import tokens
from tests.files import file_of, source_of
from tests.models import llama

MODES = {"one": Layout(), "tp": Layout(tp=2), "sp": Layout(tp=2, sequence_parallel=True)}
CASES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("one", {"every": 1}),
    ("one", {"save": ("attention.core", "attention.o", "ffn.up")}),
    ("tp", {"save": ("attention.o",)}),
    ("sp", {"save": ("attention.o",)}),
    ("sp", {"save": ("attention.core", "attention.o")}),
    ("sp", {"save": ("attention.o", "ffn.act")}),
)


def gradients(model: Model, layout: Layout, compiled: bool) -> list[Tensor]:
    """Logits and gradients of a rank in float64, noise on every parameter."""
    torch.compiler.reset()
    file = file_of(model, layout)
    torch.set_default_dtype(torch.float64)
    mesh = [file.device_mesh("cpu")] if layout.tp > 1 else []
    module = file.build_model(*mesh, torch.device("cpu"), 0).train()
    generator = torch.Generator().manual_seed(1)
    for p in module.parameters():
        local = p.data.to_local() if isinstance(p.data, DTensor) else p.data
        local.add_(torch.randn(local.shape, generator=generator) * 0.2)
    for stack in module.children():
        for block in stack.values() if compiled and isinstance(stack, nn.ModuleDict) else ():
            block.compile(backend="aot_eager", fullgraph=True)
    logits = module(*tokens(model))
    (logits * torch.randn(logits.shape, generator=generator)).sum().backward()
    grads = [p.grad.to_local() if isinstance(p.grad, DTensor) else p.grad for p in module.parameters()]
    return [logits.detach(), *grads]


def worst(model: Model, layout: Layout) -> float:
    """The largest difference to eager mode without checkpoints."""
    expected = gradients(model, replace(layout, checkpoint=Checkpoint()), compiled=False)
    found = gradients(model, layout, compiled=True)
    return torch.stack([(a - b).abs().max() for a, b in zip(found, expected, strict=True)]).max().item()


@pytest.mark.parametrize(("mode", "way"), CASES)
def test_blocks_compile_with_every_kind_of_checkpoint(mode: str, way: dict[str, Any]) -> None:
    model, layout = llama(layers=1), replace(MODES[mode], checkpoint=Checkpoint(**way))
    for how in (layout, MODES[mode]):
        source_of(model, how)  # once, before the ranks part
    ranks = run_ranks(2, worst, model, layout, timeout=300.0) if layout.tp > 1 else [worst(model, layout)]
    assert all(error < 1e-12 for error in ranks), ranks
