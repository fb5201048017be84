"""Storages that are alive during a symbolic run, and their peak."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(eq=False, slots=True)
class Storage:
    """Bytes that live as long as someone holds them; `part` is what they are for."""

    bytes: int
    part: str
    holders: int = 1


class Live:
    """What is alive by part, and the most there ever was, with the place where that was."""

    def __init__(self) -> None:
        self.bytes = self.peak = 0
        self.parts: dict[str, int] = {}
        self.at_peak: dict[str, int] = {}
        self.where = self.place = ""

    def make(self, bytes: int, part: str) -> Storage:
        """A new one, held once."""
        self.bytes += bytes
        self.parts[part] = self.parts.get(part, 0) + bytes
        self._see()
        return Storage(bytes, part)

    def _see(self) -> None:
        if self.bytes > self.peak:
            self.peak, self.where, self.at_peak = self.bytes, self.place, dict(self.parts)

    def again(self) -> dict[str, int]:
        """Look for the most from here on; parts as they are."""
        self.peak, self.where, self.at_peak = self.bytes, self.place, dict(self.parts)
        return self.at_peak

    def hold(self, storage: Storage) -> Storage:
        """The same, held once more."""
        storage.holders += 1
        return storage

    def drop(self, storage: Storage) -> None:
        """Held once less. Raises ValueError for one that nobody holds."""
        if storage.holders < 1:
            raise ValueError(f"{storage.part} of {storage.bytes} bytes is dropped twice at {self.place}")
        storage.holders -= 1
        if not storage.holders:
            self.bytes -= storage.bytes
            self.parts[storage.part] -= storage.bytes

    def change(self, parts: Mapping[str, int], sign: int = 1) -> None:
        """More or less of some parts, that nobody holds."""
        for part, size in parts.items():
            self.bytes += sign * size
            self.parts[part] = self.parts.get(part, 0) + sign * size
        self._see()

    def surge(self, parts: Mapping[str, int]) -> None:
        """More or less of some parts for a moment."""
        self.change(parts)
        self.change(parts, -1)

    def touch(self, bytes: int, part: str) -> None:
        """Bytes that are there for a moment."""
        if bytes > 0:
            self.drop(self.make(bytes, part))
