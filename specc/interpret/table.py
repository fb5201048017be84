"""What each kind of op computes: a function of its inputs, then its parameters; attributes go in by name."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial, reduce
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specc.extension import ExtensionError
from specc.kernels import activations, loss, random
from specc.kernels.cache import Cache
from specc.kernels.positions import document_starts, real_positions, sinusoid_of
from specc.kernels.positions import sinusoid as sinusoid_table
from specc.tables import Tables

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
    "relu2": lambda x: F.relu(x).square(),
    "quick_gelu": activations.quick_gelu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
}


def embedding(ids: Tensor, weight: Tensor) -> Tensor:
    """ids [...] -> [..., d_model]"""
    return F.embedding(ids, weight)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [..., inner] -> [..., out]"""
    return F.linear(x, weight, bias)


def add_bias(x: Tensor, bias: Tensor) -> Tensor:
    """x [..., d_model] -> the same"""
    return x + bias


def channel_scale(x: Tensor, weight: Tensor) -> Tensor:
    """x [..., d_model] -> the same"""
    return x * weight


def rms_norm(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, *, eps: float) -> Tensor:
    """x [..., d_model] -> the same"""
    x = F.rms_norm(x, (x.size(-1),), weight, eps)
    return x if bias is None else x + bias


def layer_norm(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, *, eps: float) -> Tensor:
    """x [..., d_model] -> the same"""
    return F.layer_norm(x, (x.size(-1),), weight, bias, eps)


