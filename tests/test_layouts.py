"""Every layout computes what one device computes: real gloo ranks, fp64, every gradient, a step of AdamW.

The default run takes layouts in which every pair of choices occurs; `python -m pytest -m matrix` takes all.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from specc.spec.core import Layout
from specc.verify import relations, verify_layout
from specc.verify.relations import Relation, describe, layout_relations, plain_relations, setting
from specc.verify.run import world_size
from tests import zoo

FAST, EVERY = zoo.covering(), zoo.matrix()


def failures(name: str, layout: Layout) -> list[Relation]:
    """Relations that do not hold."""
    if layout.dp > 1 and layout.tp > 1 and zoo.spec(name).model.vocab % layout.tp:
        return failures_of(replace(zoo.model(name, layout), vocab=96), layout)  # E410 refuses an uneven one
    return failures_of(zoo.model(name, layout), layout)


def failures_of(model: zoo.Model, layout: Layout) -> list[Relation]:
    found = setting(model, layout)
    rows = plain_relations(found, layout)
    if world_size(layout) > 1:
        rows += layout_relations(found, layout)
    assert len(rows) >= 4
    return [row for row in rows if not row.holds]


@pytest.mark.parametrize("layout", FAST, ids=describe)
@pytest.mark.parametrize("name", zoo.TINY)
def test_layout(name: str, layout: Layout) -> None:
    assert not failures(name, layout)


@pytest.mark.parametrize("layout", zoo.DATA, ids=describe)
@pytest.mark.parametrize("name", zoo.TINY)
def test_data_parallel(name: str, layout: Layout) -> None:
    assert not failures(name, layout)


@pytest.mark.matrix
@pytest.mark.parametrize("layout", EVERY, ids=describe)
@pytest.mark.parametrize("name", zoo.TINY)
def test_matrix(name: str, layout: Layout) -> None:
    assert not failures(name, layout)


def test_a_wrong_gradient_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Norm weights under sequence parallelism whose gradients nobody sums: verify says so and exits 1."""
    true_emit = relations.emit

    def wrong(spec: zoo.Spec, layout: Layout) -> object:
        files = true_emit(spec, layout)
        text = files.source.replace("p.to_local(grad_placements=[Partial()])", "p.to_local()")
        assert layout.tp == 1 or text != files.source
        return replace(files, source=text)

    monkeypatch.setattr(relations, "emit", wrong)
    layout = zoo.layout(2, True, 1, "1f1b", "none")
    assert verify_layout(zoo.spec("llama-tiny"), layout, 4) == 1
    assert "norm.weight" in next(line for line in capsys.readouterr().out.splitlines() if "DIFFERS" in line)
