"""A scope as the body of a class: lines of its forward and of its constructor, with constants as holes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from specc.emit.checkpoints import Part as Method
from specc.emit.checkpoints import called, label, parts_of, policy
from specc.emit.expr import expression, own_random
from specc.emit.fold import Inner, Item, Line, fold, text
from specc.emit.leaves import constructor
from specc.emit.loops import container, loop_lines
from specc.emit.names import Naming, axis_names, declared, entered, formal_names, root_names, unique
from specc.emit.parts import Expr, Hole, Part, Use
from specc.ir.graph import Graph
from specc.ir.op import Op, Path, Ref, in_model
from specc.ir.repeat import Repeat
from specc.ir.shape import shape
from specc.ir.tree import Call, Loop

Step = Method | Op | Call | Loop
OPEN, CLOSE = "\x01", "\x02"  # around the number of a hole in a line


@dataclass(frozen=True)
class Entry:
    """A scope of another graph over the same modules: its method, what it takes and what it returns in order."""

    name: str
    graph: Graph
    call: Call
    formals: tuple[Ref, ...]
    results: tuple[Ref, ...]


@dataclass(frozen=True)
class Function:
    """A method: what it takes beside self and of what types, how many tensors it returns, and its lines."""

    name: str
    formals: tuple[str, ...]
    types: tuple[str, ...]
    results: int
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Body:
    """What a class is made of. In lines stands `\\x01n\\x02` for holes[n]."""

    path: Path
    names: tuple[str, ...]  # candidates for the class, shortest first
    init: tuple[str, ...]
    methods: tuple[Function, ...]  # the forward first
    holes: tuple[Hole, ...]
    calls: tuple[str, ...]  # kernels

    @property
    def skeleton(self) -> tuple[object, ...]:
        """Equal for bodies that can be one class."""
        holes = tuple((hole.name, hole.before, hole.after, hole.default) for hole in self.holes)
        return (self.init, self.methods, holes)

    @property
    def forward(self) -> Function:
        return self.methods[0]


@dataclass
class Holes:
    """Collects the holes of a body."""

    found: dict[str, tuple[int, Hole]] = field(default_factory=dict[str, tuple[int, Hole]])  # by their keys
    entry: str = ""  # whose they are, where not the forward's

    def mark(self, hole: Hole) -> str:
        """Raises ValueError where a hole of that key has another value: one of them would be lost."""
        if self.entry:
            hole = hole._replace(key=f"{self.entry}{hole.key}")
        n, known = self.found.setdefault(hole.key, (len(self.found), hole))
        if known.value != hole.value:
            raise ValueError(f"{hole.key} is {known.value} and {hole.value}")
        return f"{OPEN}{n}{CLOSE}"


def body(
    graph: Graph,
    call: Call,
    formals: tuple[Ref, ...],
    results: tuple[Ref, ...],
    constructors: dict[Path, str],
    root: bool,
    other: Entry | None = None,
) -> Body:
    """`formals` and `results` in order; `constructors` has the expression that makes each child scope's module."""
    holes = Holes()
    init = _init(graph, call, constructors, holes)
    names = root_names(graph, formals) if root else formal_names(graph, formals)
    items, calls = parts_of(graph, call), dict[str, None]()
    methods: list[Function] = []

    def write(
        name: str, items: Iterable[Step], takes: tuple[Ref, ...], named: tuple[str, ...], gives: tuple[Ref, ...]
    ) -> None:
        writer = _Forward(graph, tuple(items), takes, named, gives, holes, root, calls)
        methods.append(Function(name, named, declared(graph, takes), len(gives), tuple(writer.lines())))

    write("forward", items, formals, names, results)
    for part in items:
        if isinstance(part, Method):
            inner, known = part.call, dict(zip(formals, names, strict=True))
            own = unique(known.get(ref, graph.hint(ref)) for ref in inner.inputs)
            write(part.name, inner.items, inner.inputs, own, inner.outputs)
    if other is not None:
        methods.append(_method(other, Holes(holes.found, f"{other.name}."), root, calls))
    found = tuple([hole for _, hole in holes.found.values()])
    return Body(call.path, call.scope.names, tuple(init), tuple(methods), found, tuple(calls))


def _method(of: Entry, holes: Holes, root: bool, calls: dict[str, None]) -> Function:
    names = root_names(of.graph, of.formals) if root else formal_names(of.graph, of.formals)
    writer = _Forward(of.graph, of.call.items, of.formals, names, of.results, holes, root, calls)
    return Function(of.name, names, declared(of.graph, of.formals), len(of.results), tuple(writer.lines()))


