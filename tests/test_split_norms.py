"""Norms over features that ranks of tp share: by what they have together, or of each rank's own groups."""

from __future__ import annotations

from dataclasses import replace

import pytest

from specc.emit import emit
from specc.source import Source
from specc.spec import Spec, load
from specc.spec.core import Layout
from specc.verify.relations import layout_relations, plain_relations, setting

TEXT = """\
specc: 1
name: shared
d_model: 32
vocab: 96
norm: {kind: rms, eps: 1e-2}
blocks:
  rms:
    - attention: {heads: 4, kv_heads: 2, qk_norm: {over: width}}
  layer:
    - attention: {heads: 4, kv_heads: 2, qk_norm: {over: width, kind: layer, eps: 1e-2}}
  offset:
    - attention: {heads: 4, qk_norm: {over: width, weight_offset: 0.5, bias: true}, sub_norm: {weight: false}}
  groups:
    - ffn: {hidden: 32, sub_norm: {kind: layer, groups: 4, weight_offset: 1, eps: 1e-2}}
    - ffn: {hidden: 32, sub_norm: {groups: 2, weight: false}}
    - ffn: {hidden: 36, sub_norm: {kind: layer, bias: false, weight_offset: 1, eps: 1e-2}}
    - ffn: {hidden: 36, sub_norm: {groups: 3}}
decoder:
  layers: 4
  pattern: [rms, layer, offset, groups]
"""


def spec() -> Spec:
    found = load(Source("shared.yaml", TEXT))
    assert isinstance(found, Spec), found
    return found


@pytest.mark.parametrize("sequence_parallel", [True, pytest.param(False, marks=pytest.mark.matrix)])
def test_norms_over_ranks_are_exact(sequence_parallel: bool) -> None:
    layout = Layout(tp=2, sequence_parallel=sequence_parallel)
    case = setting(spec().model, layout)
    rows = [*plain_relations(case, layout), *layout_relations(case, layout)]
    assert len(rows) > 8 and not [row for row in rows if not row.holds]


def test_a_norm_over_ranks_gathers_nothing() -> None:
    text = emit(spec(), Layout(tp=2)).source
    for name in ("SplitRMSNorm(32", "SplitLayerNorm(32", "SplitOffsetRMSNorm(32", "SplitGroupedOffsetLayerNorm(32"):
        assert f"{name}, " in text, name
    assert "split_rms_norm(x.transpose(1, 2).flatten(2), 0.01, self.tp)" in text
    assert "F.rms_norm(" in text and ".unflatten(-1, (-1, 16)), (16,), eps=0.01).flatten(-2)" in text
    attention = text[: text.index("class FeedForward")]
    assert "all_gather" not in attention
    assert "self.sub_norm = GroupedRMSNorm(" in text  # 3 groups are no two ranks'
    alone = replace(spec().model)
    assert "split_" not in emit(Spec(alone, (Layout(),)), Layout()).source
