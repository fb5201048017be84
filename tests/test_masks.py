"""Masks are values: folded into a flag where they hide later tokens alone, split with the queries they are of."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

import pytest
import torch

from specc.components.attention import Attention
from specc.emit import emit
from specc.ir.graph import Graph
from specc.ir.op import Op
from specc.ir.types import MeshAxis, S
from specc.lower import lower
from specc.passes import typed
from specc.passes.check import SpmdError, check
from specc.passes.dead import dead
from specc.passes.fold import fold
from specc.passes.legalise import legalise
from specc.passes.place import place
from specc.passes.shapes import shapes
from specc.source import Source
from specc.spec import load
from specc.spec.core import Checkpoint, Layout, Model, Pipeline, Spec
from specc.verify.relations import layout_relations, plain_relations, setting
from tests.graphs import gradients, ids, made
from tests.models import MODELS, gpt2, llama, transformer
from tests.mutants import mutants, retyped

CONTEXT = MeshAxis("cp", 2, tokens=("seq", "source", "target"), data=True)
TENSOR = MeshAxis("tp", 2, tokens=("seq", "source", "target"), shards=("heads", "kv_heads", "ffn", "vocab"))


def causal_encoder() -> Model:
    """The transformer with an encoder that sees no later tokens either, beside its padding."""
    base = transformer()
    encoder, decoder = base.stacks
    (block,) = encoder.runs[0].blocks
    first, *others = block.sublayers
    (branch,) = first.branches
    assert isinstance(branch.component, Attention)
    causal = replace(branch, component=branch.component.model_copy(update={"causal": True}))
    block = replace(block, sublayers=(replace(first, branches=(causal,)), *others))
    return replace(base, stacks=(replace(encoder, runs=(replace(encoder.runs[0], blocks=(block,)),)), decoder))


def attentions(graph: Graph) -> list[Op]:
    return [op for op in graph.ops if op.kind == "attention"]


def whole(model: Model) -> Graph:
    """With every mask."""
    return dead(shapes(lower(model), Layout()), Layout())


@pytest.mark.parametrize("name", MODELS)
def test_a_folded_mask_hides_the_same(name: str) -> None:
    model = MODELS[name]
    plain, folded = whole(model), typed(lower(model))
    assert any(op.kind == "mask" for op in plain.ops) and not any(op.attr("causal") for op in attentions(plain))
    assert [len(op.inputs) for op in attentions(folded) if op.attr("causal")] == [
        3 for op in attentions(plain) if len(op.inputs) == 4 and plain.type(op.inputs[3]).dim("batch") is None
    ]
    one, other = made(plain), made(folded)
    ours, theirs = gradients(one, ids(model)), gradients(other, ids(model))
    for key, value in theirs.items():
        assert torch.allclose(ours[key], value, rtol=0, atol=1e-12) and bool(value.isfinite().all()), key


def test_what_hides_more_than_later_tokens_is_no_flag() -> None:
    model = causal_encoder()
    kinds = [(op.scope[0], bool(op.attr("causal")), len(op.inputs)) for op in attentions(typed(lower(model)))]
    assert kinds == [("encoder", False, 4), ("decoder", True, 3), ("decoder", False, 4)]
    source = emit(Spec(model, (Layout(),)), Layout()).source
    assert source.count("is_causal=True") == 1 and "(positions <= positions[:, None]) & " in source


def test_a_padded_causal_encoder_is_the_same_in_every_layout() -> None:
    """Its mask is made once, and what crosses a cut is that."""
    layout = Layout(tp=2, sequence_parallel=True, pp=Pipeline(2), microbatches=2, checkpoint=Checkpoint(every=1))
    found = setting(causal_encoder(), layout)
    rows = [*plain_relations(found, layout), *layout_relations(found, layout)]
    assert len(rows) > 8 and not [row for row in rows if not row.holds]


def split(model: Model, mesh: tuple[MeshAxis, ...], monkeypatch: pytest.MonkeyPatch) -> Graph:
    """Placed on a mesh that no layout has."""
    for name in ("fold", "legalise", "place"):
        monkeypatch.setattr(import_module(f"specc.passes.{name}"), "mesh_of", lambda layout: mesh)
    graph = lower(model)
    for step in (shapes, dead, fold, legalise, place):
        graph = step(graph, Layout())
    return check(graph, Layout())


@pytest.mark.parametrize("model", [gpt2(layers=1), llama(layers=1), causal_encoder()], ids=["gpt2", "llama", "causal"])
@pytest.mark.parametrize("mesh", [(CONTEXT,), (CONTEXT, TENSOR)], ids=["cp", "cp tp"])
def test_ranks_with_some_of_the_queries_have_their_part_of_the_mask(
    model: Model, mesh: tuple[MeshAxis, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = split(model, mesh, monkeypatch)
    assert not any(op.attr("causal") for op in attentions(graph))
    for op in attentions(graph):
        queries, mask = graph.type(op.inputs[0]).axes[2].name, op.inputs[3]
        assert graph.spmd(op.inputs[0]).at("cp") == S(queries)
        own = graph.type(mask).dim(queries) is not None
        assert str(graph.spmd(mask).at("cp")) == (f"S({queries})" if own else "R")
    for description, mutant in mutants(graph):
        for again in (False, True):
            with pytest.raises(SpmdError):
                check(retyped(mutant) if again else mutant, Layout())
                pytest.fail(description)


def test_ranks_with_all_queries_need_no_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = split(llama(layers=1), (MeshAxis("dp", 2, tokens=("batch",), data=True), TENSOR), monkeypatch)
    assert [op.attr("causal") for op in attentions(graph)] == [True]


def test_blocks_of_different_masks_are_one_class() -> None:
    """A class calls what it takes a mask, whatever that hides."""
    own = "- attention: {{heads: 4, softcap: 5{}}}\n    - ffn: {{hidden: 8}}\n"
    blocks = f"blocks:\n  near:\n    {own.format(', window: 4')}  far:\n    {own.format('')}"
    text = f"specc: 1\nname: m\nd_model: 8\nvocab: 24\n{blocks}decoder: {{layers: 4, pattern: [near, far]}}\n"
    spec = load(Source("m.yaml", text))
    assert isinstance(spec, Spec), spec
    source = emit(spec, spec.layout()).source
    assert source.count("Attention(nn.Module)") == source.count("Block(nn.Module)") == 1
    assert "mask_window_4 if int(i) % 2 == 0 else mask_causal" in source
