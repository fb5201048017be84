"""Named axes, tensor types and SPMD types (the vocabulary of `spmd_types`, per mesh axis)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import NamedTuple

TOKEN_AXES = ("seq", "source", "target")
UNEVEN = ("vocab", "ffn")
"""Axes of which ranks may hold different numbers, as torch.chunk parts them. Nothing joins such shards."""
Size = int | str
"""A number, or the name of a size that is known when the model runs ("batch", "seq")."""


class Axis(NamedTuple):
    """A tensor axis. A compound one ("heads*head_dim") shards by its first factor, a ragged one anywhere.

    A ragged one and the axis before it are one dim: rows of the first expert, rows of the second, and so on. Where its
    size stands for that of another, its factors say how many it has for each of those (rows of a token).
    """

    name: str
    size: Size
    ragged: bool = False  # the size is a value (rows per expert)
    factors: tuple[tuple[str, int], ...] = ()  # of a compound one, outer to inner; or see above
    whole: bool = False  # no mesh axis splits it: the layout says so

    @staticmethod
    def of(**factors: int) -> Axis:
        """`Axis.of(heads=4, head_dim=8)` is heads*head_dim=32."""
        return Axis("*".join(factors), prod(factors.values()), factors=tuple(factors.items()))

    @property
    def shard_name(self) -> str:
        return self.name.split("*")[0] if "*" in self.name else self.name

    def divides(self, ranks: int) -> bool:
        """Whether ranks can hold equal shards, whole elements of the first factor each; of unknown sizes, they can."""
        size = self.factors[0][1] if self.factors else self.size
        return self.ragged or isinstance(size, str) or size % ranks == 0

    def elements(self, symbols: Mapping[str, int]) -> int:
        """The size for given sizes of the symbols."""
        each = (number for _, number in self.factors)
        return self.size if isinstance(self.size, int) else prod(each, start=symbols[self.size])

    @property
    def length(self) -> int:
        """The size where it is a number. Raises ValueError."""
        if not isinstance(self.size, int):
            raise ValueError(f"{self.name} has the size {self.size}, which is known only when the model runs")
        return self.size


@dataclass(frozen=True, slots=True)
class TensorType:
    """Axes, outer to inner, the element type, and whether the value carries gradient."""

    axes: tuple[Axis, ...]
    dtype: str = "float"  # as torch says it; "float" is the dtype of the parameters
    grad: bool = True

    @property
    def dims(self) -> tuple[tuple[Axis, ...], ...]:
        """The axes of each dim of the tensor: one, or a ragged one and the axis before it."""
        found: list[tuple[Axis, ...]] = []
        for axis in self.axes:
            found.append((*(found.pop() if axis.ragged and found else ()), axis))
        return tuple(found)

    def dim(self, shard_name: str) -> int | None:
        """Index of the dim that shards by that name."""
        return next((n for n, axes in enumerate(self.dims) if shard_name in [a.shard_name for a in axes]), None)

    def numel(self, symbols: Mapping[str, int]) -> int:
        """Number of elements for given sizes of the symbols."""
        return prod(axes[-1].elements(symbols) for axes in self.dims)

    def __str__(self) -> str:
        axes = ", ".join(a.name if a.name == str(a.size) else f"{a.name}={a.size}" for a in self.axes)
        return f"{self.dtype}[{axes}]{'' if self.grad else ' no-grad'}"


@dataclass(frozen=True, slots=True)
class Place:
    """Type of a value on one mesh axis.

    R: replicated, gradient partial. I: replicated, gradient replicated. V: varying. P: partial sum. S: sharded by axis.
    """

    kind: str
    axis: str = ""

    def __str__(self) -> str:
        return f"S({self.axis})" if self.kind == "S" else self.kind


R, I, V, P = Place("R"), Place("I"), Place("V"), Place("P")  # noqa: E741 (the field's letters)


def S(axis: str) -> Place:
    """Sharded by that axis."""
    return Place("S", axis)


@dataclass(frozen=True, slots=True)
class Spmd:
    """A type over the whole mesh; `nesting` lists, per sharded tensor axis, its mesh axes from outer to inner."""

    places: tuple[tuple[str, Place], ...] = ()
    nesting: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @staticmethod
    def of(places: dict[str, Place]) -> Spmd:
        """Shards of one axis nest in the order of `places`."""
        return _spmd(tuple(places.items()))

    def at(self, mesh_axis: str) -> Place:
        """The type on one mesh axis. Raises KeyError."""
        for name, place in self.places:
            if name == mesh_axis:
                return place
        raise KeyError(mesh_axis)

    def put(self, mesh_axis: str, place: Place) -> Spmd:
        """This type with another place on one mesh axis; a shard is added or removed as the innermost one."""
        return _put(self, mesh_axis, place)

    def shards(self, axis: Axis) -> tuple[str, ...]:
        """Mesh axes that split the tensor axis, outer to inner."""
        return dict(self.nesting).get(axis.shard_name, ())

    def __str__(self) -> str:
        return " ".join(f"{m}:{p}" for m, p in self.places)


@lru_cache(maxsize=1024)
def _put(type: Spmd, mesh_axis: str, place: Place) -> Spmd:
    nesting = dict(type.nesting)
    old = dict(type.places).get(mesh_axis)
    if old is not None and old.kind == "S":
        order = nesting[old.axis]
        if order[-1] != mesh_axis:
            raise ValueError(f"only the innermost shard of {old.axis} can be converted, not {mesh_axis} of {order}")
        nesting[old.axis] = order[:-1]
    if place.kind == "S":
        nesting[place.axis] = (*nesting.get(place.axis, ()), mesh_axis)
    places = {**dict(type.places), mesh_axis: place}
    return Spmd(tuple(places.items()), tuple(sorted((a, m) for a, m in nesting.items() if m)))


@lru_cache(maxsize=1024)
def _spmd(places: tuple[tuple[str, Place], ...]) -> Spmd:
    """A model has few types, but many values."""
    result = Spmd()
    for mesh_axis, place in places:
        result = result.put(mesh_axis, place)
    return result


@dataclass(frozen=True, slots=True)
class MeshAxis:
    """An axis of the device mesh: which token axes it splits, and by which names it splits parameters.

    `data`: its ranks are fed different tokens, so gradients of what it does not split are sums over it. Else all of
    its ranks are fed the same. `heads`: by which names attention may split values over it, in place of tokens.
    """

    name: str
    size: int
    tokens: tuple[str, ...] = ()
    shards: tuple[str, ...] = ()
    data: bool = False
    heads: tuple[str, ...] = ()
