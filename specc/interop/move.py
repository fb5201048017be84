"""Tensors to parameters and back, as plans say."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from specc.interop.axes import View
from specc.interop.plan import Part, Tensor


class Inexact(ValueError):
    """A sum that cannot be undone."""


def to_own(tensor: torch.Tensor, part: Part) -> torch.Tensor:
    """The parameter that is part of a tensor; a view of it where nothing moves. Raises Inexact."""
    return _added(_own(tensor, part.view), part.add, part.name)


def joined(pieces: Sequence[tuple[Part, torch.Tensor]]) -> torch.Tensor:
    """A parameter of all the tensors that it is in. Raises Inexact."""
    made = [(part.index, to_own(tensor, part)) for part, tensor in pieces]
    (index, first), *_ = made
    if index is None:
        return first
    return torch.stack([own for _, own in sorted(made, key=lambda pair: pair[0] or (0, 0))], index[0])


def _own(tensor: torch.Tensor, view: View) -> torch.Tensor:
    if view.plain:
        return tensor
    items = tensor.reshape(view.items)
    if view.cut is not None:
        items = items.narrow(view.cut, view.start, view.size)
    if view.flip is not None:
        items = items.flip(view.flip)
    return items.permute(view.order).reshape(view.own)


def _added(tensor: torch.Tensor, add: float, name: str) -> torch.Tensor:
    if not add:
        return tensor
    made = tensor + add
    if not torch.equal(made - add, tensor):
        raise Inexact(f"{name}: adding {add:g} loses bits in {str(tensor.dtype).removeprefix('torch.')}")
    return made


def to_file(tensor: Tensor, get: Callable[[str], torch.Tensor]) -> torch.Tensor:
    """The tensor of a file, made of its parameters by name. Raises Inexact."""
    pieces: list[torch.Tensor] = []
    for part in tensor.parts:
        view = part.view
        own = get(part.name) if part.index is None else get(part.name).select(*part.index)
        own = _added(own, -part.add, part.name)
        if view.plain:
            return own
        sizes = list(view.items)
        if view.cut is not None:
            sizes[view.cut] = view.size
        inverse = [view.order.index(n) for n in range(len(view.order))]
        piece = own.reshape([sizes[n] for n in view.order]).permute(inverse)
        pieces.append(piece if view.flip is None else piece.flip(view.flip))
    cut = tensor.parts[0].view.cut
    ordered = sorted(zip(tensor.parts, pieces, strict=True), key=lambda pair: pair[0].view.start)
    whole = pieces[0] if cut is None else torch.cat([piece for _, piece in ordered], cut)
    return whole.reshape(tensor.shape)
