"""Where things stand in a text."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple


@dataclass(frozen=True)
class Source:
    """A text and the name it was asked for by."""

    name: str
    text: str

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Where each line begins."""
        return (0, *(n + 1 for n, character in enumerate(self.text) if character == "\n"))

    def line(self, number: int) -> str:
        """Text of a line, numbered from 1, without its end."""
        start = self.starts[number - 1]
        end = self.starts[number] - 1 if number < len(self.starts) else len(self.text)
        return self.text[start:end].rstrip("\r")

    def place(self, offset: int) -> tuple[int, int]:
        """Line and column of an offset, both from 1."""
        line = bisect_right(self.starts, offset)
        return line, offset - self.starts[line - 1] + 1


class Span(NamedTuple):
    """Characters start .. end - 1 of a source."""

    source: Source
    start: int
    end: int

    @property
    def place(self) -> tuple[int, int]:
        return self.source.place(self.start)

    def __str__(self) -> str:
        line, column = self.place
        return f"{self.source.name}:{line}:{column}"
