"""Functions of holes that say which layer is of which kind: lists, periods and numbers as patterns, and back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice, repeat
from typing import Any, cast

from specc.interop.context import Context, Function, Several, Unmapped, choices, key_of, one_way, value_of


def _kinds(args: tuple[Any, ...], context: Context) -> dict[str, Any]:
    """Blocks by the kinds of layers: the table `pattern`, or that which is named."""
    return context.tables.get(str(args[0]) if args else "pattern", {})


def _read_pattern(value: Any, args: tuple[Any, ...], context: Context) -> Any:
    """The shortest pattern that makes the list: a cycle first, then one behind a head, with a tail where it must be."""
    if not isinstance(value, list) or not value:
        raise Unmapped("it is a list with the kind of each layer")
    names = _kinds(args, context)
    kinds = [key_of(item) for item in cast(list[Any], value)]
    if context.layers is not None and len(kinds) != context.layers:
        raise Unmapped(f"it lists {len(kinds)} layers of {context.layers}")
    unknown = sorted({kind for kind in kinds if kind not in names})
    if unknown:
        raise Unmapped(f"{', '.join(unknown)} is no kind of layer here; those are {choices(names)}")
    blocks = [str(names[kind]) for kind in kinds]
    best: tuple[tuple[int, int, int], Any] | None = None
    for head in range(len(blocks)):
        rest = blocks[head:]
        period = next(n for n in range(1, len(rest) + 1) if all(rest[i] == rest[i % n] for i in range(len(rest))))
        cost = (len(_runs(blocks[:head])) + len(_runs(rest[:period])), head + period, head)
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


def _write_pattern(value: Any, args: tuple[Any, ...], context: Context) -> Any:
    parts = cast(dict[str, list[str]], value) if isinstance(value, dict) else {"cycle": cast(list[str], value)}
    if context.layers is None:
        raise Unmapped("nothing says how many layers there are")
    names = {block: kind for kind, block in reversed(_kinds(args, context).items())}
    head, tail = (list(unrolled(parts.get(part) or [])) for part in ("head", "tail"))
    cycle, rest = list(unrolled(parts.get("cycle") or [])), context.layers - len(head) - len(tail)
    if rest < 0 or (rest and not cycle):
        raise Unmapped(f"the pattern does not fit {context.layers} layers")
    blocks = [*head, *islice(chain.from_iterable(repeat(cycle)), rest), *tail] if cycle else [*head, *tail]
    if unknown := sorted(set(blocks) - names.keys()):
        raise Unmapped(f"{', '.join(unknown)} is no block of this mapping; those are {', '.join(names)}")
    return [value_of(names[block]) for block in blocks]


def _read_cycle(value: Any, _: tuple[Any, ...], context: Context) -> Any:
    """Kinds of layers that are repeated."""
    names = context.tables.get("pattern", {})
    kinds = [key_of(item) for item in cast(list[Any], value)] if isinstance(value, list) else []
    if not kinds or any(kind not in names for kind in kinds):
        raise Unmapped(f"it is a list of kinds of layers, each {choices(names)}")
    return _runs([str(names[kind]) for kind in kinds[: context.layers]])


def _cycle(value: Any) -> list[str]:
    """The shortest cycle of a pattern without ends."""
    parts = cast(dict[str, list[str]], value) if isinstance(value, dict) else {"cycle": cast(list[str], value)}
    if parts.get("head") or parts.get("tail") or not parts.get("cycle"):
        raise Unmapped("layers are repeated from the first on here")
    blocks = list(unrolled(parts["cycle"]))
    size = next(
        n for n in range(1, len(blocks) + 1) if not len(blocks) % n and blocks[:n] * (len(blocks) // n) == blocks
    )
    return blocks[:size]


def _write_cycle(value: Any, _: tuple[Any, ...], context: Context) -> Any:
    names = {block: kind for kind, block in reversed(context.tables.get("pattern", {}).items())}
    blocks = _cycle(value)
    if unknown := sorted(set(blocks) - names.keys()):
        raise Unmapped(f"{', '.join(unknown)} is no block of this mapping; those are {', '.join(names)}")
    return [value_of(names[block]) for block in blocks]


def _read_periodic(value: Any, args: tuple[Any, ...], _: Context) -> Any:
    """Of so many layers one is the second block, that which is so far behind the first of them."""
    usual, other, place = args
    if not isinstance(value, int) or not isinstance(place, int) or not 0 <= place < value:
        raise Unmapped("it is the number of layers of which one is another, and that stands among them")
    return _runs([other if layer == place else usual for layer in range(value)])


def _write_periodic(value: Any, args: tuple[Any, ...], _: Context) -> Any:
    usual, other, _place = args
    blocks = _cycle(value)
    if set(blocks) - {usual, other} or blocks.count(other) != 1:
        raise Unmapped(f"one of some layers is {other}, the others are {usual}")
    return Several(len(blocks), ((2, blocks.index(other)),))


def _two(usual: str, other: str, context: Context) -> Context:
    """With a table of two kinds of layers."""
    return replace(context, tables={**context.tables, "pattern": {"usual": usual, "other": other}})


def _of_two(usual: str, other: str, marked: list[bool], context: Context) -> Any:
    """The pattern of layers of which those that are marked are the other block."""
    return _read_pattern(["other" if mark else "usual" for mark in marked], (), _two(usual, other, context))


def _others(value: Any, usual: str, other: str, context: Context) -> list[int]:
    """Numbers of the layers of a pattern that are the other block."""
    kinds = _write_pattern(value, (), _two(usual, other, context))
    return [layer for layer, kind in enumerate(kinds) if kind == "other"]


def _read_numbered(value: Any, args: tuple[Any, ...], context: Context) -> Any:
    """Numbers of the layers that are the second block; null is none."""
    usual, other = args
    if not isinstance(value, (list, type(None))) or context.layers is None:
        raise Unmapped("it is a list of layers")
    found: list[Any] = value or []
    return _of_two(usual, other, [layer in found for layer in range(context.layers)], context)


def _write_numbered(value: Any, args: tuple[Any, ...], context: Context) -> Any:
    usual, other = args
    return _others(value, usual, other, context) or None


def _read_within(value: Any, args: tuple[Any, ...], context: Context) -> Any:
    """From that layer on to another the second block; -1 is the last layer."""
    usual, other, last = args
    if not isinstance(value, int) or not isinstance(last, int) or context.layers is None:
        raise Unmapped("it is no number of a layer")
    last = context.layers - 1 if last == -1 else last
    if not 0 <= value <= last < context.layers:
        raise Unmapped(f"it is the first layer of some of {context.layers}, and the last of them is {last}")
    return _of_two(usual, other, [value <= layer <= last for layer in range(context.layers)], context)


def _write_within(value: Any, args: tuple[Any, ...], context: Context) -> Any:
    usual, other, _last = args
    found = _others(value, usual, other, context)
    if not found or found != list(range(found[0], found[-1] + 1)):
        raise Unmapped(f"layers of {other} stand in one piece here")
    return Several(found[0], ((2, found[-1]),))


def _spelled(value: Any, _: tuple[Any, ...], context: Context) -> Any:
    """A text with a letter for each layer as the list of their kinds."""
    letters = context.tables.get("letters", {})
    if not isinstance(value, str) or any(letter not in letters for letter in value):
        raise Unmapped(f"it is a text of {choices(letters)}")
    return [letters[letter] for letter in value]


def _every(value: Any, args: tuple[Any, ...], _: Context) -> Any:
    """So many layers: the first kind but for every n-th, or every n-th from one on, which is the second.

    The last argument is how many layers are of the first kind in any case.
    """
    period, usual, other, *start = args
    if not isinstance(value, int) or not isinstance(period, int) or value < 1 or period < 1:
        raise Unmapped("it is no number of layers")
    rest, alike = start[0] % period if start else 0, start[1] if len(start) > 1 else 0
    others = {layer for layer in range(1, value + 1) if layer % period == rest and layer > alike}
    return [value_of(other) if layer in others else value_of(usual) for layer in range(1, value + 1)]


def _begun(value: Any, args: tuple[Any, ...], _: Context) -> Any:
    """So many layers: a few of the first kind, then those of the second."""
    count, first, then = args
    if not isinstance(value, int) or not isinstance(count, int):
        raise Unmapped("it is no number of layers")
    return [value_of(first) if layer < count else value_of(then) for layer in range(value)]


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
    return [value_of(other) if layer in value else value_of(usual) for layer in range(layers)]


def _steps(value: Any, args: tuple[Any, ...], _: Context) -> Any:
    """Of so many layers the last of each few."""
    (step,) = args
    if not isinstance(value, int) or not isinstance(step, int) or step < 1:
        raise Unmapped("it is no number of layers")
    return list(range(step - 1, value, step))


def _each(value: Any, args: tuple[Any, ...], _: Context) -> Any:
    """A list with other names of its items, which stand by them in turn."""
    names = dict(zip(args[::2], args[1::2], strict=True))
    if not isinstance(value, list) or any(item not in names for item in cast(list[Any], value)):
        raise Unmapped(f"it is a list of {' and '.join(map(str, names))}")
    return [names[item] for item in cast(list[Any], value)]


def _read_beside(value: Any, args: tuple[Any, ...], _: Context) -> Any:
    """Two lists as one of their items side by side, those of the other in front."""
    (others,) = args
    if not (isinstance(value, list) and isinstance(others, list)) or len(cast(list[Any], value)) != len(others):
        raise Unmapped("two lists say of which kind each layer is, and have as many items")
    return [f"{key_of(other)} {key_of(one)}" for one, other in zip(cast(list[Any], value), others, strict=True)]


def _write_beside(value: Any, _: tuple[Any, ...], __: Context) -> Any:
    pairs = [str(item).split(" ", 1) for item in cast(list[Any], value)]
    return Several([value_of(one) for _, one in pairs], ((0, [value_of(other) for other, _ in pairs]),))


def _length(value: Any, _: tuple[Any, ...], __: Context) -> Any:
    """So many layers as the list has."""
    if not isinstance(value, list):
        raise Unmapped("it is a list with the kind of each layer")
    return len(cast(list[Any], value))


def _of_pattern(*_: Any) -> Any:
    """The pattern is written, and that says how many there are."""
    return None


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


LAYERS = {
    "pattern": Function(_read_pattern, _write_pattern),
    "cycle": Function(_read_cycle, _write_cycle),
    "periodic": Function(_read_periodic, _write_periodic),
    "numbered": Function(_read_numbered, _write_numbered),
    "within": Function(_read_within, _write_within),
    "length": Function(_length, _of_pattern),
    "first": Function(_read_first, _write_first),
    "every": Function(_every, one_way),
    "begun": Function(_begun, one_way),
    "beside": Function(_read_beside, _write_beside),
    "each": Function(_each, one_way),
    "steps": Function(_steps, one_way),
    "all_below": Function(_counted, one_way),
    "marked": Function(_marked, one_way),
    "spelled": Function(_spelled, one_way),
}
