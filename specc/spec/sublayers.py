"""Blocks of the core form: every sublayer a residual update, every dimension filled in."""

from __future__ import annotations

from dataclasses import dataclass, field

from specc.components.norm import Norm
from specc.source import Path
from specc.spec.blocks import Written, component_name
from specc.spec.core import Block, Branch, Sublayer
from specc.spec.document import BranchDoc, Document, GeneralDoc, ParallelDoc, SublayerDoc
from specc.spec.grammar import expected
from specc.spec.report import Report


def expand(block: Written, document: Document, role: str, report: Report) -> Block:
    """The block as a stack of that role runs it."""
    return _Expander(block, document, role, report).block()


def model_norm(document: Document) -> Norm:
    """The norm of whatever does not state its own."""
    return Norm(**document.norm.model_dump(exclude={"placement"})).resolved()


@dataclass
class _Expander:
    """Expands the sublayers of one block."""

    written: Written
    document: Document
    role: str
    report: Report
    counts: dict[str, int] = field(default_factory=dict[str, int])

    def block(self) -> Block:
        at = self.written.at
        self.norm = model_norm(self.document)
        sublayers = [self._sublayer(item, (*at, n)) for n, item in enumerate(self.written.sublayers)]
        return Block(self.written.name, tuple(item for item in sublayers if item is not None), at)

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(self.report.language.tables.components)

    def _sublayer(self, doc: SublayerDoc, at: Path) -> Sublayer | None:
        if not self._one(doc, (*self.kinds, "parallel", "sublayer"), "a sublayer", at):
            return None
        if doc.sublayer is not None:
            return self._general(doc.sublayer, (*at, "sublayer"))
        post = self.document.norm.placement == "post"
        norm, after = (None, self.norm) if post else (self.norm, None)
        if doc.parallel is None:
            branch = self._branch(doc, at, norm)
            return None if branch is None else Sublayer((branch,), after=after)
        branches = [self._branch(item, (*at, "parallel", n), None) for n, item in enumerate(doc.parallel)]
        return Sublayer(tuple(branch for branch in branches if branch is not None), norm=norm, after=after)

    def _general(self, doc: GeneralDoc, at: Path) -> Sublayer:
        shared = self._norm(doc.norm)
        if doc.base == "normed" and shared is None:
            message = "base: normed needs a norm that all branches share"
            self.report.add("E224", (*at, "base"), message, "give norm, or leave base out", reads=[(*at, "norm")])
        branches = [self._branch(item, (*at, "branches", n), None) for n, item in enumerate(doc.branches)]
        kept = tuple(branch for branch in branches if branch is not None)
        if shared is not None and doc.base == "stream" and kept and all(branch.pre for branch in kept):
            message = "nothing reads this norm: every branch has its own pre, and base is the stream"
            self.report.add("E229", (*at, "norm"), message, "leave it out, or set base: normed", reads=[at], key=True)
        return Sublayer(kept, shared, doc.base, doc.alpha, doc.beta, self._norm(doc.after), at)

    def _norm(self, value: bool | Norm) -> Norm | None:
        if isinstance(value, bool):
            return self.norm if value else None
        return value.resolved()

    def _one(self, doc: ParallelDoc, keys: tuple[str, ...], what: str, at: Path) -> bool:
        """Whether exactly one of the keys is given."""
        given = [key for key in keys if getattr(doc, key) is not None]
        if not given and (null := [key for key in keys if key in doc.model_fields_set]):
            message = f"{null[0]} must be {expected(type(doc), (null[0],))}, not null"
            self.report.add("E205", (*at, null[0]), message)
            self.report.broken(at)
        elif len(given) != 1:
            message = f"{what} is one of {', '.join(keys)}, this is {' and '.join(given) or 'none of them'}"
            self.report.add("E223", at, message, "make each an item of its own" if given else None)
            self.report.broken(at)
        return len(given) == 1

    def _branch(self, doc: ParallelDoc, at: Path, pre: Norm | None) -> Branch | None:
        if not self._one(doc, self.kinds, "a branch", at):
            return None
        kind = next(key for key in self.kinds if getattr(doc, key) is not None)
        self.counts[kind] = self.counts.get(kind, 0) + 1
        name = component_name(kind, self.counts[kind])
        place, *under = self.written.places(name, (*at, kind))
        config = getattr(doc, kind)
        component = self.report.language.tables.component(config).resolve(config, self.document.d_model, self.role)
        dropout = self.document.dropout
        if not isinstance(doc, BranchDoc):
            return Branch(name, component, place, pre=pre, dropout=dropout, under=tuple(under))
        return Branch(
            name,
            component,
            place,
            self._norm(doc.pre),
            self._norm(doc.post),
            doc.in_scale,
            doc.out_scale,
            doc.layerscale,
            dropout if doc.dropout is None else doc.dropout,
            tuple(under),
            at,
        )
