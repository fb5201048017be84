"""A repeat may carry several values: no component does so yet, every pass and both backends can."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from specc.components import ffn, norm
from specc.components.ffn import Ffn
from specc.components.norm import Norm
from specc.emit.file import emit_file
from specc.interpret import init_weights, interpret
from specc.ir.graph import Graph
from specc.ir.op import Init, Layer, Ref
from specc.ir.types import Axis
from specc.lower.builder import Builder
from specc.passes import run
from specc.passes.legality import legality
from specc.spec.core import Checkpoint, Layout, Pipeline
from specc.verify import relations
from specc.verify.relations import describe, layout_relations, plain_relations, setting
from specc.verify.run import world_size
from tests.models import D_MODEL, INIT, VOCAB, llama

FEATURES, RMS = Axis("d_model", D_MODEL), Norm(kind="rms", eps=1e-2).resolved()
LAYOUTS = (
    Layout(checkpoint=Checkpoint(every=2)),
    Layout(tp=2),
    Layout(tp=2, sequence_parallel=True, checkpoint=Checkpoint(every=1)),
    Layout(pp=Pipeline(2, "1f1b"), microbatches=2),
    Layout(pp=Pipeline(4, "gpipe"), microbatches=4, dp=2),
    Layout(tp=2, sequence_parallel=True, pp=Pipeline(3, "gpipe"), microbatches=3, checkpoint=Checkpoint(every=1)),
)


READS = (0, 1)
"""Which carry the feed-forward reads: the stream, or the sum."""


def two_carries(reads: int) -> Graph:
    """Two kinds of layer in turn; each adds to the stream, and to a sum of what all layers gave.

    The stream is normed before the feed-forward reads it, the sum is not.
    """
    b = Builder(INIT)
    tokens = b.op("input", name="tokens", hint="tokens", axes=("batch", "seq"), dtype="int64")
    table = b.param("embedding", "weight", (Axis("vocab", VOCAB), FEATURES), Init("normal", 1.0), "embedding")
    x = b.op("embedding", tokens, name="embedding", params=(table,))
    total = b.op("scale", x, name="start", hint="total", factor=0.5)
    repeat = b.op("repeat", x, total, name="layers", path="layers", start=0, n=5, period=2, run=0)
    x, total = Ref(repeat.op, 0), Ref(repeat.op, 1)
    for offset, (name, hidden, flipped) in enumerate((("Narrow", 16, False), ("Wide", 32, True))):
        b.path = ("layers",)
        with b.scope(Layer(offset), (x, total), (f"{name}Block",)):
            h = total if reads else norm.lower(RMS, b, x, "ffn_norm", FEATURES)
            with b.scope("ffn", (h,), ("FeedForward",)):
                y = ffn.lower(Ffn(hidden=hidden), b, h, {}, FEATURES)
            if flipped:  # made in the other order
                total = b.op("add", total, y, name="total", hint="total")
                x = b.op("add", x, y, name="sum")
            else:
                x = b.op("add", x, y, name="sum")
                total = b.op("add", total, x, name="total", hint="total")
            b.returns(x, total)
        b.path = ()
    end = b.op("end", x, total, name="layers_end", repeat=repeat.op)
    x = norm.lower(RMS, b, b.op("add", Ref(end.op, 0), Ref(end.op, 1)), "norm", FEATURES)
    head = b.param("head", "weight", (Axis("vocab", VOCAB), FEATURES), Init("normal", 0.1), "linear")
    logits = b.op("linear", x, name="head", hint="logits", params=(head,))
    with b.scope("loss", (logits,), ("Loss",)):
        labels = b.op("input", name="labels", hint="labels", axes=("batch", "seq"), dtype="int64")
        scale = b.op("input", name="scale", hint="scale", axes=(), dtype="float")
        loss = b.op("mul", b.op("cross_entropy", logits, labels, hint="loss"), scale, hint="loss")
    return b.graph((logits,), loss, max_seq=64)


@pytest.mark.parametrize("reads", READS)
@pytest.mark.parametrize("layout", LAYOUTS, ids=describe)
def test_layouts_agree(layout: Layout, reads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """`verify` on this graph in the place of a spec's; the model only lends it sizes and a name."""

    def emitted(spec: object, layout: Layout) -> object:
        graphs = dict(run(two_carries(reads), layout))
        return emit_file(model, layout, graphs["dead"], graphs["legality"])

    model = llama()
    monkeypatch.setattr(relations, "lower", lambda _: two_carries(reads))
    monkeypatch.setattr(relations, "emit", emitted)
    found = setting(model, layout)
    rows = plain_relations(found, layout)
    if world_size(layout) > 1:
        rows += layout_relations(found, layout)
    assert not [row for row in rows if not row.holds]


@pytest.mark.parametrize("reads", READS)
@pytest.mark.parametrize("layout", LAYOUTS, ids=describe)
def test_passes_are_legal_and_preserve_the_function(layout: Layout, reads: int) -> None:
    results: list[torch.Tensor] = []
    for name, graph in run(two_carries(reads), layout):
        legality(graph, layout, after=name)
        if name in ("shapes", "dead", "stages"):
            module = interpret(graph, dtype=torch.float64)
            init_weights(module, graph, 0)
            results.append(module(torch.arange(12).view(2, 6)))
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_the_file_reads_as_one_writes_it() -> None:
    graphs = dict(run(two_carries(0), Layout(tp=2)))
    source = emit_file(llama(), Layout(tp=2), graphs["dead"], graphs["legality"]).source
    assert "            x2, total = layer(x2, total)\n" in source
    assert source.count("def forward(self, x: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:") == 2
    assert source.count("return x, total\n") == 2
    format = [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length", "120", "-"]
    assert subprocess.run(format, input=source, capture_output=True, text=True).stdout == source
