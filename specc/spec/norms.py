"""Norms of a stack: the model's, what changes it, and where they stand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from specc.components.norm import Norm, OwnNorm
from specc.source import Path
from specc.spec.document import BranchDoc, ModelNorm, Placement, SublayerDoc
from specc.spec.report import Report

PLACED: dict[Placement, tuple[str, ...]] = {
    "pre": ("pre",),
    "post": ("after",),
    "sandwich": ("pre", "post"),
    "output": ("post",),
}
"""Where norms stand: on the input, on the output, on the result."""


@dataclass(frozen=True)
class Norms:
    """The norm of whatever says nothing of its own, and where one stands."""

    model: Norm
    placement: Placement
    d_model: int
    report: Report

    @staticmethod
    def of(doc: ModelNorm, d_model: int, report: Report, at: Path = ("norm",)) -> Norms:
        """Of a whole model."""
        model = Norm(**doc.model_dump(exclude={"placement"}, exclude_unset=True)).resolved()
        norms = Norms(model, doc.placement, d_model, report)
        norms._checked(model, at)
        return norms

    def of_width(self, d_model: int) -> Norms:
        """In a stack of that width."""
        norms = replace(self, d_model=d_model)
        norms._checked(self.model, ("norm",))
        return norms

    def changed(self, doc: ModelNorm | None, at: Path) -> Norms:
        """With other keys in one stack."""
        if doc is None:
            return self
        made = Norm(**doc.model_dump(exclude={"placement"}, exclude_unset=True))
        placement = doc.placement if "placement" in doc.model_fields_set else self.placement
        return replace(self, model=self._checked(self.model.changed(made), at), placement=placement)

    def placed(self, placement: Placement | None, doc: SublayerDoc, at: Path) -> Norms:
        """With another placement in one sublayer, which its other keys must not say again."""
        if placement is None:
            return self
        for key in ("pre", "post", "after"):
            value = getattr(doc, key)
            if isinstance(value, bool) and value == (key in PLACED[placement]):
                message = f"placement: {placement} already says {key}: {'true' if value else 'false'}"
                self.report.add("E264", (*at, key), message, "leave one of them out", key=True)
        return replace(self, placement=placement)

    def norm(self, value: OwnNorm, at: Path) -> Norm | None:
        """What stands where a norm may: the model's, or one with other keys."""
        if isinstance(value, bool):
            return self.model if value else None
        return self._checked(self.model.changed(value), at)

    def own(self, doc: BranchDoc, key: str, usual: bool, at: Path) -> Norm | None:
        """The norm at a key of what stands at a place."""
        value = getattr(doc, key)
        return self.norm(usual if value is None else value, (*at, key))

    def last(self, doc: BranchDoc, key: Literal["post", "after"], at: Path) -> Norm | None:
        """A norm behind a component, or behind the sum."""
        return self.own(doc, key, key in PLACED[self.placement], at)

    def first(self, doc: SublayerDoc, parts: list[BranchDoc], base: str, at: Path) -> tuple[Norm | None, Norm | None]:
        """The norm that all branches share; and, of a component alone, one of its own beside that.

        What a component alone reads through `pre` is shared by all there are.
        """
        usual = "pre" in PLACED[self.placement]
        if doc.parallel is not None:
            read = base == "normed" or any(part.pre in (None, False) for part in parts)
            return self.own(doc, "norm", usual and read, at), None
        if doc.norm is None:
            return self.own(doc, "pre", usual, at), None
        return self.own(doc, "norm", False, at), self.own(doc, "pre", False, at)

    def _checked(self, norm: Norm, at: Path) -> Norm:
        for problem in norm.problems(self.d_model):
            reads = [("d_model",), ("norm",)]
            self.report.add(problem.code, (*at, *problem.path), problem.message, problem.help, reads)
        return norm
