"""Functions of holes: each reads a value of a config as one of a spec, and writes it back.

A function has a name, arguments behind it, and what it may ask: the tables of the mapping, the value that the
family's config has by default, and the number of layers of the stack that it stands in. `Unmapped` says in its
message why a value has no counterpart.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice, repeat
from math import ceil
from typing import Any, cast

from specc.interop.schema import Common, Data


class Unmapped(ValueError):
    """A value without a counterpart on the other side; `at` is the field of it that has none."""

    def __init__(self, message: str, at: tuple[str, ...] = ()):
        super().__init__(message)
        self.at = at


@dataclass(frozen=True)
class Context:
    """What functions may ask."""

    common: Common
    tables: dict[str, Data]
    default: Any = None
    layers: int | None = None
    fill: Callable[[Data, dict[str, Any]], tuple[Data, set[str]]] | None = None  # a template by the fields of a mapping
    match: Callable[[Data, Data], dict[str, Any] | None] | None = None
    seen: set[str] = field(default_factory=set[str])  # which fields of a mapping were read


@dataclass(frozen=True)
class Function:
    """Both ways. `read(value, args, context)` gives the value of the spec, `write` that of the config."""

    read: Callable[[Any, tuple[Any, ...], Context], Any]
    write: Callable[[Any, tuple[Any, ...], Context], Any]


def key_of(value: Any) -> str:
    """A value of a config as the key of a table."""
    return value if isinstance(value, str) else json.dumps(value)


def _table(name: str) -> Function:
    def read(value: Any, _: tuple[Any, ...], context: Context) -> Any:
        table = context.tables[name]
        if key_of(value) not in table:
            raise Unmapped(f"it can be {_choices(table)} here")
        return table[key_of(value)]

    def write(value: Any, _: tuple[Any, ...], context: Context) -> Any:
        table = context.tables[name]
        keys = [key for key, other in table.items() if other == value and type(other) is type(value)]
        if not keys:
            raise Unmapped(f"it can be {_choices({json.dumps(v): 0 for v in table.values()})} here")
        usual = key_of(context.default)
        return _value(usual if usual in keys else keys[0])

    return Function(read, write)


def _value(key: str | int) -> Any:
    """What `key_of` made the key of: numbers and the like, else a text."""
    if not isinstance(key, str):
        return key
    try:
        return json.loads(key)
    except ValueError:
        return key


def _choices(table: dict[str, Any]) -> str:
    return ", ".join(table)


def _read_activation(value: Any, _: tuple[Any, ...], context: Context) -> Any:
    for word, names in context.common.activations.items():
        if value in names:
            return word
    known = chain.from_iterable(context.common.activations.values())
    raise Unmapped(f"specc has {', '.join(known)}")


def _write_activation(value: Any, _: tuple[Any, ...], context: Context) -> Any:
    names = context.common.activations.get(value)
    if not names:
        raise Unmapped("others have no name for it")
    return context.default if context.default in names else names[0]


def _read_scaling(value: Any, _: tuple[Any, ...], context: Context) -> Any:
    given = cast(Data, value) if isinstance(value, dict) else {}
    kind = given.get("rope_type", "default")
    context.seen.add("rope_type")
    if kind not in context.common.scaling:
        raise Unmapped(f"specc has {', '.join(context.common.scaling)}", ("rope_type",))
    template = context.common.scaling[kind]
    if template is None:
        return None
    assert context.fill is not None
    made, seen = context.fill(template, given)
    context.seen.update(seen)
    return made


def _write_scaling(value: Any, _: tuple[Any, ...], context: Context) -> Any:
    assert context.match is not None
    for kind, template in context.common.scaling.items():
        if value is None and template is None:
            return {"rope_type": kind}
        if isinstance(value, dict) and template is not None:
            solved = context.match(template, cast(Data, value))
            if solved is not None:
                return {"rope_type": kind, **solved}
    raise Unmapped("others have no rope_type for it")


def _power(exponent: float) -> Function:
    def read(value: Any, args: tuple[Any, ...], _: Context) -> Any:
        return float(value) ** (exponent or float(args[0]))

    def write(value: Any, args: tuple[Any, ...], _: Context) -> Any:
        power = exponent or float(args[0])
        exact = float(value) ** (1 / power)
        whole = float(round(exact))
        return _number(whole if whole**power == value else exact)

    return Function(read, write)


def _number(value: float) -> int | float:
    return int(value) if value.is_integer() else value


def _read_pattern(value: Any, _: tuple[Any, ...], context: Context) -> Any:
    """The shortest pattern that makes the list: a cycle first, then one behind a head, with a tail where it must be."""
    if not isinstance(value, list) or not value:
        raise Unmapped("it is a list with the kind of each layer")
    names = context.tables.get("pattern", {})
    kinds = [key_of(item) for item in cast(list[Any], value)]
    if context.layers is not None and len(kinds) != context.layers:
        raise Unmapped(f"it lists {len(kinds)} layers of {context.layers}")
    unknown = sorted({kind for kind in kinds if kind not in names})
    if unknown:
        raise Unmapped(f"{', '.join(unknown)} is no kind of layer here; those are {_choices(names)}")
    blocks = [str(names[kind]) for kind in kinds]
    best: tuple[tuple[int, int], Any] | None = None
    for head in range(len(blocks)):
        rest = blocks[head:]
        period = next(n for n in range(1, len(rest) + 1) if all(rest[i] == rest[i % n] for i in range(len(rest))))
        cost = (len(_runs(blocks[:head])) + len(_runs(rest[:period])), head)
        if best is None or cost < best[0]:
            cycle = _runs(rest[:period])
            best = cost, (cycle if not head else {"head": _runs(blocks[:head]), "cycle": cycle})
        if head > 256:
            break
    assert best is not None
    return best[1]


def _runs(names: list[str]) -> list[str]:
    """`local, local` is `local*2`."""
    made: list[list[Any]] = []
    for name in names:
        if made and made[-1][0] == name:
            made[-1][1] += 1
        else:
            made.append([name, 1])
    return [name if count == 1 else f"{name}*{count}" for name, count in made]


def unrolled(items: list[str]) -> Iterator[str]:
    """`local*2` is `local, local`."""
    for item in items:
        name, _, count = item.partition("*")
        yield from repeat(name.strip(), int(count) if count else 1)


def _write_pattern(value: Any, _: tuple[Any, ...], context: Context) -> Any:
    parts = cast(dict[str, list[str]], value) if isinstance(value, dict) else {"cycle": cast(list[str], value)}
    if context.layers is None:
        raise Unmapped("nothing says how many layers there are")
    names = {block: kind for kind, block in reversed(context.tables.get("pattern", {}).items())}
    head, tail = (list(unrolled(parts.get(part) or [])) for part in ("head", "tail"))
    cycle, rest = list(unrolled(parts.get("cycle") or [])), context.layers - len(head) - len(tail)
    if rest < 0 or (rest and not cycle):
        raise Unmapped(f"the pattern does not fit {context.layers} layers")
    blocks = [*head, *islice(chain.from_iterable(repeat(cycle)), rest), *tail] if cycle else [*head, *tail]
    if unknown := sorted(set(blocks) - names.keys()):
        raise Unmapped(f"{', '.join(unknown)} is no block of this mapping; those are {', '.join(names)}")
    return [_value(names[block]) for block in blocks]


def _every(value: Any, args: tuple[Any, ...], _: Context) -> Any:
    """So many layers: the first kind but for every n-th, or every n-th from one on, which is the second."""
    period, usual, other, *start = args
    if not isinstance(value, int) or not isinstance(period, int) or value < 1 or period < 1:
        raise Unmapped("it is no number of layers")
    rest = start[0] % period if start else 0
    return [_value(other) if layer % period == rest else _value(usual) for layer in range(1, value + 1)]


def _two_thirds(value: Any, args: tuple[Any, ...], _: Context) -> Any:
    """A width that is two thirds, rounded up to a multiple."""
    if not isinstance(value, int) or value < 2:
        raise Unmapped("it is no width")
    multiple = int(args[0])
    return multiple * -(-int(2 * value / 3) // multiple)


def _counted(value: Any, _: tuple[Any, ...], context: Context) -> Any:
    """All numbers below it."""
    if not isinstance(value, int) or value < 1:
        raise Unmapped("it is no number of layers")
    return list(range(value))


def _marked(value: Any, args: tuple[Any, ...], _: Context) -> Any:
    """Numbers of layers as a list of the kind of each of so many: the usual one, and the other of those."""
    layers, usual, other = args
    if not isinstance(value, list) or not isinstance(layers, int):
        raise Unmapped("it is no list of layers")
    return [_value(other) if layer in value else _value(usual) for layer in range(layers)]


def _ceil(value: Any, _: tuple[Any, ...], context: Context) -> Any:
    if not isinstance(value, (int, float)):
        raise Unmapped("it is no number")
    return ceil(value)


def _read_limits(value: Any, _: tuple[Any, ...], context: Context) -> Any:
    """The smallest and the largest, null where there is none; 0 and infinity are none."""
    if not isinstance(value, (list, tuple)) or len(cast(list[Any], value)) != 2:
        raise Unmapped("it is the smallest and the largest")
    low, high = cast(list[Any], value)
    high = None if high == "Infinity" or isinstance(high, dict) else high  # as json has no infinity
    made = [float(low) if low else None, None if high is None or high == float("inf") else float(high)]
    return None if made == [None, None] else made


def _write_limits(value: Any, _: tuple[Any, ...], context: Context) -> Any:
    low, high = value or (None, None)
    return [low or 0.0, float("inf") if high is None else high]


def _read_projection(value: Any, args: tuple[Any, ...], _: Context) -> Any:
    """Features that are projected to so many others, where and with a bias or not; nothing where they are as many."""
    others, at, *biased = args
    return None if value == others else {"dim": value, "at": at, "bias": bool(biased)}


def _write_projection(value: Any, args: tuple[Any, ...], _: Context) -> Any:
    others, at, *biased = args
    if value is None:
        return others
    given = cast(Data, value) if isinstance(value, dict) else {"dim": value, "at": "end", "bias": False}
    if (given["at"], given["bias"]) != (at, bool(biased)):
        raise Unmapped(f"it has at: {at} and bias: {'true' if biased else 'false'} here")
    return given["dim"]


def _sum(sign: int) -> Function:
    """Numbers are added to it, or taken from it."""

    def read(value: Any, args: tuple[Any, ...], _: Context) -> Any:
        if any(not isinstance(number, int) for number in (value, *args)):
            raise Unmapped("it is no number to calculate with")
        return value + sign * sum(args)

    def write(value: Any, args: tuple[Any, ...], context: Context) -> Any:
        return read(value, tuple(-arg if isinstance(arg, int) else arg for arg in args), context)

    return Function(read, write)


def _read_first(value: Any, _: tuple[Any, ...], __: Context) -> Any:
    """A list whose first item is of a kind of its own."""
    if not isinstance(value, list) or not value:
        raise Unmapped("it is a list with the kind of each layer")
    kind, *rest = cast(list[Any], value)
    return [f"first {kind}", *rest]


def _write_first(value: Any, _: tuple[Any, ...], __: Context) -> Any:
    kind, *rest = cast(list[Any], value)
    if not str(kind).startswith("first "):
        raise Unmapped("the first layer is of a kind of its own here")
    return [str(kind).removeprefix("first "), *rest]


def _one_way(*_: Any) -> Any:
    raise Unmapped("this is worked out from other fields")


FUNCTIONS = {
    "activation": Function(_read_activation, _write_activation),
    "scaling": Function(_read_scaling, _write_scaling),
    "power": _power(0.0),
    "inverse": _power(-1.0),
    "pattern": Function(_read_pattern, _write_pattern),
    "projection": Function(_read_projection, _write_projection),
    "plus": _sum(1),
    "less": _sum(-1),
    "first": Function(_read_first, _write_first),
    "every": Function(_every, _one_way),
    "ceil": Function(_ceil, _one_way),
    "limits": Function(_read_limits, _write_limits),
    "count": Function(_counted, _one_way),
    "marked": Function(_marked, _one_way),
    "two_thirds": Function(_two_thirds, _one_way),
}


def function(name: str, tables: dict[str, Data]) -> Function:
    """One of a mapping's own tables, or of those that all have. Raises KeyError."""
    return FUNCTIONS[name] if name in FUNCTIONS else _table(name) if name in tables else FUNCTIONS[name]
