"""A component is one module: another needs no line elsewhere, and nobody else knows one by name."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given

from specc.emit import emit
from specc.emit.guard import Unsafe
from specc.extension import Extension, ExtensionError
from specc.ir.op import Layer
from specc.lower import lower
from specc.ops.norm import KINDS
from specc.source import Source, read
from specc.spec import Spec, load
from specc.spec.core import Branch, Model
from specc.spec.layout_rules import save_names
from specc.tables import tables
from tests.strategies import Drawn, specs
from tests.test_house import MODULES, ROOT, name_of, words
from tests.toy import TOY

TEXT = """\
specc: 1
name: narrow
d_model: 32
vocab: 96
decoder:
  layers: 3
  block:
    - attention: {heads: 4}
    - bottleneck: {width: 8}
layout: {tp: 2, sequence_parallel: true, checkpoint: {save: [bottleneck.cap]}}
"""


def toy(folder: Path, command: str, text: str = TEXT, entry: str = "tests.toy:TOY", code: int = 0) -> str:
    """What specc prints where a package is installed that has the extension of tests/toy.py."""
    (folder / "narrow.yaml").write_text(text)
    installed = folder / "toy-1.0.dist-info"
    installed.mkdir(exist_ok=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(f"[specc.extensions]\ntoy = {entry}\n")
    arguments = [sys.executable, "-m", "specc", *command.split(" ")]
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    result = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == code, result.stdout + result.stderr
    return result.stdout + result.stderr


def test_a_new_component_is_checked(tmp_path: Path) -> None:
    wide = toy(tmp_path, "check narrow.yaml", TEXT.replace("width: 8", "width: 32"), code=1)
    assert "error[E290]: width = 32 is no bottleneck of d_model = 32\n --> narrow.yaml:9:" in wide.replace("  ", " ")
    assert "at most 31" in wide
    assert "did you mean width?" in toy(tmp_path, "check narrow.yaml", TEXT.replace("width: 8", "widht: 8"), code=1)
    called = toy(tmp_path, "check narrow.yaml", TEXT.replace("bottleneck: {", "adapter: {"), code=1)
    assert "did you mean bottleneck?" in called
    split = toy(tmp_path, "check narrow.yaml", TEXT.replace("width: 8", "width: 9"), code=1)
    assert "E402" in split and "width = 9 cannot be split over tp = 2" in split
    saved = toy(tmp_path, "check narrow.yaml", TEXT.replace("bottleneck.cap", "bottleneck.core"), code=1)
    assert "E412" in saved and "bottleneck.down, bottleneck.gain, bottleneck.cap, bottleneck.up" in saved


def test_a_new_component_is_built_planned_and_proven(tmp_path: Path) -> None:
    """With an op, a module of parameters and a kernel of its own."""
    toy(tmp_path, "build narrow.yaml -o .")
    text = (tmp_path / "narrow.py").read_text()
    assert "class Bottleneck(nn.Module):" in text and 'with kept("bottleneck.cap"):' in text
    assert "ColumnLinear(32, 8, tp, bias=True)" in text and "[seq, batch, width/tp]" in text
    assert "class Gain(nn.Module):" in text and "return x * (1 + self.weight.to_local())" in text
    assert "HALF = 0.5\n\n\ndef soft_cap(x: Tensor, cap: float) -> Tensor:" in text
    plan = toy(tmp_path, "plan narrow.yaml")
    assert re.search(r"decoder\.bottleneck\.width +8 +line 9\n", plan)
    proof = toy(tmp_path, "verify narrow.yaml")
    assert "tp 2 sp, save bottleneck.cap: gradients" in proof and "DIFFERS" not in proof


def test_extensions_are_an_argument_and_change_nothing_else() -> None:
    source = Source("narrow.yaml", TEXT)
    spec = load(source, tables((TOY,)))
    assert isinstance(spec, Spec) and "bottleneck" in spec.model.tables.components
    found = load(source)
    assert isinstance(found, list) and found[0].code == "E201"
    assert "bottleneck" not in tables().components


def test_extensions_that_do_not_go_together_are_told(tmp_path: Path) -> None:
    with pytest.raises(ExtensionError, match="the component bottleneck is of the extensions toy and toy"):
        tables((TOY, replace(TOY, name="toy")))
    with pytest.raises(ExtensionError, match="the op linear is of the extensions dense and mine"):
        tables((Extension("mine", ops=(tables().op("linear"),)),))
    absent = toy(tmp_path, "check narrow.yaml", entry="tests.toy:ABSENT", code=2)
    assert "the extension tests.toy:ABSENT cannot be loaded: " in absent
    other = toy(tmp_path, "check narrow.yaml", entry="tests.toy:BOTTLENECK", code=2)
    assert "the extension tests.toy:BOTTLENECK is a Component" in other


def test_a_kernel_that_no_expression_names_is_told_when_the_file_is_written() -> None:
    silent = {kind: lambda graph, op, write=write: write(graph, op)._replace(calls=()) for kind, write in WRITERS}
    spec = load(Source("narrow.yaml", TEXT), tables((replace(TOY, expressions=silent),)))
    assert isinstance(spec, Spec)
    with pytest.raises(Unsafe, match="soft_cap is nothing's name"):
        emit(spec, spec.layout())


WRITERS = tuple(TOY.expressions.items())


COMPONENTS = tuple(tables().components.values())
EXCEPTIONS = {
    "attention": (  # the op, which has that name too, and a key of cp
        "specc/builtin.py",
        "specc/cost/device.py",
        "specc/cost/roofline.py",
        "specc/cost/rows/__init__.py",
        "specc/cost/rows/attention.py",
        "specc/cost/seconds.py",
        "specc/cost/timing.py",
        "specc/cost/work.py",
        "specc/emit/checkpoints.py",
        "specc/emit/expr/attention.py",
        "specc/interpret/attention.py",
        "specc/ir/segments.py",
        "specc/ops/attention.py",
        "specc/passes/fold.py",
        "specc/passes/decode.py",
        "specc/passes/precision.py",
        "specc/spec/document.py",
        "specc/spec/expand.py",
        "specc/spec/layout_rules.py",
    ),
    "ffn": ("specc/emit/leaf.py", "specc/ir/types.py"),  # the axis of features between linears
}


def test_no_component_is_named_outside_of_components() -> None:
    """Its key, its config or its class, in code or in a text."""
    names = {name for item in COMPONENTS for name in (item.key, item.config.__name__, item.class_name)}
    found: dict[str, set[str]] = {}
    for path in MODULES:
        if path.parent.name != "components":
            for name in {part for word in words(path) for part in re.findall(r"\w+", word)} & names:
                found.setdefault(name, set()).add(name_of(path))
    assert found == {name: set(paths) for name, paths in EXCEPTIONS.items()}


def test_no_two_components_are_taken_for_each_other() -> None:
    for names in ([item.key for item in COMPONENTS], [item.config for item in COMPONENTS]):
        assert len(set(names)) == len(COMPONENTS)


CHEAP = ("split", "merge", "rope", "mul", "dropout", "clamp", "shift", "scale", *KINDS)
CHEAP += ("head_scale", "temper", "plain_attention", "part", "join", "relative_bias", "biased", "channel_scale")
CHEAP += ("scores", "normalise", "usage", "total", "balance", "squares", "expert_bias", "add", "correct", "limit")
CHEAP += ("logit_cap", "expert_scale", "some_bias", "returned", "jitter")
"""Ops of components that checkpointing does not name: views, what is made again in no time, what is no kernel."""


def branches(model: Model) -> Iterator[tuple[tuple[object, ...], Branch]]:
    """Every branch of a layer that is lowered, with its scope."""
    for stack in model.stacks:
        first = 0
        for number, run in enumerate(stack.runs):
            period = min(len(run.blocks), run.layers)
            for offset in range(period):
                for sublayer in run.blocks[(offset - first) % period].sublayers:
                    for branch in sublayer.branches:
                        yield (stack.path, Layer(offset, number), branch.name), branch
            first += run.layers


def check_results(model: Model) -> None:
    graph = lower(model)
    named: dict[str, None] = {}
    for scope, branch in branches(model):
        made = [op.id.rpartition(".")[2] for op in graph.ops if op.scope == scope and op.kind not in CHEAP]
        assert tuple(made) == model.tables.component(branch.component).results(branch.component)
        named |= dict.fromkeys(f"{branch.name}.{name}" for name in made)
    assert set(save_names(model)) >= set(named)


@pytest.mark.parametrize("path", sorted((ROOT / "specs").rglob("*.yaml")), ids=lambda path: path.stem)
def test_results_are_the_ops_that_lowering_makes(path: Path) -> None:
    source = read(path)
    spec = load(source) if isinstance(source, Source) else source
    assert isinstance(spec, Spec)
    check_results(spec.model)


@given(specs())
def test_results_of_drawn_specs_are_the_ops_that_lowering_makes(drawn: Drawn) -> None:
    spec = load(Source("drawn.yaml", drawn.text))
    assert isinstance(spec, Spec)
    check_results(spec.model)
