"""Bytes of a step as they are told, and as they are: of the files that are generated, on one rank and on several."""

from __future__ import annotations

import gc
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from specc.cli.specs import load_all
from specc.compile import compile_spec
from specc.cost.memory import Memory, memories
from specc.cost.rows import ROWS as ROWS_OF
from specc.cost.sizes import Sizes
from specc.cost.storage import Live
from specc.cost.trace import Trace
from specc.emit import emit
from specc.ir.graph import Graph
from specc.spec import Layout
from specc.spec.core import Checkpoint, Context, Pipeline, Spec
from specc.verify.launch import run_ranks
from specc.verify.run import load_file
from tests.track import Track

TINY = Path(__file__).parents[1] / "specs" / "tiny"
ROWS, SEQ = 4, 64
SAVE = ("attention.core", "attention.o")
MODES = {
    "none": Checkpoint(),
    "full": Checkpoint(every=1),
    "second": Checkpoint(every=2),
    "save": Checkpoint(save=SAVE),
}
SPECS = ("llama-tiny", "gpt2-tiny", "transformer-tiny", "packed-tiny", "hybrid-tiny", "experts-tiny")
Shapes = list[tuple[tuple[int, ...], bool]]

MIDDLE = """
specc: 1
name: middle
d_model: 128
vocab: 500
max_seq: 64
norm: {kind: rms}
decoder:
  layers: 8
  block:
    - attention: {heads: 8, kv_heads: 4, head_dim: 16, rope: {theta: 100}}
    - ffn: {kind: gated, hidden: 256, activation: silu}
"""


def load(path: Path) -> Spec:
    (spec,) = load_all((path,)).specs
    return spec


def symbols(graph: Graph) -> dict[str, int]:
    known = {"batch": ROWS, "slots": ROWS * SEQ, "places": ROWS * SEQ}
    return {name: known.get(name, SEQ) for name in graph.symbols}


def shapes(graph: Graph, microbatches: int = 1, parts: int = 1) -> Shapes:
    """Of what a trainer is fed in a step, rows of `parts` ranks, and whether it is whole numbers."""
    sizes = Sizes(graph, symbols(graph))
    labels = [op for op in graph.ops if op.scope[:1] == ("loss",) and op.kind == "input" and op.outs[0].axes]
    dims = [(sizes.dims(op.ref), op.outs[0].dtype == "int64") for op in (*graph.inputs, *labels)]
    return [((rows * microbatches, *(n * parts for n in more)), whole) for (rows, *more), whole in dims]


def batch(given: Shapes) -> list[Tensor]:
    return [torch.randint(1, 8, shape) if whole else torch.rand(shape) for shape, whole in given]


def peak(trainer: Any, track: Track, fed: list[Tensor]) -> int:
    """Of the second step."""
    trainer.step(*fed)
    for p in trainer.module.parameters():
        track.see(p)
    trainer.optimizer.zero_grad()
    gc.collect()
    track.again()
    track.peak = track.live
    trainer.step(*fed)
    return track.peak


def one_rank(source: str, graph: Graph) -> tuple[int, int]:
    """Bytes that a forward pass leaves behind, with what it returns, and the peak of a step."""
    file: Any = load_file(source, "generated")
    with Track() as track:
        trainer = file.Trainer(torch.device("cpu"), 0, 1e-3)
        fed = batch(shapes(graph))
        before = track.live
        outputs = trainer.module(*fed[: len(graph.inputs)])
        saved = track.live - before
        del outputs
        gc.collect()
        return saved, peak(trainer, track, fed)


def close(told: int, true: int, most: float) -> bool:
    return abs(told - true) <= most * true


HALF = ("llama-tiny", "packed-tiny", "experts-tiny")
CASES = [*((name, "fp32") for name in SPECS), *((name, "bf16") for name in HALF)]


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_what_a_forward_pass_leaves_is_told_exactly(name: str, precision: str) -> None:
    """With every way to recompute; and what is most in a step."""
    spec = load(TINY / f"{name}.yaml")
    for mode, checkpoint in MODES.items():
        layout = Layout(checkpoint=checkpoint, precision=precision)  # type: ignore[arg-type]
        compiled = compile_spec(spec, layout)
        (told,) = memories(compiled.placed, layout, symbols(compiled.placed), whole=True)
        saved, most = one_rank(emit(spec, layout, compiled).source, compiled.placed)
        assert told.saved == saved, mode
        assert close(told.peak, most, LOOSE.get((name, precision), 0.001)), (mode, told, most)


LOOSE = {
    ("hybrid-tiny", "fp32"): 0.003,
    ("experts-tiny", "fp32"): 0.006,
    ("packed-tiny", "bf16"): 0.01,
    ("experts-tiny", "bf16"): 0.02,
}
"""Where the most is in a kernel that is made of several, of which parts are let go one after the other."""

