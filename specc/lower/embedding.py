"""Tokens to vectors, and where the tokens stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from specc.components import norm
from specc.components.base import Tokens
from specc.components.mask import made
from specc.ir.op import Param, Ref
from specc.ir.types import Axis
from specc.lower import stem
from specc.lower.builder import Builder
from specc.spec.core import Model, Positions, Projection, Stack


def table(b: Builder, model: Model, stack: Stack) -> Param:
    """The embedding of a stack's tokens; one name for all that share it."""
    shared = len(model.stacks) == 1 or {"encoder", "decoder"} <= set(model.embed.tied)
    leaf = "embedding" if shared else f"{stack.path}_embedding"
    axes = (Axis("vocab", model.vocab), _embedded(model, stack))
    return b.param(leaf, "weight", axes, b.table_init(), "embedding")


def _embedded(model: Model, stack: Stack) -> Axis:
    """What a stack's tokens are before they are projected."""
    project = model.embed_of(stack).project
    return Axis("d_model", model.width(stack)) if project is None else Axis("embed", project.dim)


def embed(
    b: Builder, model: Model, stack: Stack, ids: Ref, more: Mapping[str, Ref], real: Ref | None, seq: str
) -> tuple[Ref, Tokens]:
    """The vectors of a stack's tokens [batch, seq, d_model], and where these stand."""
    prefix, of = "" if len(model.stacks) == 1 else f"{stack.path}_", model.embed_of(stack)
    x, width = looked_up(b, model, stack, ids, prefix, seq=seq), _features(model, stack)
    axis: Axis | str = seq
    if of.stem is not None:  # what stands in front counts
        x = stem.class_token(b, of, x, width, prefix)
        ids, axis = x, Axis(seq, of.places or 0)
    tokens = _tokens(b, ids, more, axis, f"{prefix}positions")
    if real is None and "mask" in more and of.positions is not None and of.positions.skip_pad:
        real = b.op("real", more["mask"], hint="real", pad=0)
    if of.types:
        x = _added(b, width, more["types"], x, of.types, "type", prefix)
    if of.positions is not None:
        x = _placed(b, width, of.positions, tokens, real, x, prefix)
    if of.registers:
        x = stem.registers(b, of, x, width, prefix)
        tokens = _tokens(b, x, more, Axis(seq, of.tokens or 0), f"{prefix}places")
    if of.norm is not None:
        x = norm.lower(of.norm, b, x, f"{prefix}embedding_norm", width)
    if of.dropout:
        x = b.op("dropout", x, name=f"{prefix}embedding_dropout", rate=of.dropout)
    if of.project is not None and not of.project.first:
        x = _project(b, model.width(stack), of.project, x, prefix)
    return x, replace(tokens, prefix=prefix)


def looked_up(b: Builder, model: Model, stack: Stack, ids: Ref, prefix: str, hint: str = "x", seq: str = "seq") -> Ref:
    """The vectors of tokens alone; `prefix` stands before the names of ops, and of parameters in a pair of stacks."""
    of = model.embed_of(stack)
    if of.stem is not None:
        x = stem.made(b, of.stem, ids, seq, _embedded(model, stack), prefix)
    else:
        x = b.op("embedding", ids, name=f"{prefix}embedding", hint=hint, params=(table(b, model, stack),))
    if of.project is not None and of.project.first:
        x = _project(b, model.width(stack), of.project, x, prefix)
    return x if of.scale == 1.0 else b.op("scale", x, name=f"{prefix}embedding_scale", hint=hint, factor=of.scale)


def _features(model: Model, stack: Stack) -> Axis:
    """What positions, types and norm are of."""
    of = model.embed_of(stack)
    last = of.project is not None and not of.project.first
    return Axis("embed" if last else "d_model", of.width(model.width(stack)))


def _project(b: Builder, width: int, of: Projection, x: Ref, prefix: str) -> Ref:
    inner = Axis("embed", of.dim)
    return b.linear(x, f"{prefix}embedding_project", Axis("d_model", width), inner, of.bias)


def _added(b: Builder, width: Axis, ids: Ref, x: Ref, rows: int, what: str, prefix: str) -> Ref:
    """x + rows of a table of `what`."""
    leaf, axes = f"{prefix}{what}_embedding", (Axis(f"{what}s", rows), width)
    params = (b.param(leaf, "weight", axes, b.table_init(), "embedding"),)
    found = b.op("embedding", ids, name=leaf, hint=f"{what}s", params=params)
    return b.op("add", x, found, name=f"{prefix}{'' if what == 'position' else what}embedding_sum")


def _placed(
    b: Builder, width: Axis, positions: Positions, tokens: Tokens, real: Ref | None, x: Ref, prefix: str
) -> Ref:
    """x + what positions are encoded as."""
    ids = tokens.positions
    if positions.skip_pad:
        assert real is not None
        ids = b.op("real_positions", real, name=f"{prefix}real_positions", hint="positions")
    if positions.offset:
        ids = b.op("shift", ids, name=f"{prefix}positions_shift", hint="positions", by=positions.offset)
    if positions.kind == "learned":
        return _added(b, width, ids, x, positions.size + positions.offset, "position", prefix)
    plain = not (positions.halves or positions.endpoint)
    steps = width.length // 2 - positions.endpoint
    attrs: dict[str, Any] = {} if plain else {"steps": steps, "dim": -2 if positions.halves else -1}
    name = f"{prefix}sinusoid"
    place = b.op("sinusoid", ids, x, name=name, hint="positions", d_model=width.length, **attrs)
    return b.op("add", x, place, name=f"{prefix}embedding_sum")


def _tokens(b: Builder, ids: Ref, more: Mapping[str, Ref], seq: Axis | str, name: str) -> Tokens:
    """Positions start again at each document, or are given. Padding sees padding: a row of none would be no number."""
    segments, given, mask = more.get("segments"), more.get("positions"), more.get("mask")
    plain = segments is None and given is None
    index = b.op("positions", ids, name=name, hint="positions" if plain else "index", axes=(seq,))
    if segments is None:
        own = Tokens(index, index if given is None else given, group=mask)
    else:
        first = b.op("document_starts", segments, hint="first")
        positions = b.op("sub", index, first, hint="positions") if given is None else given
        own = Tokens(index, positions, first=first, group=mask and _joined(b, first, mask))
    if "prefix" in more:
        own = replace(own, marked=b.op("real", more["prefix"], hint="marked", pad=0))
    return replace(own, mask=made(b, own.apart)) if own.apart else own


def _joined(b: Builder, first: Ref, mask: Ref) -> Ref:
    """Numbers of documents, 0 for padding."""
    return b.op("mul", b.op("shift", first, hint="group", by=1), mask, hint="group")
