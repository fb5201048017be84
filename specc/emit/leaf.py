"""Leaf modules: what holds the parameters of one op, as torch's own class or as one of the file's own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from specc.emit.forms.base import Form
from specc.ir.graph import Graph
from specc.ir.op import Op, Param, Path, Use, dotted, likeness
from specc.ir.stored import stored
from specc.ir.types import Place, Spmd


@dataclass(frozen=True)
class Held:
    """A parameter in its module: where it is on each mesh axis, what its gradient is there, if forward reads it.

    `cast`: whether it is read in the type in which the file computes, as all ops do that are not `wide`. Where FSDP2
    gathers it, that casts it before.
    One that is not `trained` is a buffer, which every rank has.
    """

    placements: tuple[str, ...]
    grads: tuple[str, ...]
    read: bool
    cast: bool = False
    trained: bool = True


@dataclass(frozen=True, eq=False)
class Leaf:
    """A module: its form, the mesh axes over which it is placed, its parameters, and what its constructor is given."""

    form: Form
    cls: str
    axes: tuple[str, ...]
    splits: tuple[tuple[str, str], ...]  # sizes that mesh axes split, with the axis
    held: tuple[tuple[str, Held], ...]
    sizes: tuple[tuple[str, int], ...]  # by what they measure
    values: tuple[tuple[str, float], ...]  # attributes
    uneven: bool = False  # rows that the ranks cannot share evenly

    @cached_property
    def own(self) -> bool:
        """Whether its class is the file's, not torch's."""
        return bool(self.axes) or self.cast or not {name for name, _ in self.held} <= set(self.form.torch)

    @cached_property
    def cast(self) -> bool:
        """Whether any parameter that it reads is cast."""
        return any(held.read and held.cast for _, held in self.held)

    @cached_property
    def partial(self) -> bool:
        """Whether gradients of whole parameters that it reads are partial sums."""
        return any(held.read and held.grads != held.placements for _, held in self.held)

    def has(self, name: str) -> bool:
        return any(known == name for known, _ in self.held)


@lru_cache(maxsize=4)
def leaves(graph: Graph) -> dict[Path, Leaf]:
    """Every leaf module by its path, in the order of first use. Raises ValueError where none could be."""
    reads: dict[Path, list[tuple[Op, int]]] = {}
    for op in graph.ops:
        for n, param in enumerate(op.params):
            reads.setdefault(param.path[:-1], []).append((op, n))
    known: dict[tuple[object, ...], Leaf] = {}
    found: dict[Path, Leaf] = {}
    for path, ops in reads.items():
        like = tuple([(n, op.params[n].path[-1], op.lowering, _likeness(op)) for op, n in ops])
        if like not in known:
            known[like] = _leaf(graph, path, ops)
        found[path] = known[like]
    _check(graph, found)
    return found


def _likeness(op: Op) -> tuple[object, ...]:
    """Equal for ops that read parameters alike; what is equal is mostly the same object."""
    return likeness(op, (*op.outs, *op.uses))


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
    """What differs between leaves of each class, so that its constructor takes it."""
    found: dict[str, tuple[str, ...]] = {}
    for cls, members in classes(graph).items():
        optional = [name for name in list(members[0].form.params)[1:] if len({leaf.has(name) for leaf in members}) > 1]
        found[cls] = (*optional, *(["partial_grads"] if len({leaf.partial for leaf in members}) > 1 else []))
    return found


def held(graph: Graph, op: Op, n: int) -> Held:
    """How an op reads a parameter, on the mesh axes over which it is placed."""
    param, use = op.params[n], op.uses[n] if op.uses else Use(Spmd(), Spmd())
    if not param.trained:
        return Held((), (), param.role == op.kind, trained=False)
    axes = graph.groups.placing(use.stored)
    names = [axis.shard_name for axis in param.axes]
    placements = tuple(_placement(use.stored.at(axis), names) for axis in axes)
    whole = {"R": "Partial()", "I": "Replicate()"}
    grads = tuple(
        whole[use.used.at(axis).kind] if placement == "Replicate()" else placement
        for axis, placement in zip(axes, placements, strict=True)
    )
    cast = op.outs[0].dtype != "float" and not graph.definition(op).wide and not graph.groups.summing(use.stored)
    return Held(placements, grads, param.role == op.kind, cast)


def _placement(place: Place, names: list[str]) -> str:
    return f"Shard({names.index(place.axis)})" if place.kind == "S" else "Replicate()"


def _leaf(graph: Graph, path: Path, reads: list[tuple[Op, int]]) -> Leaf:
    params: dict[str, tuple[Param, Spmd, Held]] = {}
    lowering = ""
    for op, n in reads:
        param, now = op.params[n], held(graph, op, n)
        spmd = op.uses[n].stored if op.uses else Spmd()
        _, _, before = params.setdefault(str(param.path[-1]), (param, spmd, now))
        if before.read and now.read and before.grads != now.grads:
            raise ValueError(f"{dotted(path)} is read with a partial and with a whole gradient")
        if now.read:
            params[str(param.path[-1])] = (param, spmd, replace(now, read=True))
            lowering = next((how for _, how in op.lowering), lowering)
    first, spmd, _ = next(iter(params.values()))
    op = reads[0][0]
    form = graph.tables.form("bias" if [*params] == ["bias"] else first.role, lowering)
    shape = next(iter(form.params.values()))
    axes = [axis.shard_name for axis in first.axes]
    splits = {shape[axes.index(p.axis)]: m for m, p in spmd.places if p.kind == "S"} if form.splits else {}
    lengths = {size: (axis.name, axis.length) for size, axis in zip(shape, first.axes, strict=True)}
    return Leaf(
        form,
        "".join(form.splits[size].prefix for size in splits) + form.name,
        graph.groups.placing(spmd) if spmd.places else (),
        tuple(splits.items()),
        tuple((name, params[name][2]) for name in form.params if name in params),
        tuple((_measured(lengths[size][0]), lengths[size][1]) for size in form.sizes),
        tuple((name, op.real(name)) for name in form.attrs),
        any(lengths[size][1] % graph.groups.size((axis,)) for size, axis in splits.items()),
    )


def _measured(axis: str) -> str:
    """What an argument measures."""
    first, _, rest = axis.partition("*")
    return "hidden" if first == "ffn" else f"{'kv' if first == 'kv_heads' else 'q'}_dim" if rest else first


def _check(graph: Graph, found: dict[Path, Leaf]) -> None:
    """Every class declares what the graph stores in each of its leaves, as it is stored. Raises ValueError."""
    classes: dict[str, Leaf] = {}
    declared: dict[tuple[str, str], Held] = {}  # what the class of that name says of a parameter
    for path, leaf in found.items():
        first = classes.setdefault(leaf.cls, leaf) if leaf.own else leaf
        if (first.form, first.axes, first.splits, first.cast) != (leaf.form, leaf.axes, leaf.splits, leaf.cast):
            raise ValueError(f"{dotted(path)} is a {leaf.cls}, but not as others are")
        for name, held in leaf.held:
            if leaf.own and declared.setdefault((leaf.cls, name), held).read != held.read:
                raise ValueError(f"{dotted(path)} reads its {name}, other {leaf.cls} do not")
    right: set[tuple[object, ...]] = set()
    for row in stored(graph):
        leaf, name = found[row.param.path[:-1]], str(row.param.path[-1])
        like = (id(leaf), name, row.param.axes, id(row.spmd))
        if like in right:
            continue
        sizes = dict(zip(leaf.form.sizes, (value for _, value in leaf.sizes), strict=True))
        shape = tuple(sizes[size] if size in sizes else int(size) for size in leaf.form.params[name])
        names = [axis.shard_name for axis in row.param.axes]
        has = declared.get((leaf.cls, name), dict(leaf.held)[name])
        said = dict(zip(leaf.axes, has.placements, strict=True)) if has.trained else {}
        wanted = (
            {}
            if not has.trained
            else {m: _placement(p, names) for m, p in row.spmd.places if m in leaf.axes or p.kind == "S"}
        )
        if (shape, said) != (row.shape, wanted):
            raise ValueError(f"{row.name} is {row.shape} {wanted}, but its {leaf.cls} has {shape} {said}")
        right.add(like)
