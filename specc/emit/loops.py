"""Loops over layers: the container of their modules, and the lines that run them."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TypeVar

from specc.emit.by_layer import tabled
from specc.emit.checkpoints import called, options, policy
from specc.emit.names import entered
from specc.emit.parts import Hole
from specc.ir.graph import Graph
from specc.ir.op import Path
from specc.ir.repeat import Repeat
from specc.ir.tree import Call, Loop

Mark = Callable[[Hole], str]
V = TypeVar("V", bound=Hashable)
WIDTH = 100  # of a line in a constructor, its indentation apart
LINE = 108  # of one in the loop of a method


def container(runs: Sequence[Loop], constructors: dict[Path, str], mark: Mark) -> list[str]:
    """Lines that make `self.layers`, a ModuleDict keyed by the layer's number in the whole model.

    What makes a layer is literal text, never an argument of the class: each layer is a module of its own, but for those
    of blocks that their layers share, which come first under the block's name.
    """
    name = str(runs[0].path[-1])
    made = [{offset: constructors[block.path] for offset, block in _blocks(loop).items()} for loop in runs]
    shared: dict[str, str] = {}
    for loop, layers in zip(runs, made, strict=True):
        for offset in [offset for offset in layers if _shared(loop, offset)]:
            key, layer = _shared(loop, offset), layers.pop(offset)
            if shared.setdefault(key, layer) != layer:
                raise ValueError(f"layers that share {key} are {shared[key]} and {layer}")
    tables: dict[str, str] = {}
    for n, loop in enumerate(runs):
        more, made[n] = tabled(made[n], *_keys(loop), 1 + len(tables))
        tables |= more
    before = [line for name, table in tables.items() for line in f"{name} = {table}".splitlines()]
    if len(runs) == 1 and not shared and len(set(made[0].values())) == 1:
        layer = next(iter(made[0].values()))
        return [*before, f"self.{name} = nn.ModuleDict({{str(i): {layer} for i in {_layers(runs[0], False, mark)}}})"]
    if len(shared) == 1:
        ((key, layer),) = shared.items()
        lines = [f'self.{name} = nn.ModuleDict({{"{key}": {layer}}})']
    else:
        lines = [f"self.{name} = nn.ModuleDict()", *(f'self.{name}["{key}"] = {shared[key]}' for key in shared)]
    lines = [*before, *lines]
    for loop, layers in zip(runs, made, strict=True):
        if not layers:
            continue
        if _single(loop, len(runs) > 1):
            lines.append(f'self.{name}["{loop.start}"] = {next(iter(layers.values()))}')
            continue
        lines.append(f"for i in {_layers(loop, len(runs) > 1, mark)}:")
        depth = 1
        if len(layers) < len(_blocks(loop)):
            lines.append(f"    if {_test(sorted(layers), _period(loop), 'i')}:")
            depth = 2
        choice = f"self.{name}[str(i)] = {_by_offset(layers, _period(loop), 'i')}"
        if len(choice) <= WIDTH or len(set(layers.values())) == 1:
            lines.append(f"{depth * '    '}{choice}")
            continue
        for test, value in _branches(layers, _period(loop), "i"):
            lines += [f"{depth * '    '}{test}", f"{depth * '    '}    self.{name}[str(i)] = {value}"]
    return lines


def loop_lines(
    graph: Graph, loop: Loop, several: bool, blocks: Sequence[tuple[list[str], list[str]]], mark: Mark
) -> list[str]:
    """The loop over the layers of a run; `blocks`: names of what each block takes and returns.

    `several`: the container holds layers of other runs too.
    """
    name = str(loop.path[-1])
    calls = dict(zip(_blocks(loop), blocks, strict=True))
    takes = {offset: ", ".join(given) for offset, (given, _) in calls.items()}
    gives = {offset: ", ".join(results) for offset, (_, results) in calls.items()}
    methods = {offset: entered(graph, block) for offset, block in _blocks(loop).items()}
    first = next(iter(calls))
    if _single(loop, several):
        key = _shared(loop, first) or loop.start
        return _run(f'self.{name}["{key}"]{methods[first]}', takes[first], gives[first], graph, loop, loop.start)
    every = loop.repeat.attr("recompute")
    shared = any(_shared(loop, offset) for offset in calls)
    keys = {offset: f'"{key}"' if (key := _shared(loop, offset)) else "str(i)" for offset in calls}
    i = "i" if several or shared else "int(i)"
    if shared:
        layer = f"self.{name}[{_by_offset(keys, _period(loop), i)}]"
        head = f"for i in {_layers(loop, several, mark)}:"
    elif several:
        head, layer = f"for i in {_layers(loop, several, mark)}:", f"self.{name}[str(i)]"
    elif every in (None, 1) and all(len(set(rows.values())) == 1 for rows in (takes, gives, methods)):
        head, layer = f"for layer in self.{name}.values():", "layer"
    else:
        head, layer = f"for i, layer in self.{name}.items():", "layer"
    if all(len(set(rows)) == 1 for rows in ([len(given) for given, _ in blocks], gives.values(), methods.values())):
        columns = zip(*(given for given, _ in blocks), strict=True)
        call = ", ".join(_by_offset(dict(zip(calls, column, strict=True)), _period(loop), i) for column in columns)
        rows = _run(f"{layer}{methods[first]}", call, gives[first], graph, loop, i)
        if shared and not any(re.search(r"\bi\b", row) for row in rows):
            head = head.replace("for i in", "for _ in", 1)
        if len(set(takes.values())) == 1 or max(map(len, rows)) <= WIDTH:
            return [head, *(f"    {row}" for row in rows)]
    layers = {n: f"self.{name}[{keys[n]}]" if shared else layer for n in calls}
    runs = {n: _run(f"{layers[n]}{methods[n]}", takes[n], gives[n], graph, loop, i) for n in calls}
    branches = list(_branches({n: tuple(row) for n, row in runs.items()}, _period(loop), i))
    results = f"{gives[first]} = "
    if len(branches) == 2 and all(len(row) == 1 and row[0].startswith(results) for _, row in branches):
        values = {n: row[0].removeprefix(results) for n, row in runs.items()}
        if len(choice := results + _by_offset(values, _period(loop), i)) <= LINE:
            return [head, f"    {choice}"]
    return [
        head,
        *(f"{n * '    '}{row}" for test, chosen in branches for n, row in [(1, test), *((2, r) for r in chosen)]),
    ]


def _layers(loop: Loop, several: bool, mark: Mark) -> str:
    """`range(2, 6)`, which may become an argument of the class."""
    name, run = str(loop.path[-1]), loop.repeat.number("run")
    stop = loop.start + loop.n
    value = f"range({stop})" if loop.start == 0 else f"range({loop.start}, {stop})"
    return mark(Hole(f"{name}.{run}.range", f"{name}{run}" if several else name, value))


def _keys(loop: Loop) -> tuple[dict[int, int], str]:
    """Under what each place in the period stands in a table of numbers by layer, and how that is written."""
    period = _period(loop)
    if loop.n > period or Repeat.of(loop.repeat).spans:
        return {offset: offset for offset in _blocks(loop)}, f"i % {period}"
    return {i % period: i for i in range(loop.start, loop.start + loop.n)}, "i"


def _single(loop: Loop, several: bool) -> bool:
    """Whether a run of a stack of several is one layer, which needs no loop."""
    return several and loop.n == 1


def _shared(loop: Loop, offset: int) -> str:
    return Repeat.of(loop.repeat).shared_by(offset)


def _period(loop: Loop) -> int:
    return loop.repeat.number("period")


def _blocks(loop: Loop) -> dict[int, Call]:
    """The blocks that layers of the run are, by their place in the period."""
    repeat = Repeat.of(loop.repeat)
    at = {block.path: block for block in loop.blocks}
    return {offset: at[path] for offset, path in zip(repeat.offsets, repeat.blocks, strict=True)}


def _grouped(values: dict[int, V]) -> list[tuple[V, list[int]]]:
    """Distinct values with their places, the commonest last: it needs no condition."""
    groups: dict[V, list[int]] = {}
    for offset, value in values.items():
        groups.setdefault(value, []).append(offset)
    return sorted(groups.items(), key=lambda group: len(group[1]))


def _test(offsets: list[int], period: int, i: str) -> str:
    places = f"== {offsets[0]}" if len(offsets) == 1 else f"in ({', '.join(map(str, offsets))})"
    return f"{i} % {period} {places}"


def _by_offset(values: dict[int, str], period: int, i: str) -> str:
    """One value, or a choice by the layer's place in its period."""
    *conditional, (default, _) = _grouped(values)
    return "".join(f"{value} if {_test(offsets, period, i)} else " for value, offsets in conditional) + default


def _branches(values: dict[int, V], period: int, i: str) -> Iterator[tuple[str, V]]:
    """The same as `if`, `elif`, `else` and what stands under each."""
    *conditional, (default, _) = _grouped(values)
    for n, (value, offsets) in enumerate(conditional):
        yield f"{'el' if n else ''}if {_test(offsets, period, i)}:", value
    yield "else:", default


def _run(layer: str, call: str, carry: str, graph: Graph, loop: Loop, i: str | int) -> list[str]:
    """A layer's call, checkpointed or not. `i` is the layer's number, or the expression that gives it."""
    every, part = loop.repeat.attr("recompute"), called(graph, Repeat.of(loop.repeat))
    assert every is None or isinstance(every, int)
    plain = f"{carry} = {layer}({call})"
    if part is None or every is None:
        return [plain]
    again = f"{carry} = checkpoint({layer}, {call}{options(part, policy(part))})"
    if every == 1:
        return [again]
    if isinstance(i, int):
        return [again if i % every == 0 else plain]
    return [f"if {i} % {every} == 0:", f"    {again}", "else:", f"    {plain}"]
