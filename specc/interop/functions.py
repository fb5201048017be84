"""Functions of holes: values of a config as those of a spec, and back."""

from __future__ import annotations

import json
from itertools import chain
from math import ceil, sqrt
from struct import pack, unpack
from typing import Any, cast

from specc.interop.context import Context, Function, Several, Unmapped, as_is, choices, key_of, one_way, value_of
from specc.interop.layers import LAYERS
from specc.interop.ropes import ROPES
from specc.interop.schema import Data


def _table(name: str) -> Function:
    def read(value: Any, _: tuple[Any, ...], context: Context) -> Any:
        table = context.tables[name]
        if key_of(value) not in table:
            raise Unmapped(f"it can be {choices(table)} here")
        return table[key_of(value)]

    def write(value: Any, _: tuple[Any, ...], context: Context) -> Any:
        table = context.tables[name]
        keys = [key for key, other in table.items() if other == value and type(other) is type(value)]
        if not keys:
            raise Unmapped(f"it can be {choices({json.dumps(v): 0 for v in table.values()})} here")
        usual = key_of(context.default)
        return value_of(usual if usual in keys else keys[0])

    return Function(read, write)


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


def _power(exponent: float) -> Function:
    def read(value: Any, args: tuple[Any, ...], _: Context) -> Any:
        return float(value) ** (exponent or float(args[0]))

    def write(value: Any, args: tuple[Any, ...], _: Context) -> Any:
        if isinstance(value, str):
            raise Unmapped("arithmetic is no number here: state its value")
        power = exponent or float(args[0])
        exact = float(value) ** (1 / power)
        whole = float(round(exact))
        return _number(whole if whole**power == value else exact)

    return Function(read, write)


def _number(value: float) -> int | float:
    return int(value) if value.is_integer() else value


def _two_thirds(value: Any, args: tuple[Any, ...], _: Context) -> Any:
    """A width that is two thirds, rounded up to a multiple."""
    if not isinstance(value, int) or value < 2:
        raise Unmapped("it is no width")
    multiple = int(args[0])
    return multiple * -(-int(2 * value / 3) // multiple)


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


def _read_same(value: Any, args: tuple[Any, ...], _: Context) -> Any:
    """Where other fields have the same value."""
    if any(other != value for other in args):
        raise Unmapped(f"it is {' and '.join(map(str, args))} elsewhere, and specc says it once")
    return value


def _write_same(value: Any, args: tuple[Any, ...], _: Context) -> Any:
    return Several(value, tuple((n, value) for n in range(len(args))))


def _read_over_root(value: Any, args: tuple[Any, ...], _: Context) -> Any:
    """Divided by the root of a number."""
    return value / sqrt(_quotient(args))


def _write_over_root(value: Any, args: tuple[Any, ...], context: Context) -> Any:
    exact = value * sqrt(_quotient(args))
    short = float(f"{exact:.15g}")
    return short if _read_over_root(short, args, context) == value else exact


def _read_scores(value: Any, args: tuple[Any, ...], context: Context) -> Any:
    """Beside the root of a width of heads, by their number; of 1 that is the scale that scores have anyway."""
    return None if value == 1 else _read_over_root(value, args, context)


def _write_head_scale(value: Any, args: tuple[Any, ...], _: Context) -> Any:
    """Null where it is what scores of so many heads of a width are multiplied by anyway."""
    return None if value in (None, _quotient(args) ** -0.5) else value


def _quotient(args: tuple[Any, ...]) -> float:
    if any(not isinstance(number, int) or number < 1 for number in args):
        raise Unmapped("it is no size to calculate with")
    size, *by = args
    return size / (by[0] if by else 1)


def _root_in_bf16(value: Any, _: tuple[Any, ...], __: Context) -> Any:
    """The root of a width as bfloat16 has it: the first 8 binary digits, the last one rounded to even."""
    if not isinstance(value, int) or value < 1:
        raise Unmapped("it is no width")
    bits = int.from_bytes(pack(">f", value**0.5), "big")
    bits += 0x7FFF + (bits >> 16 & 1)
    return unpack(">f", (bits >> 16 << 16).to_bytes(4, "big"))[0]


def _write_root_in_bf16(value: Any, args: tuple[Any, ...], context: Context) -> Any:
    (width,) = args
    if _root_in_bf16(width, (), context) != value:
        raise Unmapped("it is the root of the width, rounded, here")
    return width


def _write_some(value: Any, _: tuple[Any, ...], __: Context) -> Any:
    """Null where there is none of it."""
    return value or None


def _read_at_least(value: Any, _: tuple[Any, ...], __: Context) -> Any:
    """The smallest there may be; 0 is none."""
    return [float(value), None] if value else None


def _write_at_least(value: Any, _: tuple[Any, ...], __: Context) -> Any:
    low, high = value or (None, None)
    if high is not None:
        raise Unmapped("there is no largest here")
    return low or 0.0


def _read_count(value: Any, _: tuple[Any, ...], __: Context) -> Any:
    """How many names there are."""
    if not isinstance(value, dict):
        raise Unmapped("it has a name for each number")
    return len(cast(Data, value))


def _write_count(value: Any, _: tuple[Any, ...], __: Context) -> Any:
    """Names as classes of others make them up; a mapping with text for keys would be a list."""
    return {n: f"LABEL_{n}" for n in range(value)}


FUNCTIONS = {
    **LAYERS,
    **ROPES,
    "over_root": Function(_read_over_root, _write_over_root),
    "head_scale": Function(as_is, _write_head_scale),
    "scores": Function(_read_scores, _write_over_root),
    "root_in_bf16": Function(_root_in_bf16, _write_root_in_bf16),
    "some": Function(as_is, _write_some),
    "at_least": Function(_read_at_least, _write_at_least),
    "activation": Function(_read_activation, _write_activation),
    "power": _power(0.0),
    "inverse": _power(-1.0),
    "projection": Function(_read_projection, _write_projection),
    "plus": _sum(1),
    "less": _sum(-1),
    "same": Function(_read_same, _write_same),
    "ceil": Function(_ceil, one_way),
    "limits": Function(_read_limits, _write_limits),
    "count": Function(_read_count, _write_count),
    "two_thirds": Function(_two_thirds, one_way),
}


def function(name: str, tables: dict[str, Data]) -> Function:
    """One of a mapping's own tables, or of those that all have. Raises KeyError."""
    return FUNCTIONS[name] if name in FUNCTIONS else _table(name) if name in tables else FUNCTIONS[name]
