"""Names of specs become files, modules and classes: what they cannot be."""

from __future__ import annotations

import ast
import builtins
import keyword
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from specc.compile import compile_spec
from specc.emit import emit
from specc.emit.guard import Unsafe, guard, names, parse
from specc.ir.graph import Graph
from specc.source import Source
from specc.spec import Spec, load
from specc.spec.names import CLASSES, CONSTANTS, MODULES, class_name, name_problem
from tests.broken import BOTH, DECODER, PATTERN
from tests.test_bad_input import changed, findings

ROOT = Path(__file__).parents[1]
GOOD_NAMES = ("a", "small", "llama-3.1-8b", "a_b", "transformer", "linear", "attention", "block", "x1")
BAD_NAMES = (
    "",
    "A",
    "1a",
    "_a",
    "-a",
    ".a",
    "a.",
    "a-",
    "a..b",
    "../x",
    "a/b",
    "a\\b",
    "a b",
    "a\nb",
    "\u00e9",
    "\ufb01",
    "a" * 65,
)
WORDS = (
    "class",
    "match",
    "type",
    "lambda",
    "print",
    "list",
    "torch",
    "numpy",
    "os",
    "json",
    "specc",
    "site",
    "con",
    "nul",
    "com1",
)
SHADOWS = (
    "f",
    "tensor",
    "d-tensor",
    "row-linear",
    "rms-norm",
    "trainer",
    "device-mesh",
    "pipeline.stage",
    "collective",
)
CAPITALS = ("none", "true", "false", "ellipsis", "not-implemented", "base-exception", "value_error", "s-t-a-g-e-s")


@pytest.mark.parametrize("name", (*BAD_NAMES, *WORDS, *SHADOWS, *CAPITALS), ids=repr)
def test_names_that_cannot_be_files_modules_or_classes(name: str) -> None:
    text = changed(DECODER, ("name: small", f"name: {yaml.safe_dump(name, default_style=chr(34), width=200).strip()}"))
    assert [item.code for item in findings(text)] == ["E206"]


ELSEWHERE = {
    "distutils": "a file distutils.py would be imported in place of the module distutils",
    "cgi": "a file cgi.py would be imported in place of the module cgi",
    "compression": "a file compression.py would be imported in place of the module compression",
    "profiling": "a file profiling.py would be imported in place of the module profiling",
    "frozendict": "frozendict is a builtin of Python",
    "lazy": "lazy is a word of Python",
    "python-finalization-error": "its class would take the place of PythonFinalizationError",
    "windows-error": "its class would take the place of WindowsError",
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_names_do_not_depend_on_the_python_that_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of these are names of 3.11 only, some of 3.14 or later only."""
    monkeypatch.setattr(sys, "stdlib_module_names", frozenset({"os"}))
    monkeypatch.setattr(keyword, "issoftkeyword", lambda word: False)
    assert name_problem(name) == ELSEWHERE[name]


def test_the_list_is_complete() -> None:
    """Under a Python that brings more modules this fails: they belong into the list."""
    public = {name for name in sys.stdlib_module_names if name[0] != "_" and name.islower()}
    assert len(public | set(MODULES)) == 219


def test_names_that_can() -> None:
    for name in GOOD_NAMES:
        assert not findings(changed(DECODER, ("name: small", f"name: {name}"))), name


LAYOUTS = (
    "{}",
    "{tp: 2}",
    "{tp: 2, dp: 2, sequence_parallel: true, pp: 2, checkpoint: {save: [attention.o]}}",
    "{dp: 2}",
)
OWN = re.compile(r"\w*(Attention|FeedForward|Block)|First|Middle|Last|Small|Both|Mixed")


def test_no_model_takes_the_name_of_what_its_file_uses() -> None:
    """Whatever a file defines or imports with a capital is refused as a model's class, but for the model's own."""
    words: set[str] = set()
    for base in (DECODER, BOTH, PATTERN):
        head = base[: re.search(r"^layouts?:", base, re.M).start()].replace("vocab: 97", "vocab: 96")  # pyright: ignore
        for layout in LAYOUTS:
            spec = load(Source("s.yaml", f"{head}layout: {layout}\n"))
            assert isinstance(spec, Spec), spec
            for node in ast.walk(ast.parse(emit(spec, spec.layout()).source)):
                if isinstance(node, (ast.Import, ast.ImportFrom)):
                    words |= {alias.asname or alias.name for alias in node.names}
                elif isinstance(node, ast.ClassDef):
                    words.add(node.name)
    words = {word for word in words if word[0].isupper() and not OWN.fullmatch(word)}
    assert {"Tensor", "F", "ColumnLinear", "Trainer", "DTensor"} <= words <= set(CLASSES)
    for word in CLASSES:
        kebab = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", word).lower()
        assert name_problem(kebab) or name_problem(kebab.replace("-", "_")), word


def test_no_model_takes_the_name_of_a_word_or_builtin_of_python() -> None:
    """The class of a spec begins with a capital, and so do these."""
    for word in (*dir(builtins), *keyword.kwlist):
        if word[0].isupper():
            kebab = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", word).lower()
            assert name_problem(kebab) or class_name(kebab) != word, word


@pytest.mark.parametrize("name", ["none", "true", "base_exception", "stage", "norm", "block", "cross", "f", "tensor"])
def test_a_block_may_have_any_name(name: str) -> None:
    """The word for its kind stands behind it; and names of the file's own constants are known."""
    text = PATTERN.replace("  local:", f"  '{name}':").replace("like: local", f"like: '{name}'")
    text = text.replace("local*2", f"{name}*2").replace("layout: {tp: 2}", "layout: {tp: 2, pp: 2}")
    spec = load(Source("s.yaml", text))
    assert isinstance(spec, Spec), spec
    tree = ast.parse(emit(spec, spec.layout()).source)
    targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    found = {target.id for target in targets if isinstance(target, ast.Name)}
    assert {name for name in found if not name.islower()} <= set(CONSTANTS)


@pytest.mark.parametrize(
    ("head", "text"),
    [
        ("", "A = 1\n\n\nclass A:\n    pass\n"),
        ("from torch import A\n", "class A:\n    pass\n"),
        ("import torch as A\n", "A = 1\n"),
        ("from math import b as A\n", "def A():\n    pass\n"),
    ],
)
def test_a_second_thing_of_one_name_in_a_file_is_a_bug(head: str, text: str) -> None:
    body = parse(text, "x")
    with pytest.raises(Unsafe, match=r"A is defined in line \d already"):
        guard(parse(f'"""x"""\n{head}', "x"), body, names(body), text, "x")


def test_no_local_has_the_name_of_a_function_that_its_forward_calls() -> None:
    spec = load(Source("s.yaml", DECODER))
    assert isinstance(spec, Spec), spec
    compiled = compile_spec(spec, spec.layout())

    def called(graph: Graph) -> Graph:
        ops = (op.changed(hint="apply_rope", hints=()) if op.kind == "rope" else op for op in graph.ops)
        return graph.with_ops(ops)

    changed = replace(compiled, passes={name: called(graph) for name, graph in compiled.passes.items()})
    source = emit(spec, spec.layout(), changed).source
    assert "apply_rope2 = apply_rope(" in source and "apply_rope = " not in source


def test_a_call_of_what_a_local_hides_is_a_bug() -> None:
    text = "def a():\n    pass\n\n\ndef b(c):\n    a = a()\n    return a\n\n\ndef d(a):\n    return a\n"
    body = parse(text, "x")
    with pytest.raises(Unsafe, match="line 6: a is a local of b"):
        guard(parse('"""x"""', "x"), body, names(body), text, "x")