def changed(norm: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """That norm of equal groups of features, with a constant added to the weight."""

    def of(
        x: Tensor,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        *,
        eps: float,
        offset: float = 0,
        width: int | None = None,
    ) -> Tensor:
        """x [..., d_model] -> the same"""
        x = norm(x, eps=eps) if width is None else norm(x.unflatten(-1, (-1, width)), eps=eps).flatten(-2)
        x = x if weight is None else x * (offset + weight)
        return x if bias is None else x + bias

    return of


def transpose(x: Tensor, *, mixed: bool = False) -> Tensor:
    """x [a, b, ...] -> [b, a, ...]"""
    return x.transpose(0, 1)


def unsqueeze(x: Tensor) -> Tensor:
    """x [a, ...] -> [a, 1, ...]"""
    return x.unsqueeze(1)


def activation(x: Tensor, *, function: str) -> Tensor:
    """x [...] -> the same"""
    return ACTIVATIONS[function](x)


def xielu(x: Tensor, alpha_p: Tensor, alpha_n: Tensor) -> Tensor:
    """x [...], numbers [1] -> as x"""
    return activations.xielu(x, alpha_p, alpha_n)


def clamp(x: Tensor, *, low: float | None, high: float) -> Tensor:
    """x [...] -> the same"""
    return x.clamp(low, high)


def shift(x: Tensor, *, by: float) -> Tensor:
    """x [...] -> the same"""
    return x + by


def softcap(x: Tensor, *, cap: float) -> Tensor:
    """x [...] -> the same"""
    return torch.tanh(x / cap) * cap


def dropout(x: Tensor, *, rate: float, training: bool) -> Tensor:
    """x [...] -> the same"""
    return F.dropout(x, rate, training)


def drop_path(x: Tensor, *, rate: float, training: bool) -> Tensor:
    """x [batch, ...] -> the same"""
    return random.drop_path(x, rate, training)


def jitter(x: Tensor, *, rate: float, training: bool) -> Tensor:
    """x [...] -> the same"""
    return random.jitter(x, rate, training)


def add(a: Tensor, b: Tensor) -> Tensor:
    """a [...], b [...] -> the wider of both"""
    return a + b


def sub(a: Tensor, b: Tensor) -> Tensor:
    """a [...], b [...] -> the wider of both"""
    return a - b


def mul(a: Tensor, b: Tensor) -> Tensor:
    """a [...], b [...] -> the wider of both"""
    return a * b


def scale(x: Tensor, *, factor: float) -> Tensor:
    """x [...] -> the same"""
    return x * factor


def positions(x: Tensor, *, dim: int) -> Tensor:
    """x [..., seq, ...] -> [seq]"""
    return torch.arange(x.size(dim), device=x.device)


def sinusoid(positions: Tensor, x: Tensor, *, d_model: int, steps: int | None = None, dim: int = -1) -> Tensor:
    """positions [..., seq], x of any shape -> [..., seq, d_model] in the dtype of x"""
    table = sinusoid_table(positions, d_model) if steps is None else sinusoid_of(positions, d_model, steps, dim)
    return table.to(x.dtype)


def real(ids: Tensor, *, pad: int) -> Tensor:
    """ids [batch, seq] -> which are no padding [batch, seq]"""
    return ids.ne(pad)


def tokens_ahead(ids: Tensor) -> Tensor:
    """ids [batch, seq] -> the same"""
    return torch.cat((ids[:, 1:], torch.zeros_like(ids[:, :1])), 1)


def labels_ahead(labels: Tensor, first: Tensor) -> Tensor:
    """labels [batch, seq] -> the same"""
    moved = torch.cat((labels[:, 1:], torch.full_like(labels[:, :1], -100)), 1)
    return moved.masked_fill(first == -100, -100)


def mask(*operands: Tensor, of: tuple[str, ...], window: int | None = None, chunk: int | None = None) -> Tensor:
    """Operands by what they are -> [seq, keys], or [batch, 1, seq, keys]: true where a query sees a key"""
    at = dict(zip(of, operands, strict=True))
    terms: list[Tensor] = []
    if "documents" in at:
        terms.append((at["documents"].unsqueeze(-1) == at["documents of keys"].unsqueeze(-2)).unsqueeze(1))
    if "chunks" in at and chunk is not None:
        own, other = (torch.div(at[name], chunk, rounding_mode="floor") for name in ("chunks", "chunks of keys"))
        same = own.unsqueeze(-1) == other.unsqueeze(-2)
        terms.append(same.unsqueeze(1) if same.dim() > 2 else same)
    if "near" in at and window is not None:
        terms.append((at["near"].unsqueeze(-1) - at["near of keys"]).abs() < window)
    if "queries" in at:
        before = at["queries"].unsqueeze(-1) >= at["keys"]
        terms.append(before | at["marked"][:, None, None, :] if "marked" in at else before)
    if "real" in at:
        terms.append(at["real"][:, None, None, :])
    return reduce(torch.logical_and, terms)


def causal_bias(positions: Tensor, *, chunks: int) -> Any:
    """positions [seq] -> which keys each query sees [seq, keys], as often as there are chunks"""
    mask = positions <= positions[:, None]
    return mask if chunks == 1 else (mask,) * chunks


def mask_bias(mask: Tensor) -> Tensor:
    """A mask of any shape -> 0 where it is true, -inf where not"""
    return torch.where(mask, 0.0, -torch.inf)


def advance(tokens: Tensor, cache: Cache) -> Tensor:
    """tokens [batch, seq] -> their positions [seq]"""
    return cache.advance(tokens)


def slots(tokens: Tensor, cache: Cache) -> Tensor:
    """-> positions of all that the cache has room for [length]"""
    return torch.arange(cache.length, device=tokens.device)


def appended(k: Tensor, v: Tensor, cache: Cache, *, layer: Hashable, number: int = 1) -> tuple[Tensor, Tensor]:
    """k and v [batch, kv_heads, seq, head_dim] -> those of all tokens so far [batch, kv_heads, length, head_dim]

    `layer` has the op's own name in it, so that it needs no `number` beside it.
    """
    return cache.append(layer, k, v)


def cross_entropy(logits: Tensor, labels: Tensor, *, smoothing: float = 0.0, z_loss: float = 0.0) -> Tensor:
    """logits [..., vocab], labels [...] -> their sum; -100 counts nothing"""
    if smoothing or z_loss:
        return loss.cross_entropy_of(logits, labels, smoothing, z_loss)
    return loss.cross_entropy(logits, labels)


def zero(x: Tensor) -> Tensor:
    """x of any shape -> []"""
    return x.new_zeros(())


TABLE: dict[str, Callable[..., Any]] = {
    "embedding": embedding,
    "linear": linear,
    "add_bias": add_bias,
    "channel_scale": channel_scale,
    "rms_norm": rms_norm,
    "layer_norm": layer_norm,
    **{f"{which}rms_norm": changed(rms_norm) for which in ("offset_", "grouped_", "grouped_offset_")},
    **{f"{which}layer_norm": changed(layer_norm) for which in ("offset_", "grouped_", "grouped_offset_")},
    "transpose": transpose,
    "unsqueeze": unsqueeze,
    "activation": activation,
    "xielu": xielu,
    "clamp": clamp,
    "shift": shift,
    "dropout": dropout,
    "drop_path": drop_path,
    "jitter": jitter,
    "add": add,
    "sub": sub,
    "mul": mul,
    "softcap": softcap,
    "scale": scale,
    "positions": positions,
    "sinusoid": sinusoid,
    "real": real,
    "tokens_ahead": tokens_ahead,
    "labels_ahead": labels_ahead,
    "document_starts": document_starts,
    "real_positions": real_positions,
    "mask": mask,
    "mask_bias": mask_bias,
    "causal_bias": causal_bias,
    "advance": advance,
    "slots": slots,
    "appended": appended,
    "cross_entropy": cross_entropy,
    "zero": zero,
}


def functions(tables: Tables) -> dict[str, Callable[..., Any]]:
    """By kind of op, those of every extension. Raises ExtensionError where one is not where it is said to be."""
    found: dict[str, Callable[..., Any]] = {}
    for place in tables.functions:
        module, _, name = place.partition(":")
        try:
            found |= getattr(import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise ExtensionError(f"{place} cannot be imported: {error}") from error
    return found


class Random(nn.Module):
    """An op that draws random numbers while training."""

    def __init__(self, function: Callable[..., Any], attrs: dict[str, object]):
        super().__init__()
        self.function = function
        self.attrs = attrs

    def forward(self, *args: Tensor) -> Tensor:
        return self.function(*args, **self.attrs, training=self.training)

    def extra_repr(self) -> str:
        return ", ".join([self.function.__name__, *(f"{name}={value}" for name, value in self.attrs.items())])
