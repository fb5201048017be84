"""Blocks of the core form: every sublayer a residual update, every dimension filled in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from specc.components.base import Config
from specc.components.norm import Norm
from specc.source import Path, shown
from specc.spec.blocks import Written, component_name
from specc.spec.core import Block, Branch, Sublayer
from specc.spec.document import BranchDoc, Document, SublayerDoc
from specc.spec.formulas import Formulas
from specc.spec.grammar import expected
from specc.spec.norms import Norms
from specc.spec.report import Report
from specc.spec.stated import place

BRANCH = ("pre", "in_scale", "out_scale", "layerscale", "dropout", "into")
"""Keys of a branch that mean nothing beside `parallel`."""


@dataclass(frozen=True)
class Frame:
    """What the sublayers of a stack take where they say nothing of their own."""

    document: Document
    role: Literal["encoder", "decoder"]
    norms: Norms
    names: Mapping[str, float]
    """What arithmetic may read, but for the number of a layer."""

    def formulas(self, report: Report) -> Formulas:
        """Outside of layers."""
        return Formulas(report, self.names)


@dataclass(frozen=True)
class Expanded:
    """A block, and whether it is so in this layer alone."""

    block: Block
    by_layer: bool


def expand(block: Written, frame: Frame, layer: int, report: Report) -> Expanded:
    """The block as that layer of a stack runs it."""
    formulas = Formulas(report, {**frame.names, "layer": layer})
    made = _Expander(block, frame, formulas, report).block()
    return Expanded(made, formulas.by_layer)


@dataclass
class _Expander:
    """Expands the sublayers of one block."""

    written: Written
    frame: Frame
    formulas: Formulas
    report: Report
    counts: dict[str, int] = field(default_factory=dict[str, int])

    def block(self) -> Block:
        sublayers: list[Sublayer | None] = []
        for part in self.written.parts or (self.written,):
            self.part, self.own = part, dict[str, int]()
            sublayers += [self._sublayer(item, (*part.at, n)) for n, item in enumerate(part.sublayers)]
        made = tuple(item for item in sublayers if item is not None)
        self._kept(made)
        return Block(self.written.name, made, self.written.at)

    def _kept(self, sublayers: tuple[Sublayer, ...]) -> None:
        """What is kept is added once or more, after that and in the same block."""
        kept: dict[str, Path] = {}
        added: set[str] = set()
        for sublayer in sublayers:
            for n, name in enumerate(sublayer.add):
                if name not in kept:
                    help = self.report.suggestion(name, kept, "kept outputs")
                    self.report.add("E267", (*sublayer.at, "add", n), f"nothing before this is kept as {name}", help)
            added |= {*sublayer.add}
            for name, at in ((branch.into, (*branch.around, "into")) for branch in sublayer.branches):
                if name in kept:
                    self.report.add("E267", at, f"{shown(name)} is kept twice", "give it another name")
                kept |= {} if name is None else {name: at}
        for name in (name for name in kept if name not in added):
            message = f"{shown(name)} is kept and never added"
            self.report.add(
                "E267", kept[name], message, f"give a later sublayer add: [{shown(name)}], or leave into out"
            )

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(self.report.language.tables.components)

    def _sublayer(self, doc: SublayerDoc, at: Path) -> Sublayer | None:
        if not self._one(doc, (*self.kinds, "parallel"), "a sublayer", at):
            return None
        norms = self.frame.norms.placed(doc.placement, doc, at)
        if doc.parallel is None:
            parts: list[tuple[BranchDoc, Path]] = [(doc, at)]
        else:
            parts = [(item, (*at, "parallel", n)) for n, item in enumerate(doc.parallel)]
            for key in BRANCH:
                if key in doc.model_fields_set:
                    message = f"{key} is of one component, and parallel has {len(parts)}"
                    self.report.add("E263", (*at, key), message, "give it to each of them", key=True)
        base = self.frame.document.residual.base if doc.base is None else doc.base
        shared, pre = norms.first(doc, [part for part, _ in parts], base, at)
        if base == "normed" and shared is None:
            message = "base: normed needs a norm that all branches share"
            place = ("residual", "base") if doc.base is None else (*at, "base")
            self.report.add("E224", place, message, "give norm, or leave base out", reads=[(*at, "norm")])
        alone = doc.parallel is None
        branches = [
            self._branch(part, place, pre if alone else norms.own(part, "pre", False, place), alone, norms)
            for part, place in parts
        ]
        kept = tuple(branch for branch in branches if branch is not None)
        if shared is not None and base == "stream" and kept and all(branch.pre for branch in kept):
            message = "nothing reads this norm: every branch has its own pre, and base is the stream"
            self.report.add("E229", (*at, "norm"), message, "leave it out, or set base: normed", reads=[at], key=True)
        return Sublayer(
            kept,
            shared,
            base,
            self._factor(doc, "alpha", at),
            self._factor(doc, "beta", at),
            norms.last(doc, "after", at),
            at,
            None if alone else norms.last(doc, "post", at),
            tuple(doc.add),
            doc.after_scale,
        )

    def _factor(self, doc: SublayerDoc, key: str, at: Path) -> float:
        """Its own, or that of every residual update."""
        if getattr(doc, key) is None:
            return self.formulas.number(self.frame.document.residual, key, ("residual",))
        return self.formulas.number(doc, key, at)

    def _one(self, doc: BranchDoc, keys: tuple[str, ...], what: str, at: Path) -> bool:
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

    def _branch(self, doc: BranchDoc, at: Path, pre: Norm | None, alone: bool, norms: Norms) -> Branch | None:
        if not self._one(doc, self.kinds, "a branch", at):
            return None
        kind = next(key for key in self.kinds if getattr(doc, key) is not None)
        self.counts[kind] = self.counts.get(kind, 0) + 1
        kinds = self.report.language.tables.components
        name = component_name(kind, self.counts[kind], kinds)
        self.own[kind] = self.own.get(kind, 0) + 1
        own, *under = self.part.places(component_name(kind, self.own[kind], kinds), (*at, kind))
        config, d_model = getattr(doc, kind), self.frame.norms.d_model
        known = self.report.language.tables.component(config)
        component = known.resolve(known.normed(config, self.frame.norms.model), d_model, self.frame.role)
        branch = Branch(
            name,
            component,
            own,
            pre,
            norms.last(doc, "post", at) if alone else norms.own(doc, "post", False, at),
            self.formulas.number(doc, "in_scale", at),
            self.formulas.number(doc, "out_scale", at),
            doc.layerscale,
            self.frame.document.dropout if doc.dropout is None else doc.dropout,
            tuple(under),
            doc.into,
            self.formulas.number(self.frame.document, "drop_path", ()),
            at,
        )
        return replace(branch, component=self._numbers(branch))

    def _numbers(self, branch: Branch) -> Config:
        """The component with numbers in place of formulas, which read its own sizes, too."""
        component = branch.component
        sizes = {key: value for key in type(component).model_fields if type(value := getattr(component, key)) is int}
        return self.formulas.resolved(component, lambda path: place(self.report, branch, path), sizes)
