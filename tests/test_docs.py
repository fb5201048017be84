"""The documents say what is so: their specs are valid, their commands run, and print what they show."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from specc.interop.library import families
from specc.source import Source
from specc.spec import Spec, load

ROOT = Path(__file__).parents[1]
DOCUMENTS = (
    "README.md",
    "docs/contributing.md",
    "docs/interchange.md",
    "docs/language.md",
    "docs/planning.md",
    "docs/sizing.md",
    "docs/tour.md",
    "docs/training.md",
)
LIMIT = 300.0  # seconds for a command


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


def checkout_in(folder: Path) -> Path:
    """What a user has, to run commands in, and the files that documents show: blocks that begin with `# name.ext`."""
    for name in ("specs", "generated", "examples"):
        shutil.copytree(ROOT / name, folder / name)
    for document in DOCUMENTS:
        for block in blocks(document, "(?:python|yaml)"):
            if named := re.match(r"# (\w+\.\w+)\n", block):
                (folder / named[1]).write_text(block)
    programs = folder / "bin"
    programs.mkdir()
    for name, module in {"specc": "-m specc", "torchrun": "-m torch.distributed.run", "python": ""}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {module} "$@"\n')
        (programs / name).chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkout_in(tmp_path_factory.mktemp("checkout"))


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a shell command; nothing that it started outlives it."""
    environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    environment["PET_STANDALONE"] = "1"  # torchrun takes a free port
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command, shell=True, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )
    try:
        out, err = process.communicate(timeout=LIMIT)
    except BaseException:
        os.killpg(process.pid, signal.SIGTERM)  # torchrun ends its ranks
        process.communicate()
        raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_print_what_is_shown(document: str, checkout: Path) -> None:
    shown = [entry for block in blocks(document, "console") for entry in commands(block)]
    assert shown
    for command, lines in shown:
        result = run(command, checkout)
        wrong = "broken" in command or any(line.startswith("error[") for line in lines)
        assert result.returncode == wrong, f"{command}\n{result.stdout}{result.stderr}"
        printed = iter(map(str.split, result.stdout.splitlines()))  # how wide columns are is of no account
        for line in lines:
            if line != "...":
                assert any(line.split() == other for other in printed), f"{command} does not print {line!r} there"


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


@pytest.mark.parametrize("document", ["docs/training.md", "docs/interchange.md"])
def test_python_of_a_page_is_run(document: str) -> None:
    """By the commands in it."""
    run = "".join(blocks(document, "console"))
    for block in blocks(document, "python"):
        assert block.splitlines()[0].removeprefix("# ") in run.split()


def test_the_component_of_the_page_on_contributing_is_the_tested_one() -> None:
    (shown,) = blocks("docs/contributing.md", "python")
    assert shown in (ROOT / "tests" / "toy.py").read_text(encoding="utf-8")


def test_the_page_on_interchange_lists_every_family() -> None:
    text = (ROOT / "docs" / "interchange.md").read_text(encoding="utf-8")
    (listed,) = re.findall(r"<!-- families -->\n(.*?)\n<!-- end -->", text, re.S)
    assert re.findall(r"`([\w-]+)`", listed) == list(families())


def test_links_lead_somewhere() -> None:
    for document in DOCUMENTS:
        folder = (ROOT / document).parent
        for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / document).read_text(encoding="utf-8")):
            assert (folder / target).exists(), f"{document}: {target}"
