"""Every layout computes what one device computes: real gloo ranks, fp64, every gradient, a step of AdamW.

The default run takes specs and layouts in which every pair of choices occurs; `python -m pytest -m matrix` takes all.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
import torch

from specc.emit import emit
from specc.source import Source
from specc.spec import Spec, load
from specc.spec.core import Layout
from specc.verify import relations, verify_layout
from specc.verify.relations import (
    Relation,
    describe,
    largest,
    layout_relations,
    plain_relations,
    setting,
    unlike,
)
from specc.verify.run import world_size
from tests import zoo
from tests.broken import DECODER

FAST, EVERY = zoo.covering(), zoo.matrix()


def failures(name: str, layout: Layout) -> list[Relation]:
    """Relations that do not hold."""
    return failures_of(zoo.model(name, layout), layout)


def failures_of(model: zoo.Model, layout: Layout) -> list[Relation]:
    found = setting(model, layout)
    rows = plain_relations(found, layout)
    if world_size(layout) > 1:
        rows += layout_relations(found, layout)
    assert len(rows) >= 4
    return [row for row in rows if not row.holds]


@pytest.mark.parametrize(("name", "layout"), FAST, ids=zoo.called)
def test_layout(name: str, layout: Layout) -> None:
    assert not failures(name, layout)


@pytest.mark.parametrize(("name", "layout"), zoo.spread(zoo.TINY, zoo.DATA, 8), ids=zoo.called)
def test_data_parallel(name: str, layout: Layout) -> None:
    assert not failures(name, layout)


@pytest.mark.matrix
@pytest.mark.parametrize("layout", EVERY, ids=describe)
@pytest.mark.parametrize("name", zoo.TINY)
def test_matrix(name: str, layout: Layout) -> None:
    assert not failures(name, layout)


def test_a_proof_names_the_file_of_the_real_size(capsys: pytest.CaptureFixture[str]) -> None:
    """By the digests in its docstring; the layout is that of the spec, whatever fits on this machine."""
    spec = load(Source("s.yaml", DECODER.replace("d_model: 32", "d_model: 64")))
    assert isinstance(spec, Spec)
    assert verify_layout(spec, spec.layout(), 2) == 0
    first, small, *_ = capsys.readouterr().out.splitlines()
    source = emit(spec, spec.layout()).source
    digests = dict(re.findall(r"\b(params|compute|layout) ([0-9a-f]{12})\b", source))
    assert len(digests) == 3 and first == f"small: the file with {', '.join(f'{k} {v}' for k, v in digests.items())}"
    assert small == "in small: 4 layers of width 32, fp64, dropout off"


def test_a_wrong_gradient_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Norm weights under sequence parallelism whose gradients nobody sums: verify says so and exits 1."""
    true_emit = relations.emit

    def wrong(spec: zoo.Spec, layout: Layout) -> object:
        files = true_emit(spec, layout)
        text = files.source.replace("self.weight.to_local(grad_placements=[Partial()])", "self.weight.to_local()")
        assert layout.tp == 1 or text != files.source
        return replace(files, source=text)

    monkeypatch.setattr(relations, "emit", wrong)
    layout = zoo.layout(2, True, 1, "1f1b", "none")
    assert verify_layout(zoo.spec("llama-tiny"), layout, 4) == 1
    assert "norm.weight" in next(line for line in capsys.readouterr().out.splitlines() if "DIFFERS" in line)


@pytest.mark.parametrize("tp", [1, 2])
def test_other_parameters_are_a_row_of_their_own(
    tp: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name or a shape that the model has not is told, and nothing else is compared with it."""
    true_emit = relations.emit

    def wrong(spec: zoo.Spec, layout: Layout) -> object:
        files = true_emit(spec, layout)
        text = files.source.replace("self.down", "self.low") if layout.tp == tp else files.source
        return replace(files, source=text)

    monkeypatch.setattr(relations, "emit", wrong)
    assert verify_layout(zoo.spec("llama-tiny"), zoo.layout(tp, tp > 1, 1, "1f1b", "none"), 4) == 1
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "DIFFERS" in line)
    assert "parameter" in line and "layers.0.ffn.low.weight" in line


def test_another_shape_is_a_difference() -> None:
    one, two = torch.zeros(1, 4), torch.zeros(2, 4)
    assert largest({"a": one}, {"a": two}) == (math.inf, "a") and unlike({"a": one}, {"a": two}) == (1.0, "a")
    assert unlike({"a": one, "b": two}, {"a": one}) == (1.0, "b") and unlike({"a": one}, {"a": one}) == (0.0, "")
    assert largest({"a": one / 0}, {"a": one}) == (math.inf, "a")
