"""Legality, checkpoint saves, the text form and fingerprints."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from specc import passes, spec
from specc.emit.fingerprint import fingerprints
from specc.ir.graph import Graph, Scope
from specc.ir.op import Layer, Op, Ref, Span
from specc.ir.text import text
from specc.ir.types import R, S, Spmd
from specc.lower import lower
from specc.passes import PASSES, compile_graph
from specc.passes.check import SpmdError, check
from specc.passes.legality import IllegalGraph, legality
from specc.passes.shapes import shapes
from specc.source import Source
from specc.spec.core import Checkpoint, Layout, Model, Pipeline, Run, Spec
from tests.models import MODELS, gpt2, llama, patterned, transformer

SP = Layout(tp=2, sequence_parallel=True, dp=2)
CUT = replace(SP, pp=Pipeline(stages=2), checkpoint=Checkpoint(save=("attention.core",)))
DEEP = replace(CUT, pp=Pipeline(stages=4))


def typed(model: Model) -> Graph:
    return passes.typed(lower(model))


# --- legality


@pytest.mark.parametrize("layout", [Layout(), Layout(tp=2), SP, CUT, DEEP], ids=["one", "tp", "sp", "pp", "deep"])
@pytest.mark.parametrize("name", MODELS)
def test_every_pass_gives_a_legal_graph(name: str, layout: Layout) -> None:
    model = MODELS[name]
    if layout is DEEP:  # stages in the middle are held once
        deeper = (replace(stack, runs=(replace(stack.runs[0], layers=8),)) for stack in model.stacks)
        model = replace(model, stacks=tuple(deeper))
    graph = legality(lower(model), layout, "lower")
    for step in PASSES:
        graph = legality(step(graph, layout), layout, step.__name__)


def test_before_dead_values_may_be_dead() -> None:
    graph = shapes(lower(transformer()), Layout())
    x = graph.op("encoder_embedding")
    idle = replace(x, id="idle", kind="scale", inputs=(x.ref,), params=(), attrs=(("factor", 2.0),))
    at = [op.id for op in graph.ops].index(x.id) + 1
    graph = graph.with_ops([*graph.ops[:at], idle, *graph.ops[at:]])
    legality(graph, Layout(), "shapes")
    with pytest.raises(IllegalGraph, match="idle: is dead"):
        legality(graph, Layout(), "dead")


def changed(id: str, **fields: Any) -> Callable[[Graph], Graph]:
    return lambda graph: graph.with_ops(replace(op, **fields) if op.id == id else op for op in graph.ops)


def attr(id: str, **attrs: Any) -> Callable[[Graph], Graph]:
    return lambda graph: graph.with_ops(op.having(**attrs) if op.id == id else op for op in graph.ops)


def without(id: str) -> Callable[[Graph], Graph]:
    def remove(graph: Graph) -> Graph:
        nx = graph.nx.copy()
        nx.remove_node(id)
        return Graph.around(nx, graph)

    return remove


def moved(id: str, before: str) -> Callable[[Graph], Graph]:
    def move(graph: Graph) -> Graph:
        op = graph.op(id)
        rest = [other for other in graph.ops if other.id != id]
        at = [other.id for other in rest].index(before)
        return graph.with_ops([*rest[:at], op, *rest[at:]])

    return move


def edge(producer: str, user: str, operand: int) -> Callable[[Graph], Graph]:
    def add(graph: Graph) -> Graph:
        nx = graph.nx.copy()
        nx.add_edge(producer, user, out=0, operand=operand)
        return Graph.around(nx, graph)

    return add


def scopes(change: Callable[[Scope], Scope]) -> Callable[[Graph], Graph]:
    return lambda graph: replace(graph, scopes=tuple(map(change, graph.scopes)))


def island(graph: Graph) -> Graph:
    other = replace(graph.op("tokens"), id="other")  # which alone may be idle
    return graph.with_ops([other, Op("other2", "scale", (other.ref,)), *graph.ops])


def other_shape(graph: Graph) -> Graph:
    head = graph.op("head")
    param = replace(head.params[0], role="other")
    return changed("head", params=(param,))(graph)


def same_name(graph: Graph) -> Graph:
    """The norm after the layers takes the name of a layer's norm."""
    weight = graph.op("layers.+0.attention_norm").params[0]
    norm = graph.op("norm")
    return changed("norm", params=(replace(norm.params[0], path=weight.path), *norm.params[1:]))(graph)


def module_and_parameter(graph: Graph) -> Graph:
    norm = graph.op("norm")
    return changed("norm", params=(replace(norm.params[0], path=("embedding",)), *norm.params[1:]))(graph)


