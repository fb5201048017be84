"""Scans in chunks against the recurrences that they are, position by position, in float64 and with gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from specc.kernels import delta, linear_scan, scans
from specc.kernels.cache import Cache

LENGTHS = (1, 2, 63, 64, 65, 150)


def drawn(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


def documents(seq: int, generator: torch.Generator) -> Tensor:
    """Where documents of two rows start [2, seq]: some in the middle of a chunk, some at its start."""
    starts = torch.rand(2, seq, generator=generator) < 0.1
    starts[:, 0] = True
    starts[1, 64:65] = True
    return torch.arange(seq).where(starts, 0).cummax(1).values


def same(ours: Tensor, theirs: Tensor, inputs: tuple[Tensor, ...], bound: float = 1e-12) -> None:
    """Values and gradients."""
    probe = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    pairs = [(ours, theirs)]
    pairs += zip(torch.autograd.grad(ours, inputs, probe), torch.autograd.grad(theirs, inputs, probe), strict=True)
    for a, b in pairs:
        assert bool(b.isfinite().all()) and torch.allclose(
            a, b, rtol=bound, atol=bound * max(1.0, b.abs().max().item())
        )


def space(
    x: Tensor, dt: Tensor, b: Tensor, c: Tensor, a_log: Tensor, d: Tensor, dt_bias: Tensor, first: Tensor | None
) -> Tensor:
    """The state space of Mamba 2, one position after the other."""
    steps = F.softplus(dt + dt_bias).clamp(0.05, 2)
    b, c = (z.repeat_interleave(x.size(1) // z.size(1), 1) for z in (b, c))
    state = x.new_zeros(*x.shape[:2], x.size(-1), b.size(-1))
    out: list[Tensor] = []
    for t in range(x.size(2)):
        if first is not None:
            state = state * (first[:, t] != t).view(-1, 1, 1, 1)
        step = steps[:, t, :, None, None]
        state = (-a_log.exp()[:, None, None] * step).exp() * state
        state = state + step * x[:, :, t, :, None] * b[:, :, t, None]
        out.append((state * c[:, :, t, None]).sum(-1) + d[:, None] * x[:, :, t])
    return torch.stack(out, 2)


@pytest.mark.parametrize("seq", LENGTHS)
@pytest.mark.parametrize("several", [False, True])
def test_a_state_space_is_its_recurrence(seq: int, several: bool) -> None:
    g = torch.Generator().manual_seed(seq)
    shapes = ((2, 4, seq, 3), (2, seq, 4), (2, 2, seq, 5), (2, 2, seq, 5), (4,), (4,), (4,))
    inputs = tuple(drawn(g, *shape) for shape in shapes)
    first = documents(seq, g) if several else None
    same(scans.state_space(*inputs, 0.05, 2, first), space(*inputs, first), inputs)


def in_parts(function: Callable[[slice, Cache], Tensor], seq: int) -> Tensor:
    """What follows, some positions at a time."""
    cache, at = Cache(seq), 0
    found: list[Tensor] = []
    for size in (70, 1, 1, seq - 72):
        found.append(function(slice(at, at + size), cache))
        at += size
    return torch.cat(found, 2)


def test_a_state_space_goes_on() -> None:
    g = torch.Generator().manual_seed(1)
    x, dt, b, c, *params = (
        drawn(g, *shape) for shape in ((2, 4, 90, 3), (2, 90, 4), (2, 2, 90, 5), (2, 2, 90, 5), (4,), (4,), (4,))
    )

    def later(at: slice, cache: Cache) -> Tensor:
        own = (x[:, :, at], dt[:, at], b[:, :, at], c[:, :, at])
        return scans.later_state_space(*own, *params, "layer", cache)

    whole = scans.state_space(x, dt, b, c, *params)
    assert torch.allclose(in_parts(later, 90), whole, rtol=0, atol=1e-12)


def test_states_are_float32_in_half_precision() -> None:
    g = torch.Generator().manual_seed(2)
    shapes = ((1, 2, 200, 4), (1, 200, 2), (1, 1, 200, 4), (1, 1, 200, 4), (2,), (2,), (2,))
    inputs = tuple(drawn(g, *shape).detach() for shape in shapes)
    half = tuple(value.bfloat16() for value in inputs)
    ours = scans.state_space(*half)
    exact = scans.state_space(*(value.double() for value in half))
    assert ours.dtype == torch.bfloat16
    assert (ours.double() - exact).abs().max() <= 2**-8 * exact.abs().max()


def rule(
    q: Tensor, k: Tensor, v: Tensor, a: Tensor, beta: Tensor, a_log: Tensor, dt_bias: Tensor, first: Tensor | None
) -> Tensor:
    """The gated delta rule, one position after the other."""
    heads = v.size(1)
    steps = F.softplus(a + dt_bias).unflatten(-1, (heads, -1))
    q, k = (z.repeat_interleave(heads // z.size(1), 1) for z in (q, k))
    q, k = (z / (z.square().sum(-1, keepdim=True) + 1e-6).sqrt() for z in (q, k))
    state = v.new_zeros(v.size(0), heads, k.size(-1), v.size(-1))
    out: list[Tensor] = []
    for t in range(v.size(2)):
        if first is not None:
            state = state * (first[:, t] != t).view(-1, 1, 1, 1)
        state = (-a_log.exp()[:, None] * steps[:, t]).exp().unsqueeze(-1) * state
        read = (state * k[:, :, t].unsqueeze(-1)).sum(-2)
        new = (v[:, :, t] - read) * beta[:, t].unsqueeze(-1)
        state = state + k[:, :, t].unsqueeze(-1) * new.unsqueeze(-2)
        out.append((state * q[:, :, t].unsqueeze(-1)).sum(-2) * q.size(-1) ** -0.5)
    return torch.stack(out, 2)


@pytest.mark.parametrize("seq", LENGTHS)
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("channel", [False, True])
def test_the_delta_rule_is_its_recurrence(seq: int, several: bool, channel: bool) -> None:
    g = torch.Generator().manual_seed(seq)
    decays = 4 * 3 if channel else 4
    shapes = ((2, 2, seq, 3), (2, 2, seq, 3), (2, 4, seq, 5), (2, seq, decays), (2, seq, 4), (4,), (decays,))
    inputs = tuple(drawn(g, *shape) for shape in shapes)
    first = documents(seq, g) if several else None
    same(delta.delta_rule(*inputs, first), rule(*inputs, first), inputs, 1e-11)


@pytest.mark.parametrize("channel", [False, True])
def test_the_delta_rule_goes_on_and_keeps_strong_decay_finite(channel: bool) -> None:
    g = torch.Generator().manual_seed(3)
    decays = 4 * 3 if channel else 4
    shapes = ((2, 2, 90, 3), (2, 2, 90, 3), (2, 4, 90, 5), (2, 90, decays), (2, 90, 4), (4,), (decays,))
    q, k, v, a, beta, a_log, dt_bias = (drawn(g, *shape).detach() for shape in shapes)
    a = a * 30  # some positions forget all

    def later(at: slice, cache: Cache) -> Tensor:
        own = (q[:, :, at], k[:, :, at], v[:, :, at], a[:, at], beta[:, at])
        return delta.later_delta_rule(*own, a_log, dt_bias, "layer", cache)

    whole = delta.delta_rule(q, k, v, a, beta, a_log, dt_bias)
    assert bool(whole.isfinite().all())
    assert torch.allclose(in_parts(later, 90), whole, rtol=0, atol=1e-11)
    single = delta.delta_rule(*(x.float() for x in (q, k, v, a, beta, a_log, dt_bias)))
    assert torch.allclose(single.double(), whole, rtol=0, atol=1e-4 * whole.abs().max().item())


def selective(
    x: Tensor, dt: Tensor, b: Tensor, c: Tensor, a_log: Tensor, d: Tensor, dt_bias: Tensor, first: Tensor | None
) -> Tensor:
    """The selective scan of Mamba, one position after the other."""
    steps = F.softplus(dt + dt_bias)
    state = x.new_zeros(x.size(0), x.size(2), b.size(2))
    out: list[Tensor] = []
    for t in range(x.size(1)):
        if first is not None:
            state = state * (first[:, t] != t).view(-1, 1, 1)
        step = steps[:, t].unsqueeze(-1)
        state = (-a_log.exp() * step).exp() * state + step * x[:, t].unsqueeze(-1) * b[:, t].unsqueeze(1)
        out.append((state * c[:, t].unsqueeze(1)).sum(-1) + d * x[:, t])
    return torch.stack(out, 1)


def recurrence(x: Tensor, i: Tensor, r: Tensor, a: Tensor, first: Tensor | None) -> Tensor:
    """The real-gated linear recurrent unit, one position after the other."""
    state = torch.zeros_like(x[:, 0])
    out: list[Tensor] = []
    for t in range(x.size(1)):
        log = -8 * F.softplus(a) * r[:, t].sigmoid()
        begins = torch.tensor(t == 0) if first is None else (first[:, t] == t).unsqueeze(-1)
        share = torch.where(begins, 1.0, (1 - (2 * log).exp()).sqrt())
        state = torch.where(begins, 0.0, log.exp() * state) + share * i[:, t].sigmoid() * x[:, t]
        out.append(state)
    return torch.stack(out, 1)


def fading(q: Tensor, k: Tensor, v: Tensor, rates: Tensor, first: Tensor | None) -> Tensor:
    """Linear attention with fixed decay, one position after the other."""
    state = q.new_zeros(*q.shape[:2], q.size(-1), v.size(-1))
    out: list[Tensor] = []
    for t in range(q.size(2)):
        if first is not None:
            state = state * (first[:, t] != t).view(-1, 1, 1, 1)
        state = (-rates).exp().view(-1, 1, 1) * state + k[:, :, t].unsqueeze(-1) * v[:, :, t].unsqueeze(-2)
        out.append((state * q[:, :, t].unsqueeze(-1)).sum(-2))
    return torch.stack(out, 2)


OTHERS = {
    "selective": (
        linear_scan.selective_scan,
        selective,
        lambda seq: (*((2, seq, 3),) * 2, *((2, seq, 4),) * 2, (3, 4), (3,), (3,)),
    ),
    "gated": (linear_scan.gated_recurrence, recurrence, lambda seq: (*((2, seq, 3),) * 3, (3,))),
    "fading": (scans.linear_attention, fading, lambda seq: (*((2, 3, seq, 4),) * 2, (2, 3, seq, 5), (3,))),
}


@pytest.mark.parametrize("seq", LENGTHS)
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("name", OTHERS)
def test_other_scans_are_their_recurrences(name: str, seq: int, several: bool) -> None:
    g = torch.Generator().manual_seed(seq)
    chunks, loop, shapes = OTHERS[name]
    inputs = tuple(drawn(g, *shape) for shape in shapes(seq))
    if name == "fading":
        inputs = (*inputs[:3], inputs[3].detach().abs().requires_grad_())
    if seq == 1:  # of a first position nothing is seen before
        assert torch.allclose(chunks(*inputs), loop(*inputs, None), rtol=0, atol=1e-12)
        return
    first = documents(seq, g) if several else None
    if several and seq == 2:
        first = torch.tensor([[0, 0], [0, 1]])
    same(chunks(*inputs, first), loop(*inputs, first), inputs)


def test_rates_of_heads_fall_by_the_same_factor() -> None:
    rates = scans.head_rates(4, 0.5, torch.zeros((), dtype=torch.float64))
    assert torch.allclose(rates, torch.tensor([0.125, 0.03125, 0.0078125, 0.001953125], dtype=torch.float64))
