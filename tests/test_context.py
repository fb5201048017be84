"""Context parallelism: ranks that hold parts of every row compute what one device computes."""

from __future__ import annotations

import pytest

from specc.emit import emit
from specc.source import Source
from specc.spec import Spec, load
from specc.verify.relations import layout_relations, setting
from specc.verify.shrink import shrink
from tests import zoo

SP = "tp: 2, sequence_parallel: true"
EVERY = (
    *("transformer", "gpt2", "llama-tied", "llama", "hybrid", "packed", "latent", "biased", "ends", "experts"),
    *("prefix", "recurrent", "routed", "shared", "steps", "kept"),
)
WIDE = ("{cp: 2}", "{cp: 4, checkpoint: full}", f"{{cp: 2, {SP}}}", "{cp: 2, dp: 2, pp: 2}", "{cp: 2, tp: 2, dp: 2}")
FEW = (
    ("packed", "{cp: 2}"),
    ("biased", f"{{cp: 2, {SP}, checkpoint: full}}"),
    ("kept", "{cp: 2}"),
    ("transformer", "{cp: 2, pp: 2}"),
)
ALL = (*FEW, *(pytest.param(name, layout, marks=pytest.mark.matrix) for name in EVERY for layout in WIDE))


def spec_of(name: str, layout: str) -> Spec:
    text = (zoo.ROOT / "specs" / "tiny" / f"{name}-tiny.yaml").read_text()
    found = load(Source(f"{name}.yaml", f"{text}layout: {layout}\n"))
    assert isinstance(found, Spec), found
    return found


def source_of(name: str, layout: str) -> str:
    spec = spec_of(name, layout)
    return emit(spec, spec.layout()).source


def exact(spec: Spec, ranks: int = 8) -> None:
    model, small = shrink(spec.model, spec.layout(), ranks)
    assert small.cp > 1
    assert not [row for row in layout_relations(setting(model, small), small) if not row.holds]


@pytest.mark.parametrize(("name", "layout"), ALL)
def test_parts_of_rows_are_exact(name: str, layout: str) -> None:
    exact(spec_of(name, layout))


@pytest.mark.matrix
def test_all_axes_together_are_exact() -> None:
    exact(spec_of("llama", f"{{cp: 2, {SP}, dp: 2, pp: 2, checkpoint: full}}"), 16)


def test_a_trainer_is_given_whole_rows() -> None:
    """So nobody cuts them wrong: it takes its part of them, and gives logits of whole ones."""
    text = source_of("llama", f"{{cp: 2, {SP}, dp: 2}}")
    for line in (
        "whole rows of which a rank of cp takes its part.",
        "        if seq % 4:",
        '        return [part_of_rows(x, self.mesh["cp"]) for x in rows]',
        '        logits = whole_rows(logits, self.mesh["cp"])',
    ):
        assert f"{line}\n" in text, line
    assert "device, batch // MICROBATCHES, seq // 4, seed)\n" in source_of("llama", "{cp: 4, pp: 2}")