LAYOUTS = {
    "dp": Layout(dp=2),
    "dp in two parts": Layout(dp=2, microbatches=2),
    "dp bf16": Layout(dp=2, precision="bf16", checkpoint=MODES["full"]),
    "pp save": Layout(pp=Pipeline(2), microbatches=4, checkpoint=MODES["save"]),
    "gpipe": Layout(pp=Pipeline(2, "gpipe"), microbatches=4),
    "interleaved": Layout(pp=Pipeline(4, "interleaved_1f1b", per_rank=2), microbatches=4),
    "zbv": Layout(pp=Pipeline(4, "zbv", per_rank=2), microbatches=4),
    "tp": Layout(tp=2),
    "sp": Layout(tp=2, sequence_parallel=True),
    "dp pp": Layout(dp=2, pp=Pipeline(2), microbatches=4),
    "dp sp": Layout(dp=2, tp=2, sequence_parallel=True),
    "cp": Layout(cp=2),
    "cp in a row": Layout(cp=2, context=Context(order="contiguous")),
    "ulysses": Layout(cp=2, context=Context("ulysses")),
    "dp cp": Layout(dp=2, cp=2, checkpoint=MODES["full"]),
}


def on_ranks(sources: dict[str, tuple[str, Shapes, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, (source, given, rows) in sources.items():
        file: Any = load_file(source, "generated")
        if "causal_lower_right" in source:  # torch makes none inside of a mode
            file.causal_lower_right = cache(file.causal_lower_right)
            warm = file.Trainer(file.device_mesh("cpu"), torch.device("cpu"), rows, given[0][0][1], seed=0, lr=1e-3)
            warm.step(*batch(given))
            del warm
        with Track() as track:
            trainer = file.Trainer(file.device_mesh("cpu"), torch.device("cpu"), rows, given[0][0][1], seed=0, lr=1e-3)
            found[name] = peak(trainer, track, batch(given))
        del trainer, file
        gc.collect()
    return found


@pytest.mark.parametrize("ranks", [2, 4])
def test_the_most_of_every_stage(ranks: int, tmp_path: Path) -> None:
    (tmp_path / "middle.yaml").write_text(MIDDLE)
    spec = load(tmp_path / "middle.yaml")
    layouts = {
        name: layout for name, layout in LAYOUTS.items() if layout.tp * layout.dp * layout.cp * layout.pp.ranks == ranks
    }
    told: dict[str, list[Memory]] = {}
    sources: dict[str, tuple[str, Shapes, int]] = {}
    for name, layout in layouts.items():
        compiled = compile_spec(spec, layout)
        graph, count = compiled.placed, layout.microbatches
        told[name] = memories(graph, layout, symbols(graph), whole=True)
        sources[name] = (emit(spec, layout, compiled).source, shapes(graph, count, layout.cp), ROWS * count)
    found: list[dict[str, int]] = run_ranks(ranks, on_ranks, sources)
    for name, layout in layouts.items():
        alone = 0.002 if layout.microbatches > 1 else 0.001
        most = 0.03 if layout.pp.per_rank > 1 else 0.01 if layout.pp.stages > 1 else alone
        for number, memory in enumerate(told[name]):
            each = ranks // layout.pp.ranks
            true = max(rank[name] for rank in found[number * each : (number + 1) * each])
            assert close(memory.peak, true, most), (name, number, memory, true)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_blocks_are_run_once(layout: Layout, tmp_path: Path) -> None:
    """And told as if every layer were. Layers far apart that share values may sum up gradients elsewhere."""
    (tmp_path / "middle.yaml").write_text(MIDDLE)
    cases = {tmp_path / "middle.yaml": 0.001, TINY / "experts-tiny.yaml": 0.01, TINY / "kept-tiny.yaml": 0.02}
    for path, most in cases.items():
        graph = compile_spec(load(path), layout).placed
        told, true = (memories(graph, layout, symbols(graph), whole=whole) for whole in (False, True))
        for once, every in zip(told, true, strict=True):
            assert once.saved == every.saved and close(once.peak, every.peak, most), (once, every)


EXPERTS = MIDDLE.replace("ffn: {", "moe: {experts: 8, top_k: 2, ")


@pytest.mark.parametrize(("ep", "alone"), [(1, False), (2, False), (4, True)])
def test_experts_that_a_rank_has_for_itself(ep: int, alone: bool, tmp_path: Path) -> None:
    """FSDP does not touch them: they are cast where they are used, and their gradients are as they are stored."""
    (tmp_path / "experts.yaml").write_text(EXPERTS)
    layout = Layout(dp=4, ep=ep, precision="bf16")
    graph = compile_spec(load(tmp_path / "experts.yaml"), layout).placed
    sizes = Sizes(graph, symbols(graph))
    trace = Trace(sizes, ROWS_OF, Live())
    trace.gradient = 2  # as FSDP hands them on
    for op in (op for op in graph.ops if op.kind == "grouped_linear"):
        assert sizes.casts(op) == alone and sizes.shared(op, 0) == (0 if alone else 4 // ep)
        assert trace.gradient_of(op, 0) == sizes.param(op, 0) * (4 if alone else 2)
        assert sizes.param(op, 0) == prod((8 // ep, 128, 256))
