"""Spec -> Graph: embedding, stacks, head and loss."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from specc.components import mask
from specc.ir.graph import Graph
from specc.ir.op import Ref
from specc.ir.types import Axis
from specc.lower.builder import TERMS, Builder
from specc.lower.embedding import embed
from specc.lower.head import head
from specc.lower.head import outputs as label_axes
from specc.lower.multi_token import Steps, lower_steps
from specc.lower.stack import lower_stack
from specc.lower.stem import fed
from specc.spec.core import Loss, Model, Stack


def lower(model: Model) -> Graph:
    """The graph of a model, neither typed nor placed.

    One stack takes `tokens` [batch, seq] and what `inputs` of the model lists, of that shape; encoder and decoder take
    `source` [batch, source] and `target` [batch, target]. A stack with a stem takes `images` or `frames`. The loss
    takes the outputs, `labels` of the shape of the last stack's tokens, of rows where the head pools them, or numbers
    of the shape of its vectors, and `scale`.
    """
    b = Builder(model.init, model.tables)
    pair = len(model.stacks) == 2
    axes = ("source", "target") if pair else ("seq",)
    named = zip(model.stacks, axes if pair else ("tokens",), axes, strict=True)
    inputs = [_input(b, model, stack, name, seq) for stack, name, seq in named]
    more = {name: b.op("input", name=name, hint=name, axes=("batch", "seq"), dtype="int64") for name in model.inputs}
    real = memory = memory_mask = None
    steps: tuple[Ref, ...] = ()
    if model.pad is not None:
        real = b.op("real", inputs[0], hint="real", pad=model.pad)
        memory_mask = mask.made(b, {"real": real})
    x = inputs[0]
    for stack, ids, seq in zip(model.stacks, inputs, axes, strict=True):
        x, tokens = embed(b, model, stack, ids, more, real if stack.role == "encoder" else None, seq)
        if stack.role == "encoder" and real is not None:
            tokens = replace(tokens, real=real, mask=memory_mask)
        later = () if model.multi_token is None else model.multi_token.blocks
        features = Axis("d_model", model.width(stack))
        x, around = lower_stack(b, stack, x, tokens, memory, memory_mask, features, later)
        memory, b.memory = x, features
        b.at = ()
        if model.multi_token is not None:
            steps = lower_steps(b, Steps(model, stack, model.multi_token, around), x, ids)
    if "mask" in more and model.head.pool is not None:
        real = b.op("real", more["mask"], hint="real", pad=0)
    of_tokens = real if len(model.stacks) == 1 else None
    features = Axis("d_model", model.d_model)
    made = head(b, model, x, features, inputs[-1], of_tokens)
    outputs = (made, *(head(b, model, step, features, inputs[-1], of_tokens) for step in steps))
    outputs = (*outputs, b.named[TERMS]) if TERMS in b.named else outputs
    made = model.embed_of(model.stacks[-1]).tokens
    last = axes[-1] if made is None else Axis(axes[-1], made)
    return b.graph(outputs, _loss(b, model, outputs, last), model.max_seq)


def _input(b: Builder, model: Model, stack: Stack, name: str, seq: str) -> Ref:
    """What a stack reads."""
    stem = model.embed_of(stack).stem
    if stem is not None:
        return fed(b, stem)
    return b.op("input", name=name, hint=name, axes=("batch", seq), dtype="int64")


def _loss(b: Builder, model: Model, outputs: tuple[Ref, ...], seq: Axis | str) -> Ref:
    """Sums over tokens, times `scale`: one over the number of labels gives their mean."""
    with b.scope("loss", outputs, ("Loss",)):
        *rows, last = label_axes(model, seq)
        axes, dtype = ((*rows, last), "float") if model.head.numbers else (tuple(rows), "int64")
        labels = b.op("input", name="labels", hint="labels", axes=axes, dtype=dtype)
        scale = b.op("input", name="scale", hint="scale", axes=(), dtype="float")
        of = model.loss
        attrs: dict[str, Any] = {} if of == Loss() else {"smoothing": of.label_smoothing, "z_loss": of.z_loss}
        kind = "squared_error" if model.head.numbers else "cross_entropy"
        total = b.op(kind, outputs[0], labels, hint="loss", **attrs)
        later, count = labels, 0 if model.multi_token is None else model.multi_token.steps
        for logits in outputs[1 : count + 1]:
            later = b.op("labels_ahead", later, labels, hint="later")
            term = b.op("cross_entropy", logits, later, hint="term", **attrs)
            term = b.op("scale", term, hint="term", factor=model.multi_token.loss / count if model.multi_token else 1.0)
            total = b.op("add", total, term, name="steps_sum", hint="loss")
        for terms in outputs[count + 1 :]:
            total = b.op("add", total, terms, name="sum", hint="loss")
        return b.op("mul", total, scale, hint="loss")
