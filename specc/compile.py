"""A spec compiled for one of its layouts: the graph after every pass, and what is to be said of it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from specc.ir.graph import Graph
from specc.ir.op import OpError
from specc.lower import lower
from specc.passes import run, second
from specc.passes.balance import start_findings
from specc.passes.checkpoint import checkpoint
from specc.passes.context import context_findings
from specc.passes.first_values import init_findings
from specc.passes.idle import idle_findings
from specc.passes.saves import save_findings
from specc.passes.split import split_findings
from specc.source import Diagnostic, span_of
from specc.spec.core import Layout, Spec


@dataclass(frozen=True)
class Compiled:
    """`passes` holds the graph as lowered and after each pass, by the pass's name."""

    passes: dict[str, Graph]
    findings: list[Diagnostic]
    decode: Graph | None = None
    """The second entry, where the layout generates, after all passes."""

    @property
    def model(self) -> Graph:
        """Typed, before anything of the layout."""
        return self.passes["fold"]

    @property
    def placed(self) -> Graph:
        """After all passes."""
        return self.passes["legality"]


@contextmanager
def noted(doing: str, spec: Spec, layout: Layout) -> Generator[None, None, None]:
    """Exceptions say for which spec and layout it was, and the place that the op comes from."""
    try:
        yield
    except Exception as error:
        error.add_note(f"while {doing} {spec.file}{f', layout {layout.name}' if layout.name else ''}")
        if isinstance(error, OpError) and spec.root is not None:
            error.add_note(f"at {span_of(spec.root, error.op.at)}")
        raise


def compile_spec(spec: Spec, layout: Layout, like: Compiled | None = None) -> Compiled:
    """What only a graph shows (E241, E249, E413, E434, E435, E441, W501, W502, W503) is in `findings`.

    Nothing is emitted of one with errors.

    `like` is the same model in a layout that differs only in what runs again: its graphs are shared up to there.

    Any exception is a bug; it gets notes that name the spec, the layout and the place the op comes from.
    """
    with noted("compiling", spec, layout):
        if like is None:
            graph = lower(spec.model)
            passes = {"lower": graph, **dict(run(graph, layout))}
        else:
            passes = {**like.passes, **dict(run(like.passes["check"], layout, checkpoint))}
        decode = second(passes["lower"], layout) if layout.generate else None
    findings = [
        *idle_findings(passes["fold"], spec.model.inputs, spec.root),
        *init_findings(passes["lower"], spec.model.init, spec.root),
        *context_findings(passes["fold"], layout, spec.root),
        *start_findings(passes["fold"], layout, spec.root),
        *save_findings(passes["legality"], layout, spec.root),
        *split_findings(passes["legality"], layout, spec.root),
    ]
    return Compiled(passes, findings, decode)
