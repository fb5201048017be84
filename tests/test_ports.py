"""Families that specc does not have, as plug-ins: exact in every layout, by what extensions say alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from specc.emit import emit
from specc.ir.graph import Graph
from specc.lower import lower
from specc.passes import run
from specc.passes.check import SpmdError, check
from specc.passes.legality import legality
from specc.source import Source
from specc.spec import Spec, load
from specc.spec.core import Checkpoint, Layout, Pipeline
from specc.tables import Tables, tables
from specc.verify.relations import describe, layout_relations, plain_relations, setting
from specc.verify.run import world_size
from tests.mutants import mutants, retyped, short_cut

MOE = MAMBA = tables()
TEXT = """\
specc: 1
name: mixed
d_model: 32
vocab: 96
norm: {kind: rms, eps: 1e-2}
decoder:
  layers: 3
  block:
    - attention: {heads: 4, kv_heads: 2, rope: {theta: 100}}
    - moe: {experts: 4, top_k: 2, kind: gated, hidden: 16, balance_loss: 0.3, shared: {hidden: 8}}
"""
STATES = """\
specc: 1
name: states
d_model: 32
vocab: 96
norm: {kind: rms, eps: 1e-2}
decoder:
  layers: 3
  block:
    - mamba2: {heads: 4, head_dim: 8, groups: GROUPS, state: 4}
    - ffn: {hidden: 16}
