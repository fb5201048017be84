"""How many collectives a file issues: as few as possible, and as many as the placed graph and `specc plan` say."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from torch.distributed.tensor.debug import CommDebugMode

from specc.cli import cli
from specc.cost.counts import again, collectives, runs_of
from specc.ir.graph import Graph
from specc.ir.repeat import layer_of, layer_scope
from specc.lower import lower
from specc.passes import compile_graph
from specc.spec.core import Layout, Model
from tests import zoo
from tests.comm import KINDS, SOURCE, Collective, Recorder, fake_group, on_rank, stages_on_rank, tokens, traffic
from tests.files import file_of
from tests.models import D_MODEL, MODELS, llama, transformer

TP, SP = Layout(tp=2), Layout(tp=2, sequence_parallel=True)
LAYOUTS = {"tp 2": TP, "tp 2 sp": SP}
DECODERS = [name for name in zoo.TINY if len(zoo.spec(name).model.stacks) == 1]
LAYER = {"tp 2": {"all-reduce": 2}, "tp 2 sp": {"all-gather": 2, "reduce-scatter": 2}}  # forward, and backward too


def compiled(model: Model, layout: Layout) -> Graph:
    return compile_graph(lower(model), layout)


def planned(graph: Graph, stage: int = 0) -> tuple[Counter[str], Counter[str]]:
    """Forward and backward of a stage without the loss, by the counts of `specc plan`, as often as its layers run."""
    totals: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    for op in graph.ops:
        if stage in graph.stages_of(op.scope) and op.scope[:1] != ("loss",):
            for total, counts in zip(totals, collectives(graph, [op]), strict=True):
                total.update({kind: count * runs_of(graph, op, stage) for kind, count in counts.items()})
    return totals


def debugged(model: Model, layout: Layout) -> list[Counter[str]]:
    """Forward and backward as torch's own debugging mode counts them."""
    with fake_group(2):
        module, _, _ = on_rank(model, layout)
        with CommDebugMode() as forward:
            logits = module(*tokens(model))
        with CommDebugMode() as backward:
            logits.sum().backward()
    return [
        Counter({KINDS[str(op).split(".")[-1]]: n for op, n in mode.get_comm_counts().items()})
        for mode in (forward, backward)
    ]


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layer_of_llama(layout: str) -> None:
    graph = compiled(llama(), LAYOUTS[layout])
    ops = [op for op in graph.ops if layer_of(op.scope) is not None]
    assert collectives(graph, ops) == (LAYER[layout], LAYER[layout])
    placed = Counter(f"{op.attr('src')} {op.attr('dst')}" for op in ops if op.kind == "convert")
    assert placed == {"tp 2": {"I R": 2, "P I": 2}, "tp 2 sp": {"S(seq) R": 2, "P S(seq)": 2}}[layout]
    three, two = (debugged(llama(layers=n), LAYOUTS[layout]) for n in (3, 2))
    for deeper, shallower in zip(three, two, strict=True):
        assert deeper - shallower == LAYER[layout]


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", DECODERS)
def test_torch_counts_the_same(name: str, layout: str) -> None:
    """Its mode fails where a module is called twice, so the tests below have a recorder of their own."""
    found = traffic(zoo.model(name), LAYOUTS[layout])
    assert [found.counts("forward"), found.counts("backward")] == debugged(zoo.model(name), LAYOUTS[layout])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", [*zoo.TINY, *(f"core {name}" for name in MODELS)])
def test_plan_says_what_a_file_does(name: str, layout: str) -> None:
    model = MODELS[name.removeprefix("core ")] if name.startswith("core ") else zoo.model(name)
    graph = compiled(model, LAYOUTS[layout])
    forward, backward = planned(graph)
    found = traffic(model, LAYOUTS[layout])
    assert found.counts("forward") == forward and found.counts("backward") == backward
    assert all(forward.values()) and forward.total() >= 4
    loss = [op for op in graph.ops if op.scope[:1] == ("loss",)]
    assert collectives(graph, loss) == (found.counts("loss"), {})


