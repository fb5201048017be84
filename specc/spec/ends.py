"""Embedding and head of a document -> those of the core form."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from specc.source import Path
from specc.spec.around import PositionsDoc
from specc.spec.core import Embed, Head, Pool, Positions, Projection, Transform
from specc.spec.document import Document, StackDoc
from specc.spec.formulas import Formulas
from specc.spec.norms import Norms

AT: Path = ("embedding",)


@dataclass(frozen=True)
class Ends:
    """What stands around the stacks of one document."""

    document: Document
    formulas: Formulas
    norms: Norms

    def embed(self, roles: tuple[str, ...]) -> Embed:
        """The model's, with what uses one matrix."""
        doc = self.document.embedding
        head = self.document.head
        every = (*roles, "head") if not isinstance(head, str) and head.kind == "lm" else roles
        tied = (every if doc.tied else ()) if isinstance(doc.tied, bool) else tuple(doc.tied)
        return replace(self._embed(self.formulas, self.norms), tied=tied)

    def of_stack(self, role: str, stack: StackDoc, formulas: Formulas, norms: Norms) -> Embed:
        """The model's, with what the stack says of its own."""
        own, at, embed = stack.embedding, (role, "embedding"), self._embed(formulas, norms)
        if own is None:
            return embed
        norms = replace(norms, d_model=embed.width(norms.d_model))
        return replace(
            embed,
            scale=embed.scale if own.scale is None else formulas.number(own, "scale", at),
            positions=embed.positions if own.positions is None else self._positions(own.positions),
            norm=embed.norm if own.norm is None else norms.norm(own.norm, (*at, "norm")),
            dropout=embed.dropout if own.dropout is None else own.dropout,
        )

    def _embed(self, formulas: Formulas, norms: Norms) -> Embed:
        doc = self.document.embedding
        project = Projection(doc.project) if isinstance(doc.project, int) else None
        if doc.project is not None and not isinstance(doc.project, int):
            project = Projection(doc.project.dim, doc.project.bias, doc.project.at == "tokens")
        embed = Embed(
            formulas.number(doc, "scale", AT),
            self._positions(doc.positions),
            self.document.dropout if doc.dropout is None else doc.dropout,
            types=doc.types,
            project=project,
        )
        norms = replace(norms, d_model=embed.width(norms.d_model))
        return replace(embed, norm=norms.norm(doc.norm, (*AT, "norm")))

    def _positions(self, doc: Literal["none", "learned", "sinusoidal"] | PositionsDoc) -> Positions | None:
        rows = self.document.max_seq
        if not isinstance(doc, PositionsDoc):
            return None if doc == "none" else Positions(doc, rows)
        size = rows if doc.size is None else doc.size
        return Positions(doc.kind, size, doc.offset, doc.order == "halves", bool(doc.endpoint), doc.skip_pad)

    def head(self) -> Head:
        """From the stream's features, or those that tokens are embedded in, to logits."""
        doc, at, norms = self.document.head, ("head",), self.norms
        if isinstance(doc, str):
            return Head(norms.d_model, kind="none")
        project = self._embed(self.formulas, norms).project if doc.kind == "lm" else None
        dim = doc.dim if doc.dim is not None else norms.d_model if project is None else project.dim
        transform = None
        if doc.transform is not None:
            norm = replace(norms, d_model=dim).norm(doc.transform.norm, (*at, "transform", "norm"))
            transform = Transform(doc.transform.activation, norm, doc.transform.bias)
        pool = (
            None if doc.pool is None else Pool(doc.pool) if isinstance(doc.pool, str) else Pool("first", doc.pool.token)
        )
        rows = {"lm": None, "classes": doc.classes, "vector": doc.size}[doc.kind] or 0
        scale = self.formulas.number(doc, "scale", at)
        return Head(dim, doc.bias, scale, doc.softcap, transform, doc.kind, rows, pool, doc.dropout, doc.normalize)
