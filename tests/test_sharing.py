"""Values that leave layers: exports of a repeat, locals of a period, and what goes from turn to turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from specc.emit import emit
from specc.interpret import init_weights, interpret
from specc.ir.graph import Graph, Scope
from specc.ir.op import Layer, Ref
from specc.lower import lower
from specc.passes import compile_graph, run
from specc.passes.check import SpmdError, check
from specc.passes.legality import IllegalGraph, legality
from specc.spec.core import Checkpoint, Layout, Pipeline, Run, Spec
from specc.verify.relations import describe, layout_relations, plain_relations, setting
from specc.verify.run import world_size
from tests.mutants import mutants, retyped
from tests.sharing import GIVES, MODELS, PERIOD, RESIDUAL, TABLES
from tests.zoo import called, spread


def cut(*starts: int, **more: Any) -> Layout:
    """Stages that start at these layers."""
    names = tuple(f"layers.{start}" for start in starts)
    return Layout(pp=Pipeline(len(starts) + 1, "1f1b", names), microbatches=len(names) + 1, tables=TABLES, **more)


LAYOUTS = (
    Layout(checkpoint=Checkpoint(every=2), tables=TABLES),
    Layout(tp=2, sequence_parallel=True, checkpoint=Checkpoint(every=1), tables=TABLES),
    cut(3),
    cut(1),
    cut(2, 3),
    cut(1, 4),
    cut(2, tp=2, sequence_parallel=True, checkpoint=Checkpoint(every=1)),
    cut(4, dp=2),
)


@pytest.mark.parametrize("layout", LAYOUTS, ids=describe)
@pytest.mark.parametrize("name", MODELS)
def test_passes_are_legal_and_preserve_the_function(name: str, layout: Layout) -> None:
    results: list[torch.Tensor] = []
    for step, graph in run(lower(MODELS[name]), layout):
        legality(graph, layout, after=step)
        if step in ("shapes", "dead", "stages"):
            module = interpret(graph, dtype=torch.float64)
            init_weights(module, graph, 0)
            results.append(module(torch.arange(12).view(2, 6)))
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


@pytest.mark.parametrize(("name", "layout"), spread(MODELS, LAYOUTS, 2), ids=called)
def test_layouts_agree(name: str, layout: Layout) -> None:
    found = setting(MODELS[name], layout)
    rows = plain_relations(found, layout)
    if world_size(layout) > 1:
        rows += layout_relations(found, layout)
    assert not [row for row in rows if not row.holds]


def source(name: str, layout: Layout) -> str:
    return emit(Spec(MODELS[name], (layout,)), layout).source


def test_the_file_reads_as_one_writes_it() -> None:
    turn = """\
            if int(i) % 3 == 1:
                x = layer(x, v, rope)
            elif int(i) % 3 == 2:
                x = layer(x)
            else:
                x, v = layer(x)
"""
    middle = source("period", cut(1, 4))
    assert middle.count(turn) == 2 and "        return x, v.contiguous()\n" in middle
    assert "layers.1, 0" not in middle
    latest = source("latest", cut(3))
    assert "    def forward(self, x: Tensor) -> Tensor:\n        positions =" in latest  # made before it is read
    assert middle.count("class TakingBlock") == middle.count("class GivingBlock") == 1


def test_what_is_not_read_leaves_no_layer() -> None:
    model = replace(RESIDUAL, stacks=(replace(RESIDUAL.stacks[0], runs=(Run((GIVES,), 3),)),))
    graph = {"lower": lower(model), **dict(run(lower(model), Layout()))}
    (end,) = (op for op in graph["dead"].ops if op.kind == "end")
    assert len(graph["lower"].op(end.id).inputs) == 2 and len(end.inputs) == len(end.outs) == 1


def test_a_value_is_handed_on_where_nobody_makes_it_before_it_is_read() -> None:
    """Cuts carry the values of heads only where a later layer reads those of an earlier stage."""
    sizes = {
        name: [len(op.inputs) for op in compile_graph(lower(MODELS[name]), layout).ops if op.kind == "cut"]
        for name, layout in (("residual", cut(1, 3)), ("period", cut(1, 3, 5, 6)), ("latest", cut(1, 3, 4, 6)))
    }
    assert sizes == {"residual": [2, 2], "period": [2, 1, 1, 1], "latest": [2, 1, 2, 1]}


def _scope(layer: int, run: int, **changes: Callable[[tuple[Ref, ...]], tuple[Ref, ...]]) -> Callable[[Graph], Graph]:
    """The scope of a block with other inputs or outputs."""
    path = ("layers", Layer(layer, run))

    def change(scope: Scope) -> Scope:
        fields = {name: made(getattr(scope, name)) for name, made in changes.items()}
        return replace(scope, **fields) if scope.path == path else scope

    return lambda graph: replace(graph, scopes=tuple(map(change, graph.scopes)))


WRONG = {
    "undeclared local": (_scope(0, 0, outputs=lambda refs: refs[:1]), "leaves scope .* not among its outputs"),
    "undeclared read": (_scope(1, 0, inputs=lambda refs: (refs[0], *refs[2:])), "which is not among its inputs"),
    "local as carry": (_scope(0, 0, outputs=lambda refs: refs[::-1]), r"layers\.\+0: returns"),
    "carry of another layer": (
        _scope(1, 0, inputs=lambda refs: (Ref("layers"), *refs)),
        r"layers\.\+1: takes %layers, .*, not %layers\.\+0\.shared_residual first",
    ),
}


@pytest.mark.parametrize(("breaking", "problem"), WRONG.values(), ids=list(WRONG))
def test_illegal(breaking: Callable[[Graph], Graph], problem: str) -> None:
    graph = dict(run(lower(PERIOD), Layout()))["dead"]
    with pytest.raises(IllegalGraph, match=problem):
        legality(breaking(graph), Layout())


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "residual" else pytest.mark.matrix) for name in MODELS]
)
def test_rejects_every_mutant(name: str) -> None:
    layout = cut(2, tp=2, sequence_parallel=True, dp=2)
    survivors: list[str] = []
    count = 0
    for description, mutant in mutants(dict(run(lower(MODELS[name]), layout))["place"]):
        count += 1
        for again in (False, True):
            try:
                check(retyped(mutant) if again else mutant, layout)
                survivors.append(f"{description}{' derived again' * again}")
            except SpmdError:
                pass
    assert count > 300 and survivors == []
