"""Branches that are left out for whole samples: what a sample keeps, and which rate each layer has."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from specc.emit import emit
from specc.kernels.random import drop_path
from specc.source import Source
from specc.spec import Spec, load
from specc.spec.core import Layout
from tests.test_frame import HEAD, made

BLOCK = "block: [{ffn: {hidden: 8}}]"


@pytest.mark.parametrize("dim", [0, 1])
def test_a_sample_is_there_or_not(dim: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(*((400, 3, 5) if dim == 0 else (3, 400, 5)), dtype=torch.float64, requires_grad=True)
    dropped = drop_path(x, 0.25, True, dim)
    rows = dropped.movedim(dim, 0).flatten(1)
    there = (rows != 0).all(1)
    assert bool((there | (rows == 0).all(1)).all()) and 0.68 < there.double().mean() < 0.82
    assert torch.allclose(rows[there], x.movedim(dim, 0).flatten(1)[there] / 0.75, rtol=1e-14)
    (gradient,) = torch.autograd.grad(dropped.sum(), x)
    assert bool(((gradient.movedim(dim, 0).flatten(1) != 0) == there[:, None]).all())
    assert drop_path(x, 0.25, False, dim) is x


def run(module: nn.Module, tokens: Tensor) -> Tensor:
    torch.manual_seed(3)
    return module.train()(tokens)


def test_interpreter_and_file_leave_out_the_same() -> None:
    tokens = torch.randint(32, (6, 5), generator=torch.Generator().manual_seed(0))
    ours, file = made(f"drop_path: 0.4\ndecoder: {{layers: 3, {BLOCK}}}\n")
    assert torch.equal(run(ours, tokens), run(file, tokens))
    assert not torch.equal(run(file, tokens), file.eval()(tokens))


def test_each_layer_has_its_rate() -> None:
    spec = load(Source("s.yaml", f"{HEAD}drop_path: 0.2 * layer / (layers - 1)\ndecoder: {{layers: 3, {BLOCK}}}\n"))
    assert isinstance(spec, Spec), spec
    blocks = [block for run in spec.model.stacks[0].runs for block in run.blocks]
    assert [block.sublayers[0].branches[0].drop_path for block in blocks] == pytest.approx([0, 0.1, 0.2])


def test_a_layout_with_tokens_first_says_where_samples_are() -> None:
    spec = load(Source("s.yaml", f"{HEAD}drop_path: 0.1\ndecoder: {{layers: 3, {BLOCK}}}\n"))
    assert isinstance(spec, Spec), spec
    assert ", 0.1, self.training)" in emit(spec, Layout(tp=2)).source
    assert ", 0.1, self.training, dim=1)" in emit(spec, Layout(tp=2, sequence_parallel=True)).source


def test_a_rate_is_a_rate() -> None:
    found = load(Source("s.yaml", f"{HEAD}drop_path: 0.5 * layers\ndecoder: {{layers: 3, {BLOCK}}}\n"))
    assert not isinstance(found, Spec) and [item.code for item in found] == ["E204"]
