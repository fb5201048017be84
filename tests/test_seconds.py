"""Seconds of a step: published times with nothing measured, what each part of the model adds, blocks timed once."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import pytest

from specc.compile import compile_spec
from specc.cost.device import CollectiveTime, Device, MatmulTime, Measured, device
from specc.cost.roofline import Roofline
from specc.cost.seconds import Seconds, step
from specc.cost.sizes import Sizes
from specc.cost.timing import Run, Timing
from specc.ir.graph import Graph
from specc.ops import Matmul
from specc.source import Source
from specc.spec import Spec, load
from specc.spec.core import Layout


def known(name: str) -> Device:
    found = device(name)
    assert isinstance(found, Device)
    return found


def compiled(text: str) -> tuple[Graph, Layout]:
    found = load(Source("s.yaml", text))
    assert isinstance(found, Spec), found
    layout = found.layout()
    return compile_spec(found, layout).placed, layout


class Row(NamedTuple):
    """Of 2205.05198, tables 3 and 5: sizes, how it ran on A100s, and seconds of a step."""

    d_model: int
    layers: int
    heads: int
    stages: int
    virtual: int
    microbatches: int
    rows: int  # of a microbatch
    full: float  # all layers run again, tokens whole
    selective: float  # scores of attention alone, tokens split


ROWS = {
    "22B": Row(6144, 48, 64, 1, 1, 1, 4, 1.42, 1.10),
    "175B": Row(12288, 96, 96, 8, 3, 64, 1, 18.13, 13.75),
    "530B": Row(20480, 105, 128, 35, 3, 280, 1, 49.05, 37.83),
    "1T": Row(25600, 128, 160, 64, 1, 512, 1, 94.42, 71.49),
}
PUBLISHED = """
specc: 1
name: published
d_model: {row.d_model}
vocab: 51200
max_seq: 2048
norm: {{kind: layer}}
dropout: 0.1
embedding: {{positions: learned, tied: [decoder, head]}}
decoder:
  layers: {row.layers}
  block:
    - attention: {{heads: {row.heads}, bias: true, dropout: 0.1}}
    - ffn: {{hidden: {hidden}, kind: plain, activation: gelu_tanh, bias: true}}
layout: {{tp: 8, precision: bf16, microbatches: {row.microbatches}, {more}}}
"""


def published(row: Row, selective: bool) -> Seconds:
    """Fused ops on elements, scores in memory, weights in half precision; what runs again runs to its end."""
    each = row.layers // row.stages
    starts = ", ".join(f"layers.{n * each}" for n in range(1, row.stages))
    more = "sequence_parallel: true" if selective else "checkpoint: full"
    more += f", pp: {{stages: {row.stages}, starts: [{starts}]}}" if row.stages > 1 else ""
    graph, layout = compiled(PUBLISHED.format(row=row, hidden=4 * row.d_model, more=more))
    again = ("attention",) if selective else ()
    run = Run(compiled=True, scores="written", selective=again, whole=True, cast=False)
    run = replace(run, schedule="interleaved_1f1b", virtual=row.virtual) if row.virtual > 1 else run
    return step(graph, layout, known("a100"), {"batch": row.rows, "seq": 2048}, run)


def test_published_times_of_four_sizes_with_nothing_measured() -> None:
    """Gathers that they overlap cost nothing, and gradients of microbatches are added up by kernels of their own."""
    wrong: list[float] = []
    for row in ROWS.values():
        for selective in (False, True):
            found = published(row, selective)
            real = row.selective if selective else row.full
            assert found.low <= real <= found.high
            wrong.append(abs(found.step / real - 1))
            assert found.tokens == row.rows * row.microbatches * 2048 and found.ranks == 8 * row.stages
            assert found.hfu > found.mfu > found.mfu_6n * 0.97
    assert len(wrong) == 8 and max(wrong) < 0.08 and sum(wrong) / 8 < 0.04, wrong


SMALL = """
specc: 1
name: small
d_model: 1024
vocab: 32000
max_seq: 4096
norm: {{kind: rms}}
decoder:
  layers: {layers}
  block:
    - attention: {{heads: 8, rope: {{theta: 10000}}}}
    - ffn: {{hidden: 4096, activation: silu}}