def _init(graph: Graph, call: Call, constructors: dict[Path, str], holes: Holes) -> list[str]:
    """Own parameters, then children in the order of first use, which is the order of the state dict."""
    depth = len(in_model(call.path))
    own: dict[str, list[str]] = {}
    children: dict[str, list[str]] = {}
    for item in call.items:
        if isinstance(item, Op):
            for n, param in enumerate(item.params):
                name = str(param.path[depth])
                target = own if len(param.path) == depth + 1 else children
                if name not in target:
                    target[name] = [f"self.{name} = {_filled(constructor(graph, item, n, depth), holes)}"]
        elif isinstance(item, Call):
            name = str(item.path[-1])
            made = holes.mark(Hole(f"child.{name}", name, constructors[item.path]))
            children[name] = [f"self.{name} = {made}"]
        elif (name := str(item.path[-1])) not in children:
            runs = [loop for loop in call.items if isinstance(loop, Loop) and loop.path == item.path]
            children[name] = container(runs, constructors, holes.mark)
    return [line for lines in (own | children).values() for line in lines]


def _filled(parts: tuple[Part, ...], holes: Holes) -> str:
    return "".join(holes.mark(part) if isinstance(part, Hole) else str(part) for part in parts)


@dataclass
class _Forward:
    """Writes the forward of one scope, or a method of it."""

    graph: Graph
    items: tuple[Step, ...]
    formals: tuple[Ref, ...]
    formal_names: tuple[str, ...]
    results: tuple[Ref, ...]
    holes: Holes
    root: bool
    calls: dict[str, None] = field(default_factory=dict[str, None])

    def lines(self) -> list[str]:
        """Lines of the forward."""
        items = [item for item in map(self._item, self.items) if item is not None]
        self.loops = {item.end.id: item for item in self.items if isinstance(item, Loop)}
        made = fold(items, self.results)
        sources = [_uses(line.parts) for line in made]
        last = {ref: n for n, source in enumerate(sources) for ref in source}
        last |= {ref: len(made) for ref in self.results}
        self.naming = Naming(self.graph, last, frozenset(self.calls))
        self.axes = tuple(axis_names(self.graph, self.formals, self.root).items())
        for ref, name in zip(self.formals, self.formal_names, strict=True):
            self.naming.give(ref, name)
        self.said = ""
        out: list[str] = []
        returned = False
        for n, line in enumerate(made):
            if line.item.kind == "loop":
                out += self._loop(self.loops[line.item.refs[0].op], n)
                continue
            returned = n == len(made) - 1 and line.item.refs == self.results
            out += self._line(line, sources[n], n, returned)
        if not returned:
            out.append(f"return {', '.join(self.naming.names[ref] + self._whole(ref) for ref in self.results)}")
        return out

    def _whole(self, ref: Ref) -> str:
        """What leaves a stage is sent, so its elements must follow each other."""
        return ".contiguous()" if self.root and self._scattered(ref) else ""

    def _scattered(self, ref: Ref) -> bool:
        """Whether a value is a view, or made element by element of one, which keeps the order of its elements."""
        op = self.graph.op(ref.op)
        while op.kind in ("end", "cut", "convert"):
            ref = op.inputs[ref.out]
            op = self.graph.op(ref.op)
        if op.kind in ("input", "repeat"):
            return False
        alike = (given for given in op.inputs if self.graph.type(given).axes == op.outs[ref.out].axes)
        return expression(self.graph, op).view or any(self._scattered(given) for given in alike)

    def _item(self, item: Step) -> Item | None:
        if isinstance(item, Loop):
            inner = {ref for block in item.blocks for ref in (*block.scope.inputs[: item.carries], *block.outputs)}
            refs = [*item.repeat.inputs, *(ref for block in item.blocks for ref in block.inputs if ref not in inner)]
            uses: tuple[Part, ...] = tuple(Use(ref, named=True) for ref in dict.fromkeys(refs))
            results = tuple(Ref(item.end.id, n) for n in range(len(item.end.inputs)))
            return Item(results, "loop", Expr(uses), alone=True)
        if isinstance(item, Method):
            operands = [part for ref in item.call.inputs for part in (", ", Use(ref, named=True))]
            expr = Expr((f"checkpoint(self.{item.name}", *operands, f"{item.options})"))
            self.calls |= dict.fromkeys([item.policy] if item.policy else [])
            return Item(item.call.outputs, "call", expr, alone=True)
        if isinstance(item, Call):
            parts: list[Part] = [f"self.{item.path[-1]}{entered(self.graph, item)}("]
            for n, ref in enumerate(item.inputs):
                parts += [", "] * bool(n) + [Use(ref)]
            return Item(item.outputs, "call", Expr((*parts, ")")))
        if item.kind == "input":
            return None
        written = expression(self.graph, item)
        own = bool(label(self.graph, item)) or bool(self._random(item, written))
        self.calls |= dict.fromkeys(written.calls)
        refs = tuple(Ref(item.id, out) for out in range(len(item.outs)))
        return Item(refs, item.kind, written, alone=written.alone or own, solid=own)

    def _random(self, op: Op, written: Expr) -> list[str]:
        """Mesh axes for which the op's line must draw numbers of its own, unless its expression sees to that."""
        return [] if written.draws else own_random(self.graph, op)

    def _line(self, line: Line, source: list[Ref], n: int, returned: bool) -> list[str]:
        code = text(line.parts, lambda ref: self.naming.names[ref], self.holes.mark)
        targets = [self.naming.choose(ref, n) for ref in line.item.refs]
        ref = line.item.refs[0]
        comment = shape(self.graph, ref, self.axes)
        kept, random = "", list[str]()
        if line.item.solid:
            op = self.graph.op(ref.op)
            kept, random = label(self.graph, op), self._random(op, line.item.expr)
        shown = comment != self.said and bool(self.graph.type(ref).axes)
        shown = shown and all(shape(self.graph, used, self.axes) != comment for used in source)
        if shown:
            self.said = comment
        head = "return " if returned else f"{', '.join(targets)} = "
        result = [f"{head}{code}{f'  # {comment}' if shown else ''}"]
        contexts = [*(f"own_random(self.{axis})" for axis in random), *([f'kept("{kept}")'] if kept else [])]
        self.calls |= dict.fromkeys(["own_random"] * bool(random) + ["kept"] * bool(kept))
        return [f"with {', '.join(contexts)}:", *(f"    {row}" for row in result)] if contexts else result

    def _loop(self, loop: Loop, n: int) -> list[str]:
        """The carries keep their names over the loop; one that is read again after it is put away first."""
        names = self.naming.names
        carries: list[str] = []
        lines: list[str] = []
        for out, start in enumerate(loop.repeat.inputs):
            carries.append(names[start])
            if self.naming.needed(start, n):
                carries[-1] = self.naming.choose(Ref(loop.repeat.id, out), n)
                lines.append(f"{carries[-1]} = {names[start]}")
        runs = [item for item in self.items if isinstance(item, Loop) and item.path == loop.path]
        known = {**names, **self._locals(loop, n)}
        calls: list[tuple[list[str], list[str]]] = []
        for block in loop.blocks:
            known.update(zip(block.scope.inputs, carries, strict=False))
            arguments = [known[ref] for ref in block.inputs]
            known.update(zip(block.scope.outputs, carries, strict=False))
            calls.append((arguments, [known[ref] for ref in block.outputs]))
        lines += loop_lines(self.graph, loop, len(runs) > 1, calls, self.holes.mark)
        part = called(self.graph, Repeat.of(loop.repeat))
        self.calls |= dict.fromkeys([policy(part)] if part is not None and policy(part) else [])
        for out, ref in enumerate(loop.end.inputs):
            self.naming.give(Ref(loop.end.id, out), known[ref])
        wanted = self.graph.op(loop.end.id).hint
        if wanted not in (carries[0], "x") and not self.naming.taken(wanted, n):
            lines.append(f"{wanted} = {carries[0]}")
            self.naming.holders.pop(carries[0])
            self.naming.give(loop.end.ref, wanted)
        return lines

    def _locals(self, loop: Loop, n: int) -> dict[Ref, str]:
        """Names of what goes from layer to layer beside the carries: none that the loop reads."""
        found: dict[Ref, str] = {}
        for block in loop.blocks:
            for ref in block.outputs:
                if ref not in block.scope.outputs[: loop.carries]:
                    self.naming.last[ref] = n
                    found[ref] = self.naming.choose(ref, n - 1)
        return found


def _uses(parts: tuple[Part | Inner, ...]) -> list[Ref]:
    found: list[Ref] = []
    for part in parts:
        if isinstance(part, Use):
            found.append(part.ref)
        elif isinstance(part, Inner):
            found += _uses(part.parts)
    return found
