"""Findings about what a user wrote: values, not exceptions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from specc.source.span import Span

WIDTH = 160  # of a shown source line
MOST = 500  # findings that are shown; a file of another kind can give hundreds of thousands


@dataclass(frozen=True)
class Diagnostic:
    """A code, where, what with its values, and what would be right. `notes` point at other places involved."""

    code: str
    message: str
    span: Span | None
    help: str | None = None
    notes: tuple[tuple[Span, str], ...] = ()
    severity: Literal["error", "warning"] = "error"


def render(item: Diagnostic) -> str:
    """The text form: headline, place, the lines with carets, help."""
    lines = [f"{item.severity}[{item.code}]: {_plain(item.message)}"]
    if item.span is not None:
        marks = [(item.span, "^", ""), *((span, "-", text) for span, text in item.notes)]
        gutter = max(len(str(span.place[0])) for span, _, _ in marks)
        lines += [f"{' ' * gutter}--> {_plain(str(item.span))}", f"{' ' * gutter} |"]
        for span, mark, text in sorted(marks, key=lambda entry: entry[0].start):
            lines += _shown(span, mark, _plain(text), gutter)
        lines.append(f"{' ' * gutter} |")
    if item.help:
        lines.append(f"help: {_plain(item.help)}")
    return "\n".join(lines) + "\n"


def concise(item: Diagnostic) -> str:
    """`path:line:column: error[E204]: message`."""
    where = f"{_plain(str(item.span))}: " if item.span else ""
    return f"{where}{item.severity}[{item.code}]: {_plain(item.message)}"


def plural(count: int, word: str, more: str = "s") -> str:
    """`1 spec`, `2 specs`."""
    return f"{count:,} {word}{'' if count == 1 else more}"


def _shown(span: Span, mark: str, text: str, gutter: int) -> list[str]:
    number, column = span.place
    line = span.source.line(number)
    width = max(1, min(span.end - span.start, len(line) - column + 1))
    first = max(0, column - WIDTH // 2) if len(line) > WIDTH else 0
    shown = _plain(line[first : first + WIDTH])
    carets = mark * max(1, min(width, WIDTH - (column - 1 - first)))
    under = f"{' ' * (column - 1 - first)}{carets}{f' {text}' if text else ''}"
    return [f"{number:>{gutter}} | {shown}", f"{' ' * gutter} | {under}"]


def _plain(text: str) -> str:
    """Characters that would move the cursor or turn the line around become spaces or question marks."""
    return "".join(" " if c in "\t\n\r" else c if c.isprintable() else "?" for c in text)
