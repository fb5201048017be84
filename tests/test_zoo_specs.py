"""Every spec of specs/zoo is built, in memory, and has as many parameters as its class of Hugging Face says."""

from __future__ import annotations

from pathlib import Path

import pytest

from specc.compile import compile_spec
from specc.emit import emit
from specc.ir.stored import total
from specc.source import Source
from specc.spec import Spec, load

ZOO = Path(__file__).parents[1] / "specs" / "zoo"
COUNTS = {
    "codestral-mamba-7b": 7_285_403_648,
    "falcon-40b": 41_303_293_952,
    "falcon-7b": 6_921_720_704,
    "falcon-mamba-7b": 7_272_665_088,
    "gemma-7b": 8_537_680_896,
    "lfm2-1.2b": 1_170_340_608,
    "mamba": 159_308_544,
    "minimax": 47_373_946_880,
    "olmo-1b": 1_176_764_416,
    "olmo-hybrid": 7_430_870_688,
    "qwen2": 12_049_846_272,
    "smollm3-3b": 3_075_098_624,
}


def test_every_spec_of_the_zoo_is_counted() -> None:
    assert [path.stem for path in sorted(ZOO.iterdir())] == list(COUNTS)


@pytest.mark.parametrize("name", COUNTS)
def test_a_spec_of_the_zoo_is_built(name: str) -> None:
    found = load(Source(f"{name}.yaml", (ZOO / f"{name}.yaml").read_text()))
    assert isinstance(found, Spec) and found.model.name == name, found
    compiled = compile_spec(found, found.layout())
    assert total(compiled.placed) == COUNTS[name]
    assert "Block(nn.Module):" in emit(found, found.layout()).source
