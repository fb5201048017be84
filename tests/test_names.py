"""Names of specs become files, modules and classes: what they cannot be."""

from __future__ import annotations

import keyword
import re
import sys
from pathlib import Path

import pytest
import yaml

from specc.spec.names import CLASSES, MODULES, name_problem
from tests.broken import DECODER
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
SHADOWS = ("f", "tensor", "d-tensor", "row-linear", "rms-norm", "trainer", "device-mesh", "pipeline.stage", "tape")


@pytest.mark.parametrize("name", (*BAD_NAMES, *WORDS, *SHADOWS), ids=repr)
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


def test_no_model_takes_the_name_of_what_its_file_uses() -> None:
    """Whatever templates and kernels define or import with a capital is refused as a model's class."""
    sources = [*(ROOT / "templates").rglob("*.j2"), *(ROOT / "specc" / "kernels").glob("*.py")]
    text = "".join(path.read_text() for path in (*sources, ROOT / "specc" / "emit" / "pasted.py"))
    words = set(re.findall(r"^class ([A-Z]\w*)", text, re.M))
    for names in re.findall(r"^(?:from [\w.]+ )?import (.+)$", text, re.M):
        words |= {word for word in re.split(r"[ ,]+", names.split("#")[0]) if re.fullmatch(r"[A-Z]\w*", word)}
    words -= {"Code", "Import", "Iterable", "Kernel", "Names", "Path"}  # of the emitter itself
    assert {"Tensor", "F", "ColumnLinear", "Trainer", "DTensor", "AllReduce"} <= words <= set(CLASSES)
    for word in CLASSES:
        kebab = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", word).lower()
        assert name_problem(kebab) or name_problem(kebab.replace("-", "_")), word
