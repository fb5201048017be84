"""The committed files under generated/: they stand alone, hold nothing that is not used, and build what specs say."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch

from specc.verify.run import world_size
from tests import standalone, zoo
from tests.parity_specs import PUBLISHED

FOLDER = zoo.ROOT / "generated"
SPECS = tuple(sorted(path.stem for path in (zoo.ROOT / "specs").glob("*.yaml")))
FILES = (*SPECS, "llama-3.1-8b-interleaved")
"""Of the first layout of each spec, and of some others."""
PUBLIC = {"device_mesh", "build_model", "build_stage", "loss", "Trainer"}


def path_of(name: str) -> Path:
    return FOLDER / f"{re.sub(r'[^a-z0-9]', '_', name)}.py"


@cache
def tree_of(name: str) -> ast.Module:
    return ast.parse(path_of(name).read_text())


def test_every_spec_has_its_files_and_there_are_no_others() -> None:
    wanted = {path_of(name).with_suffix(suffix) for name in FILES for suffix in (".py", ".params")}
    assert {path for path in FOLDER.iterdir() if path.name != "__pycache__"} == wanted


# --- standing alone -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_only_torch_and_the_standard_library_are_imported(name: str) -> None:
    roots: set[str] = set()
    for node in ast.walk(tree_of(name)):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module
            roots.add(node.module.split(".")[0])
    assert "torch" in roots and roots <= sys.stdlib_module_names | {"torch"}


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """All files built by one isolated interpreter in an empty folder."""
    layouts = {name: zoo.spec(name).layout() for name in SPECS}
    jobs = [(str(path_of(name)), world_size(layout), layout.pp.stages) for name, layout in layouts.items()]
    command = [sys.executable, "-I", str(standalone.__file__)]
    folder = tmp_path_factory.mktemp("empty")
    run = subprocess.run(command, input=json.dumps(jobs), cwd=folder, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    assert not [*folder.iterdir()]
    return json.loads(run.stdout)


def table(name: str) -> dict[str, tuple[list[int], list[int], bool, bool]]:
    """Full shape and stages of every row of the table beside the file, whether it is of a range, and is trained."""
    found: dict[str, tuple[list[int], list[int], bool, bool]] = {}
    for line in path_of(name).with_suffix(".params").read_text().splitlines()[1:]:
        key, shape, *_, stages, init = re.split(r"  +", line)
        span = re.fullmatch(r"(.*)\{(\d+)\.\.(\d+)(?:\.\.(\d+))?\}(.*)", key)  # of layers, some with a step
        keys = [key]
        if span is not None:
            keys = [f"{span[1]}{n}{span[5]}" for n in range(int(span[2]), int(span[3]) + 1, int(span[4] or 1))]
        row = (json.loads(shape), numbers(stages), span is not None, not init.endswith("a buffer"))
        found |= dict.fromkeys(keys, row)
    return found


def numbers(text: str) -> list[int]:
    """`0,2..4` -> [0, 2, 3, 4]"""
    spans = [part.split("..") for part in text.split(",")]
    return [n for span in spans for n in range(int(span[0]), int(span[-1]) + 1)]


@pytest.mark.parametrize("name", SPECS)
def test_it_builds_alone_what_the_table_says(name: str, alone: dict[str, list[dict[str, Any]]]) -> None:
    stages, layout = alone[str(path_of(name))], zoo.spec(name).layout()
    assert len(stages) == layout.pp.stages
    wanted = table(name)
    held: dict[str, list[int]] = {}
    for n, stage in enumerate(stages):
        for key, shape in stage["parameters"].items():
            assert shape == wanted[key][0], key
            held.setdefault(key, []).append(n)
    assert held.keys() == wanted.keys()
    for key, on in held.items():
        _, stages_of_all, ranged, _ = wanted[key]
        assert (len(on) == 1 and on[0] in stages_of_all) if ranged else on == stages_of_all, key
    total = sum(prod(shape) for shape, *_, trained in wanted.values() if trained)
    assert f"\n{total:,} parameters in float32;" in (ast.get_docstring(tree_of(name)) or "")
    ranks = layout.tp * layout.dp * layout.cp
    for stage in stages:
        trained = [shape for key, shape in stage["parameters"].items() if wanted[key][3]]
        assert stage["local"] * ranks >= sum(map(prod, trained))
    if ranks == 1:
        assert stages[0]["logits"] == [standalone.BATCH, standalone.LENGTH, zoo.spec(name).model.vocab]
    else:
        assert max(stage["local"] for stage in stages) < total / layout.pp.stages


@pytest.mark.parametrize("name", PUBLISHED)
def test_its_parameters_are_those_of_hugging_face(name: str, alone: dict[str, list[dict[str, Any]]]) -> None:
    with torch.device("meta"):
        theirs = dict(PUBLISHED[name].reference().named_parameters())
    ours = {key: shape for stage in alone[str(path_of(name))] for key, shape in stage["parameters"].items()}
    assert ours == {key: list(view(theirs).shape) for key, view in PUBLISHED[name].views.items()}


# --- text -----------------------------------------------------------------------------------------


def test_the_formatter_and_the_linter_are_content() -> None:
    for command in (["format", "--check"], ["check"]):
        run = subprocess.run([sys.executable, "-m", "ruff", *command, str(FOLDER)], capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr


MOST = {
    "gpt2": 206,
    "llama-3.1-8b": 464,
    "llama-3.1-8b-interleaved": 494,
    "llama-3.1-405b": 534,
    "transformer-base": 518,
    "gemma-3-4b": 500,
    "t5-small": 548,
    "jamba": 574,
    "deepseek-v3": 640,
}


@pytest.mark.parametrize("name", MOST)
def test_a_file_is_short(name: str) -> None:
    assert len(path_of(name).read_text().splitlines()) <= MOST[name]


@pytest.mark.parametrize("name", SPECS)
def test_nothing_in_it_depends_on_when_and_where_it_was_made(name: str) -> None:
    for path in (path_of(name), path_of(name).with_suffix(".params")):
        text = path.read_text()
        assert text.isascii() and text.endswith("\n") and "\r" not in text
        for pattern in (
            r"(?<![\w.)\]/])/\w+",  # an absolute path
            r"[A-Za-z]:\\",
            r"\b(19|20)\d\d-\d\d",
            r"\d\d:\d\d",
            r"\b\d+\.\d+\.\d+",  # a version
            r"__file__|getcwd|environ",
        ):
            assert not re.search(pattern, text), (path.name, pattern)


def unused(tree: ast.Module) -> set[str]:
    """Names that the file binds at top level, and attributes that its modules set, and never reads elsewhere."""
    defined: dict[str, ast.stmt] = {}
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            defined[node.name] = node
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            defined |= {(alias.asname or alias.name).split(".")[0]: node for alias in node.names}
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            defined |= {t.id: node for target in targets for t in ast.walk(target) if isinstance(t, ast.Name)}
    found = {name for name, own in defined.items() if name not in PUBLIC and not _reads(tree, name, own)}
    loads = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    read = {node.attr for node in loads if isinstance(node.ctx, ast.Load)}
    read.add("found_inf")  # by torch's optimizers
    return found | {f"self.{n.attr}" for n in loads if isinstance(n.ctx, ast.Store) and n.attr not in read}


def _reads(tree: ast.Module, name: str, own: ast.stmt) -> bool:
    """Whether anything but its own definition mentions the name, if only in the text of an annotation."""
    for statement in tree.body:
        if statement is not own:
            for node in ast.walk(statement):
                if isinstance(node, ast.Name) and node.id == name:
                    return True
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and f"{name} |" in node.value:
                    return True
    return False


@pytest.mark.parametrize("name", SPECS)
def test_nothing_is_defined_and_not_used(name: str) -> None:
    assert not unused(tree_of(name))


def test_what_is_not_used_is_found() -> None:
    text = "import a\nimport b.c\nX = Y = 1\nZ: int = 2\ndef loss(): return b.c\ndef helper(): return helper() + X\n"
    text += "class C:\n    def __init__(self): self.p = self.q = 1\n    def f(self): return self.p\n"
    assert unused(ast.parse(text)) == {"a", "Y", "Z", "helper", "C", "self.q"}


def test_a_model_without_a_layout_is_what_one_writes_in_a_notebook() -> None:
    """But for the backward of the loss, which is worth its lines: two copies of the logits less (docs/speed.md)."""
    assert path_of("gpt2").read_text().count("(Function)") == 1
    for word in ("mesh", "distributed", "DTensor", "Collective", "checkpoint"):
        assert word not in path_of("gpt2").read_text(), word
