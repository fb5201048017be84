"""What holds of every spec, tried on drawn ones.

`HYPOTHESIS_PROFILE=nightly python -m pytest tests/test_properties.py` searches longer.
"""

from __future__ import annotations

import copy
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from specc.cli import main
from specc.compile import compile_spec
from specc.emit import emit
from specc.emit.fingerprint import fingerprints
from specc.interpret import init_weights, interpret
from specc.ir.graph import Graph
from specc.lower import lower
from specc.passes import run
from specc.passes.legality import legality
from specc.source import Source
from specc.spec import Spec, load
from specc.spec.core import Layout
from specc.verify.course import SEED
from specc.verify.relations import Relation, Setting, layout_relations, plain_relations, setting
from specc.verify.run import world_size
from tests.strategies import Doc, Drawn, dump, expanded, specs

EXAMPLES = settings.default.max_examples if settings.default else 30
FEWER, FEW = settings(max_examples=EXAMPLES // 2), settings(max_examples=EXAMPLES // 5)


def loaded(text: str) -> Spec:
    spec = load(Source("drawn.yaml", text))
    assert isinstance(spec, Spec), spec
    return spec


def failing(rows: list[Relation]) -> list[Relation]:
    return [row for row in rows if not row.holds]


@given(specs())
def test_every_pass_leaves_a_legal_graph(drawn: Drawn) -> None:
    spec = loaded(drawn.text)
    layout = spec.layout()
    for name, graph in run(lower(spec.model), layout):
        legality(graph, layout, after=name)


@FEWER
@given(specs())
def test_files_are_as_formatter_and_linter_want_them(drawn: Drawn) -> None:
    spec = loaded(drawn.text)
    source = emit(spec, spec.layout()).source
    ruff = [sys.executable, "-m", "ruff"]
    options = ["--isolated", "--line-length", "120"]
    for command in (["format", *options, "-"], ["check", *options, "--select", "F,I,E,B", "-"]):
        done = subprocess.run([*ruff, *command], input=source, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
        assert command[0] == "check" or done.stdout == source


@given(specs(ranks=1))
def test_backends_agree(drawn: Drawn) -> None:
    """The same keys in the same order, logits and gradients to the bit, with and without checkpointing."""
    spec = loaded(drawn.text)
    found = setting(spec.model, spec.layout())
    assert not failing(plain_relations(found, spec.layout()))


@FEW
@given(specs(ranks=2))
def test_layouts_compute_what_one_device_does(drawn: Drawn) -> None:
    spec = loaded(drawn.text)
    layout = spec.layout()
    rows = layout_relations(setting(spec.model, layout), layout) if world_size(layout) > 1 else []
    assert not failing(rows)


def computed(graph: Graph, found: Setting) -> dict[str, Tensor]:
    """Logits and all gradients of the interpreted graph."""
    module: nn.Module = interpret(graph, dtype=torch.float64)
    init_weights(module, graph, SEED)
    module.load_state_dict(found.weights)
    outputs = module.eval()(*found.batch.inputs)
    logits, *terms = outputs if isinstance(outputs, tuple) else (outputs,)
    probe = torch.sin(torch.arange(logits.numel(), dtype=torch.float64)).view_as(logits)
    torch.autograd.backward((logits, *terms), (probe, *map(torch.ones_like, terms)))
    gradients = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    assert gradients.keys() == found.weights.keys()
    return {"logits": logits.detach(), **gradients}


SUMMED = ("fold", "order", "legalise")


@FEWER
@given(specs())
def test_passes_preserve_the_function(drawn: Drawn) -> None:
    """To the bit, but where sums get another order: a mask that is a flag, tokens before samples, a bias by itself, and
    a table that every stage reads."""
    spec = loaded(drawn.text)
    layout = spec.layout()
    found = setting(spec.model, layout)
    graphs = dict(run(lower(spec.model), layout))
    before = computed(graphs["shapes"], found)
    for name in ("dead", "fold", "order", "precision", "stages", "legalise"):
        after = computed(graphs[name], found)
        for key, value in before.items():
            close = torch.allclose(after[key], value, rtol=1e-10, atol=1e-11)
            summed = name in SUMMED or (name == "stages" and key.endswith("relative_bias.weight"))
            assert close if summed else torch.equal(after[key], value), (name, key)
        before = after


def exit_code(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([*arguments])
    return int(stopped.value.code or 0)


@FEWER
@given(specs())
def test_build_then_check_is_clean(drawn: Drawn) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "drawn.yaml"
        path.write_text(drawn.text)
        out = ("-o", f"{folder}/out")
        assert exit_code("build", str(path), "--check", *out) == 1
        assert exit_code("build", str(path), *out) == 0
        assert exit_code("build", str(path), "--check", *out) == 0
        assert {file.name for file in Path(folder, "out").iterdir()} == {"drawn.py", "drawn.params"}


def commented(text: str, comments: list[str]) -> str:
    """A comment behind and above some lines of a text in block style, and empty lines."""
    lines: list[str] = []
    for n, line in enumerate(text.splitlines()):
        comment = comments[n % len(comments)]
        lines += [f"# {comment}", "", f"{line}  # {comment}"] if comment else [line]
    return "\n".join(lines) + "\n"


@FEWER
@given(specs(), st.lists(st.text("abc: #'\"[]{}-", max_size=5), min_size=1, max_size=4))
def test_the_form_of_the_text_does_not_matter(drawn: Drawn, comments: list[str]) -> None:
    document = drawn.document
    block = dump(document, default_flow_style=False)
    texts = [
        dump(document, sort_keys=True),
        dump(document, default_flow_style=True, width=40),
        dump(document, default_flow_style=False, indent=7),
        commented(block, comments),
        block.replace("\n", "\r\n"),
        f"\ufeff{dump(document, explicit_start=True, explicit_end=True)}",
    ]
    spec = loaded(drawn.text)
    wanted = emit(spec, spec.layout())
    for text in texts:
        source = Source("other.yaml", text.removeprefix("\ufeff").replace("\r\n", "\n"))
        found = load(source)
        assert isinstance(found, Spec), found
        assert emit(found, found.layout()) == wanted


def in_turn(document: Doc, head: int, tail: int) -> tuple[Doc, Doc]:
    """The stacks repeat what they run twice and more: as a block or a pattern, and with a head, a tail and twins."""
    plain, parted = ({**without(document, "blocks", "layout"), "blocks": {}} for _ in range(2))
    for role in (role for role in ("encoder", "decoder") if role in document):
        rest = without(document[role], "block", "pattern")
        pattern = document[role].get("pattern", [role])
        blocks = {**document.get("blocks", {}), role: document[role].get("block")}
        cycle = expanded(pattern["cycle"] if isinstance(pattern, dict) else pattern)
        whole = {**rest, "layers": head + 2 * len(cycle) + tail}
        names = (cycle * whole["layers"])[: whole["layers"]]
        twins = {f"{name}_twin": {"like": name} for name in names[len(names) - tail :]}
        last = [f"{name}_twin" for name in names[len(names) - tail :]]
        parts = {"head": names[:head], "cycle": names[head:][: len(cycle)], "tail": last}
        used = {name: blocks[name] for name in blocks if name in cycle}
        bases = {block["like"] for block in used.values() if isinstance(block, dict)}
        used |= {name: blocks[name] for name in bases}
        if "block" in document[role]:
            plain[role] = {**whole, "block": document[role]["block"]}
        else:
            plain[role] = {**whole, "pattern": cycle}
            plain["blocks"] |= used
        parted[role] = {**whole, "pattern": parts}
        parted["blocks"] |= used | twins
    return plain, parted


@FEWER
@given(specs(), st.integers(0, 3), st.integers(0, 3))
def test_the_same_layers_are_the_same_model(drawn: Drawn, head: int, tail: int) -> None:
    found: list[object] = []
    for document in in_turn(drawn.document, head, tail):
        spec = loaded(dump(document))
        compiled = compile_spec(spec, spec.layout())
        found.append(fingerprints(compiled.model, compiled.placed, spec.layout()))
    assert found[0] == found[1]


def told(text: str) -> None:
    """Ends in a spec, or in findings that point into the text."""
    found = load(Source("any.yaml", text))
    if isinstance(found, Spec):
        return
    assert found
    for item in found:
        assert item.message and item.code
        for span in (item.span, *(note for note, _ in item.notes)):
            assert span is None or 0 <= span.start <= span.end <= len(text)


@given(st.text())
def test_any_text_ends_in_findings(text: str) -> None:
    told(text)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A valid text with some pieces cut out, doubled, or replaced."""
    style = draw(st.sampled_from((None, True, False)))
    text = dump(draw(specs()).document, default_flow_style=style)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 12)))
        piece = draw(st.one_of(st.just(text[start:end] * 2), st.text(max_size=6), st.sampled_from(PIECES)))
        text = text[:start] + piece + text[end:]
    return text


PIECES = ("", "null", "[", "{}", "- ", ": ", "-1", "1e400", ".nan", "&a ", "*a", "!!int ", "\n", "    ", "true", "'")


@given(damaged())
def test_damaged_specs_end_in_findings(text: str) -> None:
    told(text)


def without(document: Doc, *keys: str) -> Doc:
    return {key: value for key, value in document.items() if key not in keys}


BREAKAGES: tuple[tuple[str, Callable[[Doc], Doc]], ...] = (
    ("E201", lambda d: {**d, "vocabulary": 7}),
    ("E202", lambda d: without(d, "d_model")),
    ("E203", lambda d: {**d, "norm": {**d.get("norm", {}), "kind": "batch"}}),
    ("E204", lambda d: {**d, "d_model": -4}),
    ("E204", lambda d: {**d, "vocab": 2**40}),
    ("E205", lambda d: {**d, "vocab": "24"}),
    ("E206", lambda d: {**d, "name": "class"}),
    ("E206", lambda d: {**d, "name": "../x"}),
    ("E206", lambda d: {**d, "name": "torch"}),
    ("E230", lambda d: without(d, "encoder", "decoder", "blocks", "embedding", "pad", "layout")),
    ("E240", lambda d: {**d, "layout": {}, "layouts": {"a": {}}}),
    ("E402", lambda d: {**d, "layout": {"tp": 3}}),
    ("E405", lambda d: {**d, "layout": {"pp": {"stages": 1000}}}),
    ("E406", lambda d: {**d, **longer(d), "layout": {"pp": 2, "microbatches": 1}}),
)


def longer(document: Doc) -> Doc:
    """With layers for two stages."""
    return {role: {**document[role], "layers": 9} for role in ("encoder", "decoder") if role in document}


@given(specs(), st.sampled_from(BREAKAGES))
def test_one_breakage_is_one_code(drawn: Drawn, breakage: tuple[str, Callable[[Doc], Doc]]) -> None:
    code, broken = breakage
    found = load(Source("broken.yaml", dump(broken(copy.deepcopy(drawn.document)))))
    assert not isinstance(found, Spec)
    assert {item.code for item in found} == {code}, [item.message for item in found]


def test_a_layout_is_drawn_of_every_kind() -> None:
    """The strategies reach what the properties are about."""
    seen: dict[str, int] = {}

    @settings(max_examples=400, database=None)
    @given(specs())
    def count(drawn: Drawn) -> None:
        layout: Layout = loaded(drawn.text).layout()
        stacks = loaded(drawn.text).model.stacks
        facts = {
            "tp": layout.tp > 1,
            "sp": layout.sequence_parallel,
            "dp": layout.dp > 1,
            "pp": layout.pp.stages > 1,
            "starts": bool(layout.pp.starts),
            "save": bool(layout.checkpoint.save),
            "every": layout.checkpoint.every == 2,
            "two stacks": len(stacks) == 2,
            "runs": any(len(stack.runs) > 1 for stack in stacks),
        }
        for name, holds in facts.items():
            seen[name] = seen.get(name, 0) + holds

    count()
    assert all(number >= 3 for number in seen.values()), seen
