"""Kernels without communication: rope tables as Hugging Face has them, sinusoids by the paper, the loss."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaConfig
from transformers.activations import ACT2FN, XIELUActivation
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from specc.interpret.table import ACTIVATIONS
from specc.interpret.table import cross_entropy as interpreted
from specc.kernels.activations import xielu
from specc.kernels.loss import cross_entropy, cross_entropy_of
from specc.kernels.positions import sinusoid
from specc.kernels.rope import apply_rope, linear_rope_table, llama3_rope_table, rope_table

LLAMA3 = ((8.0, 1.0, 4.0, 8192), (32.0, 1.0, 4.0, 64), (3.0, 2.0, 3.0, 1000))


def reference(positions: Tensor, head_dim: int, **parameters: Any) -> Tensor:
    """[2, seq, head_dim]"""
    config = LlamaConfig(
        hidden_size=head_dim,
        num_attention_heads=1,
        head_dim=head_dim,
        max_position_embeddings=10000,
        rope_parameters=parameters,
    )
    return torch.cat(LlamaRotaryEmbedding(config)(torch.zeros(()), positions[None]))


@pytest.mark.parametrize("theta", [100, 1e4, 1234.5, 5e5])
@pytest.mark.parametrize("head_dim", [2, 6, 8, 64, 128])
def test_rope_tables_are_those_of_hugging_face(head_dim: int, theta: float) -> None:
    positions = torch.arange(523) * 7
    default = reference(positions, head_dim, rope_type="default", rope_theta=theta)
    assert torch.equal(rope_table(positions, head_dim, theta), default)
    for factor in (3.0, 8.0):
        linear = reference(positions, head_dim, rope_type="linear", rope_theta=theta, factor=factor)
        assert torch.equal(linear_rope_table(positions, head_dim, theta, factor), linear)
    for factor, low, high, original in LLAMA3:
        llama3 = reference(
            positions,
            head_dim,
            rope_type="llama3",
            rope_theta=theta,
            factor=factor,
            low_freq_factor=low,
            high_freq_factor=high,
            original_max_position_embeddings=original,
        )
        assert torch.equal(llama3_rope_table(positions, head_dim, theta, factor, low, high, original), llama3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_rotation_is_that_of_hugging_face(dtype: torch.dtype) -> None:
    table = rope_table(torch.arange(23), 8, 100.0)
    q = torch.randn(2, 3, 23, 8, dtype=dtype)
    cos, sin = table.to(dtype)
    expected, _ = apply_rotary_pos_emb(q, q, cos[None], sin[None])
    assert apply_rope(q, table).dtype == dtype
    assert torch.equal(apply_rope(q, table), expected)


def test_tables_do_not_follow_the_default_dtype() -> None:
    positions = torch.arange(5)
    tables = [rope_table(positions, 8, 1e4), sinusoid(positions, 8)]
    torch.set_default_dtype(torch.float64)
    try:
        again = [rope_table(positions, 8, 1e4), sinusoid(positions, 8)]
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(a.dtype == torch.float32 and torch.equal(a, b) for a, b in zip(again, tables, strict=True))


def test_sinusoids() -> None:
    table = sinusoid(torch.arange(40), 6)
    assert table.shape == (40, 6) and table.dtype == torch.float32
    for position in (0, 1, 17, 39):
        for i in range(3):
            angle = position / 10000 ** (2 * i / 6)
            assert table[position, 2 * i].item() == pytest.approx(math.sin(angle), abs=4e-6)
            assert table[position, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=4e-6)


def test_loss_sums_over_labels_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specc.kernels.loss.REDUCE", torch.float64)
    logits = torch.randn(2, 5, 7, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(7, (2, 5))
    labels[0, 1:] = -100
    expected = -sum(logits[b, s].log_softmax(-1)[labels[b, s]] for b in range(2) for s in range(5) if labels[b, s] >= 0)
    assert torch.allclose(cross_entropy(logits, labels), expected, rtol=1e-14)
    (gradient,) = torch.autograd.grad(cross_entropy(logits, labels), logits)
    assert bool((gradient[0, 1:] == 0).all()) and bool((gradient[0, 0] != 0).all())
    assert cross_entropy(logits, torch.full_like(labels, -100)).item() == 0.0


@pytest.mark.parametrize(("smoothing", "z_loss"), [(0.0, 0.0), (0.1, 0.0), (0.0, 0.3), (0.2, 0.05)])
def test_smoothed_cross_entropy_and_its_normaliser(
    smoothing: float, z_loss: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("specc.kernels.loss.REDUCE", torch.float64)
    logits = torch.randn(3, 5, 11, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(11, (3, 5)).masked_fill(torch.rand(3, 5) < 0.3, -100)
    expected = torch.zeros((), dtype=torch.float64)
    for row, label in zip(logits.flatten(0, 1), labels.flatten().tolist(), strict=True):
        if label != -100:
            log = row.exp().sum().log()
            target = torch.full((11,), smoothing / 11, dtype=torch.float64)
            target[label] += 1 - smoothing
            expected = expected - (target * (row - log)).sum() + z_loss * log**2
    actual = cross_entropy_of(logits, labels, smoothing, z_loss)
    assert torch.allclose(actual, expected, rtol=1e-13)
    assert torch.allclose(interpreted(logits, labels, smoothing=smoothing, z_loss=z_loss), expected, rtol=1e-13)
    for found, wanted in zip(*(torch.autograd.grad(value, logits) for value in (actual, expected)), strict=True):
        assert torch.allclose(found, wanted, rtol=0, atol=1e-13)
    assert cross_entropy_of(logits, torch.full_like(labels, -100), smoothing, z_loss).item() == 0.0


@pytest.mark.parametrize(("name", "theirs"), [("quick_gelu", "quick_gelu"), ("relu2", "relu2"), ("softplus", None)])
def test_activations_are_those_of_others(name: str, theirs: str | None) -> None:
    x = torch.linspace(-9, 9, 1001, dtype=torch.float64)
    want = F.softplus(x) if theirs is None else ACT2FN[theirs](x)
    assert torch.equal(ACTIVATIONS[name](x), want)


def test_xielu_and_its_gradients_are_those_of_hugging_face() -> None:
    x = torch.linspace(-9, 9, 1001, dtype=torch.float64).requires_grad_()
    theirs = XIELUActivation(dtype=torch.float64)
    for sign, parameter in zip((0.3, -0.4), theirs.parameters(), strict=True):
        parameter.data += sign
    theirs.beta, theirs.eps = (getattr(theirs, name).double() for name in ("beta", "eps"))
    probe = torch.linspace(1, 2, 1001, dtype=torch.float64)
    alphas = [p.detach().clone().requires_grad_() for p in theirs.parameters()]
    ours = xielu(x, *alphas)
    want = theirs._xielu_python(x)
    assert torch.allclose(ours, want, rtol=0, atol=1e-12)
    grads = torch.autograd.grad((ours * probe).sum(), (x, *alphas))
    for mine, other in zip(grads, torch.autograd.grad((want * probe).sum(), (x, *theirs.parameters())), strict=True):
        assert torch.allclose(mine, other, rtol=1e-12, atol=1e-12)
