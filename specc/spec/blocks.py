"""Named blocks: `like` and `with` resolved into sublayers as written."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from specc.source import Path, find
from specc.spec.document import Document, LikeDoc, SublayerDoc
from specc.spec.grammar import alternatives, keys
from specc.spec.language import Language
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
    """Where `with` changes the component of a name, nearest first."""
    parts: tuple[Written, ...] = ()
    """Blocks that it joins; it has their sublayers in turn."""

    def places(self, name: str, at: Path) -> tuple[Path, ...]:
        """Where values of the component of that name may be stated, nearest first; `at` is where it stands itself."""
        return (*self.changes.get(name, ()), at)


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
                sublayers = _sublayers(report.language).validate_python(made.data)
            except ValidationError as error:
                tell(
                    error,
                    report,
                    report.language.sublayers,
                    lambda path, made=made: _place(made, path, report),
                )
                report.broken(("blocks", name))
            else:
                done[name] = Written(name, sublayers, made.at, made.changes)
    return done


@cache
def _sublayers(language: Language) -> TypeAdapter[Sublayers]:
    """Made when it is needed: that takes milliseconds."""
    return TypeAdapter(language.sublayers)


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
    meant = report.alike(name, known)
    if report.there(("blocks",)) and (not meant or meant[0] in good):
        report.add("E220", at, f"there is no block {name}", report.suggestion(name, good, "blocks"))


def _changed(base: _Raw, block: LikeDoc, at: Path, report: Report) -> _Raw:
    data, changes = base.data, dict(base.changes)
    here = _named(data, report.language)
    for name, values in block.with_.items():
        place: Path = (*at, "with", name)
        if name not in here:
            message = f"block {block.like} has no {name}"
            report.add("E222", place, message, report.suggestion(name, here, "components"), reads=[base.at], key=True)
            continue
        kind = here[name][-1]
        data = _changed_at(report.language, data, here[name], values, (kind,))
        for path in _nulls(values):
            known = keys(report.language.sublayer, (kind, *path[:-1]))
            if known and path[-1] not in known:
                help = report.suggestion(str(path[-1]), known, "keys")
                report.add("E201", (*place, *path), f"unknown key {path[-1]}", help, key=True)
        changes[name] = (place, *changes.get(name, ()))
    return _Raw(data, base.at, changes)


def _nulls(values: Mapping[str, Any]) -> Iterator[Path]:
    """Where a default is restored: nobody else would see a key that does not exist."""
    for key, value in values.items():
        if value is None:
            yield (key,)
        elif isinstance(value, dict):
            yield from ((key, *path) for path in _nulls(cast(dict[str, Any], value)))


def _named(data: Any, language: Language) -> dict[str, Path]:
    """Where the components of a block stand, by the names that they have in the core form."""
    found: dict[str, Path] = {}
    counts: dict[str, int] = {}
    for path in _components(data, (), language):
        kind = str(path[-1])
        counts[kind] = counts.get(kind, 0) + 1
        found[component_name(kind, counts[kind], language.tables.components)] = path
    return found


def component_name(kind: str, count: int, known: Container[str]) -> str:
    """`ffn` is the first of its kind in a block, `ffn2` the second; `mamba_2`, since `mamba2` is a kind of its own."""
    name = f"{kind}{count}"
    return kind if count == 1 else f"{kind}_{count}" if name in known else name


def _components(data: Any, at: Path, language: Language) -> Iterator[Path]:
    """In the order of the block."""
    if isinstance(data, list):
        for n, item in enumerate(cast(list[Any], data)):
            yield from _components(item, (*at, n), language)
    elif isinstance(data, dict):
        for key, value in cast(dict[str, Any], data).items():
            if key in language.tables.components and isinstance(value, dict):
                yield (*at, key)
            elif key == "parallel":
                yield from _components(value, (*at, key), language)


def _changed_at(language: Language, data: Any, path: Path, values: Mapping[str, Any], kind: Path) -> Any:
    """A copy of plain data with new values in the component at that place."""
    if not path:
        return _deep(language, data, values, kind)
    copy = data.copy()
    copy[path[0]] = _changed_at(language, data[path[0]], path[1:], values, kind)
    return copy


def _deep(language: Language, old: Mapping[str, Any], new: Mapping[str, Any], at: Path) -> dict[str, Any]:
    """`old` with what `new` says; a mapping that becomes one of another kind begins anew."""
    merged = dict(old) if alternatives(language.sublayer, at) < 2 or new.get("kind") in (None, old.get("kind")) else {}
    for key, value in new.items():
        before = merged.get(key)
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            inner = cast(dict[str, Any], before) if isinstance(before, dict) else {}
            merged[key] = _deep(language, inner, cast(dict[str, Any], value), (*at, key))
        else:
            merged[key] = value
    return merged


def _place(made: _Raw, path: Path, report: Report) -> Path:
    """Where in the document a part of a block that is like another stands: what changes it goes before what it is."""
    own = (*made.at, *path)
    for name, at in _named(made.data, report.language).items():
        changes = made.changes.get(name, ()) if path[: len(at)] == at else ()
        for place in changes:
            if find(report.root, (*place, *path[len(at) :])) is not None:
                return (*place, *path[len(at) :])
        if changes and find(report.root, own) is None:
            return (*changes[0], *path[len(at) :])
    return own
