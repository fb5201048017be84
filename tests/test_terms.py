"""Terms of the loss that layers make: an accumulator goes from layer to layer and from stage to stage."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from specc.emit import emit
from specc.ir.types import P
from specc.lower import lower
from specc.passes import compile_graph, run
from specc.passes.check import SpmdError, check
from specc.passes.legality import legality
from specc.spec.core import Block, Branch, Checkpoint, Layout, Model, Pipeline, Run, Spec, Sublayer
from specc.tables import tables
from specc.verify.relations import describe, layout_relations, plain_relations, setting
from specc.verify.run import world_size
from tests.models import llama, llama_block, transformer
from tests.mutants import mutants, retyped
from tests.sharing import NORM
from tests.terms import TERMS, Even

TABLES = tables((TERMS,))


def _block(name: str, config: Even) -> Block:
    own = Sublayer((Branch("even", config, ("block", "even"), pre=NORM),))
    return Block(name, (*llama_block(scaling=None).sublayers, own), ("decoder", name))


DENSE, ADDS = llama_block("dense", scaling=None), _block("adds", Even())


def _model(*runs: Run) -> Model:
    model = llama()
    return replace(model, stacks=(replace(model.stacks[0], runs=runs),), tables=TABLES)


def _pair() -> Model:
    """The encoder's layers add to the loss, the decoder's do not."""
    model = transformer()
    encoder, decoder = model.stacks
    (block,) = encoder.runs[0].blocks
    own = Sublayer((Branch("even", Even(), ("encoder", "even"), pre=NORM),))
    more = replace(block, sublayers=(*block.sublayers, own))
    return replace(model, stacks=(replace(encoder, runs=(Run((more,), 2),)), decoder), tables=TABLES)


MODELS = {
    "turn": _model(Run((DENSE, ADDS), 5)),
    "late": _model(Run((DENSE,), 2), Run((ADDS,), 2), Run((DENSE,), 1)),
    "encoder": _pair(),
}


def layout(stages: int = 1, **more: Any) -> Layout:
    return Layout(pp=Pipeline(stages, "1f1b"), microbatches=stages, tables=TABLES, **more)


LAYOUTS = (
    layout(checkpoint=Checkpoint(every=1)),
    layout(tp=2, checkpoint=Checkpoint(every=1)),
    layout(tp=2, sequence_parallel=True),
    layout(dp=2),
    layout(3),
    layout(2, dp=2, checkpoint=Checkpoint(every=1)),
    layout(2, tp=2, sequence_parallel=True),
)


@pytest.mark.parametrize("layout", LAYOUTS, ids=describe)
@pytest.mark.parametrize("name", MODELS)
def test_layouts_agree(name: str, layout: Layout) -> None:
    for step, graph in run(lower(MODELS[name]), layout):
        legality(graph, layout, after=step)
    found = setting(MODELS[name], layout)
    rows = plain_relations(found, layout)
    if world_size(layout) > 1:
        rows += layout_relations(found, layout)
    assert not [row for row in rows if not row.holds]


def test_the_file_reads_as_one_writes_it() -> None:
    text = emit(Spec(MODELS["turn"], (layout(tp=2),)), layout(tp=2)).source
    for line in (
        "                x = layer(x, rope)",
        "                x, terms = layer(x, terms, rope)",
        "    logits, terms = outputs",
        "    return (split_cross_entropy(logits, labels, 96, tp) + terms) * scale",
    ):
        assert f"{line}\n" in text


def test_it_is_a_sum_over_data_ranks_and_the_same_on_the_others() -> None:
    graph = compile_graph(lower(MODELS["turn"]), layout(tp=2, sequence_parallel=True, dp=2))
    places = [graph.spmd(ref) for op in graph.ops if op.kind in ("repeat", "end") for ref in op.inputs[1:]]
    assert [(str(spmd.at("dp")), str(spmd.at("tp"))) for spmd in places] == [("P", "I")] * 2
    assert graph.spmd(graph.loss).at("dp") == P


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "encoder" else pytest.mark.matrix) for name in MODELS]
)
def test_rejects_every_mutant(name: str) -> None:
    wide = layout(2, tp=2, sequence_parallel=True, dp=2)
    survivors: list[str] = []
    count = 0
    for description, mutant in mutants(dict(run(lower(MODELS[name]), wide))["place"]):
        count += 1
        for again in (False, True):
            try:
                check(retyped(mutant) if again else mutant, wide)
                survivors.append(f"{description}{' derived again' * again}")
            except SpmdError:
                pass
    assert count > 300 and survivors == []
