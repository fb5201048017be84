"""Errors of the document's shape, told with the words of the spec."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from specc.source import Diagnostic, Node, Path, find, span_of

TAGS = ("bool", "mapping", "list", "text", "number", "llama3", "linear")  # of unions; no key of the language


def diagnostics(error: ValidationError, root: Node, model: type[BaseModel], at: Path = ()) -> list[Diagnostic]:
    """One finding for each error; `at` is where the validated value stands in the document."""
    return [_diagnostic(item, root, model, at) for item in error.errors(include_url=False)]


def _diagnostic(item: ErrorDetails, root: Node, model: type[BaseModel], at: Path) -> Diagnostic:
    path = (*at, *_in_document(item["loc"], root, at))
    name, kind = str(path[-1]) if path else "the file", item["type"]
    context: dict[str, Any] = item.get("ctx", {})
    span = span_of(root, path)
    if kind == "extra_forbidden":
        known = _keys(model, item["loc"][:-1])
        return Diagnostic("E201", f"unknown key {name}", span_of(root, path, key=True), suggestion(name, known, "keys"))
    if kind == "missing":
        return Diagnostic("E202", f"the key {name} is missing", span)
    if kind in ("literal_error", "union_tag_invalid"):
        known = [word.strip().strip("'") for word in _expected(context).replace(" or ", ", ").split(", ")]
        return Diagnostic(
            "E203", f"{name} cannot be {_shown(item)}", span, suggestion(str(item["input"]), known, "values")
        )
    if kind.startswith(("greater_than", "less_than", "too_", "string_too", "finite")):
        return Diagnostic("E204", f"{name} is out of bounds: {_said(item)}, not {_shown(item)}", span)
    return Diagnostic("E205", f"{name} has the wrong type: {_said(item)}, not {_shown(item)}", span)


def _expected(context: dict[str, Any]) -> str:
    return str(context.get("expected") or context.get("expected_tags", ""))


def _said(item: ErrorDetails) -> str:
    return item["msg"].removeprefix("Input ").replace("dictionary", "mapping").replace("valid ", "")


def _shown(item: ErrorDetails) -> str:
    value: Any = item["input"]
    if isinstance(value, (dict, list)):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) < 60 else f"{text[:57]}..."


def suggestion(word: str, known: Iterable[str], what: str) -> str:
    """`did you mean heads? keys here are ...`"""
    known = list(known)
    close = get_close_matches(word, known, 1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{hint}{what} here are {', '.join(known)}" if known else hint.strip()


def _in_document(loc: tuple[str | int, ...], root: Node, at: Path) -> Path:
    """The error's place without the union tags that pydantic puts in."""
    path: Path = ()
    for n, part in enumerate(loc):
        if find(root, (*at, *path, part)) is None and part in TAGS:
            if n == len(loc) - 1:
                break
            continue
        path = (*path, part)
    return path


def _keys(model: Any, loc: tuple[str | int, ...]) -> list[str]:
    """Keys that the mapping at that place may have, found by following the models."""
    found = _models(model)
    for part in loc:
        inner: list[type[BaseModel]] = []
        for candidate in found:
            fields = {field.alias or name: field for name, field in candidate.model_fields.items()}
            inner += _models(fields[part].annotation) if isinstance(part, str) and part in fields else []
        found = inner or found
    return list(dict.fromkeys(field.alias or name for item in found for name, field in item.model_fields.items()))


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Models that an annotation speaks of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    inner: tuple[Any, ...] = getattr(cast(Any, annotation), "__args__", ())
    return [model for part in inner for model in _models(part)]
