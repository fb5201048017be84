"""What the axes of a device mesh are for: whom a rank talks to about data, about a parameter, about the model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod

from specc.ir.types import MeshAxis, Spmd


@dataclass(frozen=True)
class Groups:
    """Roles of the axes of a mesh, each kept outer to inner."""

    mesh: tuple[MeshAxis, ...]

    @cached_property
    def data(self) -> tuple[str, ...]:
        """Axes whose ranks are fed different tokens."""
        return tuple(axis.name for axis in self.mesh if axis.data)

    @cached_property
    def model(self) -> tuple[str, ...]:
        """Axes whose ranks are fed the same tokens."""
        return tuple(axis.name for axis in self.mesh if not axis.data)

    def splitting(self, stored: Spmd) -> tuple[str, ...]:
        """Axes each rank of which holds a part of a parameter."""
        return tuple(axis.name for axis in self.mesh if stored.at(axis.name).kind == "S")

    def placing(self, stored: Spmd) -> tuple[str, ...]:
        """Axes over which the model itself places a parameter: all of `model`, and those of `data` that split it."""
        split = self.splitting(stored)
        return tuple(axis.name for axis in self.mesh if not axis.data or axis.name in split)

    def summing(self, stored: Spmd) -> tuple[str, ...]:
        """Axes over which the gradient of a parameter is summed, and over which FSDP shards it."""
        split = self.splitting(stored)
        return tuple(name for name in self.data if name not in split)

    @property
    def averaged(self) -> bool:
        """Whether FSDP may average gradients: one group of ranks sums all of them. Else each sum is taken as it is."""
        return not any(axis.data and axis.shards for axis in self.mesh)

    def size(self, names: tuple[str, ...]) -> int:
        """Ranks of a group of axes."""
        return prod(axis.size for axis in self.mesh if axis.name in names)
