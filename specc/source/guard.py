"""Refuse hostile YAML on its events, before anything is constructed.

Deep nesting kills the C composer, an alias bomb hangs everything after it: both are stopped in milliseconds here.
"""

from __future__ import annotations

from typing import Any, cast

import yaml

from specc.source.diagnostic import Diagnostic
from specc.source.span import Source, Span

DEPTH, NODES, SIZE = 64, 200_000, 2**20  # nesting, nodes, characters

_parse: Any = cast(Any, yaml).parse  # the library has no types for its events
_STEPS: dict[Any, tuple[int, int, int]] = {  # documents, depth and nodes that an event adds
    yaml.DocumentStartEvent: (1, 0, 0),
    **dict.fromkeys((yaml.MappingStartEvent, yaml.SequenceStartEvent), (0, 1, 1)),
    **dict.fromkeys((yaml.MappingEndEvent, yaml.SequenceEndEvent), (0, -1, 0)),
    yaml.ScalarEvent: (0, 0, 1),
}


def guard(source: Source, loader: Any) -> Diagnostic | None:
    """The first thing that a spec may not contain, or None: behind a document's first error nothing is sure."""
    if len(source.text) > SIZE:
        span = Span(source, SIZE, SIZE + 1)
        return Diagnostic("E103", f"a spec has at most {SIZE:,} characters, this one goes on", span)
    try:
        return _events(source, loader)
    except yaml.MarkedYAMLError as error:
        if loader is not yaml.SafeLoader and "nesting depth" in str(error.problem):  # libyaml has a limit since 0.2.6
            return guard(source, yaml.SafeLoader)
        return _syntax(source, error)
    except (yaml.YAMLError, RecursionError) as error:
        return Diagnostic("E101", f"this is not YAML: {error}", Span(source, 0, 0))


def _events(source: Source, loader: Any) -> Diagnostic | None:
    depth = nodes = documents = 0
    event: Any
    for event in _parse(source.text, Loader=loader):
        document, deeper, node = _STEPS.get(type(event), (0, 0, 0))
        documents, depth, nodes = documents + document, depth + deeper, nodes + node
        problem = _problem(event) or _limits(documents, depth, nodes)
        if problem is not None:
            span = Span(source, event.start_mark.index, max(event.end_mark.index, event.start_mark.index))
            code, message, help = problem
            return Diagnostic(code, message, span, help)
    return None


def _problem(event: Any) -> tuple[str, str, str | None] | None:
    """What the event is that may not stand in a spec: code, message and help."""
    if getattr(event, "anchor", None) is not None:  # of an alias, too
        return "E105", "anchors and aliases are not part of specs", "name a block and use `like` to share it"
    tag: Any = getattr(event, "tag", None)
    if tag is not None:
        return "E106", f"tags such as {tag} are not part of specs", "write the plain value"
    value: Any = getattr(event, "value", "")
    if not value.isascii() and any(0xD800 <= ord(character) <= 0xDFFF for character in value):
        return "E101", "this is not YAML: half of a pair is no character", None  # libyaml sees it, too
    return None


def _limits(documents: int, depth: int, nodes: int) -> tuple[str, str, str | None] | None:
    if documents > 1:
        return "E104", "a spec is one YAML document, this is the second", "use one file each"
    if depth > DEPTH:
        return "E107", f"nested more than {DEPTH} deep", None
    return ("E108", f"more than {NODES:,} values", None) if nodes > NODES else None


def _syntax(source: Source, error: yaml.MarkedYAMLError) -> Diagnostic:
    mark: Any = error.problem_mark or error.context_mark
    offset = min(mark.index, len(source.text)) if mark is not None else 0
    words = [str(word) for word in (error.problem, error.context) if word]
    help = "indent with spaces" if source.text[offset : offset + 1] == "\t" else None
    return Diagnostic("E101", f"this is not YAML: {' '.join(words)}", Span(source, offset, offset), help)
