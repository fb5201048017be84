"""Arithmetic of repeats: which layers run which block, on which pipeline stage."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from specc.ir.op import Layer, Op, OpError, Path, Span


@dataclass(frozen=True)
class Repeat:
    """What an op `repeat` says. `path` is where its layers stand, `run` its number among the runs of that stack.

    `spans` are there where one scope is several equal stages: the layers of each. `shared` are names of blocks whose
    layers have one set of parameters, by the place in the period, "" for others.
    """

    op: Op
    path: Path
    run: int
    start: int
    n: int
    period: int
    spans: tuple[Span, ...]
    shared: tuple[str, ...] = ()

    @staticmethod
    def of(op: Op) -> Repeat:
        """Raises KeyError, OpError."""
        path = (*op.scope, op.text("path"))
        run, start, n, period = (op.number(name) for name in ("run", "start", "n", "period"))
        return Repeat(op, path, run, start, n, period, _spans(op), _names(op))

    @property
    def carries(self) -> int:
        """How many values each layer hands on to the next."""
        return len(self.op.inputs)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Places of the period that some layer has, in the order in which they first run."""
        return tuple((self.start + i) % self.period for i in range(min(self.n, self.period)))

    @cached_property
    def blocks(self) -> tuple[Path, ...]:
        """Scopes of the blocks that some layer runs, in the order in which they first run."""
        return tuple((*self.path, Layer(offset, self.run)) for offset in self.offsets)

    def shared_by(self, offset: int) -> str:
        """The name of the block at that place of the period, where its layers share their parameters, else ""."""
        return self.shared[offset] if self.shared else ""

    def layers(self, offset: int, span: Span | None = None) -> range:
        """Numbers of the layers that run the block at that place of the period, in all or on one stage."""
        start, n = (self.start, self.n) if span is None else (span.start, span.n)
        return range(start + (offset - start) % self.period, start + n, self.period)

    def span(self, stage: int) -> Span:
        """What a stage that runs the repeat runs of it."""
        return next((span for span in self.spans if span.stage == stage), Span(stage, self.start, self.n))


def _spans(op: Op) -> tuple[Span, ...]:
    spans = dict(op.attrs).get("spans", ())
    found = tuple(span for span in spans if isinstance(span, Span)) if isinstance(spans, tuple) else ()
    if found != spans:
        raise OpError(op, f"has the spans {spans}")
    return found


def _names(op: Op) -> tuple[str, ...]:
    names = dict(op.attrs).get("shared", ())
    found = tuple(name for name in names if isinstance(name, str)) if isinstance(names, tuple) else ()
    if found != names or (found and len(found) != op.number("period")):
        raise OpError(op, f"shares {names}")
    return found


def layer_of(path: Path) -> Layer | None:
    """The component that stands for a layer, None outside repeats."""
    for part in path:
        if isinstance(part, Layer):
            return part
    return None


def layer_scope(path: Path) -> Path | None:
    """The path up to its layer, None outside repeats."""
    for n, part in enumerate(path, 1):
        if isinstance(part, Layer):
            return path[:n]
    return None
