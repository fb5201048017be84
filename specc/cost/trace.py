"""A symbolic run of ops, forward and backward: which storages are made, kept by autograd, and dropped."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from specc.cost.saved import Row, Saved
from specc.cost.sizes import Sizes
from specc.cost.storage import Live, Storage
from specc.ir.op import Layer, Op, OpError, Path, Ref
from specc.ir.segments import Segment

ACTIVATIONS, GRADIENTS, MOMENT, FLOWING = "activations", "gradients", "temporaries", "gradients of activations"


@dataclass(eq=False, slots=True)
class Value:
    """A tensor of the run; None has no storage, for it is not made again."""

    storage: Storage | None
    bytes: int
    grad: bool


@dataclass(eq=False, slots=True)
class Node:
    """What autograd knows of an op that ran."""

    op: Op
    layer: int | None
    ins: list[Value]
    outs: list[Value]
    row: Saved
    saved: list[Storage] = field(default_factory=list[Storage])
    becomes: Storage | None = None  # the gradient of the first operand


@dataclass(eq=False, slots=True)
class Mark:
    """Where something is done in backward that is no op's, with the gradients of values there."""

    act: Callable[[dict[Value, Storage]], None]


@dataclass(eq=False, slots=True)
class Again:
    """What it knows of a part of a layer that runs again: its operands, and what is kept inside."""

    part: Segment
    layer: int
    ins: dict[Ref, Value]
    outs: dict[Ref, Value]
    saved: list[Storage]
    kept: dict[str, list[Storage]]


Unit = tuple[Path, int] | None
"""What FSDP gathers at once: the path of a block and the number of a layer; None for the rest."""


def unit_of(path: Path, layer: int | None) -> Unit:
    """The unit that a parameter at a path is in."""
    depth = next((n for n, part in enumerate(path, 1) if isinstance(part, Layer)), None)
    return None if depth is None or layer is None else (path[:depth], layer)


Tape = list[Node | Again | Mark]
Env = dict[Ref, Value]


