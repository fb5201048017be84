"""Generation: what layers keep of the tokens so far, and the choice of the next."""

from collections.abc import Callable, Hashable

import torch
from torch import Tensor


class Cache:
    """What layers keep of the tokens so far, keys and values with room for `length` tokens."""

    def __init__(self, length: int):
        self.length, self.end = length, 0
        self.layers: dict[Hashable, tuple[Tensor, ...]] = {}

    def advance(self, tokens: Tensor) -> Tensor:
        """Positions [seq] of the next tokens [batch, seq]; raises a ValueError where there is no room for them."""
        start, self.end = self.end, self.end + tokens.size(1)
        if self.end > self.length:
            raise ValueError(f"a cache of {self.length} tokens has no room for {self.end}")
        return torch.arange(start, self.end, device=tokens.device)

    def append(self, layer: Hashable, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [batch, kv_heads, length, head_dim] of a layer, with those of the next tokens put in."""
        if layer not in self.layers:
            k_all, v_all = (x.new_zeros(x.size(0), x.size(1), self.length, x.size(3)) for x in (k, v))
            self.layers[layer] = (k_all, v_all)
        k_all, v_all = self.layers[layer]
        for whole, new in ((k_all, k), (v_all, v)):
            whole[:, :, self.end - new.size(2) : self.end] = new
        return k_all, v_all


def resumed(cache: Cache, layer: Hashable, run: Callable[[Tensor | None], tuple[Tensor, Tensor]]) -> Tensor:
    """What `run` makes of the state that the cache has of a layer, None at first; the state after it is kept."""
    (state,) = cache.layers.get(layer, (None,))
    y, state = run(state)
    cache.layers[layer] = (state,)
    return y


def tail(cache: Cache, layer: Hashable, x: Tensor, rows: int) -> Tensor:
    """The positions in front of x [batch, seq, channels], `rows` of them, zeros where none are; x comes behind."""
    (before,) = cache.layers.get(layer, (x.new_zeros(x.size(0), rows, x.size(2)),))
    cache.layers[layer] = (torch.cat((before, x), 1)[:, x.size(1) :],)
    return before


def next_tokens(logits: Tensor, temperature: float, top_p: float, generator: torch.Generator) -> Tensor:
    """A token [batch, 1] for each row of logits [batch, vocab]: the likeliest, or drawn where temperature is above 0.

    It is drawn from the fewest that are together at least as likely as top_p (Holtzman et al. 2020).
    """
    if temperature == 0:
        return logits.argmax(-1, keepdim=True)
    p, ids = (logits.float() / temperature).softmax(-1).sort(-1, descending=True)
    p = p.masked_fill(p.cumsum(-1) - p >= top_p, 0)
    return ids.gather(-1, p.multinomial(1, generator=generator))
