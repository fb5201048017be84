"""Interpreted graphs compute what modules and equations written by hand do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specc.kernels.rope import apply_rope, llama3_rope_table, rope_table
from specc.spec.core import Stack
from tests import models
from tests.graphs import assert_same, gradients, graph_of, ids, made
from tests.models import D_MODEL, LLAMA3, VOCAB


class HandAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Linear(D_MODEL, 32, bias=False)
        self.k = nn.Linear(D_MODEL, 16, bias=False)
        self.v = nn.Linear(D_MODEL, 16, bias=False)
        self.o = nn.Linear(32, D_MODEL, bias=False)

    def forward(self, x: Tensor, rope: Tensor) -> Tensor:
        q = self.q(x).unflatten(-1, (4, 8)).transpose(1, 2)
        k = self.k(x).unflatten(-1, (2, 8)).transpose(1, 2)
        v = self.v(x).unflatten(-1, (2, 8)).transpose(1, 2)
        q = apply_rope(q, rope)
        k = apply_rope(k, rope)
        x = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.o(x.transpose(1, 2).flatten(2))


class HandFeedForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(D_MODEL, 48, bias=False)
        self.up = nn.Linear(D_MODEL, 48, bias=False)
        self.down = nn.Linear(48, D_MODEL, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class HandBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(D_MODEL, eps=1e-2)
        self.attention = HandAttention()
        self.ffn_norm = nn.RMSNorm(D_MODEL, eps=1e-2)
        self.ffn = HandFeedForward()

    def forward(self, x: Tensor, rope: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x), rope)
        return x + self.ffn(self.ffn_norm(x))


class HandLlama(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, D_MODEL)
        self.layers = nn.ModuleDict({str(i): HandBlock() for i in range(3)})
        self.norm = nn.RMSNorm(D_MODEL, eps=1e-2)
        self.head = nn.Linear(D_MODEL, VOCAB, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        rope = llama3_rope_table(torch.arange(tokens.size(1)), 8, 100.0, 8.0, 1.0, 4.0, 64)
        for layer in self.layers.values():
            x = layer(x, rope)
        return self.head(self.norm(x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_bit_equal_to_a_module_written_by_hand(dtype: torch.dtype) -> None:
    model = models.llama()
    assert LLAMA3.original_seq == 64
    module, hand = made(graph_of(model), dtype), HandLlama().to(dtype)
    assert list(module.state_dict()) == list(hand.state_dict())
    hand.load_state_dict(module.state_dict())
    assert_same(gradients(module, ids(model)), gradients(hand, ids(model)))


def narrow_layer(w: dict[str, Tensor], x: Tensor) -> Tensor:
    """The second block of `patterned` by the equation of a sublayer: 1.1 norm(x) + 0.9 (attention + ffn)."""

    def norm(x: Tensor, name: str) -> Tensor:
        return x * (x.pow(2).mean(-1, keepdim=True) + 1e-2).rsqrt() * w[f"{name}.weight"]

    y = norm(x, "norm")
    q, k, v = ((y @ w[f"attention.{n}.weight"].T).unflatten(-1, (4, 8)).transpose(1, 2) for n in "qkv")
    rope = rope_table(torch.arange(x.size(1)), 8, 50.0)
    scores = apply_rope(q, rope) @ apply_rope(k, rope).mT * 0.3
    seen = torch.ones(x.size(1), x.size(1), dtype=torch.bool).tril()
    a = (scores.masked_fill(~seen, -torch.inf).softmax(-1) @ v).transpose(1, 2).flatten(2)
    a = norm(a @ w["attention.o.weight"].T, "attention_post_norm") * w["attention_scale.weight"]
    h = 0.7 * y @ w["ffn.up.weight"].T
    h = h * 0.5 * (1 + torch.erf(h / 2**0.5))
    return 1.1 * y + 0.9 * (a + 1.3 * (h @ w["ffn.down.weight"].T))


def test_a_sublayer_is_its_equation() -> None:
    module = made(graph_of(models.patterned()))
    block = module.get_submodule("layers.1")
    x = torch.randn(2, 11, D_MODEL, dtype=torch.float64)
    actual = block(x, rope_table(torch.arange(11), 8, 50.0))
    expected = narrow_layer(dict(block.named_parameters()), x)
    assert torch.allclose(actual, expected, rtol=0, atol=1e-12) and bool(actual.isfinite().all())
    probe = torch.randn_like(actual)
    ours = torch.autograd.grad((actual * probe).sum(), list(block.parameters()))
    theirs = torch.autograd.grad((expected * probe).sum(), list(block.parameters()))
    for (name, _), a, b in zip(block.named_parameters(), ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-11) and bool((a != 0).any()), name


def test_causal_attention_with_padding_sees_neither_future_nor_padding() -> None:
    base = models.transformer(layers=1)
    block = base.stacks[0].runs[0].blocks[0]
    attention = block.sublayers[0].branches[0]
    causal = replace(attention, component=attention.component.model_copy(update={"causal": True}))
    sublayers = (replace(block.sublayers[0], branches=(causal,)), *block.sublayers[1:])
    runs = (replace(base.stacks[0].runs[0], blocks=(replace(block, sublayers=sublayers),)),)
    stack = Stack("encoder", "layers", runs, None, ())
    model = replace(base, stacks=(stack,), embed=replace(base.embed, tied=()))
    module = made(graph_of(model))
    tokens = torch.randint(1, VOCAB, (1, 9))
    tokens[0, 4] = 0
    before = module(tokens)
    future = tokens.clone()
    future[0, 6:] = 7
    assert torch.equal(module(future)[0, :6], before[0, :6])
    assert bool((module(future)[0, 6:] != before[0, 6:]).any())
    with torch.no_grad():
        module.embedding.weight[0] += 1.0
    assert torch.equal(module(tokens)[tokens != 0], before[tokens != 0])
    assert bool((module(tokens)[tokens == 0] != before[tokens == 0]).any())
