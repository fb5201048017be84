"""What a stack reads in place of tokens, and the vectors that stand in front of it."""

from __future__ import annotations

from specc.components import activation
from specc.ir.op import Init, Ref
from specc.ir.types import Axis
from specc.lower.builder import Builder
from specc.spec.core import Embed, Frames, Patches


def fed(b: Builder, of: Patches | Frames) -> Ref:
    """The input: images [batch, channels, height, width], or frames [batch, channels, time]."""
    name, more = ("images", ("height", "width")) if isinstance(of, Patches) else ("frames", ("time",))
    axes = tuple(Axis(name, size) for name, size in zip(("channels", *more), of.shape, strict=True))
    return b.op("input", name=name, hint=name, axes=("batch", *axes), dtype="float")


def made(b: Builder, of: Patches | Frames, given: Ref, seq: str, width: Axis, prefix: str) -> Ref:
    """What is read -> tokens [batch, seq, d_model]."""
    tokens = Axis(seq, of.tokens)
    if isinstance(of, Patches):
        return _patches(b, of, given, tokens, width, prefix)
    return _frames(b, of, given, tokens, width, prefix)


def _patches(b: Builder, of: Patches, images: Ref, seq: Axis, width: Axis, prefix: str) -> Ref:
    """A linear of the pixels of each patch.

    It is a convolution whose kernel is as wide as its step, with the weight [d_model, channels * patch * patch].
    """
    sides = (("channels", of.channels), ("rows", of.patch), ("columns", of.patch))
    inner = Axis("pixels", of.channels * of.patch**2, factors=sides)
    x = b.op("patches", images, name=f"{prefix}patches", hint="patches", patch=of.patch, axes=(seq, inner))
    return b.linear(x, f"{prefix}stem", width, inner, of.bias)


def _frames(b: Builder, of: Frames, frames: Ref, seq: Axis, width: Axis, prefix: str) -> Ref:
    """Convolutions along time, each with the activation behind it; in the end time is the tokens."""
    x, channels = frames, of.channels
    for n, conv in enumerate(of.convs, 1):
        axes = (width, Axis("channels", channels), Axis("taps", conv.width))
        init = b.weight_init(width, Axis("inner", channels * conv.width), False)
        weight = b.param(f"{prefix}conv{n}", "weight", axes, init, "time_conv")
        bias = b.param(f"{prefix}conv{n}", "bias", (width,), Init("zeros"), "time_conv")
        params = (weight, bias) if of.bias else (weight,)
        name = f"{prefix}conv{n}"
        x = b.op("time_conv", x, name=name, params=params, stride=conv.stride, padding=conv.width // 2)
        channels = width.length
        x = activation.lower(of.activation, b, x, f"{prefix}conv{n}_activation")
    return b.op("time_last", x, name=f"{prefix}frames_last", axes=(seq,))


def class_token(b: Builder, of: Embed, x: Ref, width: Axis, prefix: str) -> Ref:
    """x with a vector in front, the same for all samples."""
    return _in_front(b, x, "class", 1, width, prefix, at=0) if of.class_token else x


def registers(b: Builder, of: Embed, x: Ref, width: Axis, prefix: str) -> Ref:
    """x with vectors behind the class token, if there is one."""
    return _in_front(b, x, "register", of.registers, width, prefix, at=int(of.class_token)) if of.registers else x


def _in_front(b: Builder, x: Ref, what: str, count: int, width: Axis, prefix: str, at: int) -> Ref:
    leaf = f"{prefix}{what}_embedding"
    param = b.param(leaf, "weight", (Axis("count", count), width), b.table_init(), "own_tokens")
    return b.op("own_tokens", x, name=leaf, params=(param,), at=at)
