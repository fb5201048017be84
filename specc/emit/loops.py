"""Loops over layers: the container of their modules, and the lines that run them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from specc.emit.parts import Hole
from specc.ir.op import Path
from specc.ir.tree import Loop

Mark = Callable[[Hole], str]


def _range(loop: Loop) -> str:
    stop = loop.start + loop.n
    return f"range({stop})" if loop.start == 0 else f"range({loop.start}, {stop})"


def container(runs: Sequence[Loop], constructors: dict[Path, str], mark: Mark) -> str:
    """`nn.ModuleDict({str(i): Block(tp) for i in range(32)})`, keyed by the layer's number in the whole model."""
    parts: list[str] = []
    for number, loop in enumerate(runs):
        name = str(loop.path[-1])
        made = {offset: constructors[loop.blocks[_block(loop, offset)].path] for offset in _offsets(loop)}
        marks = {
            offset: mark(Hole(f"{name}.{number}.{offset}", _singular(name), text)) for offset, text in made.items()
        }
        if len(set(made.values())) == 1:  # all positions are the same module
            first = next(iter(made))
            marks = dict.fromkeys(made, marks[first])
        layers = mark(Hole(f"{name}.{number}.range", name if len(runs) == 1 else f"{name}{number}", _range(loop)))
        parts.append(f"{{str(i): {_by_offset(marks, len_period(loop), 'i')} for i in {layers}}}")
    return f"nn.ModuleDict({' | '.join(parts)})"


def _singular(name: str) -> str:
    return "layer" if name == "layers" else f"{name}_layer"


def len_period(loop: Loop) -> int:
    return loop.repeat.number("period")


def _offsets(loop: Loop) -> tuple[int, ...]:
    period = len_period(loop)
    return tuple(sorted({(loop.start + i) % period for i in range(min(loop.n, period))}))


def _block(loop: Loop, offset: int) -> int:
    """Index in loop.blocks of the block at that place of the period."""
    return next(n for n, block in enumerate(loop.blocks) if getattr(block.path[-1], "offset", None) == offset)


def _by_offset(values: dict[int, str], period: int, i: str) -> str:
    """One value, or a choice by the layer's place in its period."""
    groups: dict[str, list[int]] = {}
    for offset, value in values.items():
        groups.setdefault(value, []).append(offset)
    ordered = sorted(groups.items(), key=lambda group: len(group[1]))  # the most common one needs no condition
    *conditional, (default, _) = ordered
    words: list[str] = []
    for value, offsets in conditional:
        test = f"== {offsets[0]}" if len(offsets) == 1 else f"in ({', '.join(map(str, offsets))})"
        words.append(f"{value} if {i} % {period} {test} else ")
    return "".join(words) + default


def loop_lines(loop: Loop, several: bool, carry: str, arguments: list[list[str]], mark: Mark) -> list[str]:
    """The loop over the layers of a run. `several`: the container holds those of other runs too."""
    name = str(loop.path[-1])
    every = loop.repeat.attr("recompute")
    period = len_period(loop)
    kept = any(op_kept(loop))
    offsets = {offset: arguments[_block(loop, offset)] for offset in _offsets(loop)}
    widths = {len(names) for names in offsets.values()}
    needs_number = every not in (None, 1) or len({tuple(names) for names in offsets.values()}) > 1
    i = "i" if several else "int(i)"
    if several:
        key = f"{name}.{loop.repeat.number('run')}.range"
        head = f"for i in {mark(Hole(key, name + str(loop.repeat.number('run')), _range(loop)))}:"
        layer = f"self.{name}[str(i)]"
    else:
        head = f"for i, layer in self.{name}.items():" if needs_number else f"for layer in self.{name}.values():"
        layer = "layer"
    calls: dict[str, list[int]] = {}
    if len(widths) == 1:
        columns = zip(*offsets.values(), strict=True)
        words = [_by_offset(dict(zip(offsets, column, strict=True)), period, i) for column in columns]
        calls[", ".join([carry, *words])] = list(offsets)
    else:
        for offset, names in offsets.items():
            calls.setdefault(", ".join([carry, *names]), []).append(offset)
    lines = [head]
    for n, (call, places) in enumerate(calls.items()):
        indent = "    "
        if len(calls) > 1:
            test = f"== {places[0]}" if len(places) == 1 else f"in ({', '.join(map(str, places))})"
            last = n == len(calls) - 1
            lines.append("    else:" if last else f"    {'el' if n else ''}if {i} % {period} {test}:")
            indent = "        "
        lines += [f"{indent}{row}" for row in _run(layer, call, carry, every, kept, i)]
    return lines


def op_kept(loop: Loop) -> list[bool]:
    """Whether each block keeps results by name."""
    return [bool(getattr(item, "kept", "")) for block in loop.blocks for item in _all_items(block.items)]


def _all_items(items: Sequence[object]) -> list[object]:
    found: list[object] = []
    for item in items:
        found.append(item)
        found += _all_items(getattr(item, "items", ()))
    return found


def _run(layer: str, call: str, carry: str, every: object, kept: bool, i: str) -> list[str]:
    plain = f"{carry} = {layer}({call})"
    keep = ", context_fn=keep" if kept else ""
    again = f"{carry} = checkpoint({layer}, {call}, use_reentrant=False{keep})"
    if every is None:
        return [plain]
    if every == 1:
        return [again]
    return [f"if {i} % {every} == 0:", f"    {again}", "else:", f"    {plain}"]
