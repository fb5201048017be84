"""Files of a folder that are replaced together, whenever the process is killed.

New texts are first written beside their places and synced. Then a journal that lists them is renamed to its name:
from there on they are the ones that count. They are moved to their places, and the journal is removed. Whoever writes
into the folder next finishes what a journal lists, and removes temporary files that none lists. A folder is locked
meanwhile, so such files are those of a dead process.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

JOURNAL = ".specc-build"
NEW = ".specc-new"  # ends the names of temporary files
_TEMPORARY = re.compile(rf"\.(.+)\.\w{{8}}{re.escape(NEW)}", re.ASCII | re.DOTALL)


@contextmanager
def locked(folders: list[Path]) -> Generator[None, None, None]:
    """Nobody else writes into these folders by this module; where there are no locks, that is hoped for."""
    with ExitStack() as stack:
        for folder in sorted(set(folders)):
            stack.enter_context(_locked(folder))
        yield


@contextmanager
def _locked(folder: Path) -> Generator[None, None, None]:
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network disks have none
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def recover(folder: Path) -> None:
    """Finish or forget what a killed process left. The folder is locked. Raises OSError."""
    if (folder / JOURNAL).exists():
        for temporary, name in _listed(folder):
            if (folder / temporary).exists():
                os.replace(folder / temporary, folder / name)
        sync(folder)
        (folder / JOURNAL).unlink()
    with os.scandir(folder) as entries:
        left = [entry.path for entry in entries if _TEMPORARY.fullmatch(entry.name)]
    for path in left:
        os.unlink(path)


def _listed(folder: Path) -> list[tuple[str, str]]:
    """Temporary files of a journal and their places; nothing that this module would not have written."""
    try:
        names: Any = json.loads((folder / JOURNAL).read_text(encoding="utf-8"))
        found = [(str(new), match[1]) for new in names if (match := _TEMPORARY.fullmatch(new))]
    except (OSError, ValueError, TypeError):
        return []
    return [(new, name) for new, name in found if Path(new).name == new and Path(name).name == name]


def temporary(path: Path, data: bytes, mode: int) -> Path:
    """A synced file beside its place. Raises OSError."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=NEW)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, mode)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return Path(name)


def move(folder: Path, ready: dict[Path, Path]) -> None:
    """Put temporary files of a locked folder in their places, all or none. Raises OSError.

    Where one cannot be moved, what was moved is put back as it was.
    """
    old = {path: path.read_bytes() if path.exists() else None for path in ready.values()}
    journal = temporary(folder / JOURNAL, json.dumps([new.name for new in ready]).encode(), 0o644)
    moved: list[Path] = []
    try:
        os.replace(journal, folder / JOURNAL)
        sync(folder)
        for new, path in ready.items():
            moved.append(path)
            os.replace(new, path)
        sync(folder)
    except BaseException:
        for path in moved:
            _put_back(path, old[path])
        raise
    finally:
        for left in (journal, folder / JOURNAL):
            left.unlink(missing_ok=True)


def _put_back(path: Path, data: bytes | None) -> None:
    if data is None:
        path.unlink(missing_ok=True)
    elif path.read_bytes() != data:
        os.replace(temporary(path, data, path.stat().st_mode), path)


def sync(folder: Path) -> None:
    """What was renamed in the folder is on the disk; not every system can say so."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY)
        try:
            with suppress(OSError):
                os.fsync(handle)
        finally:
            os.close(handle)
