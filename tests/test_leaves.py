"""Leaf classes declare what the graph stores, on every mesh axis; the loss is the one that the graph says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from specc.compile import compile_spec
from specc.emit import emit, leaf
from specc.interpret import interpret_loss
from specc.ir.types import R
from specc.lower import lower
from specc.passes.shapes import shapes
from specc.spec.core import Layout, Model, Spec
from specc.verify.run import load_file
from tests.models import MODELS, VOCAB, transformer

TP = Layout(tp=2)


def test_a_class_that_does_not_place_as_the_graph_stores_is_told() -> None:
    """Of the linears that share a class, one has a bias that is stored whole."""
    graph = compile_spec(Spec(transformer(bias=True), (TP,)), TP).placed
    op = next(op for op in graph.ops if op.id.endswith("attention.k"))
    weight, bias = op.uses
    whole = replace(bias, stored=bias.stored.put("tp", R), used=bias.used.put("tp", R))
    changed = graph.with_ops(replace(o, uses=(weight, whole)) if o is op else o for o in graph.ops)
    leaf.leaves(graph)
    with pytest.raises(ValueError, match=r"attention.k.bias is \(32,\) .*, but its ColumnLinear has"):
        leaf.leaves(changed)


@pytest.mark.parametrize("name", MODELS)
def test_the_loss_is_the_sum_of_cross_entropies_times_scale(name: str) -> None:
    model: Model = MODELS[name]
    graph = shapes(lower(model), Layout())
    logits = torch.randn(2, 5, VOCAB, dtype=torch.float64)
    labels = torch.randint(VOCAB, (2, 5)).masked_fill(torch.rand(2, 5) < 0.3, -100)
    valid = labels.ne(-100).sum().double()  # one over a whole number would be float32
    wanted = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
    file = load_file(emit(Spec(model, (Layout(),)), Layout()).source, "file")
    file.__dict__["REDUCE"] = torch.float64
    for loss in (interpret_loss(graph), file.loss):
        assert torch.allclose(loss(logits, labels, 1 / valid), wanted, rtol=1e-12)