@pytest.mark.parametrize("kind", ["full", "every 2", "save"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", [*zoo.TINY, *(f"core {name}" for name in MODELS)])
def test_plan_says_what_runs_again(name: str, layout: str, kind: str) -> None:
    """What backward issues more than without recomputation."""
    model = MODELS[name.removeprefix("core ")] if name.startswith("core ") else zoo.model(name)
    model = zoo.still(model)
    checkpointed = zoo.layout(2, LAYOUTS[layout].sequence_parallel, 1, "1f1b", kind)
    graph = compiled(model, checkpointed)
    total: Counter[str] = Counter()
    for path in dict.fromkeys(layer_scope(op.scope) for op in graph.ops):
        repeat = None if path is None else graph.repeat_of(path)
        if repeat is not None and path is not None:
            ops = [op for op in graph.ops if layer_scope(op.scope) == path]
            numbers = repeat.layers(repeat.offsets[repeat.blocks.index(path)])
            recomputed = [n for n in numbers if n % repeat.op.number("recompute") == 0]
            total.update({kind: count * len(recomputed) for kind, count in again(graph, ops).items()})
    found, plain = (traffic(model, other, dropout=True).counts("backward") for other in (checkpointed, LAYOUTS[layout]))
    assert +total == found - plain
    assert total or kind == "save"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", zoo.TINY)
def test_every_stage_does_what_its_plan_says(name: str, layout: str) -> None:
    pipelined = zoo.layout(2, LAYOUTS[layout].sequence_parallel, 4, "1f1b", "none")
    model = zoo.model(name)
    graph = compiled(model, pipelined)
    with fake_group(8):
        for index, stage in enumerate(stages_on_rank(model, pipelined, file_of(model, pipelined))):
            with Recorder() as forward:
                outputs = stage.module.eval()(*stage.inputs)
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            assert [(x.shape, x.dtype) for x in outputs] == [(x.shape, x.dtype) for x in stage.outputs]
            with Recorder() as backward:
                sum(x.sum() for x in outputs if x.requires_grad).backward()
            assert (forward.counts(), backward.counts()) == planned(graph, index), index


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", zoo.TINY)
def test_the_table_of_the_command(name: str, layout: str, tmp_path: Path) -> None:
    spec, model = tmp_path / "spec.yaml", zoo.model(name)
    text = Path(zoo.ROOT, "specs", "tiny", f"{name}.yaml").read_text()
    spec.write_text(f"{text}layout: {{tp: 2, sequence_parallel: {str(layout == 'tp 2 sp').lower()}}}\n")
    result = CliRunner().invoke(cli, ["plan", str(spec)])
    assert result.exit_code == 0, result.output
    lines = re.split(r"^collectives.*\n", result.output, flags=re.MULTILINE)[1].splitlines()
    rows = {who: columns for who, *columns in (re.split(r"  +", line.strip()) for line in lines)}
    found = traffic(model, LAYOUTS[layout])
    assert [_counted(cell) for cell in rows.pop("loss")] == [found.counts("loss"), Counter()]
    layers = Counter(_names(model))
    assert rows.keys() == layers.keys() | {"outside of layers"}
    for column, part in enumerate(("forward", "backward")):
        total: Counter[str] = Counter()
        for who, cells in rows.items():
            total += Counter({kind: n * layers.get(who, 1) for kind, n in _counted(cells[column]).items()})
        assert total == found.counts(part)


def _counted(cell: str) -> Counter[str]:
    """`2 all-gather (1 copied), 2 reduce-scatter`"""
    words = [] if cell == "none" else [entry.split()[:2] for entry in cell.split(", ")]
    return Counter({kind: int(count) for count, kind in words})


def _names(model: Model) -> Iterator[str]:
    """The name of every layer's block as the command gives it."""
    for stack in model.stacks:
        for run in stack.runs:
            for layer in range(run.layers):
                block = run.blocks[layer % len(run.blocks)].name
                yield stack.role if block == "block" else f"{stack.role}.{block}"


@pytest.mark.parametrize("layers", [1, 3])
def test_memory_is_gathered_once_for_all_decoder_layers(layers: int) -> None:
    """Collectives on encoder-sized values: two a layer of the encoder, and one more."""

    def count(found: list[Collective], kind: str, elements: int) -> int:
        return Counter((one.kind, one.elements) for one in found)[kind, elements]

    whole = 3 * SOURCE * D_MODEL
    found = traffic(transformer(layers=layers), SP)
    assert count(found.forward, "all-gather", whole // 2) == 2 * layers + 1
    assert count(found.backward, "reduce-scatter", whole) == 2 * layers + 1
    found = traffic(transformer(layers=layers), TP)
    assert count(found.forward, "all-reduce", whole) == 2 * layers + 1  # this one more is the embedding's
    assert count(found.backward, "all-reduce", whole) == 2 * layers + 1


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["llama-tiny", "gpt2-tiny"])  # of even and of odd vocabulary
def test_cross_entropy_takes_two_all_reduces(name: str, layout: str) -> None:
    found = traffic(zoo.model(name), LAYOUTS[layout])
    assert [(one.kind, one.reduction) for one in found.loss] == [("all-reduce", "max"), ("all-reduce", "sum")]
    whole = traffic(llama(layers=1), LAYOUTS[layout]).counts("backward")
    assert whole == Counter(LAYER[layout]) + Counter({kind: n // 2 for kind, n in LAYER[layout].items()})


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_kept_by_name_is_not_communicated_again(layout: str) -> None:
    sequence_parallel, layers = LAYOUTS[layout].sequence_parallel, 3
    model, kinds = llama(layers=layers), ("none", "full", "save")
    found = {k: traffic(model, zoo.layout(2, sequence_parallel, 1, "1f1b", k)) for k in kinds}
    assert found["none"].forward == found["full"].forward == found["save"].forward
    again = {kind: one.counts("backward") - found["none"].counts("backward") for kind, one in found.items()}
    if sequence_parallel:  # the last reduce-scatter of a layer is needed by nothing in its backward pass
        assert again["full"] == {"all-gather": 2 * layers, "reduce-scatter": layers}
        assert again["save"] == {"all-gather": 2 * layers}
    else:
        assert again["full"] == {"all-reduce": layers} and not again["save"]
