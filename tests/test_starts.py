"""Where stages start: stated starts far from even are told, all that runs is counted, and bytes move, too."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner

from specc.cli import cli
from specc.compile import compile_spec
from specc.cost.counts import stage_costs
from specc.cost.starts import lighter
from specc.lower import lower
from specc.passes import typed
from specc.source import Diagnostic, Source
from specc.spec import Spec, load
from specc.spec.core import Layout, Pipeline
from tests import zoo
from tests.broken import BOTH

HEAD = "specc: 1\nname: deep\nd_model: 32\nvocab: 8\n"
DEEP = HEAD + "decoder: {layers: LAYERS, block: [attention: {heads: 4}, ffn: {hidden: 64}]}\n"


def told(text: str) -> list[Diagnostic]:
    spec = load(Source("s.yaml", text))
    assert isinstance(spec, Spec), spec
    return compile_spec(spec, spec.layout()).findings


def deep(layers: int, starts: list[int]) -> list[Diagnostic]:
    names = ", ".join(f"layers.{start}" for start in starts)
    layout = f"layout: {{pp: {{stages: {len(starts) + 1}, starts: [{names}]}}}}\n"
    return told(DEEP.replace("LAYERS", str(layers)) + layout)


def test_shares_are_told_from_a_fifth_more_on() -> None:
    assert not deep(20, [10]) and not deep(20, [11])
    (item,) = deep(20, [13])
    assert item.code == "W502" and item.severity == "warning"
    assert item.message == "stages do 65 and 35 % of the flops; balanced they would do 50 and 50 %"
    assert item.help == "leave starts out, or give layers.10"


def test_of_many_stages_least_and_most_are_told() -> None:
    (item,) = deep(100, list(range(1, 20)))
    assert item.message == "stages do 1.0 to 81.0 % of the flops; balanced they would do 5.0 to 5.0 %"
    assert item.help == "leave starts out"


def test_what_help_says_is_even_also_over_two_stacks() -> None:
    text = BOTH[: BOTH.index("layouts:")] + "layout: {pp: {stages: 3, starts: [STARTS]}}\n"
    (item,) = told(text.replace("STARTS", "encoder.1, decoder.0"))
    starts = re.findall(r"(?:en|de)coder\.\d", item.help or "")
    assert len(starts) == 2 and not told(text.replace("STARTS", ", ".join(starts)))


@pytest.mark.parametrize("name", ["llama-tiny", "experts-tiny", "steps-tiny", "transformer-tiny"])
def test_flops_of_stages_are_those_of_the_model(name: str) -> None:
    """With the head, experts and steps ahead."""
    every = sum(cost.flops for cost in stage_costs(typed(lower(zoo.model(name))), 1))
    for laid in (Layout(pp=Pipeline(2), microbatches=2), Layout(pp=Pipeline(3), microbatches=3)):
        graph = compile_spec(zoo.spec(name), laid).placed
        assert sum(cost.flops for cost in stage_costs(graph, laid.pp.stages)) == every


def test_bytes_move_layer_by_layer_from_the_fullest_rank() -> None:
    def peaks(starts: tuple[int, ...]) -> list[int]:
        ends = (0, *starts, 12)
        stages = [100 * (b - a) + 400 * (n == 0) for n, (a, b) in enumerate(pairwise(ends))]
        return [sum(stages[stage] for stage in pp.held(rank)) for rank in range(pp.ranks)]

    pp = Pipeline(2)
    assert lighter(pp, (6,), 12, peaks((6,)), peaks) == ((4,), 800)
    assert lighter(pp, (4,), 12, peaks((4,)), peaks) is None
    pp = Pipeline(4, "zbv", per_rank=2)
    found = lighter(pp, (3, 6, 9), 12, peaks((3, 6, 9)), peaks)
    assert found is not None and found[1] == max(peaks(found[0])) == 800
    pp = Pipeline(3)
    assert lighter(pp, (1, 2), 3, [300, 100, 100], peaks) is None  # no stage without a layer


LARGE = """\
specc: 1
name: large
d_model: 8192
vocab: 128256
max_seq: 4096
norm: {kind: rms, eps: 1e-5}
decoder:
  layers: 12
  block:
    - attention: {heads: 64, kv_heads: 8, rope: {theta: 500000}}
    - ffn: {kind: gated, hidden: 28672, activation: silu}
layout: {pp: 2, microbatches: 4, precision: bf16, checkpoint: full}
"""


def test_plan_says_which_starts_need_less_where_memory_is_short(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(LARGE)
    words = ["plan", str(tmp_path / "s.yaml"), "--device", "h100", "--batch", "8"]
    text = CliRunner().invoke(cli, words, standalone_mode=False).stdout
    assert "113.29 GiB are allocated" in text and "with starts: [layers.6] the fullest rank needs 105.53 GiB" in text
    (tmp_path / "s.yaml").write_text(LARGE.replace("pp: 2", "pp: {stages: 2, starts: [layers.6]}"))
    assert "105.53 GiB are allocated" in (text := CliRunner().invoke(cli, words, standalone_mode=False).stdout)
    assert "with starts" not in text