class Trace:
    """The state of one rank. `gradients` are those of parameters, by path and layer; `graded` says which, by unit."""

    def __init__(self, sizes: Sizes, rows: Mapping[str, Row], live: Live):
        self.sizes, self.graph, self.live = sizes, sizes.graph, live
        self._rows = rows
        self._known: dict[str, Saved] = {}
        self.gradient = sizes.stored  # bytes of an element of a parameter's gradient
        self.gradients: dict[tuple[Path, int | None], Storage] = {}
        self.graded: dict[Unit, list[tuple[Path, int | None]]] = {}

    def alone(self, live: Live) -> Trace:
        """Another of the same graph, of which nothing has run."""
        made = Trace(self.sizes, self._rows, live)
        made._known, made.gradient = self._known, self.gradient
        return made

    def row(self, op: Op) -> Saved:
        """What its kernel keeps and takes; of one without a row, the values that it declares."""
        if op.id not in self._known:
            row = self._rows.get(op.kind)
            names = self.graph.definition(op).saves(op)
            declared = tuple(name for name in names if name[:2] == "in" or name[:3] == "out")
            self._known[op.id] = Saved(declared) if row is None else row(op, self.sizes)
        return self._known[op.id]

    def forward(
        self,
        ops: Sequence[Op],
        layer: int | None,
        env: Mapping[Ref, Value],
        tape: Tape | None,
        leaving: Collection[Ref],
        keeping: tuple[Segment, dict[str, list[Storage]]] | None = None,
        known: Mapping[str, list[Storage]] | None = None,
        stop: int | None = None,
    ) -> Env:
        """Run ops one after the other; what they make that leaves is returned, held once, all else is dropped.

        `keeping`: what a part keeps, held once more. `known`: what is there by op and not made again. `stop`: the last
        op to run.
        """
        last = {ref: n for n, op in enumerate(ops) for ref in op.inputs}
        made: Env = {}
        for n, op in enumerate(ops):
            self.live.place = f"{'forward' if stop is None else 'recomputation'} of {op.id}"
            ins = [made[ref] if ref in made else env[ref] for ref in op.inputs]
            outs = self._op(op, layer, ins, tape, keeping, (known or {}).get(op.id))
            for out, value in enumerate(outs):
                made[Ref(op.id, out)] = value
            for ref in dict.fromkeys((*op.inputs, *(Ref(op.id, out) for out in range(len(outs))))):
                if ref in made and last.get(ref, n) == n and ref not in leaving:
                    self._let_go(made[ref])
            if n == stop:
                break
        return {ref: made[ref] for ref in leaving if ref in made}

    def _let_go(self, value: Value) -> None:
        assert value.storage is not None
        self.live.drop(value.storage)

    def _op(
        self,
        op: Op,
        layer: int | None,
        ins: list[Value],
        tape: Tape | None,
        keeping: tuple[Segment, dict[str, list[Storage]]] | None,
        known: list[Storage] | None,
    ) -> list[Value]:
        row, live, sizes = self.row(op), self.live, self.sizes
        refs = [Ref(op.id, n) for n in range(len(op.outs))]
        casts = [live.make(size, "weights in use") for size in self._casts(op)]
        outs: list[Value] = []
        for n, (ref, type) in enumerate(zip(refs, op.outs, strict=True)):
            if row.view:
                storage = ins[0].storage
                assert storage is not None
                live.hold(storage)
            else:
                storage = live.hold(known[n]) if known else live.make(sizes.bytes(ref), ACTIVATIONS)
            outs.append(Value(storage, sizes.bytes(ref), type.grad))
        own = [live.hold(one) for one in known[len(outs) :]] if known else []
        own += [live.make(size, ACTIVATIONS) for _, size in row.extra[len(own) :]]
        live.touch(row.forward, MOMENT)
        if keeping is not None and keeping[0].keeps(op) and row.kernel:
            results = (*(value.storage for value in outs), *own[: row.results])
            keeping[1][op.id] = [live.hold(one) for one in results if one is not None]
            if row.between and op.id in keeping[0].labels:
                keeping[1][f"{op.id} inside"] = [live.make(row.between, ACTIVATIONS)]
        if tape is None or not self._recorded(op, ins):
            for one in (*own, *casts):
                live.drop(one)
            return outs
        values = {**{f"in{n}": v for n, v in enumerate(ins)}, **{f"out{n}": v for n, v in enumerate(outs)}}
        saved = [live.hold(storage) for name in row.values if name in values and (storage := values[name].storage)]
        count = len(casts) if "weights" in row.values else int("weight" in row.values)
        count *= any(value.grad for value in ins)
        for one in casts[count:]:
            live.drop(one)
        becomes = own[0] if row.own_gradient and own[0].bytes == ins[0].bytes else None
        tape.append(Node(op, layer, ins, outs, row, [*saved, *own, *casts[:count]], becomes))
        return outs

    def _recorded(self, op: Op, ins: Iterable[Value]) -> bool:
        return any(value.grad for value in ins) or any(param.trained for param in op.params)

    def _casts(self, op: Op) -> list[int]:
        """Bytes of parameters in the type that they are used in, where they are stored in another."""
        if not op.params or not self.sizes.casts(op):
            return []
        return [self.sizes.param(op, n) * self.sizes.element(op.outs[0]) for n in range(len(op.params))]

    def again(self, part: Segment, layer: int, env: Mapping[Ref, Value], tape: Tape, leaving: Collection[Ref]) -> Env:
        """Run a part of a layer of which nothing is kept but operands, and what it says."""
        kept: dict[str, list[Storage]] = {}
        outs = self.forward(part.ops, layer, env, None, leaving, (part, kept))
        own = {op.id for op in part.ops}
        ins = {ref: env[ref] for op in part.ops for ref in op.inputs if ref.op not in own}
        saved = [self.live.hold(value.storage) for value in ins.values() if value.storage is not None]
        tape.append(Again(part, layer, ins, outs, saved, kept))
        return outs

    def backward(self, tape: Tape, grads: dict[Value, Storage]) -> None:
        """From the last entry to the first; `grads` are gradients of values, each held once."""
        while tape:
            node = tape.pop()
            if isinstance(node, Mark):
                node.act(grads)
            elif isinstance(node, Again):
                self._back_again(node, grads)
            else:
                self._back(node, grads)

    def _back(self, node: Node, grads: dict[Value, Storage]) -> None:
        op, row, live = node.op, node.row, self.live
        live.place = f"backward of {op.id}"
        given = [grads.pop(out) for out in node.outs if out in grads]
        if not given:
            for one in node.saved:
                live.drop(one)
            return
        new: list[tuple[Value, Storage]] = []
        for n, value in enumerate(node.ins):
            if value.grad and (value not in [known for known, _ in new] or n not in row.through):
                known = given[0] if n in row.through else node.becomes if n == 0 else None
                new.append((value, live.make(value.bytes, FLOWING) if known is None else live.hold(known)))
        moments = [live.make(size, MOMENT) for size in self._casts(op)]
        live.touch(row.backward, MOMENT)
        for n, param in enumerate(op.params):
            if param.trained:
                self._parameter(op, n, node.layer)
        for one in (*moments, *node.saved, *given):
            live.drop(one)
        for value, storage in new:
            self.add(grads, value, storage)

    def add(self, grads: dict[Value, Storage], value: Value, storage: Storage) -> None:
        """Gradients of one value are summed up: in place where one of them is nobody else's."""
        known = grads.get(value)
        if known is None:
            grads[value] = storage
        elif known.holders == 1:
            self.live.drop(storage)
        else:
            grads[value] = self.live.make(value.bytes, FLOWING)
            self.live.drop(known)
            self.live.drop(storage)

    def _parameter(self, op: Op, n: int, layer: int | None) -> None:
        size = self.gradient_of(op, n)
        key = (op.params[n].path, layer)
        if key in self.gradients:
            self.live.touch(size, MOMENT)
        else:
            self.grade(key, size)

    def gradient_of(self, op: Op, n: int) -> int:
        """Bytes of the gradient of an op's parameter: as FSDP hands it on, or as it is stored."""
        return self.sizes.param(op, n) * (self.gradient if self.sizes.shared(op, n) else self.sizes.stored)

    def grade(self, key: tuple[Path, int | None], size: int) -> None:
        """Make the gradient of a parameter."""
        self.gradients[key] = self.live.make(size, GRADIENTS)
        self.graded.setdefault(unit_of(*key), []).append(key)

    def _back_again(self, node: Again, grads: dict[Value, Storage]) -> None:
        """The part runs up to the last op that backward needs something of, then backward through all of it."""
        ops = node.part.ops
        if not any(out in grads for out in node.outs.values()):
            raise OpError(ops[-1], "runs again, but nothing has a gradient")
        stop = max((n for n, op in enumerate(ops) if self._needs(op)), default=-1)
        tape: Tape = []
        made = dict(node.ins)
        if stop >= 0:
            made |= self._rerun(node, stop, tape)
        for op in ops[stop + 1 :]:  # nothing of them was kept, and nothing of them is made
            ins = [made.get(ref) or Value(None, self.sizes.bytes(ref), self.graph.type(ref).grad) for ref in op.inputs]
            outs = [Value(None, self.sizes.bytes(Ref(op.id, n)), type.grad) for n, type in enumerate(op.outs)]
            made |= {Ref(op.id, n): out for n, out in enumerate(outs)}
            if self._recorded(op, ins):
                tape.append(Node(op, node.layer, ins, outs, self.row(op)))
        for ref, out in node.outs.items():
            if out in grads:
                self.add(grads, made[ref], grads.pop(out))
        self.backward(tape, grads)
        for one in (*node.saved, *(storage for kept in node.kept.values() for storage in kept)):
            self.live.drop(one)

    def _rerun(self, node: Again, stop: int, tape: Tape) -> Env:
        """Values are those of the tape: nobody else holds them when the part has run."""
        refs = [Ref(op.id, n) for op in node.part.ops[: stop + 1] for n in range(len(op.outs))]
        later = {ref for op in node.part.ops[stop + 1 :] for ref in op.inputs} | node.outs.keys()
        found = self.forward(
            node.part.ops, node.layer, node.ins, tape, [ref for ref in refs if ref in later], known=node.kept, stop=stop
        )
        for value in found.values():
            self._let_go(value)
        return found

    def _needs(self, op: Op) -> bool:
        row = self.row(op)
        return bool(row.values or row.extra)
