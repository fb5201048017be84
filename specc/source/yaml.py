"""YAML text -> nodes with spans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import yaml

from specc.source.diagnostic import Diagnostic
from specc.source.guard import guard
from specc.source.scalars import Scalar, scalar
from specc.source.span import Source, Span

_compose: Any = cast(Any, yaml).compose  # the library has no types for its nodes
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C one where libyaml is there
Path = tuple[str | int, ...]


class Node(NamedTuple):
    """A value and where it stands; `keys` has the span of each key of a mapping."""

    value: Scalar | dict[str, Node] | list[Node]
    span: Span
    keys: dict[str, Span]


@dataclass
class Parsed:
    """A document and what is wrong with its text; no root where nothing more can be said of it."""

    root: Node | None
    found: list[Diagnostic]
    damaged: list[Path]  # values that are not what was meant


def parse(source: Source, loader: Any = None) -> Parsed:
    """Of a key that is given twice the first value stands, and a key that is no text is left out."""
    loader = loader or LOADER
    problem = guard(source, loader)
    if problem is not None:
        return Parsed(None, [problem], [])
    root = _compose(source.text, Loader=loader)
    parsed = Parsed(None, [], [])
    if root is not None:
        parsed.root = _node(root, source, (), parsed)
    if parsed.root is None or parsed.root.value is None:
        span = Span(source, 0, 0)
        return Parsed(None, [Diagnostic("E102", "the file is empty", span, "a spec begins with `specc: 1`")], [])
    return parsed


def _node(node: Any, source: Source, path: Path, parsed: Parsed) -> Node:
    span = _span(node, source)
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, source, span, path, parsed)
    if isinstance(node, yaml.SequenceNode):
        items: list[Any] = node.value
        return Node([_node(item, source, (*path, n), parsed) for n, item in enumerate(items)], span, {})
    return Node(_scalar(node), span, {})


def _scalar(node: Any) -> Scalar:
    text: str = node.value
    return text if node.style in ("'", '"', "|", ">") else scalar(text)


def _mapping(node: Any, source: Source, span: Span, path: Path, parsed: Parsed) -> Node:
    values: dict[str, Node] = {}
    keys: dict[str, Span] = {}
    for key, value in node.value:
        at = _span(key, source)
        name = _scalar(key) if isinstance(key, yaml.ScalarNode) else None
        if isinstance(name, str) and name not in values and (name != "<<" or key.style):
            values[name], keys[name] = _node(value, source, (*path, name), parsed), at
        elif not isinstance(name, str):
            text = source.text[at.start : at.end]
            parsed.found.append(Diagnostic("E110", f"a key must be a text, not {shown(text) or 'null'}", at))
            parsed.damaged += [path] * bool(path)
        elif name == "<<" and not key.style:  # None with the one loader, an empty text with the other
            help = "use `like` and `with`"
            parsed.found.append(Diagnostic("E111", "merge keys are not part of specs", at, help))
            parsed.damaged.append(path)
        else:
            note = ((keys[name], "first given here"),)
            message = f"the key {shown(name)} is given twice"
            parsed.found.append(Diagnostic("E109", message, at, "keep one of them", note))
            parsed.damaged.append((*path, name))
    return Node(values, span, keys)


def shown(text: str) -> str:
    """The first words of a text, for a message."""
    line = text.split("\n")[0]
    return line if line == text and len(line) <= 60 else f"{line[:57]}..."


def _span(node: Any, source: Source) -> Span:
    """Where the node stands; a block ends at its last line that has text."""
    start, end = node.start_mark.index, node.end_mark.index
    if isinstance(node, yaml.ScalarNode) and node.style not in ("|", ">"):
        return Span(source, start, end)
    text = source.text[start:end]
    return Span(source, start, max(start, start + len(text.rstrip())))


def plain(node: Node) -> Any:
    """Dicts, lists and scalars."""
    if isinstance(node.value, dict):
        return {key: plain(value) for key, value in node.value.items()}
    if isinstance(node.value, list):
        return [plain(value) for value in node.value]
    return node.value


def find(node: Node, path: Path) -> Node | None:
    """The value at a path, None where the document does not state it."""
    for part in path:
        inner = _inner(node, part)
        if inner is None:
            return None
        node = inner
    return node


def _inner(node: Node, part: str | int) -> Node | None:
    """The value at a key or the number of an item."""
    if isinstance(node.value, dict):
        return cast(dict[Any, Node], node.value).get(part)
    if isinstance(node.value, list) and isinstance(part, int) and 0 <= part < len(node.value):
        return node.value[part]
    return None


def span_of(node: Node, path: Path, key: bool = False) -> Span:
    """Where the value at a path stands, or its key; what does not exist is at the first line of its nearest parent."""
    for n, part in enumerate(path):
        if key and n == len(path) - 1 and isinstance(part, str) and part in node.keys:
            return node.keys[part]
        inner = _inner(node, part)
        if inner is None:
            return first_line(node.span)
        node = inner
    return node.span if not isinstance(node.value, (dict, list)) else first_line(node.span)


def first_line(span: Span) -> Span:
    """The part of the span on the line it begins in."""
    end = span.source.text.find("\n", span.start, span.end)
    line = span.source.text[span.start : span.end if end < 0 else end]
    return Span(span.source, span.start, span.start + len(line.rstrip()))
