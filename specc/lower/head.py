"""Vectors to logits."""

from __future__ import annotations

from specc.components import activation, norm
from specc.ir.op import Init, Ref
from specc.ir.types import Axis
from specc.lower.builder import Builder
from specc.lower.embedding import table
from specc.spec.core import Model


def head(b: Builder, model: Model, x: Ref, features: Axis) -> Ref:
    """x [batch, seq, d_model] -> logits [batch, seq, vocab]."""
    of, vocab = model.head, Axis("vocab", model.vocab)
    inner = features if of.dim == model.d_model else Axis("embed", of.dim)
    if of.transform is not None:
        x = b.linear(x, "head_transform", inner, features, of.transform.bias)
        x = activation.lower(of.transform.activation, b, x, "head_activation")
        if of.transform.norm is not None:
            x = norm.lower(of.transform.norm, b, x, "head_norm", inner)
    elif of.dim != model.d_model:
        x = b.linear(x, "head_project", inner, features, bias=False)
    if "head" in model.embed.tied:
        weight = table(b, model, next(stack for stack in model.stacks if stack.role in model.embed.tied))
    else:
        weight = b.param("head", "weight", (vocab, inner), b.weight_init(vocab, inner, False), "linear")
    bias = b.param("head", "bias", (vocab,), Init("zeros"), "linear")
    x = b.op("linear", x, name="head", hint="logits", params=(weight, bias) if of.bias else (weight,))
    if of.scale != 1.0:
        x = b.op("scale", x, name="head_scale", hint="logits", factor=of.scale)
    return x if of.softcap is None else b.op("softcap", x, name="head_softcap", hint="logits", cap=of.softcap)
