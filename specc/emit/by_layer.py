"""Numbers that differ from layer to layer, as tables that a loop looks them up in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import count

_NUMBER = re.compile(r"(?<![\w.\"'])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w.\"'])")
FEWEST = 3  # layers that a table is worth
WIDTH = 90  # of a row of a table


def tabled(
    layers: Mapping[int, str], keys: Mapping[int, int], index: str, first: int = 1
) -> tuple[dict[str, str], dict[int, str]]:
    """Tables by name, and the expressions that make layers, by their place in the period: of `layers`, those that are
    alike but for numbers become one that reads `by_layer[i]`.

    `keys`: under what each place stands in a table, `index`: how that is written. Names are numbered from `first`.
    """
    alike: dict[str, list[int]] = {}
    for offset, layer in layers.items():
        alike.setdefault(_NUMBER.sub("#", layer), []).append(offset)
    made, names = dict(layers), dict[str, str]()
    for offsets in alike.values():
        rows = [tuple(_NUMBER.findall(layers[offset])) for offset in offsets]
        if len(set(rows)) < FEWEST:
            continue
        found: dict[int, str] = {}
        for n, column in enumerate(zip(*rows, strict=True)):
            if len(set(column)) > 1:
                number = first + len(names)
                table = _table({keys[offset]: value for offset, value in zip(offsets, column, strict=True)})
                name = names.setdefault(table, f"by_layer{number if number > 1 else ''}")
                found[n] = f"{name}[{index}]"
        made |= dict.fromkeys(offsets, _looked_up(layers[offsets[0]], found))
    return {name: table for table, name in names.items()}, made


def _looked_up(layer: str, found: Mapping[int, str]) -> str:
    numbers = count()
    return _NUMBER.sub(lambda match: found.get(next(numbers), match[0]), layer)


def _table(column: Mapping[int, str]) -> str:
    """A tuple where keys are counted from 0, else a dict; in rows where one is not enough, for a formatter gives each
    number a line.
    """
    counted = sorted(column) == list(range(len(column)))
    start, stop = "()" if counted else "{}"
    items = [column[key] if counted else f"{key}: {column[key]}" for key in sorted(column)]
    if len(line := f"{start}{', '.join(items)}{stop}") <= WIDTH:
        return line
    rows = [""]
    for item in items:
        if len(rows[-1]) + len(item) + 2 > WIDTH:
            rows.append("")
        rows[-1] += f"{' ' * bool(rows[-1])}{item},"
    return "\n".join((start, *(f"    {row}" for row in rows), f"{stop}  # fmt: skip"))
