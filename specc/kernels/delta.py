"""The gated delta rule (Yang et al. 2024) in chunks: what each position writes follows from a triangular system."""

from collections.abc import Hashable

import torch
import torch.nn.functional as F
from torch import Tensor

from specc.kernels.cache import Cache, resumed
from specc.kernels.chunks import chunk_masks, chunked


def unit(x: Tensor) -> Tensor:
    """x [..., features] of length 1."""
    return x * (x.square().sum(-1, keepdim=True) + 1e-6).rsqrt()


def scores(x: Tensor, y: Tensor, decay: Tensor) -> Tensor:
    """x and y [..., size, features], decay between each two [..., size, size], or of each feature behind -> as that."""
    if decay.dim() == x.dim():
        return (x @ y.mT) * decay
    return torch.einsum("...id,...jd,...ijd->...ij", x, y, decay)


def corrected(
    q: Tensor, k: Tensor, v: Tensor, decay: Tensor, beta: Tensor, first: Tensor | None, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """q and k [batch, heads, seq, head_dim], v [batch, heads, seq, v_head_dim], decay, a log, [batch, heads, seq, 1 or
    head_dim], beta [batch, heads, seq, 1] -> as v, and the last state [batch, heads, head_dim, v_head_dim].

    Chunks are shorter where each feature decays by itself: then all pairs of positions have a factor for each.
    """
    seq = v.size(2)
    size = min(64 if decay.size(-1) == 1 else 16, seq)
    q, k, v, written, total = (chunked(z, size) for z in (q, k, v * beta, k * beta, decay))
    total = total.cumsum(-2)
    seen, begun, stays = chunk_masks(seq, size, v, first)
    between = (total.unsqueeze(-2) - total.unsqueeze(-3)).masked_fill(~seen.unsqueeze(-1), -torch.inf).exp()
    between = between.squeeze(-1)
    since = total.masked_fill(begun.unsqueeze(-1), -torch.inf).exp()  # of what was before the chunk
    rest = (total[..., -1:, :] - total).masked_fill(~stays.unsqueeze(-1), -torch.inf).exp()
    system = scores(written, k, between)
    added, taken = (
        torch.linalg.solve_triangular(system, z, upper=False, unitriangular=True) for z in (v, written * since)
    )
    reads, own, left = q * since, scores(q, k, between), k * rest
    last = v.new_zeros(*v.shape[:2], k.size(-1), v.size(-1)) if state is None else state
    ends = since[..., -1, :].unsqueeze(-1)
    found: list[Tensor] = []
    for add, take, read, inner, keep, leave in zip(
        *(z.unbind(2) for z in (added, taken, reads, own, ends, left)), strict=True
    ):
        new = add - take @ last
        found.append(read @ last + inner @ new)
        last = keep * last + leave.mT @ new
    return torch.cat(found, 2)[:, :, :seq], last


def ruled(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    beta: Tensor,
    a_log: Tensor,
    dt_bias: Tensor,
    first: Tensor | None = None,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """What `delta_rule` computes, and the last state, in float32 at least."""
    kind = torch.promote_types(v.dtype, torch.float32)
    q, k, v, a, beta, a_log, dt_bias = (z.to(kind) for z in (q, k, v, a, beta, a_log, dt_bias))
    steps = F.softplus(a + dt_bias).unflatten(-1, (v.size(1), -1)).transpose(1, 2)
    decay = -a_log.exp()[:, None, None] * steps
    q, k = (unit(z).repeat_interleave(v.size(1) // k.size(1), 1) for z in (q, k))
    return corrected(q * q.size(-1) ** -0.5, k, v, decay, beta.transpose(1, 2).unsqueeze(-1), first, state)


def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    beta: Tensor,
    a_log: Tensor,
    dt_bias: Tensor,
    first: Tensor | None = None,
) -> Tensor:
    """q and k [batch, qk_heads, seq, head_dim], v [batch, heads, seq, v_head_dim] -> as v.

    a [batch, seq, heads] or [batch, seq, heads*head_dim] decides how much of a state stays, beta [batch, seq, heads]
    how much of what a key reads of it is replaced; `first` [batch, seq] is where the document of each position starts.
    """
    return ruled(q, k, v, a, beta, a_log, dt_bias, first)[0].to(v.dtype)


def later_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    beta: Tensor,
    a_log: Tensor,
    dt_bias: Tensor,
    layer: Hashable,
    cache: Cache,
) -> Tensor:
    """The same of the tokens that follow, from the state that the cache has of that layer."""
    return resumed(cache, layer, lambda state: ruled(q, k, v, a, beta, a_log, dt_bias, None, state)).to(v.dtype)
