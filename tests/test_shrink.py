"""`specc verify` makes specs small: sizes shrink, what their stages are stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from specc.cli import main
from specc.compile import compile_spec
from specc.components.attention import Attention
from specc.ir.op import in_model
from specc.spec.core import Layout, Model, Pipeline, Spec
from specc.verify import least_ranks
from specc.verify.relations import layout_relations, setting
from specc.verify.run import world_size
from specc.verify.shrink import shrink
from tests import zoo
from tests.test_merged_stages import HEAD, MASK, MEMORY, spec

BLOCK = "decoder: {layers: 9, block: [{attention: {heads: 9, head_dim: 8}}, {ffn: {hidden: 36}}]}\n"


def roles(model: Model, layout: Layout) -> list[tuple[object, ...]]:
    """Cuts, and of each repeat: its places in the pattern, which comes first, whether equal stages share it."""
    graph = compile_spec(Spec(model, (layout,)), layout).placed
    found: list[tuple[object, ...]] = []
    for op in graph.ops:
        if op.kind == "cut":
            found.append(tuple(tuple(axis.name for axis in out.axes) for out in op.outs))
    starts: dict[object, int] = {}
    for repeat in graph.repeats:
        run = (in_model(repeat.path), repeat.run)
        start = starts.setdefault(run, repeat.start)
        places = sorted((offset - start) % repeat.period for offset in repeat.offsets)
        found.append((run, places, (repeat.start - start) % repeat.period, bool(repeat.spans)))
    return found


def pipe(stages: int, *starts: str) -> Layout:
    return Layout(pp=Pipeline(stages, "1f1b", starts), microbatches=2 * stages)


STAGED: dict[str, tuple[Model, Layout]] = {
    "mask": (spec(MASK).model, spec(MASK).layout()),
    "memory": (spec(MEMORY).model, spec(MEMORY).layout()),
    "405b": (zoo.model("llama-3.1-405b"), replace(zoo.spec("llama-3.1-405b").layout(), cp=1, pp=Pipeline(16))),
    "8b": (zoo.model("llama-3.1-8b"), zoo.spec("llama-3.1-8b").layout()),
    "transformer": (zoo.model("transformer-base"), pipe(4)),
    "eleven": (zoo.model("transformer-base"), pipe(11)),
    "decoder alone": (zoo.model("transformer-base"), pipe(3, "decoder.1", "decoder.4")),
    "long mask": (spec(MASK.replace("layers: 7", "layers: 101")).model, pipe(8)),
    "long cycle": (spec(MASK.replace("layers: 7", "layers: 50").replace("[f, a]", "[f*5, a]")).model, pipe(4)),
    "parts of a cycle": (spec(MASK.replace("layers: 7", "layers: 50").replace("[f, a]", "[f*5, a]")).model, pipe(12)),
    "runs": (
        spec(
            MASK.replace("layers: 7", "layers: 40").replace("[f, a]", "{head: [f], cycle: [a*2, f], tail: [a]}")
        ).model,
        pipe(6),
    ),
}


@pytest.mark.parametrize("name", STAGED)
def test_stages_stay_what_they_are(name: str) -> None:
    model, layout = STAGED[name]
    small, less = shrink(model, layout, 16)
    assert roles(small, less) == roles(model, layout)
    assert world_size(less) <= 16
    assert sum(stack.layers for stack in small.stacks) <= 50


def test_few_layers_stay() -> None:
    for text in (MASK, MEMORY):
        found = spec(text)
        small, less = shrink(found.model, found.layout(), 16)
        assert [stack.layers for stack in small.stacks] == [stack.layers for stack in found.model.stacks]
        assert less.pp.stages == found.layout().pp.stages


def test_axes_in_use_stay_in_use() -> None:
    """Fewer data ranks, then fewer equal stages, then a smaller divisor of tp, then fewer stages."""
    model = zoo.model("llama-3.1-405b")
    layout = Layout(tp=8, dp=32, pp=Pipeline(16, "1f1b"), microbatches=32)
    sizes = [
        (less.tp, less.dp, less.pp.stages) for _, less in (shrink(model, layout, n) for n in (999, 128, 64, 16, 8))
    ]
    assert sizes == [(8, 4, 16), (8, 2, 8), (8, 2, 4), (2, 2, 4), (2, 2, 2)]
    assert least_ranks(layout) == 8 and least_ranks(Layout()) == 1 and least_ranks(Layout(tp=35, dp=3)) == 10


LEGAL = {
    "tp 3 with sequence parallelism": (f"{HEAD}{BLOCK}layout: {{tp: 3, sequence_parallel: true}}\n", 16),
    "tp 9, of which 4 is no divisor": (f"{HEAD}{BLOCK}layout: {{tp: 9, dp: 2}}\n".replace("96", "99"), 16),
    "few positions": (f"{HEAD}max_seq: 4\nembedding: {{positions: learned}}\n{BLOCK}layout: {{tp: 3}}\n", 16),
    "odd rows of an even vocabulary": (f"{HEAD}{BLOCK}layout: {{tp: 3, dp: 2}}\n".replace("96", "99"), 16),
}


@pytest.mark.parametrize("name", LEGAL)
def test_legal_specs_are_proven(name: str) -> None:
    text, ranks = LEGAL[name]
    found = spec(text)
    model, layout = shrink(found.model, found.layout(), ranks)
    rows = layout_relations(setting(model, layout), layout)
    assert len(rows) >= 6 and not [row for row in rows if not row.holds]


@pytest.mark.parametrize(("tp", "heads", "kv_heads"), [(1, 8, 2), (2, 16, 4), (4, 32, 8), (8, 32, 8)])
def test_several_heads_stay_several(tp: int, heads: int, kv_heads: int) -> None:
    """Of 32 query heads over 8 key heads; none is the only one of a rank if it was not."""
    small, _ = shrink(zoo.model("llama-3.1-8b"), Layout(tp=tp), 16)
    found = small.stacks[0].runs[0].blocks[0].sublayers[0].branches[0].component
    assert isinstance(found, Attention) and (found.heads, found.kv_heads) == (heads, kv_heads)


@pytest.mark.parametrize(("tp", "vocab"), [(2, 97), (4, 50257), (40, 999), (8, 36), (8, 15)])
def test_an_uneven_vocabulary_stays_uneven(tp: int, vocab: int) -> None:
    model = replace(zoo.model("llama-tied-tiny"), vocab=vocab)
    small, less = shrink(model, Layout(tp=tp), 4)
    rows = -(-small.vocab // less.tp)
    assert less.tp < 5 and small.vocab % less.tp and (less.tp - 1) * rows < small.vocab


def test_too_few_ranks_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(f"{HEAD}{BLOCK}layouts:\n  one: {{}}\n  four: {{dp: 2, pp: 2}}\n")
    with pytest.raises(SystemExit) as stop:
        main(["verify", str(path), "--ranks", "2"])
    captured = capsys.readouterr()
    assert stop.value.code == 2 and not captured.out
    assert "Invalid value for --ranks: layout four needs at least 4, not 2" in captured.err
