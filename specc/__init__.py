"""specc, a compiler for model specs. Importing it imports neither torch nor a parser; what is used is loaded then."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import fx

    from specc.ir.graph import Graph
    from specc.spec.core import Spec


@dataclass(frozen=True)
class Loaded:
    """A valid spec."""

    spec: Spec

    @cached_property
    def graph(self) -> Graph:
        """The typed graph of the model, before any layout; `.graph.nx` is networkx."""
        from specc.lower import lower
        from specc.passes.dead import dead
        from specc.passes.shapes import shapes

        layout = self.spec.layout()
        return dead(shapes(lower(self.spec.model), layout), layout)

    def module(self, *, dtype: torch.dtype | None = None, seed: int = 0) -> fx.GraphModule:
        """The model as nested fx modules, initialised; float32 unless told otherwise."""
        import torch

        from specc.interpret import init_weights, interpret

        made = interpret(self.graph, dtype=dtype or torch.float32)
        init_weights(made, self.graph, seed)
        return made
