"""Equal pipeline stages are held once, if each hands on all that it takes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from specc.ir.op import Op, Ref, stage_of
from specc.lower import lower
from specc.passes import compile_graph
from specc.passes.legality import IllegalGraph, legality
from specc.source import Source
from specc.spec import Spec, load
from specc.spec.core import Layout, Model, Pipeline
from specc.verify.relations import layout_relations, setting

HEAD = "specc: 1\nname: m\nd_model: 32\nvocab: 96\nnorm: {kind: rms, eps: 1e-2}\n"
MASK = f"""\
{HEAD}pad: 0
blocks:
  f:
    - ffn: {{hidden: 64}}
  a:
    - attention: {{heads: 4}}
encoder:
  layers: 7
  pattern: [f, a]
layout: {{pp: 4}}
"""
MEMORY = f"""\
{HEAD}blocks:
  f:
    - ffn: {{hidden: 64}}
  a:
    - cross_attention: {{heads: 4}}
encoder:
  layers: 1
  block:
    - ffn: {{hidden: 64}}
decoder:
  layers: 7
  pattern: [f, a]
layout: {{pp: {{stages: 5, starts: [decoder.0, decoder.2, decoder.4, decoder.6]}}, microbatches: 5}}
"""
CASES = {"mask": MASK, "memory": MEMORY}
"""The last layer reads neither padding nor memory, the layers before it do."""


def spec(text: str) -> Spec:
    found = load(Source("spec.yaml", text))
    assert isinstance(found, Spec), found
    return found


def held(model: Model, layout: Layout) -> dict[int, int]:
    """Stages by the number of the first, and how many each stands for; 0 where no repeat has spans."""
    graph = compile_graph(lower(model), layout)
    found: dict[int, int] = {}
    for repeat in (op for op in graph.ops if op.kind == "repeat"):
        spans = dict(repeat.attrs).get("spans", ())
        assert isinstance(spans, tuple)
        found[stage_of(repeat.scope)] = len(spans)
    return found


@pytest.mark.parametrize("name", CASES)
def test_what_later_stages_do_not_need_stays(name: str) -> None:
    found = spec(CASES[name])
    layout = found.layout()
    rows = layout_relations(setting(found.model, layout), layout)
    assert len(rows) >= 6 and not [row for row in rows if not row.holds]


def masked(layers: int) -> Model:
    return spec(MASK.replace("layers: 7", f"layers: {layers}")).model


def test_equal_stages_are_held_once_where_the_next_takes_as_much() -> None:
    apart = dict.fromkeys(range(4), 0)
    assert held(masked(7), Layout(pp=Pipeline(4))) == apart
    assert held(masked(8), Layout(pp=Pipeline(4))) == {0: 0, 1: 2, 3: 0}
    starts = tuple(f"layers.{2 * n}" for n in range(1, 7))
    assert held(masked(13), Layout(pp=Pipeline(7, starts=starts))) == {0: 0, 1: 4, 5: 0, 6: 0}
    assert held(masked(14), Layout(pp=Pipeline(7, starts=starts))) == {0: 0, 1: 5, 6: 0}


def test_cuts_around_equal_stages_are_alike() -> None:
    """The cut behind them turned round, and all that reads it with it: right, but for the stages that are one."""
    found = spec(MEMORY.replace("layers: 7", "layers: 8"))
    layout = found.layout()
    graph = compile_graph(lower(found.model), layout)
    turned = {Ref("cut4", 0): Ref("cut4", 1), Ref("cut4", 1): Ref("cut4", 0)}

    def turn(refs: tuple[Ref, ...]) -> tuple[Ref, ...]:
        return tuple(turned.get(ref, ref) for ref in refs)

    def change(op: Op) -> Op:
        if op.id == "cut4":
            return replace(op, inputs=op.inputs[::-1], outs=op.outs[::-1], types=op.types[::-1])
        return replace(op, inputs=turn(op.inputs))

    scopes = tuple(replace(scope, inputs=turn(scope.inputs)) for scope in graph.scopes)
    other = replace(graph.with_ops(map(change, graph.ops)), scopes=scopes)
    with pytest.raises(IllegalGraph, match=r"stage2\.decoder: is several stages: .* leaves by cut4"):
        legality(other, layout)
