"""What a pipeline stage is made of: layers of a repeat, what stands before the first and what follows the last."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

from specc.ir.graph import Graph
from specc.ir.op import Layer, Op, Path, Ref, Span
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

    @cached_property
    def bodies(self) -> dict[Layer | None, list[Op]]:
        """Ops of the body by their place in the period, in op order."""
        found: dict[Layer | None, list[Op]] = {}
        for op in self.body:
            found.setdefault(layer_of(op.scope), []).append(op)
        return found

    @cached_property
    def ids(self) -> frozenset[str]:
        """Of the ops of the body."""
        return frozenset([op.id for op in self.body])

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
        """Scopes of the blocks that run, in the order in which they first do."""
        return replace(self.of.repeat, start=self.layers.start, n=len(self.layers)).blocks

    @property
    def body(self) -> list[Op]:
        layers = {layer_of(block) for block in self.blocks}
        return [op for layer, ops in self.of.bodies.items() if layer in layers for op in ops]

    @property
    def ops(self) -> list[Op]:
        return [*(self.of.before if self.first else ()), *self.body, *(self.of.after if self.last else ())]

    @cached_property
    def ids(self) -> frozenset[str]:
        """Of the ops that run, and of what opens the run."""
        return frozenset((self.of.op.id, *(op.id for op in self.ops)))

    @property
    def start(self) -> tuple[Ref, ...]:
        """What the first layer is given: of a run cut in two, what the run carries."""
        carried = range(self.of.repeat.carries)
        return self.of.op.inputs if self.first else tuple(Ref(self.of.end.id, n) for n in carried)

    @property
    def exported(self) -> tuple[Ref, ...]:
        """Values of layers of the run that code behind it reads."""
        return self.of.end.inputs[self.of.repeat.carries :]

    def taken(self, graph: Graph, block: Path) -> tuple[Ref, ...]:
        """The carries as a block knows them."""
        return graph.scope_at[block].inputs[: self.of.repeat.carries]

    def given(self, graph: Graph, block: Path) -> tuple[Ref, ...]:
        """The carries as a block leaves them."""
        return graph.scope_at[block].outputs[: self.of.repeat.carries]


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


@dataclass(frozen=True)
class Held:
    """What layers of a part leave for others: carries by their numbers, other values as they are.

    `entering` are read before a layer of the part makes them, those of `made` one of them makes.
    """

    entering: tuple[int | Ref, ...]
    made: tuple[int | Ref, ...]


def held(graph: Graph, part: Part) -> Held:
    """What is read by, or made in, these layers: a carry that no layer changes is an invariant of them."""
    run = part.of.ids
    entering: dict[int | Ref, None] = {}
    made: dict[int | Ref, None] = {}
    for block in part.blocks:
        own = {op.id for op in graph.ops_at[block]}
        taken, given = part.taken(graph, block), part.given(graph, block)
        carried = {ref: n for n, ref in enumerate(taken)}
        for op in graph.ops_at[block]:
            for ref in op.inputs:
                if ref.op in own:  # most are
                    continue
                key = carried.get(ref, ref if ref.op in run else None)
                if key is not None and key not in made:
                    entering[key] = None
        made |= {n: None for n, pair in enumerate(zip(taken, given, strict=True)) if pair[0] != pair[1]}
        made |= {ref: None for ref in graph.scope_at[block].outputs[len(given) :] if ref.op in own}
    numbers = [key for key in entering if isinstance(key, int)]
    return Held((*sorted(numbers), *(key for key in entering if key not in numbers)), tuple(made))


def alive(graph: Graph, plan: Iterable[list[Part]]) -> list[frozenset[Ref]]:
    """Values that are needed from each stage on and made before it, and at last the model's outputs."""
    found = [frozenset(graph.outputs)]
    for parts in reversed([*plan]):
        every = [held(graph, part) for part in parts]
        made = [item.made for item in every]
        later = (_before(parts, made, ref) for ref in found[0])
        found.insert(0, frozenset((*(ref for ref in later if ref is not None), *_needs(graph, parts, every))))
    return found


def _needs(graph: Graph, parts: list[Part], every: list[Held]) -> list[Ref]:
    """Values of other stages that a stage of these parts reads."""
    made = [item.made for item in every]
    pending: dict[Ref, None] = {}
    outside: dict[Ref, None] = {}
    for part, own in zip(parts, every, strict=True):
        for key in own.entering:
            reads = pending if part.first and isinstance(key, int) else outside
            reads[part.start[key] if isinstance(key, int) else key] = None
        known, run = {ref for block in part.blocks for ref in part.taken(graph, block)}, part.of.ids
        for op in part.ops:
            pending |= dict.fromkeys([ref for ref in op.inputs if ref.op not in run and ref not in known])
    refs = list(pending)
    while refs:
        ref = _before(parts, made, refs.pop(0))
        if ref is None:
            continue
        op = graph.op(ref.op)
        if op.kind == "input":
            outside[ref] = None
        elif made_again(graph, op):
            only = shapes_of(graph, op)
            refs.extend(operand for n, operand in enumerate(op.inputs) if n not in only)
        else:
            outside[ref] = None
    return list(outside)


def _before(parts: list[Part], made: list[tuple[int | Ref, ...]], ref: Ref) -> Ref | None:
    """What a value is called before these parts, None where one of them makes it."""
    for part, own in zip(reversed(parts), reversed(made), strict=True):
        if ref.op == part.of.end.id:
            count = part.of.repeat.carries
            if ref.out >= count:
                ref = part.exported[ref.out - count]
            elif ref.out in own:
                return None
            elif not part.first:
                return ref
            else:
                ref = part.start[ref.out]
        if ref.op in part.ids:
            return None
    return ref


def made_again(graph: Graph, op: Op) -> bool:
    """Whether each stage makes the value for itself: it comes from shapes and from what the model is fed alone."""
    if op.kind == "input":
        return True
    if (any(t.grad for t in op.outs) and not graph.definition(op).again) or not op.inputs:
        return False
    only = shapes_of(graph, op)
    return all(made_again(graph, graph.op(ref.op)) for n, ref in enumerate(op.inputs) if n not in only)


def shapes_of(graph: Graph, op: Op) -> tuple[int, ...]:
    """Numbers of the operands of which the op reads the shape only."""
    return graph.facts(op).shape_only
