"""What `import specc` has. Importing it is cheap: what a function needs, it imports."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import fx

    from specc.extension import Extension
    from specc.ir.graph import Graph
    from specc.source import Diagnostic
    from specc.spec.core import Spec


class SpecError(ValueError):
    """A spec has errors; all that were found are in `diagnostics`."""

    def __init__(self, diagnostics: list[Diagnostic]):
        from specc.source import render

        super().__init__("\n\n".join(render(diagnostic) for diagnostic in diagnostics))
        self.diagnostics = diagnostics


@dataclass(frozen=True)
class Loaded:
    """A valid spec."""

    spec: Spec

    @cached_property
    def graph(self) -> Graph:
        """The typed graph of the model, before any layout; `.graph.nx` is networkx."""
        from specc.lower import lower
        from specc.passes import typed

        return typed(lower(self.spec.model))

    def module(self, *, dtype: torch.dtype | None = None, seed: int = 0) -> fx.GraphModule:
        """The model as nested fx modules, initialised; float32 unless told otherwise."""
        from specc.interpret import init_weights, interpret

        made = interpret(self.graph) if dtype is None else interpret(self.graph, dtype=dtype)
        init_weights(made, self.graph, seed)
        return made


def load(
    path: str | Path, extensions: tuple[Extension, ...] | None = None, *, allow_components: bool = False
) -> Loaded:
    """The spec in a file, in the language that extensions make; None: those of installed packages.

    `allow_components`: run the Python files that the spec names as `components`.
    Raises SpecError, and ExtensionError where an extension cannot be loaded.
    """
    from specc.compile import compile_spec
    from specc.extension import installed
    from specc.source import read
    from specc.spec import load as load_source
    from specc.tables import tables

    source = read(path)
    found = (
        source
        if isinstance(source, list)
        else load_source(source, tables(installed() if extensions is None else extensions), allow_components)
    )
    if isinstance(found, list):
        raise SpecError(found)
    findings = [finding for layout in found.layouts for finding in compile_spec(found, layout).findings]
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        raise SpecError(errors)
    return Loaded(found)
