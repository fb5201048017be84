"""Names of specs become files, modules and classes: what they cannot be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from specc.spec.names import CLASSES, name_problem
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
