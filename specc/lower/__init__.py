"""Spec -> Graph: embedding, stacks, head and loss."""

from __future__ import annotations

from dataclasses import replace

from specc.components import mask
from specc.components.base import Tokens
from specc.ir.graph import Graph
from specc.ir.op import Init, Param, Ref
from specc.ir.types import Axis
from specc.lower.builder import TERMS, Builder
from specc.lower.stack import lower_stack
from specc.spec.core import Model, Stack


def lower(model: Model) -> Graph:
    """The graph of a model, neither typed nor placed.

    One stack takes `tokens` [batch, seq], and `segments` of that shape where the model says so; encoder and decoder
    take `source` [batch, source] and `target` [batch, target]. The loss takes the outputs, `labels` of the shape of the
    last stack's tokens, -100 where there is none, and `scale`.
    """
    b = Builder(model.init, model.tables)
    features = Axis("d_model", model.d_model)
    pair = len(model.stacks) == 2
    tokens = ("source", "target") if pair else ("tokens",)
    axes = ("source", "target") if pair else ("seq",)
    inputs = [
        b.op("input", name=name, hint=name, axes=("batch", seq), dtype="int64")
        for name, seq in zip(tokens, axes, strict=True)
    ]
    more = {name: b.op("input", name=name, hint=name, axes=("batch", "seq"), dtype="int64") for name in model.inputs}
    real = memory = memory_mask = None
    if model.pad is not None:
        real = b.op("real", inputs[0], hint="real", pad=model.pad)
        memory_mask = mask.made(b, {"real": real})
    x = inputs[0]
    for stack, ids, seq in zip(model.stacks, inputs, axes, strict=True):
        x, tokens = _embed(b, model, stack, ids, more.get("segments"), seq, features)
        if stack.role == "encoder":
            tokens = replace(tokens, real=real, mask=memory_mask)
        x = lower_stack(b, stack, x, tokens, memory, memory_mask, features)
        memory = x
        b.at = ()
    logits = _head(b, model, x, features)
    outputs = (logits, b.named[TERMS]) if TERMS in b.named else (logits,)
    return b.graph(outputs, _loss(b, outputs, axes[-1]), model.max_seq)


def _loss(b: Builder, outputs: tuple[Ref, ...], seq: str) -> Ref:
    """Sums over tokens, times `scale`: one over the number of labels gives their mean."""
    with b.scope("loss", outputs, ("Loss",)):
        labels = b.op("input", name="labels", hint="labels", axes=("batch", seq), dtype="int64")
        scale = b.op("input", name="scale", hint="scale", axes=(), dtype="float")
        total = b.op("cross_entropy", outputs[0], labels, hint="loss")
        for terms in outputs[1:]:
            total = b.op("add", total, terms, name="sum", hint="loss")
        return b.op("mul", total, scale, hint="loss")


def _table(b: Builder, model: Model, stack: Stack, features: Axis) -> Param:
    """The embedding of a stack's tokens; one name for all that share it."""
    shared = len(model.stacks) == 1 or {"encoder", "decoder"} <= set(model.embed.tied)
    leaf = "embedding" if shared else f"{stack.path}_embedding"
    init = Init("normal", model.init.embedding_std)
    return b.param(leaf, "weight", (Axis("vocab", model.vocab), features), init, "embedding")


def _embed(
    b: Builder, model: Model, stack: Stack, ids: Ref, segments: Ref | None, seq: str, features: Axis
) -> tuple[Ref, Tokens]:
    """The vectors of a stack's tokens [batch, seq, d_model], and where these stand."""
    prefix = "" if len(model.stacks) == 1 else f"{stack.path}_"
    embed = stack.embed or model.embed
    x = b.op("embedding", ids, name=f"{prefix}embedding", params=(_table(b, model, stack, features),))
    if embed.scale != 1.0:
        x = b.op("scale", x, name=f"{prefix}embedding_scale", factor=embed.scale)
    tokens = _tokens(b, ids, segments, seq, f"{prefix}positions")
    if embed.positions != "none":
        if embed.positions == "learned":
            axes = (Axis("positions", model.max_seq), features)
            leaf = f"{prefix}position_embedding"
            table = b.param(leaf, "weight", axes, Init("normal", model.init.embedding_std), "embedding")
            place = b.op("embedding", tokens.positions, name=leaf, hint="positions", params=(table,))
        else:
            name = f"{prefix}sinusoid"
            place = b.op("sinusoid", tokens.positions, x, name=name, hint="positions", d_model=model.d_model)
        x = b.op("add", x, place, name=f"{prefix}embedding_sum")
    if embed.dropout:
        x = b.op("dropout", x, name=f"{prefix}embedding_dropout", rate=embed.dropout)
    return x, replace(tokens, prefix=prefix)


def _tokens(b: Builder, ids: Ref, segments: Ref | None, seq: str, name: str) -> Tokens:
    """Positions start again at each document."""
    index = b.op("positions", ids, name=name, hint="positions" if segments is None else "index", axes=(seq,))
    if segments is None:
        return Tokens(index, index)
    first = b.op("document_starts", segments, hint="first")
    own = Tokens(index, b.op("sub", index, first, hint="positions"), first=first)
    return replace(own, mask=mask.made(b, own.apart))


def _head(b: Builder, model: Model, x: Ref, features: Axis) -> Ref:
    """Logits [batch, seq, vocab]."""
    vocab = Axis("vocab", model.vocab)
    if "head" in model.embed.tied:
        tied = next(stack for stack in model.stacks if stack.role in model.embed.tied)
        weight = _table(b, model, tied, features)
    else:
        weight = b.param("head", "weight", (vocab, features), b.weight_init(vocab, features, False), "linear")
    bias = b.param("head", "bias", (vocab,), Init("zeros"), "linear")
    params = (weight, bias) if model.head_bias else (weight,)
    return b.op("linear", x, name="head", hint="logits", params=params)
