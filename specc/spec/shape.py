"""Errors of the document's shape, told with the words of the spec."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from specc.source import MOST, Path, find, shown
from specc.spec.grammar import Loc, expected, keys, kinds, listed, number, others, tags, values
from specc.spec.report import Report
from specc.spec.synonyms import MOVED

BOUNDS = {
    "greater_than": "be above {gt}",
    "greater_than_equal": "be at least {ge}",
    "less_than": "be below {lt}",
    "less_than_equal": "be at most {le}",
    "finite_number": "be finite",
    "too_short": "have at least {min_length} entries",
    "too_long": "have at most {max_length} entries",
    "string_too_long": "have at most {max_length} characters",
}
"""What pydantic's errors of size mean."""


def tell(
    error: ValidationError, report: Report, model: Any, place: Callable[[Path], Path] = lambda path: path
) -> list[Path]:
    """Report each error, and where they are; `place` says where in the document a part of the value stands."""
    items = error.errors(include_url=False)
    unknown = islice((item["loc"] for item in items if item["type"] == "extra_forbidden"), MOST)
    misspelt = [(*loc[:-1], close) for loc in unknown for close in report.alike(str(loc[-1]), keys(model, loc[:-1]))]
    for path in (place(_in_document(model, loc)) for loc in misspelt):
        if find(report.root, path) is None:
            report.broken(path)  # it is there, under another name
    return [_tell(item, report, model, place, item["loc"] in misspelt) for item in items]


def _tell(item: ErrorDetails, report: Report, model: Any, place: Callable[[Path], Path], misspelt: bool) -> Path:
    loc = item["loc"]
    path = place(_in_document(model, loc))
    kind, name = item["type"], name_of(path)
    context: dict[str, Any] = item.get("ctx", {})
    if kind == "extra_forbidden":
        report.add("E201", path, f"unknown key {name}", partial(_keys, item, path, report, model), key=True)
        return path
    given = _given(report, path, item["input"])
    if kind == "missing":
        if not misspelt:
            help = report.suggestion("", keys(model, loc[:-1]), "keys")
            report.add("E202", path, f"the key {name} is missing", help)
    elif kind == "union_tag_not_found":
        path = (*path, "kind")
        report.add("E202", path, "the key kind is missing", f"kind is {listed(kinds(model, loc))}")
    elif kind == "union_tag_invalid" and context["discriminator"] == "'kind'":
        path = (*path, "kind")
        value, known = item["input"]["kind"], kinds(model, loc)
        given = _given(report, path, value)
        if isinstance(value, str):
            report.add("E203", path, f"kind cannot be {given}", partial(_values, report, value, known))
        else:
            report.add("E205", path, f"kind must be {listed(known)}, not {given}")
    elif kind == "literal_error" and isinstance(item["input"], str):
        report.add("E203", path, f"{name} cannot be {given}", partial(_words, report, item["input"], model, loc))
    elif kind in BOUNDS or (kind == "float_type" and type(item["input"]) is int):
        bound = BOUNDS.get(kind, "be finite").format(**{key: number(value) for key, value in context.items()})
        if kind in ("too_short", "too_long", "string_too_long"):
            value: Any = item["input"]
            count = len(value)
            report.add("E204", path, f"{name} must {bound}, not {count}" if count else f"{name} must not be empty")
        else:
            report.add("E204", path, f"{name} must {bound}, not {given}")
    else:
        report.add("E205", path, f"{name} must be {expected(model, loc) or 'a mapping'}, not {given}")
    return path


def _keys(item: ErrorDetails, path: Path, report: Report, model: Any) -> str:
    """What the unknown key may have meant: a key there, or elsewhere, or the mapping around is one of several."""
    if moved := MOVED.get((str(path[-2]), str(path[-1])) if len(path) > 1 else ("", "")):
        return moved
    *around, word = item["loc"]
    known, several = keys(model, tuple(around)), f"{around[-1]}s" if around else ""
    named = isinstance(item["input"], dict) and several in keys(model, tuple(around[:-1]))
    help = report.suggestion(str(word), known, "keys")()
    return f"did you mean {several}? {help}" if named and not report.alike(str(word), known) else help


def _words(report: Report, word: str, model: Any, loc: Loc) -> str:
    """What the word may have meant, and what else may stand there."""
    help, more = _values(report, word, values(model, loc)), others(model, loc)
    return f"{help}, or {more}" if more else help


def _values(report: Report, word: str, known: list[str]) -> str:
    help = report.suggestion(word, known, "values")()
    return help if report.alike(word, known) else f"{shown(word)} is not in the language: {help}"


def _in_document(model: Any, loc: Loc) -> Path:
    """The place without the tags that pydantic put in."""
    return tuple(part for part, tag in zip(loc, tags(model, loc), strict=True) if not tag)


def name_of(path: Path) -> str:
    """`heads`, or `item 2 of bias`."""
    if not path:
        return "a spec"
    last = path[-1]
    return f"item {last + 1} of {name_of(path[:-1])}" if isinstance(last, int) else shown(last)


def _given(report: Report, path: Path, value: Any) -> str:
    """A value as it is written in the document."""
    if isinstance(value, (dict, list)):
        return "a mapping" if isinstance(value, dict) else "a list"
    node = find(report.root, path)
    if node is None or node.value is None or not (text := node.span.source.text[node.span.start : node.span.end]):
        return "null" if value is None else shown(str(value))
    return shown(text)
