"""The graph: networkx inside, ops in op order, scopes with ordered inputs, repeats held once.

A repeat is the op `repeat` (carries in), the blocks of one period in scopes `(*path, Layer(offset))` in the order in
which they first run, and the op `end` (carries out, then exports). Layer i runs the block at offset i % period. Each
block declares the carries first, as it knows them and as it leaves them. A value used inside and produced before is
invariant; one made in a block and used in a later one is local; one used behind the repeat is an export, that of the
last layer that made it. A pipeline cut is the op `cut`: what is alive there passes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from operator import is_
from typing import TYPE_CHECKING

from specc.ir.groups import Groups
from specc.ir.op import Likeness, Op, Path, Ref, likeness, stage_of
from specc.ir.repeat import Repeat, layer_of, layer_scope
from specc.ir.types import MeshAxis, Spmd, TensorType
from specc.tables import Tables, tables

if TYPE_CHECKING:
    import networkx as nx

    from specc.ops.base import Facts, OpDef

TOKENS = 4096
"""Flops are counted over a sequence of so many tokens, or of as many as a model takes if these are less."""


@dataclass(frozen=True, slots=True)
class Scope:
    """A call: inputs and outputs in order (as lowered; conversions take their place), and names for its class."""

    path: Path
    inputs: tuple[Ref, ...]
    names: tuple[str, ...] = ()  # candidate class names, shortest first
    outputs: tuple[Ref, ...] = ()
    verb: str = ""  # what a part of a layer is called that runs it
    component: str = ""  # the key of the component that it is a call of

    def moved(self, moved: Mapping[Ref, Ref]) -> Scope:
        """The same scope where values are others now."""
        inputs, outputs = (tuple(moved.get(ref, ref) for ref in refs) for refs in (self.inputs, self.outputs))
        return replace(self, inputs=inputs, outputs=outputs)


@dataclass(frozen=True, eq=False)
class Graph:
    """An immutable graph of ops, compared by identity.

    `outputs` is what the model returns in order, `loss` what training makes small; scope ("loss",), outside of the
    model, takes the outputs.
    `mesh` is set by placing. Flops are counted over `tokens` of every sequence.
    """

    ops: tuple[Op, ...]
    """All ops in op order, a topological order."""
    scopes: tuple[Scope, ...]
    outputs: tuple[Ref, ...]
    loss: Ref
    mesh: tuple[MeshAxis, ...] = ()
    tokens: int = TOKENS
    tables: Tables = field(default_factory=tables, repr=False)

    @staticmethod
    def of(
        ops: Iterable[Op],
        scopes: Iterable[Scope],
        outputs: tuple[Ref, ...],
        loss: Ref,
        mesh: tuple[MeshAxis, ...] = (),
        tokens: int = TOKENS,
        known: Tables | None = None,
    ) -> Graph:
        """Build from ops in op order; `known` are specc's own tables unless given.

        Raises ValueError naming the op where an operand is not produced before it.
        """
        ops = tuple(ops)
        made: set[str] = set()
        for op in ops:
            if op.id in made:
                raise ValueError(f"op {op.id} stands twice")
            for ref in op.inputs:
                if ref.op not in made:
                    raise ValueError(f"op {op.id} uses {ref.op}, which is not produced before it")
            made.add(op.id)
        return Graph(ops, tuple(scopes), outputs, loss, mesh, tokens, known or tables())

    @cached_property
    def nx(self) -> nx.MultiDiGraph[str]:
        """The same as a graph of networkx: ops as `op` of their nodes, edges with the numbers of output and operand."""
        from networkx import MultiDiGraph  # its import is a third of a build, which does not ask

        graph: nx.MultiDiGraph[str] = MultiDiGraph()
        graph.add_nodes_from((op.id, {"op": op}) for op in self.ops)
        for op in self.ops:
            for operand, ref in enumerate(op.inputs):
                graph.add_edge(ref.op, op.id, out=ref.out, operand=operand)
        return graph

    @cached_property
    def inputs(self) -> tuple[Op, ...]:
        """What the model is fed, in order; each once, though several pipeline stages may be fed it."""
        fed = [op for op in self.ops if op.kind == "input" and op.scope[:1] != ("loss",)]
        return tuple({op.hint: op for op in reversed(fed)}[name] for name in dict.fromkeys(op.hint for op in fed))

    @cached_property
    def zigzag(self) -> bool:
        """Whether ranks that share out rows hold a chunk from either end of each."""
        return any("order" in dict(op.attrs) for op in self.ops if op.kind == "positions")

    @cached_property
    def passed(self) -> tuple[Op, ...]:
        """Those of the inputs that pipeline stages behind the first are fed, too."""
        later = {op.hint for op in self.ops if op.kind == "input" and stage_of(op.scope)}
        return tuple(op for op in self.inputs if op.hint in later)

    @staticmethod
    def around(nodes: nx.MultiDiGraph[str], like: Graph) -> Graph:
        """The graph of networkx in the place of another's, whatever it is: nothing is checked."""
        made = replace(like, ops=tuple(data["op"] for _, data in nodes.nodes(data=True)))
        made.__dict__["nx"] = nodes
        return made

    @cached_property
    def orderly(self) -> bool:
        """Whether ops alone tell that nothing is used before it is made, and that all but idle inputs hang together.

        Where that is not so, or where networkx has been asked for or given, what it says is looked at.
        """
        if "nx" in self.__dict__:
            return False
        piece: dict[str, str] = {}  # of each op, another one of its piece; itself for one

        def of(id: str) -> str:
            while (up := piece[id]) != id:
                piece[id] = id = piece[up]
            return id

        for op in self.ops:
            piece[op.id] = op.id
            for ref in op.inputs:
                if ref.op not in piece or ref.op == op.id:
                    return False
                piece[of(ref.op)] = of(op.id)
        ends = {ref.op for ref in (*self.outputs, self.loss)}
        idle = {op.id for op in self.ops if op.kind == "input" and not self.users(op.ref)}
        return ends <= piece.keys() and len({of(op.id) for op in self.ops if op.id not in idle}) == 1

    def op(self, id: str) -> Op:
        """Raises KeyError."""
        return self._by_id[id]

    @cached_property
    def _by_id(self) -> dict[str, Op]:
        return {op.id: op for op in self.ops}

    def definition(self, op: Op) -> OpDef:
        """What an op of that kind declares. Raises KeyError."""
        return self.tables.ops[op.kind]

    def facts(self, op: Op) -> Facts:
        """What the op does to its indices, after the shapes pass; one object for ops that are alike."""
        ins = self.ins(op)
        key = likeness(op, ins)
        found = self._facts.get(key)
        if found is None:
            found = self._facts[key] = self.definition(op).facts(op, ins)
        return found

    @cached_property
    def _facts(self) -> dict[Likeness, Facts]:
        return {}

    def type(self, ref: Ref) -> TensorType:
        """Tensor type of a value, after the shapes pass."""
        return self._by_id[ref.op].outs[ref.out]

    def ins(self, op: Op) -> tuple[TensorType, ...]:
        """Tensor types of its operands, after the shapes pass."""
        made = self._by_id
        return tuple([made[ref.op].outs[ref.out] for ref in op.inputs])

    def given(self, op: Op) -> tuple[Spmd, ...]:
        """SPMD types of its operands, after the place pass."""
        made = self._by_id
        return tuple([made[ref.op].types[ref.out] for ref in op.inputs])

    @cached_property
    def shown(self) -> dict[tuple[int, int, tuple[tuple[str, str], ...]], str]:
        """Texts of shapes, as `specc.ir.shape` writes them, by the types that they are of and how axes are renamed."""
        return {}

    def spmd(self, ref: Ref) -> Spmd:
        """SPMD type of a value, after the place pass."""
        return self._by_id[ref.op].types[ref.out]

    def users(self, ref: Ref) -> tuple[Op, ...]:
        """Ops that use the value, in op order of first use."""
        return self._users.get(ref, ())

    def readers(self, ref: Ref) -> tuple[str, ...]:
        """Ids of the ops that use the value."""
        return self._readers.get(ref, ())

    def read(self, op: Op) -> tuple[tuple[Ref, tuple[str, ...]], ...]:
        """Those of its values that are used, in order, with the ids of the ops that do."""
        return self._read.get(op.id, ())

    @cached_property
    def _read(self) -> dict[str, tuple[tuple[Ref, tuple[str, ...]], ...]]:
        found: dict[str, list[tuple[Ref, tuple[str, ...]]]] = {}
        for ref, ids in self._readers.items():
            found.setdefault(ref.op, []).append((ref, ids))
        return {id: tuple(sorted(values)) for id, values in found.items()}

    @cached_property
    def _readers(self) -> dict[Ref, tuple[str, ...]]:
        return {ref: tuple([user.id for user in users]) for ref, users in self._users.items()}

    @cached_property
    def _users(self) -> dict[Ref, tuple[Op, ...]]:
        found: dict[Ref, dict[str, Op]] = {}
        for op in self.ops:
            for ref in op.inputs:
                found.setdefault(ref, {})[op.id] = op
        return {ref: tuple(users.values()) for ref, users in found.items()}

    def origin(self, ref: Ref) -> Ref:
        """The value before any conversions."""
        while (op := self.op(ref.op)).kind == "convert":
            ref = op.inputs[0]
        return ref

    def hint(self, ref: Ref) -> str:
        """What a value is called; what is carried, converted or crosses a cut is called as before."""
        op = self.op(ref.op)
        handed_on = op.kind in ("cut", "repeat", "convert") or (op.kind == "end" and ref.out > 0)
        return self.hint(op.inputs[ref.out]) if handed_on else (op.hints or (op.hint,))[ref.out]

    @cached_property
    def scope_at(self) -> dict[Path, Scope]:
        return {scope.path: scope for scope in self.scopes}

    def component(self, op: Op) -> str:
        """The key of the component that an op is of, "" where it is of none."""
        within = (self.scope_at.get(op.scope[:depth]) for depth in range(len(op.scope), 0, -1))
        return next((scope.component for scope in within if scope is not None and scope.component), "")

    @cached_property
    def repeats(self) -> tuple[Repeat, ...]:
        """In op order."""
        return tuple(Repeat.of(op) for op in self.ops if op.kind == "repeat")

    def repeat_of(self, path: Path) -> Repeat | None:
        """The repeat whose layer the path stands in, None outside repeats. Raises KeyError where there is none."""
        layer, scope = layer_of(path), layer_scope(path)
        return None if layer is None or scope is None else self._repeat_at[scope[:-1], layer.run]

    @cached_property
    def _repeat_at(self) -> dict[tuple[Path, int], Repeat]:
        return {(repeat.path, repeat.run): repeat for repeat in self.repeats}

    def stages_of(self, path: Path) -> tuple[int, ...]:
        """Numbers of the pipeline stages that run what stands in that scope."""
        stage = stage_of(path)
        return self._equal_stages.get(stage, (stage,))

    @cached_property
    def _equal_stages(self) -> dict[int, tuple[int, ...]]:
        merged = (repeat for repeat in self.repeats if repeat.spans)
        return {stage_of(repeat.path): tuple(span.stage for span in repeat.spans) for repeat in merged}

    @cached_property
    def ops_at(self) -> dict[Path | None, tuple[Op, ...]]:
        """Ops of each block of a repeat by its scope, in op order; those outside repeats at None."""
        found: dict[Path | None, list[Op]] = {}
        for scope, ops in groupby(self.ops, lambda op: op.scope):
            found.setdefault(layer_scope(scope), []).extend(ops)
        return {path: tuple(ops) for path, ops in found.items()}

    @cached_property
    def scopes_at(self) -> dict[Path | None, tuple[Scope, ...]]:
        """The same for scopes; a block's own comes first."""
        found: dict[Path | None, list[Scope]] = {}
        for scope in self.scopes:
            found.setdefault(layer_scope(scope.path), []).append(scope)
        return {path: tuple(scopes) for path, scopes in found.items()}

    @cached_property
    def groups(self) -> Groups:
        """What the mesh axes are for."""
        return Groups(self.mesh)

    @cached_property
    def symbols(self) -> dict[str, int]:
        """What flops are counted for: one sequence."""
        names = {axis.size for op in self.ops for type in op.outs for axis in type.axes if isinstance(axis.size, str)}
        return {name: 1 if name == "batch" else self.tokens for name in sorted(names)}

    def with_ops(
        self, ops: Iterable[Op], scopes: Iterable[Scope] | None = None, moved: Mapping[Ref, Ref] | None = None
    ) -> Graph:
        """The same graph around other ops; `moved`: what values now are that outputs, loss or scopes speak of.

        Scopes that are given speak of the new ops already.
        """
        moved, ops = moved or {}, tuple(ops)
        if scopes is None:
            if not moved and len(ops) == len(self.ops) and all(map(is_, ops, self.ops)):
                return self  # with all that is known of it
            scopes = [scope.moved(moved) for scope in self.scopes] if moved else self.scopes
        outputs = tuple(moved.get(ref, ref) for ref in self.outputs)
        return Graph.of(ops, scopes, outputs, moved.get(self.loss, self.loss), self.mesh, self.tokens, self.tables)

    def with_mesh(self, mesh: tuple[MeshAxis, ...]) -> Graph:
        return replace(self, mesh=mesh)


def inside(path: Path, scope: Path) -> bool:
    """Whether the path is the scope or lies in it."""
    return path[: len(scope)] == scope


def common(paths: Iterable[Path]) -> Path:
    """The deepest scope that holds all paths."""
    first, *rest = paths
    for path in rest:
        length = next(
            (i for i, (a, b) in enumerate(zip(first, path, strict=False)) if a != b), min(len(first), len(path))
        )
        first = first[:length]
    return first
