"""The types an operand can have on one mesh axis, as lists that signatures are made of."""

from __future__ import annotations

from specc.ir.types import I, MeshAxis, Place, R, S, TensorType
from specc.ops.base import shardable, splits_tokens


def shards_of(type: TensorType, mesh: MeshAxis, but: tuple[str, ...] = ()) -> list[Place]:
    """S of every axis of the value by which the mesh axis splits anything."""
    axes = (axis for axis in type.axes if splits_tokens(axis, mesh) or shardable(axis, mesh))
    return [S(axis.shard_name) for axis in axes if axis.shard_name not in but]


def use_of(place: Place) -> Place:
    """How a replicated parameter is used by an op whose result has that type."""
    return I if place == I else R


def whole_or_tokens(type: TensorType, mesh: MeshAxis, stream: Place, mixed: tuple[str, ...]) -> list[Place]:
    """The stream type, then every shard that leaves the mixed axes whole, then replicated ones. No partial sums."""
    ordered = [stream, *shards_of(type, mesh, mixed), R, *(() if mesh.data else (I,))]
    allowed = [p for p in ordered if p.kind in ("R", "I", "S") and not (p.kind == "S" and p.axis in mixed)]
    return list(dict.fromkeys(allowed))


def demand(type: TensorType, place: Place) -> Place:
    """What an operand of a pointwise op must be for a result of that type: one without the sharded axis is R."""
    if place.kind == "S" and type.dim(place.axis) is None:
        return R
    return R if place == I and not type.grad else place