layout: {{precision: bf16, {layout}}}
"""
SYMBOLS = {"batch": 2, "seq": 2048}


def small(layout: str = "tp: 1", layers: int = 8, run: Run | None = None, on: Device | None = None) -> Seconds:
    graph, made = compiled(SMALL.format(layers=layers, layout=layout))
    return step(graph, made, on or known("h100"), SYMBOLS, run)


def part(found: Seconds, name: str) -> float:
    return sum(row.seconds for row in found.parts if row.name == name)


@pytest.mark.parametrize(
    "layout", ["tp: 1", "tp: 2, dp: 4", "dp: 8, microbatches: 2", "tp: 2, dp: 2, pp: 2, microbatches: 4"]
)
def test_parts_add_up(layout: str) -> None:
    found = small(layout)
    assert sum(row.seconds for row in found.parts) == pytest.approx(found.step)
    assert found.low == pytest.approx(0.9 * found.step) and found.high == pytest.approx(1.45 * found.step)
    assert found.unmeasured == ("matrix products", "attention", "memory", *["collectives"] * (found.ranks > 1))
    assert found.tokens_per_second == pytest.approx(found.tokens / found.step)
    assert 0 < found.mfu <= found.hfu < 1


def test_layers_add_up_and_a_block_is_timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[bool] = []
    whole = Timing.timed
    monkeypatch.setattr(
        Timing, "timed", lambda self, ops, path=None: timed.append(path is not None) or whole(self, ops, path)
    )
    four, eight, twelve = (small(layers=n).step for n in (4, 8, 12))
    assert twelve - eight == pytest.approx(eight - four) and timed == [True, False] * 3  # a block, what is outside
    timed.clear()
    small("pp: 8, microbatches: 8", layers=24)
    assert sum(timed) == 3  # of the first stage, of the last, and of those between, which are alike


def test_what_runs_again_takes_a_forward_more() -> None:
    none, full, every, core = (
        small(f"checkpoint: {how}") for how in ("none", "full", "{every: 2}", "{save: [attention.core]}")
    )
    assert none.hfu == pytest.approx(none.mfu, rel=0.05) and full.hfu > 1.2 * full.mfu
    assert none.step < core.step < full.step
    assert every.step - none.step == pytest.approx((full.step - none.step) / 2)
    assert part(core, "attention") == part(none, "attention") < part(full, "attention")


def test_data_ranks_wait_for_what_their_layers_do_not_hide() -> None:
    device = known("h100")
    near, far = small("dp: 8"), small("dp: 64")
    name = "waiting for weights and gradients"
    assert part(small(), name) == 0 < part(near, name) < part(far, name)
    slow = device.model_copy(update={"network": device.network / 8})
    assert part(small("dp: 64", on=slow), name) > 4 * part(far, name)
    hopeless = device.model_copy(update={"network": 1e6, "node": 1})  # hides nothing
    layer, rest = 4 * 1024**2 + 2 * 1024 * 4096 + 2 * 1024, 2 * 32000 * 1024 + 1024
    gathered = (
        layer * 8 * (2 + 2 + 4) + rest * (2 + 4) / 2
    )  # bytes: weights there and back, gradients, half of the rest
    waited = gathered * 63 / 64 / (1e6 * device.shares.network)
    assert part(small("dp: 64", on=hopeless), name) == pytest.approx(waited, rel=1e-3)
    once, twice = small("dp: 64, microbatches: 1"), small("dp: 64, microbatches: 4")
    assert part(twice, name) < 4 * part(once, name)  # gradients are summed once a step


def test_weights_of_experts_are_cast_whoever_shares_them_out() -> None:
    """Over ep a rank casts its own experts, which are as many as its shards of all of them over dp."""
    block = "[{attention: {heads: 8}}, {moe: {experts: 8, top_k: 2, hidden: 4096, kind: gated}}]"
    text = f"specc: 1\nname: cast\nd_model: 1024\nvocab: 96\ndecoder: {{layers: 2, block: {block}}}\n"
    found: list[float] = []
    for over in ("dp: 4", "dp: 4, ep: 2", "dp: 4, ep: 4"):
        graph, layout = compiled(f"{text}layout: {{{over}, precision: bf16}}\n")
        seconds = step(graph, layout, known("h100"), {"batch": 1, "seq": 512, "slots": 512, "places": 512})
        found += [part.seconds for part in seconds.parts if part.name.startswith("casts")]
    assert len(found) == 3 and min(found) > 0.95 * found[0]


def test_tensor_parallel_ranks_talk_within_a_node_and_beyond() -> None:
    sizes = {tp: part(small(f"tp: {tp}"), "collectives in layers") for tp in (1, 2, 8)}
    assert sizes[1] == 0 < sizes[2] < sizes[8]
    device = known("h100")
    apart = device.model_copy(update={"node": 4})
    assert part(small("tp: 8", on=apart), "collectives in layers") > 1.5 * sizes[8]


def test_a_compiler_joins_what_is_done_element_by_element() -> None:
    eager, joined = small(), small(run=Run(compiled=True))
    assert part(joined, "other kernels") < 0.8 * part(eager, "other kernels")
    assert part(joined, "matrix products") == part(eager, "matrix products")
    assert part(small(run=Run(scores="written")), "attention") > 2 * part(eager, "attention")


def test_schedules_that_no_layout_has_yet() -> None:
    layout = "pp: 4, microbatches: 8"
    plain = small(layout)
    for name, virtual in (("interleaved_1f1b", 2), ("interleaved_zero_bubble", 2), ("zbv", 2)):
        assert small(layout, run=Run(schedule=name, virtual=virtual)).step < plain.step
    with pytest.raises(ValueError, match="4 microbatches are fewer than 8 stages"):
        small("pp: 4, microbatches: 4", run=Run(schedule="dualpipev", virtual=2))


def with_measured(measured: Measured) -> Device:
    return known("h100").model_copy(update={"measured": measured})


def test_what_was_measured_replaces_what_is_modelled_nearby() -> None:
    plain = Roofline(known("h100"), "bfloat16", 2)
    here, there = Matmul(4096, 4096, 1024), Matmul(64, 64, 64)
    rows = [MatmulTime(m=4096, n=4096, k=1024, nt=1e-3, nn=2e-3, tn=3e-3)]
    found = Roofline(with_measured(Measured(precision="bf16", torch="2.13.0", matmuls=rows)), "bfloat16", 2)
    assert found.matmul(here) == pytest.approx(1e-3)
    assert found.matmul(replace(here, layout="tn")) == pytest.approx(3e-3)
    ratio = 1e-3 / plain.matmul(here)
    near = replace(here, m=8192)
    assert found.matmul(near) == pytest.approx(ratio * plain.matmul(near))
    assert found.matmul(there) == plain.matmul(there)
    other = Roofline(with_measured(Measured(precision="fp32", torch="2.13.0", matmuls=rows)), "bfloat16", 2)
    assert other.matmul(here) == plain.matmul(here)
    talk = [CollectiveTime(kind="all-reduce", ranks=8, bytes=2**26, seconds=5e-3)]
    found = Roofline(with_measured(Measured(precision="bf16", torch="2.13.0", collectives=talk)), "bfloat16", 2)
    assert found.collective("all-reduce", 2**26, 8, 8) == pytest.approx(5e-3)
    assert found.collective("all-gather", 2**26, 8, 8) == plain.collective("all-gather", 2**26, 8, 8)


def test_a_measured_device_has_a_narrower_range_and_says_so() -> None:
    rows = [MatmulTime(m=4096, n=1024, k=1024, nt=1e-3, nn=1e-3, tn=1e-3)]
    measured = Measured(precision="bf16", torch="2.13.0", matmuls=rows, bandwidth=2e12, kernel=3e-6)
    found = small(on=with_measured(measured))
    assert (found.low, found.high) == (found.step, pytest.approx(1.25 * found.step))
    assert found.unmeasured == ("attention",)
    assert found.step > 2 * small().step
    sources = {row.name: row.source for row in found.parts}
    assert sources["matrix products"] == "measured shapes nearby" and sources["attention"] == "share of the peak"


def test_a_layout_costs_milliseconds() -> None:
    """Of the CPU, a 405B model in 4 stages with 32 microbatches; a second layout of one graph less."""
    from time import process_time

    from tests import zoo

    spec = zoo.spec("llama-3.1-405b")
    layout = spec.layout()
    graph = compile_spec(spec, layout).placed
    on = known("h100")
    step(graph, layout, on, {"batch": 1, "seq": 8192})
    start = process_time()
    step(graph, layout, on, {"batch": 1, "seq": 8192})
    assert process_time() - start < 0.1
    assert Sizes(graph, {"batch": 1, "seq": 8192}).ranks["tp"] == 8
