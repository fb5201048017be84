"""Leaf modules: what holds the parameters of one op, as torch's own class or as one of the file's parallel ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from specc.ir.graph import Graph
from specc.ir.op import Op, OpError, Param, Path, Use

READS = ("Embedding", "RMSNorm", "LayerNorm")  # classes that read a replicated parameter themselves
OPTIONS = ("bias", "partial_grads")
ROLES = {"rms_norm": "RMSNorm", "layer_norm": "LayerNorm", "channel_scale": "ChannelScale"}


@dataclass(frozen=True)
class Leaf:
    """A module. `partial_grads`: whether gradients of the replicated parameters it reads are partial sums."""

    cls: str
    own: bool  # a class of the file, not of torch.nn
    sizes: tuple[tuple[str, int], ...]
    bias: bool
    partial_grads: bool
    eps: float | None
    uneven: bool = False  # rows that the ranks cannot share evenly


@dataclass(frozen=True)
class _Read:
    """A parameter as one op reads it."""

    op: Op
    param: Param
    use: Use | None


def model_axis(graph: Graph) -> tuple[str, int] | None:
    """Name and size of the mesh axis that splits parameters. Raises ValueError for several."""
    axes = [(axis.name, axis.size) for axis in graph.mesh if not axis.data]
    if len(axes) > 1:
        raise ValueError(f"parameters are split over several mesh axes: {axes}")
    return axes[0] if axes else None


@lru_cache(maxsize=4)
def leaves(graph: Graph) -> dict[Path, Leaf]:
    """Every leaf module by its path, in the order of first use."""
    reads: dict[Path, list[_Read]] = {}
    for op in graph.ops:
        for n, param in enumerate(op.params):
            reads.setdefault(param.path[:-1], []).append(_Read(op, param, op.uses[n] if op.uses else None))
    return {path: _leaf(graph, path, found) for path, found in reads.items()}


@lru_cache(maxsize=4)
def classes(graph: Graph) -> dict[str, tuple[Leaf, ...]]:
    """The file's own leaf classes by name, with the leaves that are of each."""
    found: dict[str, list[Leaf]] = {}
    for leaf in leaves(graph).values():
        if leaf.own:
            found.setdefault(leaf.cls, []).append(leaf)
    return {name: tuple(leaves) for name, leaves in found.items()}


@lru_cache(maxsize=4)
def options(graph: Graph) -> dict[str, tuple[str, ...]]:
    """Which of the options differ between leaves of each class, so that its constructor takes them."""
    return {
        cls: tuple(name for name in OPTIONS if len({getattr(leaf, name) for leaf in leaves}) > 1)
        for cls, leaves in classes(graph).items()
    }


def _leaf(graph: Graph, path: Path, reads: list[_Read]) -> Leaf:
    names = {read.param.path[-1] for read in reads}
    first = next((read for read in reads if read.param.path[-1] == "weight"), reads[0])
    axis = model_axis(graph)
    cls = _class(first, axis)
    partial = False
    uneven = False
    if axis is not None:
        uses = [read.use for read in reads if read.use is not None]
        whole = [use.used.at(axis[0]).kind == "R" for use in uses if use.stored.at(axis[0]).kind != "S"]
        partial = any(whole) and cls in READS
        if any(whole) and not all(whole):
            raise ValueError(f"{'.'.join(map(str, path))} is read with a partial and with a whole gradient")
        rows = first.param.axes[0].size
        uneven = isinstance(rows, int) and bool(rows % axis[1])
    own = axis is not None or cls in ("ChannelScale", "Bias") or (cls == "RMSNorm" and "bias" in names)
    eps = first.op.attr("eps") if cls in ("RMSNorm", "LayerNorm") else None
    assert eps is None or isinstance(eps, float)
    return Leaf(cls, own, _sizes(cls, first.param), "bias" in names, partial, eps, uneven)


def _class(read: _Read, axis: tuple[str, int] | None) -> str:
    role = read.param.role
    if role in ROLES:
        return ROLES[role]
    if read.param.path[-1] == "bias":
        return "Bias"
    stored = read.use.stored.at(axis[0]) if axis is not None and read.use is not None else None
    split = stored is not None and stored.kind == "S"
    out = split and stored is not None and stored.axis == read.param.axes[0].shard_name
    if role == "embedding":
        return "VocabEmbedding" if split else "Embedding"
    if axis is not None and not split:
        raise OpError(read.op, f"a linear that {axis[0]} does not split has no class")
    return "Linear" if axis is None else "ColumnLinear" if out else "RowLinear"


def _sizes(cls: str, param: Param) -> tuple[tuple[str, int], ...]:
    """Constructor arguments in order, each with a name that says what it measures."""
    axes = reversed(param.axes) if cls.endswith("Linear") else param.axes
    found: list[tuple[str, int]] = []
    for axis in axes:
        first, _, rest = axis.name.partition("*")
        name = "hidden" if first == "ffn" else f"{'kv' if first == 'kv_heads' else 'q'}_dim" if rest else first
        found.append((name, axis.length))
    return tuple(found)
