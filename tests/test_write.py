"""Files of a build are replaced together or stay, whatever ends the build; what a killed one left is swept."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from specc.emit.journal import JOURNAL, NEW
from specc.emit.write import Output, Unwritable, write

NAMES = ("a.params", "a.py")


def outputs(folder: Path, text: str) -> list[Output]:
    return [Output(folder / name, f"{text} {name}\n") for name in NAMES]


def state(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.iterdir())}


def texts(text: str) -> dict[str, str]:
    return {name: f"{text} {name}\n" for name in NAMES}


def killed(step: int, act: Callable[[], object]) -> bool:
    """Whether a process was killed before that call to the operating system, which it may never make."""
    child = os.fork()
    if child == 0:
        calls = 0

        def count(_: object, event: str, function: Any) -> None:
            nonlocal calls
            calls += event == "c_call" and function.__module__ == "posix"
            if calls == step:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(count)
        act()
        sys.setprofile(None)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def every_kill(folder: Path, act: Callable[[], object]) -> list[dict[str, str]]:
    """What is there after a kill at each step and another build in the folder; nothing else is left."""
    found: list[dict[str, str]] = []
    for step in range(1, 1000):
        for output in outputs(folder, "old"):
            output.path.write_text(output.text)
        more = killed(step, act)
        one = {name: (folder / name).read_text() for name in NAMES}
        assert all(one[name] in (f"old {name}\n", f"new {name}\n") for name in NAMES)
        write([Output(folder / "other.py", "other\n")])
        found.append(state(folder))
        assert found[-1].pop("other.py") == "other\n"
        (folder / "other.py").unlink()
        if not more:
            return found
    raise AssertionError("it never ends")


def test_a_build_that_is_killed_anywhere_leaves_all_old_or_all_new(tmp_path: Path) -> None:
    found = every_kill(tmp_path, lambda: write(outputs(tmp_path, "new")))
    assert all(after in (texts("old"), texts("new")) for after in found), found
    assert len(found) > 20 and found[0] == texts("old") and found[-2] == found[-1] == texts("new")


def test_a_recovery_that_is_killed_is_recovered_from(tmp_path: Path) -> None:
    """The journal of a build that died between its two replacements, again and again."""

    def pending() -> None:
        names = [f".{name}.abcdefgh{NEW}" for name in NAMES]
        for name, new in zip(NAMES, names, strict=True):
            (tmp_path / new).write_text(f"new {name}\n")
        (tmp_path / JOURNAL).write_text(json.dumps(names))
        os.replace(tmp_path / names[0], tmp_path / NAMES[0])

    for step in range(1, 1000):
        for output in outputs(tmp_path, "old"):
            output.path.write_text(output.text)
        pending()
        more = killed(step, lambda: write([Output(tmp_path / "other.py", "other\n")]))
        write([Output(tmp_path / "other.py", "other\n")])
        assert state(tmp_path) == {**texts("new"), "other.py": "other\n"}
        if not more:
            return
    raise AssertionError("it never ends")


def test_data_is_on_the_disk_before_it_replaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: set[int] = set()
    replaced: list[str] = []
    fsync, replace = os.fsync, os.replace

    def note(handle: int) -> None:
        synced.add(os.fstat(handle).st_ino)
        fsync(handle)

    def check(source: Path, target: Path) -> None:
        assert os.stat(source).st_ino in synced
        replaced.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr("specc.emit.journal.os.fsync", note)
    monkeypatch.setattr("specc.emit.journal.os.replace", check)
    write(outputs(tmp_path, "new"))
    assert replaced == [JOURNAL, *NAMES] and os.stat(tmp_path).st_ino in synced


@pytest.mark.parametrize("journal", ["", "7", "[7]", '["../x"]', f'["..{NEW}"]', f'["sub/.a.py.abcdefgh{NEW}"]'])
def test_a_journal_that_nobody_wrote_moves_nothing(tmp_path: Path, journal: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / f".a.py.abcdefgh{NEW}").write_text("hostile\n")
    (tmp_path / JOURNAL).write_text(journal)
    write(outputs(tmp_path, "new"))
    (tmp_path / "sub" / f".a.py.abcdefgh{NEW}").unlink()
    (tmp_path / "sub").rmdir()
    assert state(tmp_path) == texts("new")


@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_what_fails_between_replacements_puts_everything_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException], call: int
) -> None:
    """Also where one of the files was not there, in a folder that was."""
    replace, calls = os.replace, 0

    def broken(source: Path, target: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise kind(28, "No space left on device", str(target))
        replace(source, target)

    (tmp_path / "a.py").write_text("old a.py\n")
    monkeypatch.setattr("specc.emit.journal.os.replace", broken)
    place = rf"{JOURNAL if call == 1 else NAMES[call - 2]} cannot be written: No space left on device"
    with pytest.raises(Unwritable if kind is OSError else kind, match=place if kind is OSError else None):
        write(outputs(tmp_path, "new"))
    assert state(tmp_path) == {"a.py": "old a.py\n"}


def test_a_full_disk_leaves_files_and_folders_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, *_: object, **__: object) -> None:
        os.close(handle)
        raise OSError(28, "No space left on device")

    (tmp_path / "a.py").write_text("old\n")
    monkeypatch.setattr("specc.emit.journal.os.fdopen", full)
    with pytest.raises(Unwritable, match=r"a\.params cannot be written: No space left on device"):
        write([*outputs(tmp_path, "new"), *outputs(tmp_path / "b" / "c", "new")])
    assert state(tmp_path) == {"a.py": "old\n"}


def test_two_builds_at_once_wait_for_each_other(tmp_path: Path) -> None:
    """Each finds files of its own kind only, and takes none of the other's for those of a dead process."""
    children: list[int] = []
    for text in ("one", "two", "three", "four"):
        child = os.fork()
        if child == 0:
            for n in range(20):
                write(outputs(tmp_path, f"{text} {n}"))
                both = [(tmp_path / name).read_text().rpartition(" ")[0] for name in NAMES]
                assert len(both) == 2
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    found = state(tmp_path)
    assert list(found) == list(NAMES) and len({text.rpartition(" ")[0] for text in found.values()}) == 1
