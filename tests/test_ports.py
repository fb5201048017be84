"""Families that specc does not have, as plug-ins: exact in every layout, by what extensions say alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from specc.emit import emit
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
from tests.mutants import mutants, retyped
from tests.ports import mamba2, moe

MOE, MAMBA = tables((moe.EXTENSION,)), tables((mamba2.EXTENSION,))
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
    - moe: {experts: 4, top_k: 2, hidden: 16, balance: 0.3, shared: 8}
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
    - mamba2: {heads: 4, groups: GROUPS}
    - ffn: {hidden: 16}
"""


def spec(text: str = TEXT, known: Tables = MOE) -> Spec:
    found = load(Source("ports.yaml", text), known)
    assert isinstance(found, Spec), found
    return found


def layout(stages: int = 1, cp: int = 1, **more: Any) -> Layout:
    pipeline = Pipeline(stages, "1f1b")
    return Layout(pp=pipeline, microbatches=stages, tables=MOE, others=(("cp", cp),) if cp > 1 else (), **more)


LAYOUTS = (
    layout(checkpoint=Checkpoint(every=1)),
    layout(tp=2, dp=2),
    layout(tp=2, sequence_parallel=True, checkpoint=Checkpoint(every=1)),
    layout(2, tp=2, sequence_parallel=True),
    layout(3, dp=2),
)
APART = (layout(cp=2), layout(cp=2, tp=2, sequence_parallel=True), layout(2, cp=2, dp=2))
"""The balance needs a sequence whole, so cp goes without."""


def exact(found: Spec, layout: Layout) -> None:
    for step, graph in run(lower(found.model), layout):
        legality(graph, layout, after=step)
    case = setting(found.model, layout)
    rows = plain_relations(case, layout)
    if world_size(layout) > 1:
        rows += layout_relations(case, layout)
    assert not [row for row in rows if not row.holds]


@pytest.mark.parametrize("layout", LAYOUTS, ids=describe)
def test_a_mixture_of_experts_with_a_balance_is_exact(layout: Layout) -> None:
    exact(spec(), layout)


@pytest.mark.parametrize("layout", APART, ids=describe)
def test_a_mixture_of_experts_over_parts_of_samples_is_exact(layout: Layout) -> None:
    exact(spec(TEXT.replace("balance: 0.3, ", "")), layout)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("layout", LAYOUTS, ids=describe)
def test_a_state_space_is_exact(layout: Layout, groups: int) -> None:
    exact(spec(STATES.replace("GROUPS", str(groups)), MAMBA), replace(layout, tables=MAMBA))


def test_experts_read_as_one_writes_them() -> None:
    text = emit(spec(), layout(tp=2, sequence_parallel=True)).source
    for line in (
        "        gates, ids = route(logits, 2, True)",
        "        self.gate = ColumnExperts(4, 32, 16, tp)",
    ):
        assert f"{line}\n" in text or line in text, line


@pytest.mark.parametrize("cp", [1, 2])
def test_rejects_every_mutant(cp: int) -> None:
    text = TEXT.replace("layers: 3", "layers: 1")
    found = spec(text if cp == 1 else text.replace("balance: 0.3, ", ""))
    wide = layout(cp=cp, tp=2, sequence_parallel=True, dp=2)
    survivors: list[str] = []
    count = 0
    for description, mutant in mutants(dict(run(lower(found.model), wide))["place"]):
        count += 1
        for again in (False, True):
            try:
                check(retyped(mutant) if again else mutant, wide)
                survivors.append(f"{description}{' derived again' * again}")
            except SpmdError:
                pass
    assert count > 300 and survivors == []
