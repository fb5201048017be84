"""Features between linears that ranks of tp cannot share evenly: parts as torch.chunk makes them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from specc.compile import compile_spec
from specc.components.ffn import few_features
from specc.passes.check import SpmdError, check
from specc.source import Source
from specc.spec import Spec, load
from specc.spec.core import Layout
from tests.test_own_heads import exact

TEXT = """\
specc: 1
name: uneven
d_model: 32
vocab: 97
norm: {kind: rms, eps: 1e-2}
decoder:
  layers: 1
  block:
    - ffn: {kind: gated, hidden: 97, bias: true}
    - moe: {experts: 4, top_k: 2, hidden: 33, shared: {hidden: 31}, bias: true}
"""
SP = Layout(tp=2, sequence_parallel=True)


def test_uneven_features_are_exact() -> None:
    exact(TEXT, SP)


@pytest.mark.matrix
@pytest.mark.parametrize("layout", [Layout(tp=4), replace(SP, dp=2), replace(SP, tp=4), Layout(tp=3)], ids=str)
def test_uneven_features_are_exact_in_every_layout(layout: Layout) -> None:
    exact(TEXT, layout)


def _loaded(layout: str, text: str = TEXT) -> object:
    return load(Source("uneven.yaml", f"{text}layout: {layout}\n"))


def test_each_rank_has_some() -> None:
    found = _loaded("{tp: 8}", TEXT.replace("hidden: 97", "hidden: 9").replace("hidden: 33", "hidden: 32"))
    assert isinstance(found, list) and [item.message for item in found] == ["hidden = 9 cannot be split over tp = 8"]
    found = _loaded("{tp: 2}", TEXT.replace("hidden: 97", "hidden: 97, sub_norm: true"))
    assert isinstance(found, list) and [item.message for item in found] == ["hidden = 97 cannot be split over tp = 2"]


def test_uneven_shards_are_not_joined() -> None:
    spec = _loaded("{tp: 2}")
    assert isinstance(spec, Spec), spec
    graph = compile_spec(spec, spec.layout()).placed
    up = next(op for op in graph.ops if op.id.endswith("ffn.up"))
    attrs = (("mesh", "tp"), ("src", up.types[0].at("tp")), ("dst", replace(up.types[0].at("tp"), kind="R", axis="")))
    joined = replace(up, id="joined", kind="convert", inputs=(up.ref,), params=(), uses=(), attrs=attrs)
    ops = [one for op in graph.ops for one in ((op, joined) if op.id == up.id else (op,))]
    with pytest.raises(SpmdError, match="ranks hold different numbers"):
        check(graph.with_ops(ops), spec.layout())


def test_small_models_are_as_uneven() -> None:
    assert [few_features(n, 16, 4) for n in (4096, 4097, 63, 6)] == [64, 63, 63, 6]
