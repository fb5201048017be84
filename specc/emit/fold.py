"""Fold values into expressions: which values own a line, and which stand inside the line of their user.

A value is folded into its one user where the line stays readable and everything is still computed in op order, so that
random numbers and sums of gradients are those of the graph. While a line is too long, its longest part that is itself a
good line becomes one, together with its siblings of the same op, so that q and k stay alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

from specc.emit.parts import Expr, Hole, Part, Use
from specc.ir.op import Ref

WIDTH, DEPTH, CALLS = 84, 3, 6  # of a good line: characters, nested parentheses, opening parentheses
NAME = 5  # characters a name is taken to have while lines are chosen
HOLE = 5  # and a constant


class Item(NamedTuple):
    """A value (or several, of one call) and its expression. `alone`: never inside another line."""

    refs: tuple[Ref, ...]
    kind: str
    expr: Expr
    alone: bool = False
    solid: bool = False  # operands are names: nothing is folded into it


class Line(NamedTuple):
    """An item that owns a line, with everything folded into it."""

    item: Item
    parts: tuple[Part | Inner, ...]


class Inner(NamedTuple):
    """A folded expression within another."""

    item: Item
    parts: tuple[Part | Inner, ...]
    brackets: bool


def fold(items: list[Item], results: Iterable[Ref]) -> list[Line]:
    """Lines in item order. `results` own their lines: they are what the scope returns."""
    numbers: dict[Ref, int] = {}
    plain = tuple([_plain(item, numbers) for item in items])
    chosen = _folded(plain, tuple([numbers.setdefault(ref, len(numbers)) for ref in results]))
    folded = {ref for ref, n in numbers.items() if n in chosen}
    made = {ref: item for item in items for ref in item.refs}
    return [Line(item, _inline(item, made, folded)) for item in items if item.refs[0] not in folded]


PlainPart = str | bool | tuple[int, int, bool]
PlainItem = tuple[tuple[int, ...], str, tuple[PlainPart, ...], int, bool, bool]
"""An item without the names in it: values are numbers, of a constant only whether it may be left out."""


def _plain(item: Item, numbers: dict[Ref, int]) -> PlainItem:
    parts: list[PlainPart] = []
    for part in item.expr.parts:
        if isinstance(part, str):
            parts.append(part)
        elif isinstance(part, Use):
            parts.append((numbers.setdefault(part.ref, len(numbers)), part.need, part.named))
        else:
            parts.append(part.default is not None)
    refs = tuple([numbers.setdefault(ref, len(numbers)) for ref in item.refs])
    return refs, item.kind, tuple(parts), item.expr.level, item.alone, item.solid


def _item(plain: PlainItem) -> Item:
    numbers, kind, parts, level, alone, solid = plain
    made: list[Part] = []
    for part in parts:
        if isinstance(part, str):
            made.append(part)
        elif isinstance(part, bool):
            made.append(Hole("", "", "", default="" if part else None))
        else:
            made.append(Use(Ref("", part[0]), part[1], part[2]))
    return Item(tuple([Ref("", n) for n in numbers]), kind, Expr(tuple(made), level), alone, solid)


@lru_cache(maxsize=256)
def _folded(plain: tuple[PlainItem, ...], results: tuple[int, ...]) -> frozenset[int]:
    """Numbers of the values that stand inside the line of their user. Many scopes are alike but for names."""
    items = [_item(item) for item in plain]
    folded = _candidates(items, tuple([Ref("", n) for n in results]))
    made = {ref: item for item in items for ref in item.refs}
    while True:
        lines = [Line(item, _inline(item, made, folded)) for item in items if item.refs[0] not in folded]
        long = next((line for line in lines if not _good(line.parts) and _inner(line.parts)), None)
        late = _late(lines, {item.refs[0]: n for n, item in enumerate(items)})
        if long is None and late is None:
            return frozenset([ref.out for ref in folded])
        folded -= set(_unfold(long)) if long is not None else {late}


def _candidates(items: list[Item], results: tuple[Ref, ...]) -> set[Ref]:
    uses: dict[Ref, list[tuple[int, Use]]] = {}
    for n, item in enumerate(items):
        for part in item.expr.parts:
            if isinstance(part, Use):
                uses.setdefault(part.ref, []).append((n, part))
    found: set[Ref] = set()
    for item in items:
        ref = item.refs[0]
        places = uses.get(ref, [])
        if item.alone or len(item.refs) > 1 or ref in results or len(places) != 1:
            continue
        at, use = places[0]
        user = items[at]
        if use.named or user.solid:
            continue
        if item.kind == "call" and user.kind == "call":
            continue
        found.add(ref)
    return found


def _inline(item: Item, made: dict[Ref, Item], folded: set[Ref]) -> tuple[Part | Inner, ...]:
    parts: list[Part | Inner] = []
    for part in item.expr.parts:
        if isinstance(part, Use) and part.ref in folded:
            inner = made[part.ref]
            parts.append(Inner(inner, _inline(inner, made, folded), inner.expr.level < part.need))
        else:
            parts.append(part)
    return tuple(parts)


def _late(lines: list[Line], order: dict[Ref, int]) -> Ref | None:
    """A folded value that would be computed after one that it comes before in op order."""
    last = -1
    for ref in (ref for line in lines for ref in (*_evaluated(line.parts), line.item.refs[0])):
        if order[ref] < last:
            return ref
        last = order[ref]
    return None


def _evaluated(parts: tuple[Part | Inner, ...]) -> Iterator[Ref]:
    """Folded values in the order in which Python computes them."""
    for part in parts:
        if isinstance(part, Inner):
            yield from _evaluated(part.parts)
            yield part.item.refs[0]


def _unfold(line: Line) -> list[Ref]:
    """The longest part that is itself a good line, else the longest part, with its siblings of the same op."""
    parts = _inner(line.parts)
    good = [inner for inner in parts if _good(inner.parts)]
    chosen = max(good or parts, key=lambda inner: len(draft(inner.parts)))
    parent = next(p for p in (line, *parts) if chosen in p.parts)
    siblings = [p for p in parent.parts if isinstance(p, Inner) and p.item.kind == chosen.item.kind]
    return [inner.item.refs[0] for inner in siblings]


def _inner(parts: tuple[Part | Inner, ...]) -> list[Inner]:
    found: list[Inner] = []
    for part in parts:
        if isinstance(part, Inner):
            found += [part, *_inner(part.parts)]
    return found


def draft(parts: tuple[Part | Inner, ...]) -> str:
    """The text with stand-ins for names and constants."""
    return text(parts, lambda ref: "x" * NAME, lambda hole: "" if hole.default is not None else "0" * HOLE)


def text(parts: tuple[Part | Inner, ...], name: Callable[[Ref], str], constant: Callable[[Hole], str]) -> str:
    """The text with names and constants filled in."""
    out: list[str] = []
    for part in parts:
        if isinstance(part, str):
            out.append(part)
        elif isinstance(part, Use):
            out.append(name(part.ref))
        elif isinstance(part, Hole):
            out.append(constant(part))
        else:
            inner = text(part.parts, name, constant)
            out.append(f"({inner})" if part.brackets else inner)
    return "".join(out)


def _good(parts: tuple[Part | Inner, ...]) -> bool:
    line = draft(parts)
    if len(line) > WIDTH or line.count("(") > CALLS:
        return False
    brackets = (1 if bracket == "(" else -1 for bracket in re.findall(r"[()]", line))
    return max(accumulate(brackets), default=0) <= DEPTH
