"""Steps that predict later tokens are their equations, and their losses reach the training loss in every layout."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from specc.emit import emit
from specc.interpret import interpret_loss
from specc.source import Source
from specc.spec import Spec, load
from specc.spec.core import Layout, Pipeline
from specc.verify.relations import layout_relations, plain_relations, setting
from specc.verify.run import in_double, load_file
from tests import zoo
from tests.graphs import graph_of
from tests.test_frame import HEAD, ffn, made, normed

STEPS, FACTOR = 2, 0.3
TEXT = f"""\
head: {{multi_token: {{steps: {STEPS}, block: [one, one], loss: {FACTOR}}}}}
embedding: {{scale: 3, tied: true}}
blocks: {{one: [ffn: {{hidden: 8, activation: relu}}]}}
decoder: {{layers: 1, pattern: [one]}}
"""


def under(w: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): p for name, p in w.items() if name.startswith(prefix)}


def layer(x: Tensor, w: dict[str, Tensor]) -> Tensor:
    return x + ffn(normed(x, w, "ffn_norm", "layer"), w)


def by_hand(w: dict[str, Tensor], tokens: Tensor) -> list[Tensor]:
    """Logits of the next token, and of each step."""
    table = w["embedding.weight"]
    x = normed(layer(table[tokens] * 3, under(w, "layers.0.")), w, "norm", "layer")
    found = [x @ table.T]
    for k in range(1, STEPS + 1):
        own = under(w, f"multi_token{k}.")
        ahead = torch.stack([torch.cat((row[k:], torch.zeros_like(row[:k]))) for row in tokens])
        x = normed(x, own, "x_norm", "layer") @ own["x.weight"].T
        x = x + normed(table[ahead] * 3, own, "ahead_norm", "layer") @ own["ahead.weight"].T
        for n in range(2):
            x = layer(x, under(own, f"block{n}."))
        x = normed(x, own, "norm", "layer")
        found.append(x @ table.T)
    return found


def loss_by_hand(logits: list[Tensor], labels: Tensor) -> Tensor:
    """Token by token; a step has a label where all before it have one."""
    total = torch.zeros((), dtype=torch.float64)
    for k, values in enumerate(logits):
        for row in range(len(labels)):
            for place in range(labels.size(1) - k):
                aims = labels[row, place : place + k + 1].tolist()
                if -100 not in aims:
                    total = total + (FACTOR / STEPS if k else 1) * -F.log_softmax(values[row, place], 0)[aims[-1]]
    return total


def test_steps_are_their_equations() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens, labels = (torch.randint(32, (3, 9), generator=generator) for _ in range(2))
    labels = labels.masked_fill(torch.rand(labels.shape, generator=generator) < 0.2, -100)
    spec = load(Source("s.yaml", HEAD + TEXT))
    assert isinstance(spec, Spec), spec
    with in_double():
        file = load_file(emit(spec, spec.layout()).source, "file")
    one, graph = torch.ones((), dtype=torch.float64), interpret_loss(graph_of(spec.model))
    losses = (lambda given: graph(*given, labels, one), lambda given: file.loss(given, labels, one))
    for module, loss in zip(made(TEXT), losses, strict=True):
        w: dict[str, Tensor] = dict(module.named_parameters())
        wanted, found = by_hand(w, tokens), module(tokens)
        assert len(wanted) == len(found) == 1 + STEPS
        assert max((a - b).abs().max() for a, b in zip(found, wanted, strict=True)) <= 1e-12
        ours, theirs = loss(found), loss_by_hand(wanted, labels)
        assert (ours - theirs).abs() <= 1e-11
        gradients = (torch.autograd.grad(value, list(w.values())) for value in (ours, theirs))
        for a, b in zip(*gradients, strict=True):
            assert (a - b).abs().max() <= 1e-11 and bool((b != 0).any())


LAYOUTS = {
    "tp 2 sp, pp 2": Layout(tp=2, sequence_parallel=True, pp=Pipeline(2), microbatches=2),
    "dp 2": Layout(dp=2),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout(name: str) -> None:
    layout = LAYOUTS[name]
    found = setting(zoo.spec("steps-tiny").model, layout)
    rows = [*plain_relations(found, layout), *layout_relations(found, layout)]
    assert len(rows) > 8 and not [row for row in rows if not row.holds]


def test_generate_has_no_steps() -> None:
    found = load(Source("s.yaml", f"{HEAD}{TEXT}layout: {{generate: true}}\n"))
    assert not isinstance(found, Spec) and [item.code for item in found] == ["E414"]


def test_blocks_are_known() -> None:
    found = load(Source("s.yaml", HEAD + TEXT.replace("block: [one, one]", "block: [one, on]")))
    assert not isinstance(found, Spec) and [item.code for item in found] == ["E220"]
