"""Every spec of the zoo, at its published sizes, on 2, 4 and 8 ranks of tp with sequence parallelism."""

from __future__ import annotations

from pathlib import Path

import pytest

from specc.emit import emit
from specc.source import Source
from specc.spec import Spec, load

ZOO = Path(__file__).parents[1] / "specs" / "zoo"
NAMES = tuple(sorted(path.stem for path in ZOO.iterdir()))
HEADS = {
    2: ("falcon-7b",),
    4: (
        *("falcon-7b", "mt5", "nanochat", "olmo-hybrid", "recurrent-gemma"),
        *("umt5", "whisper-tiny"),
    ),
    8: (
        *("albert-base", "bert-base", "bert-classifier", "bitnet", "camembert", "distilbert"),
        *("electra-small-generator", "ernie4-5-moe", "falcon-7b", "gpt-bigcode", "helium", "modernbert"),
        *("modernbert-base", "mt5", "nanochat", "olmo-hybrid", "opt", "plbart", "recurrent-gemma", "roberta"),
        *("roberta-prelayernorm", "umt5", "whisper-tiny"),
    ),
}
"""Those with a number of heads that so many ranks cannot share; all else of them they can."""
TOKENS = ("dinov2", "dinov2-registers", "vit-base", "whisper-tiny")
"""Those with a number of tokens that ranks cannot share."""


def spec(name: str, layout: str) -> Spec | list[str]:
    text = "".join(line for line in (ZOO / f"{name}.yaml").read_text().splitlines(True) if "layout:" not in line)
    found = load(Source(f"{name}.yaml", f"{text}\nlayout: {layout}\n"))
    return found if isinstance(found, Spec) else [f"{item.code} {item.message}" for item in found]


@pytest.mark.parametrize("tp", HEADS)
def test_what_tp_refuses_are_heads_and_tokens(tp: int) -> None:
    found = {name: spec(name, f"{{tp: {tp}, sequence_parallel: true}}") for name in NAMES}
    refused = {name: told for name, told in found.items() if isinstance(told, list)}
    of_heads = [name for name, told in refused.items() if any(" heads cannot be split" in item for item in told)]
    others = [name for name, told in refused.items() if any(item.startswith("E418") for item in told)]
    assert [name for name in of_heads if name not in others] == [n for n in HEADS[tp] if n not in others], of_heads
    assert set(others) <= set(TOKENS) and {*of_heads, *others} == refused.keys()


@pytest.mark.matrix
@pytest.mark.parametrize("tp", HEADS)
@pytest.mark.parametrize("name", NAMES)
def test_every_spec_builds(name: str, tp: int) -> None:
    """What is refused does so with whole heads."""
    found = spec(name, f"{{tp: {tp}, sequence_parallel: true}}")
    if isinstance(found, list):
        found = spec(name, f"{{tp: {tp}, rules: {{heads: none}}}}")
    assert isinstance(found, Spec), found
    assert f"tensor parallel over tp = {tp}" in emit(found, found.layout()).source
