"""Writing files: all or nothing, atomically, only what changed."""

from __future__ import annotations

import os
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

    def on_disk(self) -> str | None:
        """What stands there now, None where nothing does. Raises Unwritable."""
        if self.path.is_symlink():
            raise Unwritable(f"{self.path} is a link; specc writes real files only")
        try:
            return self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise Unwritable(f"{self.path} cannot be read: {_reason(error)}") from error


def write(outputs: list[Output]) -> list[Output]:
    """Write those that differ from the disk; which they were. Nothing is replaced unless all could be written.

    Every text first goes into a file beside its place, which is then moved there, so an interrupted run leaves each
    old file whole. Raises Unwritable.
    """
    changed = [output for output in outputs if output.on_disk() != output.text]
    ready: list[tuple[str, Path]] = []
    try:
        for output in changed:
            output.path.parent.mkdir(parents=True, exist_ok=True)
            ready.append((_beside(output), output.path))
        for temporary, path in ready:
            os.replace(temporary, path)
    except OSError as error:
        raise Unwritable(f"{error.filename or changed[0].path} cannot be written: {_reason(error)}") from error
    finally:
        for temporary, _ in ready:
            Path(temporary).unlink(missing_ok=True)
    return changed


def _beside(output: Output) -> str:
    handle, name = tempfile.mkstemp(dir=output.path.parent, prefix=f".{output.path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(output.text)
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
