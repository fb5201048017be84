"""Layers that share keys and values: against a model by hand, cut anywhere, and while tokens are generated."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from specc.emit import emit
from specc.interpret import init_weights, interpret
from specc.lower import lower
from specc.passes import run
from specc.passes.legality import legality
from specc.spec.core import Checkpoint, Layout, Pipeline
from specc.verify.run import in_double, load_file
from tests import zoo
from tests.graphs import graph_of, made
from tests.test_reach import spec

BY_HAND = """\
blocks:
  one: [attention: {heads: 4, kv_heads: 2, kv_to: first}]
  two: [attention: {heads: 4, kv_heads: 2, kv_to: latest, value_residual: {from: first, own: 0.7, other: 0.2%s}}]
  three: [attention: {heads: 4, kv_from: latest}]
decoder: {layers: 4, pattern: {head: [one], cycle: [two], tail: [three]}}
"""


def by_hand(p: dict[str, Tensor], tokens: Tensor, learned: bool) -> Tensor:
    """Tokens [batch, seq] -> logits [batch, seq, vocab], of the spec above."""
    x = F.embedding(tokens, p["embedding.weight"])
    first = kept = None
    for layer in range(4):
        at = f"layers.{layer}.attention"
        h = F.rms_norm(x, (32,), p[f"{at}_norm.weight"], 1e-2)
        parts = {
            name: (h @ p[f"{at}.{name}.weight"].T).unflatten(-1, (-1, 8)).transpose(1, 2)
            for name in "qkv"
            if f"{at}.{name}.weight" in p
        }
        if layer < 3:
            v = parts["v"]
            if first is not None:
                own, other = (p[f"{at}.{n}_value.weight"] for n in ("own", "other")) if learned else (0.7, 0.2)
                v = own * v + other * first
            kept = parts["k"], v
        assert kept is not None
        first = kept[1] if first is None else first
        k, v = (value.repeat_interleave(2, 1) for value in kept)
        scores = (parts["q"] @ k.transpose(-1, -2) / 8**0.5).masked_fill(torch.ones(9, 9).triu(1).bool(), -torch.inf)
        x = x + (scores.softmax(-1) @ v).transpose(1, 2).flatten(2) @ p[f"{at}.o.weight"].T
    return F.rms_norm(x, (32,), p["norm.weight"], 1e-2) @ p["head.weight"].T


@pytest.mark.parametrize("learned", [False, True])
def test_values_are_those_by_hand(learned: bool) -> None:
    module = made(graph_of(spec(BY_HAND % (", learned: true" if learned else "")).model)).eval()
    tokens = torch.randint(96, (2, 9), generator=torch.Generator().manual_seed(0))
    parameters = dict(module.named_parameters())
    assert ("layers.1.attention.own_value.weight" in parameters) == learned
    assert "layers.3.attention.k.weight" not in parameters and "layers.2.attention.k.weight" in parameters
    theirs = {name: parameter.detach().clone().requires_grad_() for name, parameter in parameters.items()}
    expected, actual = by_hand(theirs, tokens, learned), module(tokens)
    probe = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (expected * probe).sum().backward()
    (actual * probe).sum().backward()
    assert torch.allclose(actual, expected, rtol=0, atol=1e-10)
    for name, parameter in parameters.items():
        ours, others = parameter.grad, theirs[name].grad
        assert ours is not None and others is not None and bool((others != 0).any()), name
        assert torch.allclose(ours, others, rtol=0, atol=1e-9), name


@pytest.mark.parametrize("start", range(1, 8))
def test_stages_begin_anywhere(start: int) -> None:
    """Between a layer that keeps and those that read, too."""
    pipeline, again = Pipeline(2, "1f1b", (f"layers.{start}",)), Checkpoint(every=1)
    layout = Layout(tp=2, sequence_parallel=True, pp=pipeline, microbatches=2, checkpoint=again)
    results: list[Tensor] = []
    for name, graph in run(lower(zoo.model("kept-tiny")), layout):
        legality(graph, layout, after=name)
        if name in ("shapes", "stages"):
            module = interpret(graph, dtype=torch.float64)
            init_weights(module, graph, 0)
            results.append(module(torch.arange(12).view(2, 6)))
    assert torch.equal(*results)


@in_double()
def test_generation_reads_what_is_kept() -> None:
    found = replace(zoo.spec("kept-tiny"), layouts=(Layout(generate=True),))
    file = load_file(emit(found, found.layout()).source, "kept")
    module = file.build_model(torch.device("cpu"), 0)
    tokens = torch.randint(96, (2, 5), generator=torch.Generator().manual_seed(3))
    whole = file.generate(module, tokens, 9)
    again = tokens
    for _ in range(9):
        again = torch.cat((again, module(again)[:, -1:].argmax(-1)), dim=1)
    assert torch.equal(whole, again)
