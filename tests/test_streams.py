"""The command line in processes of its own: streams that are closed, full or of few letters, and interrupts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.broken import DECODER

ROOT = Path(__file__).parents[1]


def program(script: str, *arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own; `$SPECC` runs it."""
    command = f"{sys.executable} -m specc"
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "SPECC": command, **environment}
    return subprocess.run(
        ["bash", "-c", script, "bash", *arguments],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )


def test_streams_that_close_early_or_are_full(tmp_path: Path) -> None:
    """A reader that is gone is no bug, a full disk is told; neither hangs."""
    (tmp_path / "small.yaml").write_text(DECODER)
    script = """
    $SPECC plan small.yaml | head -1
    $SPECC plan small.yaml 2>err1 | sleep 0; echo "${PIPESTATUS[0]}"
    $SPECC plan small.yaml >/dev/full 2>err2; echo $?
    $SPECC plan small.yaml >&- 2>err3; echo $?
    cat err1 err2 err3
    """
    run = program(script, folder=tmp_path)
    assert run.stdout.splitlines()[0] == "small" and not run.stderr, run
    first, second, third, *rest = run.stdout.splitlines()[1:]
    assert first in ("0", "141") and (second, third) == ("2", "0")
    assert rest == ["error: [Errno 28] No space left on device"]


@pytest.mark.parametrize("command", ["plan small.yaml", "check typo.yaml", "--help", "build small.yaml --diff"])
def test_an_output_that_nobody_reads_is_no_finding(tmp_path: Path, command: str) -> None:
    (tmp_path / "small.yaml").write_text(DECODER)
    (tmp_path / "typo.yaml").write_text(DECODER.replace("vocab", "vocabb"))
    reader, writer = os.pipe()
    os.close(reader)
    words = [sys.executable, "-m", "specc", *command.split()]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(words, cwd=tmp_path, env=environment, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert run.returncode == 141 and b"Traceback" not in run.stderr, run.stderr


def test_an_interrupt_while_modules_are_imported_is_told(tmp_path: Path) -> None:
    for name in ("click", "pydantic"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.py").write_text("raise KeyboardInterrupt\n")
        run = program("$SPECC build x.yaml; echo $?", folder=tmp_path, PYTHONPATH=f"{tmp_path / name}:{ROOT}")
        assert (run.stdout, run.stderr.split()) == ("130\n", ["interrupted"]), name


def test_a_terminal_that_cannot_show_a_letter_is_no_bug(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(DECODER.replace("vocab: 97", "voc\u4e16b: 97"))
    run = program("$SPECC check s.yaml", folder=tmp_path, PYTHONIOENCODING="latin-1")
    assert run.returncode == 1 and "unknown key voc\\u4e16b" in run.stdout and "help: did you mean vocab?" in run.stdout
