"""Layers with one set of parameters: names, gradients of all uses, layouts, and what is written."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from specc.emit import emit
from specc.interpret import interpret
from specc.ir.stored import stored, total
from specc.lower import lower
from specc.passes import run, typed
from specc.passes.legality import legality
from specc.spec.core import Checkpoint, Layout, Pipeline
from specc.verify.relations import describe, layout_relations, plain_relations, setting
from specc.verify.run import world_size
from tests import zoo

FULL = Checkpoint(every=1)


def pipeline(stages: int, **more: Any) -> Layout:
    return Layout(pp=Pipeline(stages, "1f1b"), microbatches=stages, **more)


LAYOUTS = (
    Layout(checkpoint=FULL),
    pipeline(2, tp=2, sequence_parallel=True, checkpoint=FULL),
    *(
        pytest.param(layout, marks=pytest.mark.matrix, id=describe(layout))
        for layout in (
            Layout(dp=2, checkpoint=Checkpoint(save=("attention.core",))),
            Layout(tp=2, dp=2, sequence_parallel=True, checkpoint=Checkpoint(every=2)),
            pipeline(3, checkpoint=Checkpoint(save=("moe.combine",))),
            pipeline(7, dp=2),
        )
    ),
)


@pytest.mark.parametrize("layout", LAYOUTS, ids=describe)
def test_layouts_agree(layout: Layout) -> None:
    model = zoo.model("shared-tiny")
    for step, graph in run(lower(model), layout):
        legality(graph, layout, after=step)
    found = setting(model, layout)
    rows = plain_relations(found, layout)
    if world_size(layout) > 1:
        rows += layout_relations(found, layout)
    assert not [row for row in rows if not row.holds]


def test_gradients_are_sums_over_layers() -> None:
    """Of the same model whose layers have parameters of their own, all with the same numbers."""
    model = zoo.model("shared-tiny")
    apart = replace(model, stacks=tuple(replace(stack, shared=()) for stack in model.stacks))
    one, many = (interpret(typed(lower(of)), dtype=torch.float64) for of in (model, apart))
    layers = dict.fromkeys((1, 3, 4, 6), "one")
    names = {
        name: ".".join((parts[0], layers.get(int(parts[1]), parts[1]), *parts[2:]))
        if name.startswith("layers.")
        else name
        for name, parts in ((name, name.split(".")) for name in many.state_dict())
    }
    generator = torch.Generator().manual_seed(0)
    state = {name: torch.randn(x.shape, generator=generator, dtype=x.dtype) for name, x in one.state_dict().items()}
    assert set(names.values()) == set(state) and len(state) < len(names)
    one.load_state_dict(state)
    many.load_state_dict({name: state[names[name]] for name in names})
    ids = torch.randint(96, (3, 17), generator=generator)
    outs = [module(ids) for module in (one, many)]
    probe = torch.randn(outs[0][0].shape, generator=generator, dtype=torch.float64)
    for logits, terms in outs:
        ((logits * probe).sum() + terms).backward()
    assert torch.equal(outs[0][0], outs[1][0])
    for name, parameter in one.named_parameters():
        parts = [other.grad for own, other in many.named_parameters() if names[own] == name]
        expected = torch.stack([part for part in parts if part is not None]).sum(0)
        assert len(parts) == (4 if ".one." in name else 1) and parameter.grad is not None
        assert (parameter.grad - expected).abs().max() <= 1e-12 * max(1.0, expected.abs().max().item()), name


def test_each_is_one_parameter_that_several_stages_hold() -> None:
    graph = typed(lower(zoo.model("shared-tiny")))
    names = {row.name: row for row in stored(graph)}
    assert names["layers.one.moe.up.weight"].count == 4 * 16 * 32
    assert total(graph) == sum(parameter.numel() for parameter in interpret(graph).parameters())
    text = emit(replace(zoo.spec("shared-tiny"), layouts=(pipeline(3),)), pipeline(3)).source
    assert '"layers.one.attention.q.weight": (0, 1, 2)' in text


def test_it_reads_as_one_writes_it() -> None:
    text = emit(zoo.spec("shared-tiny"), Layout()).source
    for lines in (
        '        self.layers = nn.ModuleDict({"one": OneBlock()})\n        self.layers["0"] = OwnBlock()\n',
        "        for i in range(1, 7):\n            if i % 3 == 2:\n                self.layers[str(i)] = OwnBlock()\n",
        "            if i % 3 == 2:\n                x = self.layers[str(i)](x)\n",
    ):
        assert lines in text, lines