CORE = "layers.+0.attention.core"
BLOCK = ("layers", Layer(0))

BROKEN: dict[str, tuple[Callable[[Graph], Graph], str]] = {
    "cycle": (edge("layers_end", "layers", 1), "is in a cycle"),
    "extra edge": (edge("tokens", "norm", 1), "norm: operands are"),
    "unknown kind": (changed(CORE, kind="magic"), r"\.core: is of no known kind"),
    "island": (island, "other: is not connected"),
    "wrong type": (changed("norm", outs=()), "norm: has types"),
    "output number": (
        changed("layers.+0.ffn_norm", inputs=(Ref("layers.+0.attention_residual", 1),)),
        r"ffn_norm: uses %layers\.\+0\.attention_residual:1, which does not exist",
    ),
    "twice declared": (lambda g: replace(g, scopes=(*g.scopes, g.scopes[0])), "is declared twice"),
    "class name": (scopes(lambda s: replace(s, names=("2x",))), "no name for its class"),
    "no class name": (scopes(lambda s: replace(s, names=())), "no name for its class"),
    "no scope": (lambda g: replace(g, scopes=g.scopes[:-1]), "is not declared"),
    "undeclared input": (scopes(lambda s: replace(s, inputs=s.inputs[:0])), "not among its inputs"),
    "apart": (changed("layers.+0.ffn.act", scope=BLOCK), "not contiguous"),
    "model behind loss": (moved("loss.labels", "head"), "head: is of the model"),
    "loss inside": (changed("loss.cross_entropy", scope=()), "is of the model, but stands behind the loss"),
    "loss as output": (lambda g: replace(g, outputs=(g.loss,)), "the loss stands outside the model"),
    "no layers": (attr("layers", n=0), "layers: runs 0 layers"),
    "starts late": (attr("layers", start=1), "layers: starts at layer 1 of layers, 0 come before"),
    "stages apart": (attr("layers", spans=(Span(1, 0, 1), Span(2, 2, 1))), "layers: has the spans"),
    "stages too short": (attr("layers", spans=(Span(1, 0, 1), Span(2, 1, 1))), "but layers up to 2"),
    "stages to the end": (
        attr("layers", spans=(Span(1, 0, 1), Span(2, 1, 2))),
        "layers: is several stages, but the last",
    ),
    "no end": (attr("layers_end", repeat="other"), "layers: has 0 ends"),
    "no block": (attr("layers", run=1), "but in none of its layers"),
    "out of the repeat": (changed("norm", scope=BLOCK), "norm: stands in a layer, but in no repeat"),
    "beside the layers": (changed("layers.+0.ffn_residual", scope=("layers",)), "in a repeat, but in no layer"),
    "carry not taken": (
        scopes(lambda s: replace(s, inputs=s.inputs[1:] + s.inputs[:1])),
        "first",
    ),
    "carry not returned": (changed("layers_end", inputs=(Ref("layers.+0.attention_residual"),)), "dead|carries"),
    "another role": (other_shape, "embedding.weight has another shape, role or init"),
    "parameter of a layer": (same_name, "belongs to another layer"),
    "module and parameter": (module_and_parameter, "embedding is a parameter here, a module elsewhere"),
    "placed in part": (changed("norm", types=(Spmd(),)), "the graph: is placed on the mesh|0 types for 1 outputs"),
    "converted before placing": (changed("norm", uses=(), lowering=(("tp", "ring"),)), "norm: is placed, though"),
    "kept unasked": (changed(CORE, kept="attention.core"), "is kept as attention.core"),
}


@pytest.mark.parametrize(("breaking", "problem"), BROKEN.values(), ids=list(BROKEN))
def test_illegal(breaking: Callable[[Graph], Graph], problem: str) -> None:
    graph = typed(gpt2() if "embedding.weight" in problem else llama())
    legality(graph, Layout())
    with pytest.raises(IllegalGraph, match=problem):
        legality(breaking(graph), Layout())


PLACED: dict[str, tuple[Callable[[Graph], Graph], Layout, str]] = {
    "type missing": (changed("norm", types=()), SP, "norm: 0 types for 1 outputs"),
    "mesh axis missing": (changed("norm", types=(Spmd.of({"tp": R}),)), SP, "norm: has the type tp:R"),
    "use missing": (changed("norm", uses=()), SP, "0 uses for 1"),
    "another mesh": (lambda g: g, replace(SP, dp=4), "is placed on the mesh"),
}


@pytest.mark.parametrize(("breaking", "layout", "problem"), PLACED.values(), ids=list(PLACED))
def test_illegal_when_placed(breaking: Callable[[Graph], Graph], layout: Layout, problem: str) -> None:
    graph = compile_graph(lower(llama()), SP)
    with pytest.raises(IllegalGraph, match=problem):
        legality(breaking(graph), layout)


