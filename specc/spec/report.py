"""Findings about a document, of which some parts may already be known to be wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial

from specc.source import MOST, Diagnostic, Node, Path, Span, find, span_of
from specc.spec import grammar
from specc.spec.language import Language

Help = str | Callable[[], str] | None
"""A function is called for those that are shown: comparing words takes long."""


@dataclass
class Report:
    """All findings so far.

    What is wrong in one place must not hide what is wrong in another, nor lead to findings about values that nobody
    wrote: a finding says what it was concluded from, and is dropped where a part of that is broken.
    """

    root: Node
    language: Language
    found: list[Diagnostic] = field(default_factory=list[Diagnostic])
    _helps: dict[int, Callable[[], str]] = field(default_factory=dict[int, Callable[[], str]])  # of found[n]
    _broken: set[Path] = field(default_factory=set[Path])
    _above: set[Path] = field(default_factory=set[Path])  # places with something broken in them
    _seen: set[tuple[str, int, str]] = field(default_factory=set[tuple[str, int, str]])

    def alike(self, word: str, known: Iterable[str]) -> list[str]:
        """The known word that was meant, if there is one."""
        return grammar.alike(word, known, self.language.synonyms)

    def suggestion(self, word: str, known: Iterable[str], what: str) -> Callable[[], str]:
        """`did you mean heads? keys here are ...`, once it is asked for."""
        return partial(grammar.suggestion, word, tuple(known), what, self.language.synonyms)

    def broken(self, path: Path) -> None:
        """What stands there is not what was meant."""
        self._broken.add(path)
        self._above.update([path[:n] for n in range(len(path))])

    def there(self, path: Path) -> bool:
        """Whether the value at that place is what was meant, whatever is broken in it."""
        return self._broken.isdisjoint([path[:n] for n in range(len(path) + 1)])

    def sound(self, path: Path) -> bool:
        """Whether nothing at that place, in it or around it is broken."""
        return path not in self._above and self.there(path)

    def add(
        self,
        code: str,
        path: Path,
        message: str,
        help: Help = None,
        reads: Iterable[Path] = (),
        key: bool = False,
        notes: tuple[tuple[Span, str], ...] = (),
        part: tuple[int, int] | None = None,
    ) -> None:
        """A finding at the value of that path, or at its key, if it and what it reads are sound.

        `part`: at these characters of a text.
        """
        span = span_of(self.root, path, key)
        if part is not None:
            span = _within(self.root, path, span, part)
        mark = (code, span.start, message)
        if mark in self._seen or not all(map(self.sound, (*((path,) if path else ()), *reads))):
            return
        self._seen.add(mark)
        if callable(help):
            self._helps[len(self.found)] = help
        self.found.append(Diagnostic(code, message, span, None if callable(help) else help, notes))

    def findings(self) -> list[Diagnostic]:
        """All in the order of the text; those beyond what is shown may have no help."""
        order = sorted(range(len(self.found)), key=lambda n: _start(self.found[n]))
        shown = [n for n in order[:MOST] if n in self._helps]
        helped = {n: replace(self.found[n], help=self._helps[n]()) for n in shown}
        return [helped.get(n, self.found[n]) for n in order]


def _within(root: Node, path: Path, span: Span, part: tuple[int, int]) -> Span:
    """Characters of a text that stands on one line; all of it where quotes or folding move them."""
    node = find(root, path)
    text = span.source.text[span.start : span.end]
    if node is None or not isinstance(node.value, str) or node.value not in text:
        return span
    start = span.start + text.index(node.value)
    return Span(span.source, start + part[0], start + part[1])


def _start(item: Diagnostic) -> int:
    return -1 if item.span is None else item.span.start
