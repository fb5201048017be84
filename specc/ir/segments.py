"""The parts of a layer that are each run again in backward by themselves, so that results kept by name are kept.

A result that joins the residual stream is kept by a cut behind it, or behind the sum: one part gives it, the next takes
it, and nothing in front of a cut runs again for what stands behind it. Results inside of a part are kept by a policy:
the kernels of attention, or what stands under a label.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby

from specc.ir.graph import Graph
from specc.ir.op import Op, Path, Ref
from specc.ir.repeat import Repeat


@dataclass(frozen=True)
class Segment:
    """Consecutive ops of a layer, outside of its components or in one of them as a whole.

    `again`: they run again in backward. `core`: but for their attention kernels. `labels`: ops whose results are kept
    under a label. `random`: they draw random numbers.
    """

    ops: tuple[Op, ...]
    again: bool
    random: bool
    core: bool = False
    labels: tuple[str, ...] = ()

    @property
    def weights(self) -> int:
        """How many weights it has, for each of which torch goes back by itself where a schedule splits backward."""
        return len({param.path for op in self.ops for param in op.params if param.trained})

    def keeps(self, op: Op) -> bool:
        """Whether the result is kept inside, not by the cut behind it."""
        return op.id in self.labels or (self.core and op.kind == "attention")


Unit = tuple[Op, ...]
"""An op of the layer itself, or all ops of one of its scopes."""


@dataclass(frozen=True)
class _Cut:
    """Between units: one part ends before `end`, the next starts at `start`; what stands between runs once."""

    end: int
    start: int


def inside_layers(graph: Graph, repeat: Repeat) -> bool:
    """Whether the layers of a repeat call their parts themselves: where one of them has several."""
    return _several(segments(graph), repeat)


def together(parts: Iterable[Segment]) -> Segment:
    """One that stands for all of them: layers of one loop are called in one way."""
    known = tuple(parts)
    ops = tuple(op for part in known for op in part.ops)
    random, core = any(part.random for part in known), any(part.core for part in known)
    return Segment(ops, True, random, core, tuple(name for part in known for name in part.labels))


@lru_cache(maxsize=2)
def segments(graph: Graph) -> dict[Path, tuple[Segment, ...]]:
    """Of each block that is recomputed, by its scope, after the checkpoint pass."""
    recomputed = [repeat for repeat in graph.repeats if dict(repeat.op.attrs).get("recompute") is not None]
    found = {path: _segments(graph, path) for repeat in recomputed for path in repeat.blocks}
    calls: list[Segment] = []
    for repeat in recomputed:
        parts = [part for path in repeat.blocks for part in found[path]]
        calls += parts if _several(found, repeat) else [together(parts)]
    if not all(_kernels_alone(part) for part in calls):
        return found
    return {path: tuple(_by_kernel(part) for part in parts) for path, parts in found.items()}


def _several(found: dict[Path, tuple[Segment, ...]], repeat: Repeat) -> bool:
    return any(len(found.get(path, ())) > 1 for path in repeat.blocks)


def _kernels_alone(part: Segment) -> bool:
    """Whether all that is kept inside of a part are its attention kernels, and all of them."""
    kernels = tuple(op.id for op in part.ops if op.kind == "attention")
    return part.labels in ((), kernels)


def _by_kernel(part: Segment) -> Segment:
    return replace(part, core=bool(part.labels), labels=())


def _segments(graph: Graph, path: Path) -> tuple[Segment, ...]:
    ops = graph.ops_at[path]
    if not any(op.kept for op in ops):
        return (_segment(graph, ops),)
    units = [tuple(group) for _, group in groupby(ops, lambda op: op.id if op.scope == path else op.scope[len(path)])]
    cut = {op.id: found for op in ops if op.kept and (found := _cut(graph, units, op)) is not None}
    parts: list[Segment] = []
    at = 0
    for place in sorted(dict.fromkeys(cut.values()), key=lambda place: place.end):
        parts.append(_part(graph, units[at : place.end], cut))
        if place.end < place.start:
            parts.append(_segment(graph, _flat(units[place.end : place.start]), again=False))
        at = place.start
    rest = _flat(units[at:])
    if rest and at and _saved(graph, rest) <= _crossing(graph, units, at):
        return (*parts, _segment(graph, rest, again=False))
    return (*parts, _part(graph, units[at:], cut)) if rest else tuple(parts)


def _part(graph: Graph, units: list[Unit], cut: Iterable[str]) -> Segment:
    ops = _flat(units)
    return replace(_segment(graph, ops), labels=tuple(op.id for op in ops if op.kept and op.id not in cut))


def _segment(graph: Graph, ops: tuple[Op, ...], again: bool = True) -> Segment:
    return Segment(ops, again, any(graph.definition(op).random(op) for op in ops))


def _cut(graph: Graph, units: list[Unit], op: Op) -> _Cut | None:
    """Where the layer is cut to keep the op's result, None where a label keeps less. It may be the layer's end."""
    at, unit = next((n, unit) for n, unit in enumerate(units) if op in unit)
    later = unit[unit.index(op) + 1 :]
    if len(unit) == 1 or any(graph.definition(other).saves(other) for other in later):
        return None
    end = at + 1
    start, mask = end, False
    best = _Cut(end, end)
    fewest = len(_crossing(graph, units, end))
    while start < len(units) and len(units[start]) == 1 and _light(graph, units[start][0]):
        mask |= bool(graph.definition(units[start][0]).saves(units[start][0]))
        start += 1
        crossing = len(_crossing(graph, units, start))
        if crossing <= fewest:
            best, fewest = _Cut(end if mask else start, start), crossing
    reduced = any(other.kind == "convert" for other in later)
    return best if fewest == 1 or reduced else None


def _light(graph: Graph, op: Op) -> bool:
    """Whether backward needs no value for it but a mask."""
    light = {"mask"} >= set(graph.definition(op).saves(op))
    return light and (op.kind != "convert" or op.place("src").kind == "P")


def _crossing(graph: Graph, units: list[Unit], at: int) -> set[Ref]:
    """Values of the layer that are made before a place and used after it, or by the next layer."""
    before = {op.id for unit in units[:at] for op in unit}
    refs = (Ref(op.id, n) for unit in units[:at] for op in unit for n in range(len(op.outs)))
    return {ref for ref in refs if any(user.id not in before for user in graph.users(ref))}


def _saved(graph: Graph, ops: Iterable[Op]) -> set[Ref]:
    """Values that backward needs of ops that do not run again."""
    found: set[Ref] = set()
    for op in ops:
        for name in graph.definition(op).saves(op):
            found.add(op.inputs[int(name[2:])] if name.startswith("in") else op.ref)
    return found


def _flat(units: Iterable[Unit]) -> tuple[Op, ...]:
    return tuple(op for unit in units for op in unit)