def test_a_parameter_belongs_to_its_own_stack() -> None:
    graph = typed(transformer())
    weight = graph.op("encoder.+0.ffn.up").params[0]
    broken = changed("decoder.+0.ffn.up", params=(weight, *graph.op("decoder.+0.ffn.up").params[1:]))
    with pytest.raises(IllegalGraph, match="belongs to another layer"):
        legality(broken(graph), Layout())


def test_sizes_are_divisible_but_for_vocab() -> None:
    layout = Layout(tp=2)
    legality(compile_graph(lower(llama(vocab=97)), layout), layout)
    graph = compile_graph(lower(llama()), layout)
    mesh = tuple(replace(axis, size=32) for axis in graph.mesh)
    with pytest.raises(IllegalGraph, match="cannot be split over 32 ranks"):
        legality(graph.with_mesh(mesh), Layout(tp=32))


def test_an_uneven_vocabulary_is_not_gathered() -> None:
    """Ranks hold shards of different sizes, which no conversion of generated code can tell."""
    layout = Layout(tp=2)
    for vocab, legal in ((96, True), (97, False)):
        graph = compile_graph(lower(llama(vocab=vocab)), layout)
        logits = graph.op("head")
        places = (("mesh", "tp"), ("src", S("vocab")), ("dst", R))
        whole = replace(logits, id="whole", kind="convert", inputs=(logits.ref,), params=(), uses=(), attrs=places)
        whole = replace(whole, types=(Spmd.of({"tp": R}),))
        again = replace(whole.having(src=R, dst=S("vocab")), id="again", inputs=(whole.ref,), types=logits.types)
        at = [op.id for op in graph.ops].index("head") + 1
        loss = changed("loss.cross_entropy", inputs=(again.ref, Ref("loss.labels")))(
            graph.with_ops([*graph.ops[:at], whole, again, *graph.ops[at:]])
        )
        asked, told = replace(loss, outputs=(again.ref,)), "whole: .*(different numbers|cannot be split over 2 ranks)"
        for step, error in ((check, SpmdError), (legality, IllegalGraph)):
            with nullcontext() if legal else pytest.raises(error, match=told):
                step(asked, layout)


# --- text


def test_text_shows_placement_and_nesting() -> None:
    lines = text(compile_graph(lower(patterned()), CUT)).splitlines()
    assert lines[0] == "mesh dp=2, tp=2"
    assert lines[1] == "%x = stage0 First():"
    assert (
        "  %x = embedding(%tokens2, embedding.weight [vocab=96, d_model=32] normal(0.02) dp:R tp:S(vocab)) "
        "{dtype=float32} tp=vocab_parallel : float32[seq, batch, d_model=32] dp:S(batch) tp:P"
    ) in lines
    repeat = next(line for line in lines if "repeat layers" in line)
    assert repeat.startswith("  %x4 = repeat layers 0..2 (%x3)")
    assert "    %x5 = layers 0, 2: Block(%x = %x4, %rope_100 = %rope_100):" in lines
    assert any("reduce_scatter(%x5, tp: P -> S(seq))" in line for line in lines)
    assert any(line.endswith("kept as attention.core") for line in lines)
    assert lines[-4].startswith("  %labels = input()") and "dp:P tp:I" in lines[-1]


def test_names_are_local_to_scopes() -> None:
    """A scope reads the same whatever stands around it."""

    def block(model: Model) -> str:
        whole = text(typed(model))
        return whole[whole.index("Block(") : whole.index("= end")]

    assert block(llama(layers=2)) == block(llama(layers=7))


def test_blocks_stand_in_the_order_in_which_they_run() -> None:
    """By their layers, whatever place in the period the run starts at; each takes what the one before gave."""
    (stack,) = patterned(layers=7).stacks
    (run,) = stack.runs
    runs = (Run(run.blocks[:1], 1), Run(run.blocks, 6))
    lines = text(typed(replace(patterned(), stacks=(replace(stack, runs=runs),)))).splitlines()
    at = next(n for n, line in enumerate(lines) if "repeat layers 1..6" in line)
    told = [line.split(" : ")[0] for line in lines[at:] if not line.startswith("   ")]
    assert told[:5] == [
        "%x6 = repeat layers 1..6 (%x5)",
        "  %x7 = layers 1, 3, 5: Block(%x = %x6, %rope_100 = %rope_100):",
        "  %x8 = layers 2, 4, 6: Block(%x = %x7, %rope_50 = %rope_50):",
        "%x9 = end layers (%x8)",
        "%x10 = rms_norm(%x9, norm.weight [d_model=32] ones) {eps=0.01}",
    ]


