"""Names of values in a forward, and of axes in its comments."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from specc.ir.graph import Graph
from specc.ir.op import Op, Ref
from specc.ir.tree import Call
from specc.ir.types import TOKEN_AXES


def formal_names(graph: Graph, inputs: Iterable[Ref]) -> tuple[str, ...]:
    """Names of what a scope takes: the stream is x, another of the same axes still the stream, else the memory."""
    names: list[str] = []
    stream: set[str] = set()
    for ref in inputs:
        if graph.type(ref).grad:
            known = graph.hint(ref)
            if "x" not in names:
                name, stream = "x", {axis.name for axis in graph.type(ref).axes}
            else:
                other = "stream" if stream == {axis.name for axis in graph.type(ref).axes} else "memory"
                name = other if known == "x" else known
        else:
            name = _called(graph, graph.op(graph.origin(ref).op)) or graph.hint(ref)
        names.append(name)
    return unique(names)


def root_names(graph: Graph, inputs: Iterable[Ref]) -> tuple[str, ...]:
    """Names of what the model or a stage takes."""
    passed = [op.hint for op in graph.passed]
    hints = (graph.hint(ref) for ref in inputs)
    return unique(keyword(hint) if hint in passed else hint for hint in hints)


def keyword(name: str) -> str:
    """By what name every stage takes an input: schedules call labels `target`."""
    return "target_ids" if name == "target" else name


def declared(graph: Graph, refs: Iterable[Ref]) -> tuple[str, ...]:
    """Types of what a method takes."""
    return tuple('"Cache"' if graph.type(ref).dtype == "cache" else "Tensor" for ref in refs)


def entered(graph: Graph, call: Call) -> str:
    """`.decode` where a call is handed a cache, nothing where it is the module's forward."""
    return ".decode" if any(graph.type(ref).dtype == "cache" for ref in call.inputs) else ""


def _called(graph: Graph, op: Op) -> str:
    write = graph.tables.expressions.get(op.kind)
    return "" if write is None else write(graph, op).called


def unique(names: Iterable[str]) -> tuple[str, ...]:
    """Each name, with a number where it stood before."""
    found: list[str] = []
    for name in names:
        found.append(next(variant for variant in _variants(name) if variant not in found))
    return tuple(found)


@dataclass
class Naming:
    """A linear scan with exact liveness. `last` says at which line each value is read last.

    No value gets a name that is `called`: a function whose name is bound anywhere in a forward is unbound before.
    """

    graph: Graph
    last: dict[Ref, int]
    called: frozenset[str] = frozenset()
    names: dict[Ref, str] = field(default_factory=dict[Ref, str])
    holders: dict[str, Ref] = field(default_factory=dict[str, Ref])

    def give(self, ref: Ref, name: str) -> None:
        self.names[ref] = name
        self.holders[name] = ref

    def choose(self, ref: Ref, line: int) -> str:
        """A name for a value made at a line: its hint, unless a value that is read later holds it."""
        wanted = self.graph.hint(ref)
        op = self.graph.op(ref.op)
        if op.kind == "convert" and op.inputs[0] in self.names and not self.needed(op.inputs[0], line):
            wanted = self.names[op.inputs[0]]
        free = next(name for name in _variants(wanted) if not self.taken(name, line))
        self.give(ref, free)
        return free

    def needed(self, ref: Ref, line: int) -> bool:
        return self.last.get(ref, -1) > line

    def taken(self, name: str, line: int) -> bool:
        return name in self.called or (name in self.holders and self.needed(self.holders[name], line))


def _variants(name: str) -> Iterable[str]:
    yield name
    for number in range(2, 1000):
        yield f"{name}{number}"


def axis_names(graph: Graph, inputs: Iterable[Ref], root: bool) -> dict[str, str]:
    """In a class that several stacks may share, the stream's tokens are `seq` and those of the memory `memory`."""
    if root:
        return {}
    found: dict[str, str] = {}
    for ref in inputs:
        for axis in graph.type(ref).axes:
            if axis.name in TOKEN_AXES and axis.name not in found and graph.type(ref).grad:
                found[axis.name] = "memory" if found else "seq"
    return found
