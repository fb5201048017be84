"""What the parts of a file around the model are written from, in the words of the file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from specc.emit.code import ident
from specc.emit.cuts import Cuts, cuts
from specc.emit.leaf import leaves
from specc.emit.model import StageClass
from specc.ir.graph import Graph
from specc.ir.stored import Stored, stored
from specc.ir.types import MeshAxis
from specc.spec.core import Layout, Model, Stack


@dataclass(frozen=True)
class Context:
    """`stages` in order; one, the whole model, for a layout without pipeline."""

    graph: Graph
    layout: Layout
    model: Model
    stages: tuple[StageClass, ...]

    @property
    def pp(self) -> bool:
        return len(self.stages) > 1

    @property
    def casts(self) -> bool:
        """Whether the file says in what type it computes."""
        return self.graph.type(self.graph.outputs[0]).dtype != "float"

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the mesh, outer to inner."""
        return (*(("pp",) if self.pp else ()), *(axis.name for axis in self.graph.mesh))

    @property
    def data(self) -> tuple[str, ...]:
        """Axes whose ranks are fed different tokens."""
        return self.graph.groups.data

    @property
    def parted(self) -> tuple[MeshAxis, ...]:
        """Axes whose ranks hold parts of every row, outer to inner."""
        return tuple(axis for axis in self.graph.mesh if axis.data and set(axis.tokens) & set(self.lengths))

    @property
    def apart(self) -> bool:
        """Whether ranks are fed rows of their own."""
        return any(axis.data and "batch" in axis.tokens for axis in self.graph.mesh)

    @property
    def elastic(self) -> str | None:
        """The axis that takes as many ranks as there are: it splits the batch and nothing else."""
        axes = (axis for axis in self.graph.mesh if axis.data and "batch" in axis.tokens and not axis.shards)
        return next((axis.name for axis in axes), None)

    @cached_property
    def own(self) -> dict[tuple[str, ...], tuple[str, ...]]:
        """Leaf classes whose gradients are summed over fewer axes than others, by these axes.

        Raises ValueError for one that FSDP2 would gather in a forward which it has not.
        """
        found: dict[tuple[str, ...], dict[str, None]] = {}
        for param in self.params if self.data else ():
            axes, leaf = self.graph.groups.summing(param.spmd), leaves(self.graph)[param.param.path[:-1]]
            if axes and axes != self.data and not leaf.form.inputs:
                raise ValueError(f"{param.name} is gathered by its own {leaf.cls}, which has no forward that reads it")
            if axes != self.data:
                found.setdefault(axes, {})[leaf.cls] = None
        return {axes: tuple(names) for axes, names in found.items()}

    @cached_property
    def joined(self) -> dict[tuple[str, ...], str]:
        """Functions of the file that give several axes as one, by the axes: gradients are summed over them."""
        wanted = dict.fromkeys([self.data, *self.own])
        return {axes: "data" if axes == self.data else "_".join(axes) for axes in wanted if len(axes) > 1}

    def ranks(self, axes: tuple[str, ...], mesh: str = "mesh") -> str:
        """The ranks along these axes, as a mesh of one axis."""
        return f"{self.joined[axes]}({mesh})" if axes in self.joined else f'{mesh}["{axes[0]}"]'

    @cached_property
    def params(self) -> tuple[Stored, ...]:
        return stored(self.graph)

    @cached_property
    def tied(self) -> tuple[Stored, ...]:
        """Parameters that several stages hold."""
        return tuple(param for param in self.params if param.tied)

    @cached_property
    def shared(self) -> dict[str, tuple[int, ...]]:
        """Of parameters that several ranks of the pipeline hold: which, the one of the first stage first."""
        rank = self.layout.pp.rank
        held = {param.name: tuple(dict.fromkeys(map(rank, param.stages))) for param in self.tied}
        return {name: ranks for name, ranks in held.items() if len(ranks) > 1}

    @property
    def mirrored(self) -> bool:
        """Whether some rank of the pipeline has a parameter in several of its stages."""
        return any(len(set(map(self.layout.pp.rank, param.stages))) < len(param.stages) for param in self.tied)

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        return tuple(str(ident(op.hint)) for op in self.graph.inputs)

    @cached_property
    def passed(self) -> tuple[str, ...]:
        """Inputs that every stage is fed; the others are the first stage's."""
        return tuple(str(ident(op.hint)) for op in self.graph.passed)

    @cached_property
    def lengths(self) -> tuple[str, ...]:
        """Names of the lengths of the inputs, in order."""
        axes = (axis for op in self.graph.inputs for axis in op.outs[0].axes[1:])
        return tuple(dict.fromkeys(axis.size for axis in axes if isinstance(axis.size, str)))

    @cached_property
    def sizes(self) -> tuple[tuple[str, ...], ...]:
        """Of each input, of all its dims."""
        return tuple(tuple(str(axis.size) for axis in op.outs[0].axes) for op in self.graph.inputs)

    @cached_property
    def numbers(self) -> tuple[str, ...]:
        """Inputs that are no whole numbers."""
        return tuple(str(ident(op.hint)) for op in self.graph.inputs if op.outs[0].dtype != "int64")

    @cached_property
    def random(self) -> bool:
        """Whether training draws random numbers."""
        return any(self.graph.definition(op).random(op) for op in self.graph.ops)

    @property
    def ends(self) -> tuple[int | None, ...]:
        """What each input may be filled up with behind; None where other tokens would see it."""
        found = [_end(self.model, stack) for stack in self.model.stacks]
        return (*found, *[0] * (len(self.inputs) - len(found)))

    @cached_property
    def cuts(self) -> Cuts:
        return cuts(self.graph, self.stages)

    @property
    def distributed(self) -> bool:
        """Whether parameters are DTensors."""
        return bool(self.graph.mesh)


def _end(model: Model, stack: Stack) -> int | None:
    """A token behind those of a stack that none of them sees: padding, or any behind a causal mask."""
    if model.embed_of(stack).stem is not None:
        return None
    if stack.role == "encoder" and model.pad is not None:
        return model.pad
    if "mask" in model.inputs:
        return 0
    pool = model.head.pool
    if pool is not None and pool.token is None and pool.how != "first":
        return None
    branches = [branch for run in stack.runs for block in run.blocks for s in block.sublayers for branch in s.branches]
    read = stack.role == "encoder" and len(model.stacks) > 1
    return None if read or not all(getattr(branch.component, "causal", True) for branch in branches) else 0


def of_mesh(name: str, graph: Graph, mesh: str = "mesh") -> str:
    """The part of the mesh that a module calls by that name: an axis, or several joined."""
    axes = [axis.name for axis in graph.mesh]
    names = [name] if name in axes else name.split("_")
    quoted = ", ".join(f'"{axis}"' for axis in names)
    return f"{mesh}[{quoted}]"
