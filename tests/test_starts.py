"""Stated starts of pipeline stages that are far from even are told, with the shares and what would be even."""

from __future__ import annotations

import re

from specc.compile import compile_spec
from specc.source import Diagnostic, Source
from specc.spec import Spec, load
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