def test_attributes_of_a_repeat_are_told_in_words() -> None:
    layout = Layout(
        pp=Pipeline(4, starts=("layers.1", "layers.3", "layers.5")), microbatches=4, checkpoint=Checkpoint(2)
    )
    lines = text(compile_graph(lower(llama(layers=7)), layout)).splitlines()
    (repeat,) = (line for line in lines if "repeat layers 1" in line)
    assert "repeat layers 1..4 (%x) {recompute every=2; stages 1: 1..2, 2: 3..4} :" in repeat


def test_text_of_an_untyped_graph() -> None:
    assert "%x2 = attention Attention(%x = %x, %mask = %mask):" in text(lower(transformer()))


# --- fingerprints


def prints(model: Model, layout: Layout) -> dict[str, str]:
    return dict(fingerprints(typed(model), compile_graph(lower(model), layout), layout))


def differing(a: tuple[Model, Layout], b: tuple[Model, Layout]) -> list[str]:
    first, second = prints(*a), prints(*b)
    return [name for name in first if first[name] != second[name]]


def test_fingerprints_tell_what_changed() -> None:
    model = llama()
    init = replace(model, init=replace(model.init, std=0.02 + 1e-9))
    assert list(prints(model, SP)) == ["params", "compute", "layout"]
    assert differing((model, SP), (model, replace(SP, name="other", at=("layouts", "other")))) == []
    assert differing((model, SP), (model, Layout(tp=2))) == ["layout"]
    assert differing((model, SP), (model, CUT)) == ["layout"]
    assert differing((model, SP), (replace(model, name="other", description="text"), SP)) == []
    assert differing((model, SP), (init, SP)) == ["compute"]
    assert differing((model, SP), (llama(scaling=None), SP)) == ["compute"]
    for other in (llama(layers=4), llama(vocab=98), llama(hidden=64)):  # sizes are no part of a layout
        assert differing((model, SP), (other, SP)) == ["params", "compute"]
    assert differing((model, CUT), (llama(layers=4), CUT)) == [
        "params",
        "compute",
        "layout",
    ]  # stages have other layers
    assert differing((llama(tied=True), SP), (llama(), SP)) == ["params", "compute"]


def test_fingerprints_see_the_order_of_shards() -> None:
    model, layout = llama(), Layout(tp=2)
    graph = compile_graph(lower(model), layout)
    norm = graph.op("norm")
    nested = replace(norm.types[0], nesting=(("seq", ("tp", "cp")),))
    before = fingerprints(typed(model), graph, layout)
    after = fingerprints(typed(model), changed("norm", types=(nested,))(graph), layout)
    assert before[:2] == after[:2] and before[2] != after[2]


def test_parameters_are_the_same_however_layers_repeat() -> None:
    one = llama(layers=4)
    run = one.stacks[0].runs[0]
    two = replace(one, stacks=(replace(one.stacks[0], runs=(replace(run, blocks=run.blocks * 2),)),))
    assert "params" not in differing((one, SP), (two, SP))


TINY = """
specc: 1
name: tiny
d_model: 32
vocab: 96
max_seq: 64
decoder:
  layers: 2
  block:
    - attention: {heads: 4, kv_heads: 2, rope: {theta: 100.0}}
    - ffn: {kind: gated, hidden: 48}
"""
SWAPPED = """
name: tiny
decoder:
  block:
    - attention: {rope: {theta: 100.0}, kv_heads: 2, heads: 4}

    - ffn: {hidden: 48, kind: gated}
  layers: 2
max_seq: 64
vocab: 96
d_model: 32
specc: 1
"""


def test_order_of_keys_and_places_do_not_matter() -> None:
    found: list[tuple[tuple[str, str], ...]] = []
    for source in (TINY, SWAPPED):
        loaded = spec.load(Source("spec.yaml", source))
        assert isinstance(loaded, Spec), loaded
        graph, placed = typed(loaded.model), compile_graph(lower(loaded.model), SP)
        found.append(fingerprints(graph, placed, SP))
        elsewhere = graph.with_ops(replace(op, at=("moved", *op.at)) for op in graph.ops)
        assert fingerprints(elsewhere, placed, SP) == found[-1]
    assert found[0] == found[1]


def test_hash_seed_does_not_matter() -> None:
    program = (
        "from tests.test_ir import *\nprint(prints(transformer(), CUT), text(compile_graph(lower(transformer()), CUT)))"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parent.parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1] and "encoder" in runs[0]
