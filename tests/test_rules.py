"""`rules` of a layout: what ranks do not split is whole on every one of them, and computes the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from specc.compile import compile_spec
from specc.cost.counts import collectives, copied
from specc.cost.memory import memories
from specc.emit import emit
from specc.passes.check import SpmdError, check
from specc.source import Source
from specc.spec import Spec, load
from specc.spec.core import Layout
from specc.verify.launch import run_ranks
from tests import zoo
from tests.mutants import mutants
from tests.test_memory import MIDDLE, ROWS, Shapes, close, on_ranks, shapes, symbols
from tests.test_memory import load as load_file_of
from tests.test_own_heads import exact

TEXT = """\
specc: 1
name: ruled
d_model: 32
vocab: 97
norm: {kind: rms, eps: 1e-2}
decoder:
  layers: 1
  block:
    - attention: {heads: 3, head_dim: 8, rope: {}, bias: true, alibi: true}
    - ffn: {hidden: 64}
    - moe: {experts: 4, top_k: 2, hidden: 33, shared: {hidden: 31}}
"""
OTHERS = """\
specc: 1
name: others
d_model: 32
vocab: 96
norm: {kind: rms, eps: 1e-2}
decoder:
  layers: 1
  block:
    - mla: {heads: 3, kv_rank: 8, nope_dim: 6, rope_dim: 4, rope: {}}
    - attention: {heads: 4, kv_heads: 2, head_dim: 8, relative_bias: {buckets: 4, max_distance: 8}}
    - lightning: {heads: 3, head_dim: 4}
    - gated_delta: {heads: 6, qk_heads: 3, head_dim: 4}
    - mamba2: {heads: 3, head_dim: 4, state: 4}
    - rg_lru: {heads: 3, hidden: 12}
    - mamba: {hidden: 33, state: 4}
    - short_conv: {hidden: 31}
    - ffn: {hidden: 96}
"""
SP = Layout(tp=2, sequence_parallel=True)
FEW = (("attention.heads", "none"), ("moe.ffn", "none"), ("vocab", "none"))
ALL = (("heads", "none"), ("channels", "none"), ("attention.heads", "tp"), ("attention.kv_heads", "none"))


def ruled(layout: str, text: str = TEXT) -> Spec:
    found = load(Source("ruled.yaml", f"{text}layout: {layout}\n"))
    assert isinstance(found, Spec), found
    return found


def test_what_is_whole_by_rule_is_exact() -> None:
    exact(TEXT, replace(SP, rules=FEW))


@pytest.mark.matrix
@pytest.mark.parametrize("sequence_parallel", [True, False])
@pytest.mark.parametrize("dp", [1, 2])
@pytest.mark.parametrize(("text", "rules"), [(TEXT, FEW), (OTHERS, ALL)], ids=["few", "all"])
def test_every_rule_is_exact(text: str, rules: tuple[tuple[str, str], ...], sequence_parallel: bool, dp: int) -> None:
    exact(text, Layout(tp=2, sequence_parallel=sequence_parallel, dp=dp, rules=rules))


def test_heads_that_ranks_cannot_share_and_features_that_they_do() -> None:
    spec = ruled("{tp: 2, rules: {attention.heads: none, moe.ffn: none}}")
    text = emit(spec, spec.layout()).source
    assert "attention.heads, moe.ffn whole on every rank" in text
    assert "self.q = Linear(32, 24, tp, bias=True)" in text and "self.up = ColumnLinear(32, 64, tp)" in text
    attention = text[text.index("class Attention") : text.index("class FeedForward")]
    assert "self.tp" not in attention  # every rank does the same with the same


def test_what_is_said_of_a_component_comes_first() -> None:
    spec = ruled("{tp: 2, rules: {ffn: none, ffn.ffn: tp, heads: none}}")
    table = emit(spec, spec.layout()).params
    rows = {line.split()[0]: line for line in table.splitlines() if "weight" in line}
    assert "tp Shard(0)" in rows["layers.0.ffn.up.weight"] and "whole" in rows["layers.0.moe.up.weight"]


def test_every_mutant_is_rejected() -> None:
    spec = ruled("{tp: 2, sequence_parallel: true, rules: {attention.heads: none, moe.ffn: none, vocab: none}}")
    graph = compile_spec(spec, spec.layout()).placed
    count, survivors = 0, list[str]()
    for description, mutant in mutants(graph):
        count += 1
        try:
            check(mutant, spec.layout())
            survivors.append(description)
        except SpmdError:
            pass
    assert count > 200 and survivors == []


def test_copies_around_collectives_are_told() -> None:
    """Those along another dim than the first, which the file turns there; tokens come first, so the rest has none."""
    spec = ruled("{tp: 2, sequence_parallel: true, rules: {attention.heads: none}}")
    graph = compile_spec(spec, spec.layout()).placed
    text = emit(spec, spec.layout()).source
    forward, backward = copied(graph, graph.ops)
    assert forward == {"all-gather": 3} and backward == {"reduce-scatter": 3}
    assert text.count(".transpose(0, 2), self.tp).transpose(0, 2)") == 3
    even = compile_spec(zoo.spec("llama-3.1-8b"), SP).placed
    assert copied(even, even.ops) == ({}, {}) and collectives(even, even.ops) != ({}, {})


MIDDLES = {
    "one": ("kv_heads: 4", "kv_heads: 1"),
    "three": ("heads: 8, kv_heads: 4", "heads: 12, kv_heads: 3"),
    "uneven": ("hidden: 256", "hidden: 255"),
}


@pytest.mark.matrix
def test_bytes_are_told(tmp_path: Path) -> None:
    """The most that a rank holds in a step, against real ones."""
    told: dict[str, int] = {}
    sources: dict[str, tuple[str, Shapes, int]] = {}
    for name, change in MIDDLES.items():
        (tmp_path / f"{name}.yaml").write_text(MIDDLE.replace(*change))
        spec = load_file_of(tmp_path / f"{name}.yaml")
        for layout in (SP, Layout(tp=2), *(replace(one, rules=(("heads", "none"),)) for one in (SP, Layout(tp=2)))):
            compiled, key = compile_spec(spec, layout), f"{name} {layout}"
            (memory,) = memories(compiled.placed, layout, symbols(compiled.placed), whole=True)
            told[key] = memory.peak
            sources[key] = (emit(spec, layout, compiled).source, shapes(compiled.placed), ROWS)
    found: list[dict[str, int]] = run_ranks(2, on_ranks, sources)
    for key, peak in told.items():
        assert close(peak, max(rank[key] for rank in found), 0.001), key
