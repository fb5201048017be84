"""Named blocks: `like` and `with` resolved into sublayers as written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from specc.source import Path, find
from specc.spec.core import KINDS
from specc.spec.document import Document, LikeDoc, SublayerDoc
from specc.spec.grammar import alike, alternatives, keys, suggestion
from specc.spec.names import part_problem
from specc.spec.report import Report
from specc.spec.shape import tell

Sublayers = list[SublayerDoc]


@dataclass(frozen=True)
class Written:
    """A block as written: its sublayers, and where each component stands."""

    name: str
    sublayers: Sublayers
    at: Path
    changes: Mapping[str, tuple[Path, ...]] = field(default_factory=dict[str, tuple[Path, ...]])
    """Where `with` changes components of a kind, nearest first."""

    def places(self, kind: str, at: Path) -> tuple[Path, ...]:
        """Where values of a component of that kind may be stated, nearest first; `at` is where it stands itself."""
        return (*self.changes.get(kind, ()), at)


@dataclass(frozen=True)
class _Raw:
    """A block as plain data, and what was changed in it."""

    data: Any
    at: Path
    changes: Mapping[str, tuple[Path, ...]]


def written_blocks(document: Document, data: Mapping[str, Any], report: Report) -> dict[str, Written]:
    """All named blocks; `data` is what the document was made from."""
    raw: dict[str, _Raw | None] = {}
    done: dict[str, Written] = {}
    for name, block in document.blocks.items():
        made = _resolved(name, document, data, report, raw, ())
        if made is None:
            continue  # told; a pattern that names it is not followed
        if not isinstance(block, LikeDoc):
            done[name] = Written(name, block, made.at)
        else:
            try:
                sublayers = _sublayers().validate_python(made.data)
            except ValidationError as error:
                tell(error, report, Sublayers, lambda path, made=made: _place(made, path, report))
                report.broken(("blocks", name))
            else:
                done[name] = Written(name, sublayers, made.at, made.changes)
    return done


@cache
def _sublayers() -> TypeAdapter[Sublayers]:
    """Made when it is needed: that takes milliseconds."""
    return TypeAdapter(Sublayers)


def _resolved(
    name: str,
    document: Document,
    data: Mapping[str, Any],
    report: Report,
    done: dict[str, _Raw | None],
    trail: tuple[str, ...],
) -> _Raw | None:
    """The block with what it is like filled in; None where that cannot be said."""
    block, at = document.blocks[name], ("blocks", name)
    if not isinstance(block, LikeDoc):
        return _Raw(data[name], at, {})
    if name in trail:
        circle = " -> ".join((*trail[trail.index(name) :], name))
        message = f"blocks are like each other in a circle: {circle}"
        report.add("E221", (*at, "like"), message, "make one of them a list of sublayers")
        return None
    if name not in done:
        base = None
        if block.like in document.blocks:
            base = _resolved(block.like, document, data, report, done, (*trail, name))
        else:
            no_block(block.like, (other for other in document.blocks if other != name), (*at, "like"), report)
        done[name] = None if base is None else _changed(base, block, at, report)
    return done[name]


def no_block(name: str, known: Iterable[str], at: Path, report: Report) -> None:
    """Tell that, unless the block may be one whose own name is wrong, which is told there."""
    known = list(known)
    good = [other for other in known if part_problem(other) is None]
    meant = alike(name, known)
    if report.there(("blocks",)) and (not meant or meant[0] in good):
        report.add("E220", at, f"there is no block {name}", suggestion(name, good, "blocks"))


def _changed(base: _Raw, block: LikeDoc, at: Path, report: Report) -> _Raw:
    data, changes = base.data, dict(base.changes)
    for kind, values in block.with_.items():
        place: Path = (*at, "with", kind)
        data, hit = _merged(data, kind, values)
        if not hit:
            here = [key for key in KINDS if _merged(data, key, {})[1]]
            message = f"block {block.like} has no {kind}"
            report.add("E222", place, message, suggestion(kind, here, "components"), reads=[base.at], key=True)
        for path in _nulls(values) if kind in KINDS else ():
            known = keys(SublayerDoc, (kind, *path[:-1]))
            if known and path[-1] not in known:
                help = suggestion(str(path[-1]), known, "keys")
                report.add("E201", (*place, *path), f"unknown key {path[-1]}", help, key=True)
        changes[kind] = (place, *changes.get(kind, ()))
    return _Raw(data, base.at, changes)


def _nulls(values: Mapping[str, Any]) -> Iterator[Path]:
    """Where a default is restored: nobody else would see a key that does not exist."""
    for key, value in values.items():
        if value is None:
            yield (key,)
        elif isinstance(value, dict):
            yield from ((key, *path) for path in _nulls(cast(dict[str, Any], value)))


def _merged(data: Any, kind: str, values: Mapping[str, Any]) -> tuple[Any, bool]:
    """The block with values put into every component of that kind; and whether there is one."""
    if isinstance(data, list):
        parts = [_merged(item, kind, values) for item in cast(list[Any], data)]
        return [item for item, _ in parts], any(hit for _, hit in parts)
    if not isinstance(data, dict):
        return data, False
    result: dict[str, Any] = {}
    any_hit = False
    for key, value in cast(dict[str, Any], data).items():
        if key == kind and isinstance(value, dict):
            result[key], hit = _deep(cast(dict[str, Any], value), values, (kind,)), True
        elif key in ("parallel", "sublayer", "branches"):
            result[key], hit = _merged(value, kind, values)
        else:
            result[key], hit = value, False
        any_hit = any_hit or hit
    return result, any_hit


def _deep(old: Mapping[str, Any], new: Mapping[str, Any], at: Path) -> dict[str, Any]:
    """`old` with what `new` says; a mapping that becomes one of another kind begins anew."""
    merged = dict(old) if alternatives(SublayerDoc, at) < 2 or new.get("kind") in (None, old.get("kind")) else {}
    for key, value in new.items():
        before = merged.get(key)
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            inner = cast(dict[str, Any], before) if isinstance(before, dict) else {}
            merged[key] = _deep(inner, cast(dict[str, Any], value), (*at, key))
        else:
            merged[key] = value
    return merged


def _place(made: _Raw, path: Path, report: Report) -> Path:
    """Where in the document a part of a block that is like another stands: what changes it goes before what it is."""
    own = (*made.at, *path)
    for n, part in enumerate(path):
        changes = made.changes.get(str(part), ())
        for place in changes:
            if find(report.root, (*place, *path[n + 1 :])) is not None:
                return (*place, *path[n + 1 :])
        if changes and find(report.root, own) is None:
            return (*changes[0], *path[n + 1 :])
    return own
