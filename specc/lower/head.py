"""Vectors to logits, of a vocabulary or of classes, or to other vectors."""

from __future__ import annotations

from specc.components import activation, norm
from specc.ir.op import Init, Param, Ref
from specc.ir.types import Axis
from specc.lower.builder import Builder
from specc.lower.embedding import table
from specc.spec.core import Head, Model, Pool

LEAST = 1e-15
"""Added to the mean square of a vector that gets the length 1: see `Eps`."""


def head(b: Builder, model: Model, x: Ref, features: Axis, ids: Ref, real: Ref | None) -> Ref:
    """x [batch, seq, d_model] -> logits [batch, seq, vocab], or what the head makes of them else.

    `ids` are the tokens, `real` which of them are no padding, both [batch, seq]; None: all are.
    """
    of = model.head
    if of.kind == "none":
        return x
    if of.pool is not None:
        x = _pooled(b, of.pool, x, ids, real)
    inner = features if of.dim == model.d_model else Axis("embed", of.dim)
    if of.transform is not None:
        x = b.linear(x, "head_transform", inner, features, of.transform.bias)
        x = activation.lower(of.transform.activation, b, x, "head_activation")
        if of.transform.norm is not None:
            x = norm.lower(of.transform.norm, b, x, "head_norm", inner)
    elif of.dim != model.d_model:
        x = b.linear(x, "head_project", inner, features, bias=False)
    if of.dropout:
        x = b.op("dropout", x, name="head_dropout", rate=of.dropout)
    out = _last(model, of)
    hint = "vector" if of.numbers else "logits"
    if out is not None:
        x = b.op("linear", x, name="head", hint=hint, params=_params(b, model, of, out, inner))
    if of.scale != 1.0:
        x = b.op("scale", x, name="head_scale", hint=hint, factor=of.scale)
    if of.softcap is not None:
        x = b.op("softcap", x, name="head_softcap", hint=hint, cap=of.softcap)
    if of.normalize:
        width = (inner if out is None else out).length
        x = b.op("rms_norm", x, name="head_normal", hint=hint, eps=LEAST)
        x = b.op("scale", x, name="head_length", hint=hint, factor=width**-0.5)
    return x


def outputs(model: Model, tokens: Axis | str) -> tuple[Axis | str, ...]:
    """Axes of what the head makes."""
    of, rows = model.head, ("batch",) if model.head.pool is not None else ("batch", tokens)
    out = _last(model, of)
    return (*rows, out or (Axis("d_model", of.dim) if of.dim == model.d_model else Axis("embed", of.dim)))


def _last(model: Model, of: Head) -> Axis | None:
    """What the last linear makes; None where there is none."""
    if of.kind == "lm":
        return Axis("vocab", model.vocab)
    return Axis("classes" if of.kind == "classes" else "features", of.rows) if of.rows else None


def _params(b: Builder, model: Model, of: Head, out: Axis, inner: Axis) -> tuple[Param, ...]:
    if of.kind == "lm" and "head" in model.embed.tied:
        weight = table(b, model, next(stack for stack in model.stacks if stack.role in model.embed.tied))
    else:
        weight = b.param("head", "weight", (out, inner), b.weight_init(out, inner, False), "linear")
    bias = b.param("head", "bias", (out,), Init("zeros"), "linear")
    return (weight, bias) if of.bias else (weight,)


def _pooled(b: Builder, of: Pool, x: Ref, ids: Ref, real: Ref | None) -> Ref:
    """One vector a row."""
    if of.token is not None:
        real = b.op("token_is", ids, hint="ends", token=of.token)
    return b.op("pool", *((x,) if real is None else (x, real)), hint="pooled", how=of.how)
