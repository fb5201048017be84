"""What a pipeline stage is made of: layers of a repeat, what stands before the first and what follows the last."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from specc.ir.graph import Graph
from specc.ir.op import Op, Path, Ref, Span
from specc.ir.repeat import Repeat, layer_of


@dataclass(frozen=True)
class Section:
    """A repeat with the ops of its body and the root ops before it; the last one has those after it too."""

    before: tuple[Op, ...]
    op: Op
    body: tuple[Op, ...]
    end: Op
    after: tuple[Op, ...] = ()

    @cached_property
    def repeat(self) -> Repeat:
        return Repeat.of(self.op)

    @property
    def layers(self) -> range:
        return range(self.repeat.start, self.repeat.start + self.repeat.n)


@dataclass(frozen=True)
class Part:
    """What a stage, or several equal ones, run of a section; `spans` then has the layers of each."""

    of: Section
    layers: range
    spans: tuple[Span, ...] = ()

    @property
    def first(self) -> bool:
        return self.layers.start == self.of.layers.start

    @property
    def last(self) -> bool:
        return self.layers.stop == self.of.layers.stop

    @cached_property
    def blocks(self) -> tuple[Path, ...]:
        """Scopes of the blocks that run, in op order."""
        return replace(self.of.repeat, start=self.layers.start, n=len(self.layers)).blocks

    @property
    def body(self) -> list[Op]:
        offsets = {layer_of(block) for block in self.blocks}
        return [op for op in self.of.body if layer_of(op.scope) in offsets]

    @property
    def ops(self) -> list[Op]:
        return [*(self.of.before if self.first else ()), *self.body, *(self.of.after if self.last else ())]

    @property
    def start(self) -> tuple[Ref, ...]:
        """What the first layer is given: of a run cut in two, what the run carries."""
        carried = range(len(self.of.op.inputs))
        return self.of.op.inputs if self.first else tuple(Ref(self.of.end.id, n) for n in carried)

    def taken(self, graph: Graph, block: Path) -> tuple[Ref, ...]:
        """The carries as a block knows them."""
        return graph.scope_at[block].inputs[: len(self.of.op.inputs)]


def sections(graph: Graph) -> list[Section]:
    """In op order; together they hold all ops but those of the loss."""
    found: list[Section] = []
    before: list[Op] = []
    body: list[Op] | None = None
    repeat: Op | None = None
    for op in graph.ops:
        if op.scope[:1] == ("loss",):
            continue
        if op.kind == "repeat":
            repeat, body = op, []
        elif op.kind == "end" and repeat is not None and body is not None:
            found.append(Section(tuple(before), repeat, tuple(body), op))
            before, body = [], None
        elif body is not None:
            body.append(op)
        else:
            before.append(op)
    found[-1] = replace(found[-1], after=tuple(before))
    return found


def needs(graph: Graph, parts: list[Part]) -> list[Ref]:
    """Values of other stages that a stage of these parts reads."""
    ops = [op for part in parts for op in part.ops]
    made = {op.id for op in ops}
    made |= {part.of.op.id for part in parts} | {part.of.end.id for part in parts}
    refs: dict[Ref, None] = {}
    for part in parts:
        refs |= dict.fromkeys(part.start)
    carried = {ref for part in parts for block in part.of.repeat.blocks for ref in part.taken(graph, block)}
    for op in ops:
        refs |= dict.fromkeys(ref for ref in op.inputs if ref not in carried)
    outside: dict[Ref, None] = {}
    pending = list(refs)
    starts_inside = {ref for part in parts if not part.first for ref in part.start}
    while pending:
        ref = pending.pop(0)
        if ref.op in made and ref not in starts_inside:
            continue
        op = graph.op(ref.op)
        if made_again(graph, op):
            only = shapes_of(graph, op)
            pending.extend(operand for n, operand in enumerate(op.inputs) if n not in only)
        else:
            outside[ref] = None
    return list(outside)


def made_again(graph: Graph, op: Op) -> bool:
    """Whether the op makes its value from shapes alone, so that each stage makes it for itself."""
    if op.kind == "input" or any(t.grad for t in op.outs) or not op.inputs:
        return False
    only = shapes_of(graph, op)
    return all(made_again(graph, graph.op(ref.op)) for n, ref in enumerate(op.inputs) if n not in only)


def shapes_of(graph: Graph, op: Op) -> tuple[int, ...]:
    """Numbers of the operands of which the op reads the shape only."""
    return graph.definition(op).facts(op, tuple(graph.type(ref) for ref in op.inputs)).shape_only
