"""A document without what is wrong in it, so that the rest can be checked in the same run."""

from __future__ import annotations

from typing import Any

from specc.source import Path
from specc.spec.document import Document
from specc.spec.language import Language

PLAIN: dict[Any, Any] = {int: 1, str: "x"}
REQUIRED: dict[str | int, Any] = {
    name: PLAIN[field.annotation] for name, field in Document.model_fields.items() if field.is_required()
}


def repaired(data: Any, paths: list[Path], language: Language) -> tuple[Any, list[Path]]:
    """Plain data in which the smallest part around each error is left out or replaced by something valid; which parts.

    None where nothing is left.
    """
    if not isinstance(data, dict) or () in paths:
        return None, [()]
    parts = dict(_part(path, language) for path in paths)
    for part in sorted(parts, key=len, reverse=True):
        _put(data, part, parts[part])
    return data, list(parts)  # pyright: ignore[reportUnknownVariableType]


def _part(path: Path, language: Language) -> tuple[Path, Any]:
    """The part around an error that is told apart, and what stands in for it; None: nothing."""
    head = path[0]
    if head in REQUIRED:
        return path[:1], REQUIRED[head]
    if head in ("encoder", "decoder"):
        if path[1:2] == ("layers",):
            return path[:2], 1
        if path[1:2] == ("block",):
            return _sublayer(path, language)
        whole = len(path) == 1 or path[1] in ("pattern", "patterns")
        return (path[:1], {"layers": 1, "block": [_smallest(language)]}) if whole else (path[:2], None)
    if head == "blocks" and len(path) > 1:
        return (path[:4], None) if path[2:3] == ("with",) and len(path) > 3 else _sublayer(path, language)
    if head == "layouts" and len(path) > 1:
        return path[:2], {}
    return path[:1], None


def _sublayer(path: Path, language: Language) -> tuple[Path, Any]:
    """The component, or the sublayer, or the whole block, which is the first two parts."""
    if len(path) == 2 or not isinstance(path[2], int):
        return path[:2], [_smallest(language)]
    known = language.tables.components
    component = next((n for n, part in enumerate(path) if n > 2 and part in known), None)
    if component is None:
        return path[:3], _smallest(language)
    return path[: component + 1], dict(known[str(path[component])].smallest)


def _smallest(language: Language) -> dict[str, Any]:
    """A sublayer that needs nothing of the stack."""
    component = next(item for item in language.tables.components.values() if not item.reads)
    return {component.key: dict(component.smallest)}


def _put(data: Any, path: Path, value: Any) -> None:
    for part in path[:-1]:
        data = data[part]
    if value is None:
        data.pop(path[-1], None)
    else:
        data[path[-1]] = value
