"""What heads share, on more ranks than there is of it or that cannot hold equal parts of it: k and v, B and C."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd
from typing import Any, cast

import pytest
import torch

from specc.components.heads import Heads
from specc.components.heads import shrink as shrink_heads
from specc.emit import emit
from specc.interpret import init_weights, interpret
from specc.kernels.heads import own_head, own_heads
from specc.lower import lower
from specc.passes import typed
from specc.passes.check import SpmdError, check
from specc.passes.legalise import legalise
from specc.source import Source
from specc.spec import Spec, load
from specc.spec.core import Layout, Pipeline
from specc.verify.relations import layout_relations, plain_relations, setting
from specc.verify.run import world_size
from tests.graphs import ids
from tests.mutants import mutants, retyped
from tests.test_check_models import placed

TEXT = """\
specc: 1
name: shared
d_model: 48
vocab: 96
norm: {kind: rms, eps: 1e-2}
blocks:
  odd:
    - attention:
        {heads: 12, kv_heads: 3, head_dim: 8, bias: true, clip: 4, qk_norm: {over: width}, rope: {}, kv_to: odd}
  one:
    - attention: {heads: 8, kv_heads: 1, head_dim: 8, qk_norm: {weight: per_head, bias: true}, alibi: true, kv_to: one}
    - ffn: {hidden: 96}
  two:
    - attention:
        {heads: 8, kv_heads: 2, head_dim: 8, qk_norm: {weight: per_head}, rope: {}, output_gate: true, softcap: 10}
  from:
    - attention: {heads: 12, kv_from: odd, head_dim: 8, rope: {}}
    - attention: {heads: 8, kv_from: one, head_dim: 8}
  mixed:
    - attention:
        {heads: 12, kv_heads: 3, head_dim: 8, value_residual: {from: odd}, tied_kv: true, v_norm: true, sinks: true}
    - gated_delta: {heads: 12, qk_heads: 2, head_dim: 8}
    - mamba2: {heads: 12, groups: 3, head_dim: 4, state: 4}
decoder:
  layers: 5
  pattern: [odd, one, two, from, mixed]
"""
ENCODED = """\
specc: 1
name: crossed
d_model: 32
vocab: 96
encoder:
  layers: 1
  block: [{attention: {heads: 4, kv_heads: 2, head_dim: 8}}, {ffn: {hidden: 64}}]
decoder:
  layers: 2
  block: [{attention: {heads: 4, kv_heads: 1, head_dim: 8}}, {cross_attention: {heads: 4, kv_heads: 2, qk_norm: true}}]
"""
FEW = """\
specc: 1
name: few
d_model: 32
vocab: 96
decoder:
  layers: 1
  block:
    - attention: {heads: 6, kv_heads: 3, head_dim: 8, rope: {}}
    - attention: {heads: 4, kv_heads: 1, head_dim: 8, qk_norm: true}
    - gated_delta: {heads: 6, qk_heads: 3, head_dim: 4}
