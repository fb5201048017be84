"""Every spec of the zoo, small, computes on ranks what it computes on one."""

from __future__ import annotations

from pathlib import Path

import pytest

from specc.source import Source
from specc.spec import Spec, load
from specc.verify import verify_layout

ZOO = Path(__file__).parents[1] / "specs" / "zoo"
NAMES = tuple(sorted(path.stem for path in ZOO.iterdir()))
LAYOUTS = ("{tp: 2, sequence_parallel: true}", "{pp: 2, microbatches: 2}")
UNEVEN = ("falcon-7b",)
"""Those with a number of heads or of hidden features that two ranks cannot share."""
ODD = ("dinov2", "dinov2-registers", "vit-base")
"""Those with an odd number of tokens of each image."""
EACH = 24  # of which one is in the default run

ALL = [
    pytest.param(name, layout, marks=[pytest.mark.zoo] * bool((n + m) % EACH))
    for m, layout in enumerate(LAYOUTS)
    for n, name in enumerate(NAMES)
]


@pytest.mark.parametrize(("name", "layout"), ALL)
def test_a_spec_of_the_zoo_is_the_same_in_a_layout(name: str, layout: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = "".join(line for line in (ZOO / f"{name}.yaml").read_text().splitlines(True) if "layout:" not in line)
    spec = load(Source(f"{name}.yaml", f"{text}\nlayout: {layout}\n"))
    if name in UNEVEN and "tp" in layout:
        assert isinstance(spec, list) and [item.code for item in spec] == ["E402"]
        return
    if name in ODD and "sequence_parallel" in layout:
        assert isinstance(spec, list) and [item.code for item in spec] == ["E418"]
        return
    assert isinstance(spec, Spec), spec
    code = verify_layout(spec, spec.layout(), 2)
    shown = capsys.readouterr().out
    assert code == 0 and shown.count("  ok\n") > 5, shown


@pytest.mark.parametrize("name", NAMES)
def test_a_spec_is_short(name: str) -> None:
    """Lines that say something: 20 for what is like llama, 35 at most."""
    lines = [line for line in (ZOO / f"{name}.yaml").read_text().splitlines() if line.strip() and line[0] != "#"]
    plain = ("llama", "mistral", "qwen2", "qwen3", "gemma-7b", "olmo2", "smollm3-3b", "starcoder2", "granite", "phi3")
    assert len(lines) < (20 if name in plain else 35)