"""
FULL = Checkpoint(every=1)


def spec(text: str = TEXT, known: Tables = MOE) -> Spec:
    found = load(Source("ports.yaml", text), known)
    assert isinstance(found, Spec), found
    return found


def layout(stages: int = 1, **more: Any) -> Layout:
    pipeline = Pipeline(stages, "1f1b")
    more["dp"] = more.get("dp", 1) * more.get("ep", 1)  # ep is of the ranks of dp
    return Layout(**{"pp": pipeline, "microbatches": stages, "tables": MOE} | more)


def wide(*layouts: Layout) -> list[Any]:
    """Those that the matrix has beside what every run of the tests has."""
    return [pytest.param(layout, marks=pytest.mark.matrix, id=describe(layout)) for layout in layouts]


def exact(found: Spec, layout: Layout) -> None:
    for step, graph in run(lower(found.model), layout):
        legality(graph, layout, after=step)
    case = setting(found.model, layout)
    rows = plain_relations(case, layout)
    if world_size(layout) > 1:
        rows += layout_relations(case, layout)
    assert not [row for row in rows if not row.holds]


MIXED = (
    layout(checkpoint=FULL),
    layout(tp=2, sequence_parallel=True, checkpoint=FULL),
    layout(ep=2, dp=2),
    layout(ep=2, tp=2, sequence_parallel=True, checkpoint=FULL),
    layout(2, ep=2),
    *wide(
        layout(tp=2, dp=2),
        layout(2, tp=2, sequence_parallel=True),
        layout(3, dp=2),
        layout(ep=2),
        layout(ep=4, dp=2),  # an expert on each rank
        layout(ep=2, tp=2),
        layout(ep=2, tp=2, dp=2, sequence_parallel=True),
        layout(2, ep=2, checkpoint=FULL),
        layout(2, ep=2, dp=2),
        layout(2, ep=2, tp=2, sequence_parallel=True),
    ),
)


@pytest.mark.parametrize("layout", MIXED, ids=describe)
def test_a_mixture_of_experts_with_a_balance_is_exact(layout: Layout) -> None:
    exact(spec(), layout)


APART = (
    layout(cp=2, tp=2, sequence_parallel=True),
    *wide(layout(cp=2), layout(2, cp=2, dp=2), layout(cp=2, ep=2), layout(cp=2, ep=2, tp=2, sequence_parallel=True)),
)


@pytest.mark.parametrize("layout", APART, ids=describe)
def test_a_mixture_of_experts_over_parts_of_samples_is_exact(layout: Layout) -> None:
    exact(spec(), layout)


SCANNED = (
    layout(checkpoint=FULL),
    layout(tp=2, sequence_parallel=True, checkpoint=FULL),
    layout(cp=2, tp=2, sequence_parallel=True),
    layout(cp=2),
    *wide(
        layout(tp=2, dp=2),
        layout(2, tp=2, sequence_parallel=True),
        layout(3, dp=2),
        layout(cp=4, checkpoint=FULL),  # parts shorter than what a convolution reads
        layout(cp=2, tp=2, dp=2),
        layout(2, cp=2, dp=2),
    ),
)


@pytest.mark.parametrize("layout", SCANNED, ids=describe)
def test_a_state_space_is_exact(layout: Layout) -> None:
    exact(spec(STATES.replace("GROUPS", "2"), MAMBA), replace(layout, tables=MAMBA))


ONE_GROUP = (
    layout(),
    *wide(layout(tp=2, sequence_parallel=True), layout(cp=2, tp=2, sequence_parallel=True), layout(2, tp=2, dp=2)),
)


@pytest.mark.parametrize("layout", ONE_GROUP, ids=describe)
def test_a_state_space_of_one_group_is_exact(layout: Layout) -> None:
    exact(spec(STATES.replace("GROUPS", "1"), MAMBA), replace(layout, tables=MAMBA))


@pytest.mark.matrix
def test_both_in_one_model_over_all_axes_are_exact() -> None:
    found = spec(STATES.replace("GROUPS", "2").replace("ffn: {", "moe: {experts: 4, top_k: 2, shared: {hidden: 8}, "))
    exact(found, layout(cp=2, ep=2, tp=2, sequence_parallel=True, checkpoint=FULL))


def test_what_ranks_cannot_share_out_is_told() -> None:
    uneven = load(Source("ports.yaml", f"{TEXT}layout: {{dp: 6, ep: 3}}\n"), MOE)
    assert isinstance(uneven, list) and [item.code for item in uneven] == ["E402"]
    assert (uneven[0].message, uneven[0].help) == ("4 experts cannot be split over ep = 3", "ep can be 1, 2 or 4")
    outside = load(Source("ports.yaml", f"{TEXT}layout: {{dp: 6, ep: 4}}\n"), MOE)
    assert isinstance(outside, list) and [item.code for item in outside] == ["E443"]
    assert outside[0].help == "with dp = 6, ep can be 1 or 2"
    none = load(Source("ports.yaml", f"{STATES.replace('GROUPS', '2')}layout: {{dp: 2, ep: 2}}\n"), MOE)
    assert isinstance(none, list) and [item.code for item in none] == ["E444"]
    few = load(Source("ports.yaml", TEXT.replace("top_k: 2", "top_k: 5")), MOE)
    assert isinstance(few, list) and [item.message for item in few] == ["a token cannot go to top_k = 5 of 4 experts"]


def test_experts_read_as_one_writes_them() -> None:
    text = emit(spec(), layout(tp=2, ep=2, sequence_parallel=True)).source
    for line in (
        "        self.gate = OwnColumnExperts(4, 32, 16, ep_tp)",
        "        rows, owner, order = dispatch(x, ids)  # [slots, d_model]",  # what is packed is one dim
        "        rows, own, origin = to_experts(rows, owner, 4, self.ep)",
        "        rows = self.down(F.silu(self.gate(rows, own)) * self.up(rows, own), own)",
    ):
        assert f"{line}\n" in text or f"{line}  # [" in text, line
    alone = emit(spec(), layout(tp=2)).source
    assert "        rows = self.down(F.silu(self.gate(rows, owner)) * self.up(rows, owner), owner)" in alone
    assert "to_experts" not in alone


def test_states_read_as_one_writes_them() -> None:
    found = spec(STATES.replace("GROUPS", "2"), MAMBA)
    text = emit(found, replace(layout(cp=2), tables=MAMBA)).source
    assert "        u = F.silu(self.x_conv(u, halo(u, 3, self.cp)))\n" in text and "state_space_of_part(\n" in text
    alone = emit(found, replace(layout(), tables=MAMBA)).source
    assert "        u = F.silu(self.x_conv(self.x(x)))." in alone and "halo" not in alone


def wrong(graph: Graph) -> Iterator[tuple[str, Graph]]:
    yield from mutants(graph)
    yield from short_cut(graph)


@pytest.mark.parametrize(
    ("text", "known", "given"),
    [
        pytest.param(TEXT, MOE, {"dp": 2, "ep": 2}, id="moe ep"),
        pytest.param(STATES.replace("GROUPS", "2"), MAMBA, {"cp": 2}, id="mamba cp"),
        pytest.param(TEXT, MOE, {"dp": 2}, id="moe", marks=pytest.mark.matrix),
        pytest.param(TEXT, MOE, {"dp": 2, "cp": 2}, id="moe cp", marks=pytest.mark.matrix),
        pytest.param(TEXT, MOE, {"cp": 2, "ep": 2}, id="moe cp ep", marks=pytest.mark.matrix),
    ],
)
def test_rejects_every_mutant(text: str, known: Tables, given: dict[str, int]) -> None:
    found = spec(text.replace("layers: 3", "layers: 1"), known)
    layouts = layout(tp=2, sequence_parallel=True, tables=known, **given)
    survivors: list[str] = []
    count = 0
    for description, mutant in wrong(dict(run(lower(found.model), layouts))["place"]):
        count += 1
        for again in (False, True):
            try:
                check(retyped(mutant) if again else mutant, layouts)
                survivors.append(f"{description}{' derived again' * again}")
            except SpmdError:
                pass
    assert count > 300 and survivors == []
