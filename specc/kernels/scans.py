"""States that decay along a sequence, in chunks: within one as attention, between them by states."""

from collections.abc import Hashable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from specc.kernels.cache import Cache, resumed
from specc.kernels.chunks import chunk_masks, chunked
from specc.kernels.collectives import all_gather

CHUNK = 64  # positions that are computed at once


def decayed(
    q: Tensor, k: Tensor, v: Tensor, decay: Tensor, first: Tensor | None = None, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """q and k [batch, groups, seq, state], v [batch, heads, seq, head_dim], decay [batch, heads, seq], a log -> as v.

    Each head has a state [state, head_dim] that decays, takes up keys times values, and is read by queries; the last
    one is returned, too. `first` [batch, seq] is where the document of each position starts; `state` comes before all.
    """
    seq, groups = v.size(2), k.size(1)
    size = min(CHUNK, seq)
    q, k, v = (chunked(z, size) for z in (q, k, v))
    q, k, v = q.unsqueeze(2), k.unsqueeze(2), v.unflatten(1, (groups, -1))  # [batch, groups, heads, chunks, size, ...]
    total = chunked(decay.unsqueeze(-1), size).squeeze(-1).cumsum(-1).unflatten(1, (groups, -1))
    masks = chunk_masks(seq, size, v, first)
    seen, begun, stays = (mask if first is None else mask.unsqueeze(1) for mask in masks)
    between = (total.unsqueeze(-1) - total.unsqueeze(-2)).masked_fill(~seen, -torch.inf).exp()
    y = (q @ k.mT * between) @ v
    rest = (total[..., -1:] - total).masked_fill(~stays, -torch.inf).exp()
    added = (k * rest.unsqueeze(-1)).mT @ v
    since = total.masked_fill(begun, -torch.inf).exp().unsqueeze(-1)  # of what was before the chunk
    state = torch.zeros_like(added[..., 0, :, :]) if state is None else state.unflatten(1, (groups, -1))
    before: list[Tensor] = []
    for keep, new in zip(since[..., -1:, :].unbind(3), added.unbind(3), strict=True):
        before.append(state)
        state = keep * state + new
    y = y + (q * since) @ torch.stack(before, 3)
    return y.flatten(3, 4).flatten(1, 2)[:, :, :seq], state.flatten(1, 2)


def stepped(
    x: Tensor,
    dt: Tensor,
    b: Tensor,
    c: Tensor,
    a_log: Tensor,
    d: Tensor,
    dt_bias: Tensor,
    low: float = 0.0,
    high: float | None = None,
    first: Tensor | None = None,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """What `state_space` computes, in float32 at least; the last state, and the log of the decay at each position."""
    kind = torch.promote_types(x.dtype, torch.float32)
    x, dt, b, c, a_log, d, dt_bias = (z.to(kind) for z in (x, dt, b, c, a_log, d, dt_bias))
    dt = F.softplus(dt + dt_bias).clamp(low, high).transpose(1, 2)
    decay = -a_log.exp()[:, None] * dt
    y, state = decayed(c, b, x * dt.unsqueeze(-1), decay, first, state)
    return y + d[:, None, None] * x, state, decay


def state_space(
    x: Tensor,
    dt: Tensor,
    b: Tensor,
    c: Tensor,
    a_log: Tensor,
    d: Tensor,
    dt_bias: Tensor,
    low: float = 0.0,
    high: float | None = None,
    first: Tensor | None = None,
) -> Tensor:
    """x [batch, heads, seq, head_dim], dt [batch, seq, heads], b and c [batch, groups, seq, state] -> as x.

    A state space for each head (Dao and Gu 2024, section 6); steps are between `low` and `high`, `first` [batch, seq]
    is where the document of each position starts.
    """
    return stepped(x, dt, b, c, a_log, d, dt_bias, low, high, first)[0].to(x.dtype)


def later_state_space(
    x: Tensor,
    dt: Tensor,
    b: Tensor,
    c: Tensor,
    a_log: Tensor,
    d: Tensor,
    dt_bias: Tensor,
    layer: Hashable,
    cache: Cache,
    low: float = 0.0,
    high: float | None = None,
) -> Tensor:
    """The same of the tokens that follow, from the state that the cache has of that layer."""
    return resumed(cache, layer, lambda state: stepped(x, dt, b, c, a_log, d, dt_bias, low, high, None, state)[:2]).to(
        x.dtype
    )


def state_before(state: Tensor, decay: Tensor, cp: DeviceMesh) -> Tensor:
    """The state from which this rank's part of a sequence starts, given that of each part by itself [batch, heads,
    state, head_dim] and the log of its whole decay [batch, heads]."""
    joined = torch.cat((state.flatten(2), decay.unsqueeze(-1)), -1).unsqueeze(0)
    states, decays = all_gather(joined, cp).split([joined.size(-1) - 1, 1], -1)  # [cp, batch, heads, ...]
    rank, upto = cp.get_local_rank(), decays.cumsum(0)
    behind = torch.arange(cp.size(), device=state.device).view(-1, 1, 1, 1) >= rank
    since = (upto[rank - 1] - upto).masked_fill(behind, -torch.inf).exp()  # decay of the parts between
    return (since * states).sum(0).view_as(state)


def state_space_of_part(
    x: Tensor,
    dt: Tensor,
    b: Tensor,
    c: Tensor,
    a_log: Tensor,
    d: Tensor,
    dt_bias: Tensor,
    cp: DeviceMesh,
    low: float = 0.0,
    high: float | None = None,
) -> Tensor:
    """The same of this rank's part of the sequence."""
    y, state, decay = stepped(x, dt, b, c, a_log, d, dt_bias, low, high)
    total, groups = decay.cumsum(-1), c.size(1)
    first = state_before(state, total[..., -1], cp)
    reads = c.to(y.dtype).repeat_interleave(x.size(1) // groups, 1)
    return (y + total.exp().unsqueeze(-1) * (reads @ first)).to(x.dtype)


def head_rates(heads: int, factor: float, like: Tensor) -> Tensor:
    """How fast states of each head decay [heads]: factor * 2 ** (-8 * n / heads) for the n-th (Press et al. 2022)."""
    kind = torch.promote_types(like.dtype, torch.float32)
    return (1 / 2 ** (8 / heads)) ** torch.arange(1, heads + 1, dtype=kind, device=like.device) * factor


def fading(
    q: Tensor, k: Tensor, v: Tensor, rates: Tensor, first: Tensor | None = None, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """What `linear_attention` computes, and the last state, in float32 at least."""
    kind = torch.promote_types(v.dtype, torch.float32)
    q, k, v, rates = (z.to(kind) for z in (q, k, v, rates))
    return decayed(q, k, v, -rates[:, None].expand(v.shape[:-1]), first, state)


def linear_attention(q: Tensor, k: Tensor, v: Tensor, rates: Tensor, first: Tensor | None = None) -> Tensor:
    """q, k and v [batch, heads, seq, head_dim], rates [heads] -> as v: attention without softmax, that fades.

    first [batch, seq] is where the document of each position starts.
    """
    return fading(q, k, v, rates, first)[0].to(v.dtype)


def later_linear_attention(q: Tensor, k: Tensor, v: Tensor, rates: Tensor, layer: Hashable, cache: Cache) -> Tensor:
    """The same of the tokens that follow, from the state that the cache has of that layer."""
    return resumed(cache, layer, lambda state: fading(q, k, v, rates, None, state)).to(v.dtype)