"""
SP = Layout(tp=4, sequence_parallel=True)


def spec(text: str = TEXT) -> Spec:
    found = load(Source("shared.yaml", text))
    assert isinstance(found, Spec), found
    return found


def exact(text: str, layout: Layout) -> None:
    case = setting(spec(text).model, layout)
    rows = [*plain_relations(case, layout), *(layout_relations(case, layout) if world_size(layout) > 1 else ())]
    assert len(rows) > 8 and not [row for row in rows if not row.holds]


def test_what_heads_share_is_exact() -> None:
    exact(FEW, Layout(tp=2, sequence_parallel=True))


TRAINED = (
    SP,
    Layout(tp=4),
    Layout(tp=2, sequence_parallel=True, dp=2),
    Layout(tp=4, sequence_parallel=True, pp=Pipeline(2), microbatches=2),
    Layout(tp=4, sequence_parallel=True, checkpoint=replace(Layout().checkpoint, every=1)),
)
GENERATING = (Layout(tp=4, generate=True), Layout(tp=2, generate=True))
CASES = [*((TEXT, layout) for layout in (*TRAINED, *GENERATING)), *((ENCODED, layout) for layout in TRAINED)]


@pytest.mark.matrix
@pytest.mark.parametrize(("text", "layout"), CASES, ids=lambda of: of.split()[3] if isinstance(of, str) else str(of))
def test_what_heads_share_is_exact_in_every_layout(text: str, layout: Layout) -> None:
    exact(text, layout)


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("heads", "kv_heads", "tp"), [(8, 1, 8), (8, 2, 8), (8, 4, 8), (6, 2, 3), (12, 6, 4), (8, 8, 4)]
)
def test_every_ratio_is_exact(heads: int, kv_heads: int, tp: int) -> None:
    block = (
        f"[{{attention: {{heads: {heads}, kv_heads: {kv_heads}, head_dim: 4, rope: {{}}}}}}, {{ffn: {{hidden: 96}}}}]"
    )
    text = f"specc: 1\nname: ratio\nd_model: 48\nvocab: 96\ndecoder: {{layers: 1, block: {block}}}\n"
    exact(text, Layout(tp=tp, sequence_parallel=True))


@pytest.mark.parametrize(
    "layout",
    [SP, *(pytest.param(of, marks=pytest.mark.matrix) for of in (Layout(tp=4), replace(SP, tp=2, dp=2)))],
    ids=str,
)
def test_every_mutant_is_rejected(layout: Layout) -> None:
    graph = placed(spec().model, layout)
    kinds = [op.kind for op in graph.ops]
    assert kinds.count("own_heads") == (12 if layout.tp == 4 else 8) and check(graph, layout) is graph
    selecting = {op.id for op in graph.ops if op.kind == "own_heads"}
    near = selecting | {ref.op for op in graph.ops if op.id in selecting for ref in op.inputs}
    count, survivors = 0, list[str]()
    for description, mutant in mutants(graph):
        if not any(description.startswith(name) for name in near):
            continue
        for again in (False, True):
            count += 1
            try:
                check(retyped(mutant) if again else mutant, layout)
                survivors.append(description)
            except SpmdError:
                pass
    assert count > 100 and survivors == []


@dataclass(frozen=True)
class Rank:
    """Of a mesh of one axis."""

    rank: int
    ranks: int

    def get_local_rank(self) -> int:
        return self.rank

    def size(self) -> int:
        return self.ranks


@pytest.mark.parametrize(("heads", "ranks"), [(1, 4), (2, 4), (3, 4), (6, 4), (3, 2), (2, 8)])
def test_ranks_take_what_their_queries_read(heads: int, ranks: int) -> None:
    """A query head reads the same in its rank's part as it does in all."""
    x, times = torch.randn(5, 3, heads * 2), ranks // gcd(heads, ranks)
    whole = x.unflatten(-1, (heads, 2)).repeat_interleave(times, -2).flatten(-2)
    for rank, want in enumerate(whole.chunk(ranks, -1)):
        mesh = cast(Any, Rank(rank, ranks))
        assert own_heads(x, 2, times, mesh).equal(want)
        assert own_heads(x.transpose(1, 2), 2, times, mesh, dim=1).equal(want.transpose(1, 2))
        if want.size(-1) == 2:
            assert (
                own_head(x, 2, mesh).equal(want) and own_head(x, 2, mesh).untyped_storage().data_ptr() == x.data_ptr()
            )


def test_one_head_is_gathered_and_that_is_all() -> None:
    block = "[{attention: {heads: 8, kv_heads: 1, head_dim: 8, rope: {}}}]"
    text = emit(
        spec(f"specc: 1\nname: one\nd_model: 32\nvocab: 96\ndecoder: {{layers: 1, block: {block}}}\n"), SP
    ).source
    assert "k = all_gather(self.k(x), self.tp).unflatten(-1, (1, 8)).permute(1, 2, 0, 3)" in text
    assert "self.k = Linear(32, 8, tp)" in text and "own_head" not in text


@pytest.mark.parametrize(
    ("heads", "kv_heads", "tp"), [(48, 1, 8), (32, 2, 8), (12, 3, 4), (20, 5, 2), (64, 8, 8), (30, 10, 6)]
)
def test_small_models_share_as_large_ones_do(heads: int, kv_heads: int, tp: int) -> None:
    made = shrink_heads(Heads(heads=heads, kv_heads=kv_heads, head_dim=64, v_head_dim=64), tp)
    assert made.kv_heads is not None and made.heads % made.kv_heads == made.heads % tp == 0
    assert gcd(made.kv_heads, tp) == gcd(kv_heads, tp)


@pytest.mark.parametrize("layout", [SP, Layout(tp=2)], ids=["4", "2"])
def test_it_is_the_same_function_before_it_is_placed(layout: Layout) -> None:
    graph = typed(lower(spec().model), layout)
    found: list[torch.Tensor] = []
    for one in (graph, legalise(graph, layout)):
        module = interpret(one, dtype=torch.float64).eval()
        init_weights(module, graph, 0)
        found.append(module(*ids(spec().model)))
    assert torch.allclose(*found, rtol=1e-12, atol=1e-12) and "own_heads" in [
        op.kind for op in legalise(graph, layout).ops
    ]
