"""Embedding and head of a document -> those of the core form."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from specc.source import Path
from specc.spec.around import FramesDoc, PatchesDoc, PositionsDoc, StackEmbeddingDoc
from specc.spec.core import Conv, Embed, Frames, Head, Patches, Pool, Positions, Projection, Transform
from specc.spec.document import Document, StackDoc
from specc.spec.formulas import Formulas
from specc.spec.norms import Norms

AT: Path = ("embedding",)
LONGEST = 2048
"""What max_seq is by default."""


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
        roles = tuple(role for role in roles if not self.stem(role))
        every = (*roles, "head") if not isinstance(head, str) and head.kind == "lm" else roles
        tied = (every if doc.tied else ()) if isinstance(doc.tied, bool) else tuple(doc.tied)
        return replace(self._embed(self.formulas, self.norms), tied=tied)

    def stem(self, role: str) -> bool:
        """Whether a stack reads something else than tokens."""
        stack: StackDoc | None = getattr(self.document, role)
        own = None if stack is None else stack.embedding
        return self.document.embedding.stem is not None or (own is not None and own.stem is not None)

    def of_stack(self, role: str, stack: StackDoc, formulas: Formulas, norms: Norms) -> Embed:
        """The model's, with what the stack says of its own."""
        own, at, embed = stack.embedding, (role, "embedding"), self._embed(formulas, norms)
        if own is None:
            return embed
        norms = replace(norms, d_model=embed.width(norms.d_model))
        embed = _read(embed, self.document, own)
        positions = self.document.embedding.positions if own.positions is None else own.positions
        return replace(
            embed,
            scale=embed.scale if own.scale is None else formulas.number(own, "scale", at),
            positions=self._positions(positions, embed),
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
            None,
            self.document.dropout if doc.dropout is None else doc.dropout,
            types=doc.types,
            project=project,
        )
        embed = _read(embed, self.document, None)
        norms = replace(norms, d_model=embed.width(norms.d_model))
        positions = self._positions(doc.positions, embed)
        return replace(embed, positions=positions, norm=norms.norm(doc.norm, (*AT, "norm")))

    def _positions(
        self, doc: Literal["none", "learned", "sinusoidal"] | PositionsDoc, embed: Embed
    ) -> Positions | None:
        rows = longest(self.document) if embed.places is None else embed.places
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


def longest(document: Document) -> int:
    """max_seq as it is given, or what the stem of the only stack makes."""
    stacks = [stack for stack in (document.encoder, document.decoder) if stack is not None]
    made = None
    if len(stacks) == 1:
        made = _read(Embed(1.0, None, 0.0), document, stacks[0].embedding).tokens
    return document.max_seq or made or LONGEST


def _read(embed: Embed, document: Document, own: StackEmbeddingDoc | None) -> Embed:
    """With what is read in place of tokens, and what stands before it: a stack's own, or the model's."""
    doc = document.embedding
    stem, class_token, registers, positions = (
        getattr(doc, key) if own is None or getattr(own, key) is None else getattr(own, key)
        for key in ("stem", "class_token", "registers", "positions")
    )
    made = None
    if isinstance(stem, PatchesDoc):
        made = Patches(stem.channels, stem.image, stem.patch, stem.bias)
    elif isinstance(stem, FramesDoc):
        size = positions.size if isinstance(positions, PositionsDoc) else None
        own_tokens = class_token if size else class_token + registers  # size counts places, max_seq all tokens
        tokens = max(1, (size or document.max_seq or LONGEST) - own_tokens)
        convs = tuple(Conv(conv.width, conv.stride) for conv in stem.convs)
        made = Frames(stem.channels, convs, stem.activation, stem.bias, tokens)
    return replace(embed, stem=made, class_token=class_token, registers=registers)
