"""Writing files: all or nothing, atomically, only what changed."""

from __future__ import annotations

import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path


class Unwritable(Exception):
    """A place that cannot be written, and why."""


@dataclass(frozen=True)
class Output:
    """A text and where it belongs."""

    path: Path
    text: str

    @property
    def data(self) -> bytes:
        """What the file has in it."""
        return self.text.encode()

    def on_disk(self) -> bytes | None:
        """What stands there now, None where nothing does. Raises Unwritable."""
        try:
            kind = os.lstat(self.path).st_mode
            if stat.S_ISLNK(kind):
                raise Unwritable(f"{self.path} is a link; specc writes real files only")
            if not stat.S_ISREG(kind):
                raise Unwritable(f"{self.path} is not a file")
            return self.path.read_bytes()
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise Unwritable(f"{self.path} cannot be written: {_reason(error)}") from error


def write(outputs: list[Output]) -> list[Output]:
    """Write those that differ from the disk; which they were. Nothing is replaced unless all could be written.

    Every text first goes into a file beside its place, which is then moved there, so an interrupted run leaves each
    old file whole. Raises Unwritable.
    """
    changed = [output for output in outputs if output.on_disk() != output.data]
    ready: list[tuple[str, Path]] = []
    made: list[Path] = []
    done = False
    try:
        for output in changed:
            made += _folder(output.path.parent)
            ready.append((_beside(output), output.path))
        for temporary, path in ready:
            os.replace(temporary, path)
        done = True
    except (OSError, ValueError) as error:
        place = error.filename if isinstance(error, OSError) and error.filename else changed[len(ready) - 1].path
        raise Unwritable(f"{place} cannot be written: {_reason(error)}") from error
    finally:
        for temporary, _ in ready:
            Path(temporary).unlink(missing_ok=True)
        for folder in reversed(made if not done else []):
            if not any(folder.iterdir()):
                folder.rmdir()
    return changed


def _folder(path: Path) -> list[Path]:
    """Make a folder; those that did not exist, outer ones first."""
    missing = [folder for folder in (*reversed(path.parents), path) if not folder.exists()]
    for folder in missing:
        folder.mkdir(exist_ok=True)
    if not path.is_dir():
        raise NotADirectoryError(20, "it is not a folder", str(path))
    return missing


def _beside(output: Output) -> str:
    handle, name = tempfile.mkstemp(dir=output.path.parent, prefix=f".{output.path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(output.data)
        os.chmod(name, 0o644 & ~_umask())
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return name


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
