"""What a spec need not say: keys without which its graph is the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from specc.interop.filling import Place, at_place
from specc.interop.schema import Data
from specc.interop.text import lines_of
from specc.ir.op import Op
from specc.lower import lower
from specc.source import Diagnostic, Source
from specc.spec import Model, Spec, load


@dataclass(frozen=True)
class Meaning:
    """What a spec says, however it is written: equal for specs of one model."""

    max_seq: int
    pad: int | None
    ops: tuple[Op, ...]


def meaning(model: Model) -> Meaning:
    """Of a model."""
    return Meaning(model.max_seq, model.pad, tuple(op.changed(at=()) for op in lower(model).ops))


def meaning_of(text: str) -> Meaning | list[Diagnostic]:
    """Of a spec's text, or what is wrong with it."""
    found = load(Source("spec", text))
    return meaning(found.model) if isinstance(found, Spec) else found


def named_blocks(data: Data) -> Data:
    """Without blocks that no layer runs: a config lists kinds of layers, and need not have one of each."""
    blocks = cast(Data, data.get("blocks", {}))
    stacks = [cast(Data, data[role]) for role in ("encoder", "decoder") if role in data]
    patterns = [
        one for stack in stacks for one in (stack.get("pattern"), *cast(Data, stack.get("patterns", {})).values())
    ]
    named = {name.partition("*")[0].strip() for one in patterns for name in _texts(one)}
    named |= {cast(str, block["like"]) for name, block in blocks.items() if name in named and isinstance(block, dict)}
    kept = {name: block for name, block in blocks.items() if name in named}
    return {**data, "blocks": kept} if blocks else data


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for inner in cast(Data, value).values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(inner)


def shortest(data: Data, meant: Meaning) -> Data:
    """Without what makes no difference, inner keys first."""
    for place in sorted(_keys(data, ()), key=len, reverse=True):
        less = _without(data, place)
        if meaning_of(lines_of(less, {}, "")[0]) == meant:
            data = less
    return data


def _keys(data: Any, at: Place) -> Iterator[Place]:
    if isinstance(data, dict):
        for key, value in cast(Data, data).items():
            yield (*at, key)
            yield from _keys(value, (*at, key))
    elif isinstance(data, list):
        for n, value in enumerate(cast(list[Any], data)):
            yield from _keys(value, (*at, n))


def _without(data: Any, place: Place) -> Any:
    part, *rest = place
    if isinstance(data, list):
        items = cast(list[Any], data)
        assert isinstance(part, int)
        return [*items[:part], _without(items[part], tuple(rest)), *items[part + 1 :]]
    inner = cast(Data, data)
    if not rest:
        return {key: value for key, value in inner.items() if key != part}
    if at_place(inner, (part,)) is None:
        return inner
    return {**inner, str(part): _without(inner[str(part)], tuple(rest))}
