"""The documents say what is so: their specs are valid, their commands run, and print what they show."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from specc.source import Source
from specc.spec import Spec, load

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", "docs/tour.md")


def blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.S | re.M)


def commands(block: str) -> list[tuple[str, list[str]]]:
    """Each `$ command` with the lines shown under it."""
    found: list[tuple[str, list[str]]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user has, to run commands in."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("specs", "generated"):
        shutil.copytree(ROOT / name, folder / name)
    programs = folder / "bin"
    programs.mkdir()
    (programs / "specc").write_text(f'#!/bin/sh\nexec {sys.executable} -m specc "$@"\n')
    (programs / "specc").chmod(0o755)
    return folder


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_print_what_is_shown(document: str, checkout: Path) -> None:
    shown = [entry for block in blocks(document, "console") for entry in commands(block)]
    assert shown
    for command, lines in shown:
        result = run(command, checkout)
        assert result.returncode == (1 if "broken" in command else 0), f"{command}\n{result.stdout}{result.stderr}"
        printed = iter(result.stdout.splitlines())
        for line in lines:
            if line != "...":
                assert any(line == other for other in printed), f"{command} does not print {line!r} there"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_specs_are_valid(document: str) -> None:
    for block in blocks(document, "yaml"):
        found = load(Source(document, block))
        assert isinstance(found, Spec), found


def test_excerpt_of_the_readme_is_what_its_spec_builds(checkout: Path) -> None:
    (spec,) = blocks("README.md", "yaml")
    (checkout / "small-llama.yaml").write_text(spec)
    command = next(m[1] for m in re.finditer(r"`(specc build small[^`]*)`", (ROOT / "README.md").read_text()))
    result = run(command, checkout)
    assert result.returncode == 0, result.stderr
    excerpt = next(block for block in blocks("README.md", "python") if "class Attention" in block)
    assert excerpt in (checkout / "generated" / "small_llama_eight.py").read_text()


def test_python_of_the_readme_runs(checkout: Path) -> None:
    for block in blocks("README.md", "python"):
        if "import specc" in block:
            (checkout / "block.py").write_text(block)
            result = run(f"{sys.executable} block.py", checkout)
            assert result.returncode == 0, result.stderr


def test_links_lead_somewhere() -> None:
    for document in DOCUMENTS:
        folder = (ROOT / document).parent
        for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / document).read_text(encoding="utf-8")):
            assert (folder / target).exists(), f"{document}: {target}"
