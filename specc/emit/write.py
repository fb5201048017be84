"""Writing files: all or nothing, only what changed."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from specc.emit import journal


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

    Files of one folder are replaced together, also where the process is killed (`journal`). Raises Unwritable.
    """
    folders = list(dict.fromkeys(output.path.parent for output in outputs))
    made: list[Path] = []
    ready: dict[Path, dict[Path, Path]] = {folder: {} for folder in folders}
    place, done = Path(), False
    try:
        for place in folders:
            made += _folder(place)
        with journal.locked(folders):
            for place in folders:
                journal.recover(place)
            changed = [output for output in outputs if output.on_disk() != output.data]
            try:
                for output in changed:
                    place = output.path
                    ready[place.parent][journal.temporary(place, output.data, 0o644 & ~_umask())] = place
                for folder, files in ready.items():
                    if files:
                        journal.move(folder, files)
            finally:
                for new in (new for files in ready.values() for new in files):
                    new.unlink(missing_ok=True)
        done = True
    except (OSError, ValueError) as error:
        place = error.filename if isinstance(error, OSError) and error.filename else place
        raise Unwritable(f"{place} cannot be written: {_reason(error)}") from error
    finally:
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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
