"""How large values and parameters are on one rank, for given rows and lengths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

from specc.ir.graph import Graph
from specc.ir.op import Op, Ref
from specc.ir.types import TOKEN_AXES, Axis, Spmd, TensorType

BYTES = {"int64": 8, "bool": 1, "float": 4, "float32": 4, "bfloat16": 2, "float16": 2, "float64": 8}  # of an element


@dataclass(frozen=True, eq=False)
class Sizes:
    """Of a placed graph. `symbols` are what one rank is fed in a microbatch: rows, and tokens of each.

    `dtype` is that of parameters, and of values of which the graph does not say one; `on` says whose kernels run, "cpu"
    or "cuda". Elements, never bytes, unless said so.
    """

    graph: Graph
    symbols: Mapping[str, int]
    dtype: str = "float32"
    on: str = "cpu"
    _known: dict[Ref, int] = field(default_factory=dict[Ref, int], repr=False)

    @cached_property
    def ranks(self) -> dict[str, int]:
        """Of each mesh axis."""
        return {axis.name: axis.size for axis in self.graph.mesh}

    @cached_property
    def _fed(self) -> dict[str, tuple[str, ...]]:
        """Mesh axes whose ranks are fed different tokens, with the axes by which: symbols count a rank's own."""
        alike = self.graph.tables.alike
        return {
            axis.name: (*axis.tokens, *(name for name, of in alike.items() if set(of) & set(axis.tokens)))
            for axis in self.graph.mesh
            if axis.data
        }

    @cached_property
    def parts(self) -> dict[str, int]:
        """Ranks that a row of each length is shared out to: symbols count a rank's own part of it."""
        lengths = {
            name: [axis.size for axis in self.graph.mesh if axis.data and name in axis.tokens] for name in TOKEN_AXES
        }
        return {name: prod(ranks) for name, ranks in lengths.items() if ranks}

    def axis(self, axis: Axis, spmd: Spmd) -> int:
        """Of a tensor axis, the elements on the rank that has most of them."""
        size = axis.elements(self.symbols) * self.parts.get(str(axis.size), 1)
        for mesh in spmd.shards(axis):
            if axis.size in self.parts and axis.shard_name in self._fed.get(mesh, ()):
                size //= self.ranks[mesh]  # of a whole row, this rank's part
            if axis.shard_name not in self._fed.get(mesh, ()):
                size = -(-size // self.ranks[mesh])
        return size

    def numel(self, ref: Ref) -> int:
        """Of a value."""
        if ref not in self._known:
            self._known[ref] = prod(self.dims(ref))
        return self._known[ref]

    def dims(self, ref: Ref) -> tuple[int, ...]:
        """The shape of a value."""
        type, spmd = self.graph.type(ref), self.spmd(ref)
        found: list[int] = []
        for axes in type.dims:
            split = [mesh for axis in axes[:-1] for mesh in spmd.shards(axis)]  # experts of rows sorted by them
            rows = self.axis(axes[-1], spmd)
            found.append(-(-rows // prod(self.ranks[mesh] for mesh in split)) * self._fed_ranks(split))
        return tuple(found)

    def _fed_ranks(self, split: list[str]) -> int:
        """Rows that other ranks send to this rank's experts: as many as it sends away where all are chosen alike."""
        return prod(self.ranks[mesh] for mesh in split if mesh in self._fed)

    def spmd(self, ref: Ref) -> Spmd:
        """How a value is split; whole where there is no mesh."""
        types = self.graph.op(ref.op).types
        return types[ref.out] if types else Spmd()

    def element(self, type: TensorType) -> int:
        """Bytes of one."""
        return BYTES[self.dtype if type.dtype == "float" else type.dtype]

    def bytes(self, ref: Ref) -> int:
        """Of a value."""
        return self.numel(ref) * self.element(self.graph.type(ref))

    @property
    def stored(self) -> int:
        """Bytes of an element of a parameter."""
        return BYTES[self.dtype]

    def casts(self, op: Op) -> bool:
        """Whether an op's parameters are cast where they are used: FSDP2 does so where it gathers them."""
        gathered = any(self.shared(op, n) for n in range(len(op.params)))
        return not gathered and not self.graph.definition(op).wide and self.element(op.outs[0]) < self.stored

    def shared(self, op: Op, n: int) -> int:
        """How many data ranks share out an op's parameter, 0 where a rank has it for itself."""
        over = self.graph.groups.summing(op.uses[n].stored) if op.uses else ()
        return self.graph.groups.size(over) if over else 0

    def param(self, op: Op, n: int) -> int:
        """Of an op's parameter as it is used: split as tensor parallelism splits it, gathered over others (FSDP2)."""
        return prod(self.used(op, n))

    def used(self, op: Op, n: int) -> tuple[int, ...]:
        """The shape of that."""
        axes = [axis.length for axis in op.params[n].axes]
        names = [axis.shard_name for axis in op.params[n].axes]
        for name, ranks in self.ranks.items() if op.uses else ():
            place = op.uses[n].used.at(name)
            if place.kind == "S":
                dim = names.index(place.axis)
                axes[dim] = -(-axes[dim] // ranks)
        return tuple(axes)
