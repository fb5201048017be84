"""How a tensor of a file is laid out against a parameter: reshaped into items, permuted, one part of several cut out.

`(heads [q k v] head_dim) d_model` is a matrix whose rows are, for each head, head_dim rows of q, of k and of v. A part
has in the place of the brackets what the axes around leave of its own size: 1 here, all rows in `([q k v]) d_model`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from specc.ir.op import Param

Shape = tuple[int, ...]
SAME = {"heads": ("heads", "kv_heads"), "kv_heads": ("kv_heads", "heads")}
PARTS = "[]"


class Misfit(ValueError):
    """Axes that do not fit the parameters that they are said of."""


@dataclass(frozen=True)
class View:
    """How one parameter lies in a tensor.

    The tensor [shape] is viewed as [items]; of item `cut` the parts `start` to `start + size` are this parameter's, all
    where it is None; permuted by `order` that is the parameter [own].
    """

    shape: Shape
    items: Shape
    order: tuple[int, ...]
    own: Shape
    cut: int | None = None
    start: int = 0
    size: int = 0
    flip: int | None = None

    @property
    def plain(self) -> bool:
        """Whether the tensor is the parameter as it is."""
        return (
            self.cut is None
            and self.flip is None
            and self.shape == self.own
            and self.order == tuple(sorted(self.order))
        )


def own_shape(param: Param) -> Shape:
    """Of a parameter as a whole."""
    return tuple(axis.length for axis in param.axes)


def plain(param: Param) -> View:
    """The tensor is the parameter."""
    shape = own_shape(param)
    return View(shape, shape, tuple(range(len(shape))), shape)


def parsed(text: str) -> list[list[str]]:
    """Items by dimension; the brackets are one item."""
    made: list[list[str]] = []
    for word in re.findall(r"\([^()]*\)|\S+", re.sub(r"\[[^\]]*\]", PARTS, text)):
        made.append(word[1:-1].split() if word.startswith("(") else [word])
    return made


def views(
    axes: str,
    parts: Sequence[tuple[str, Param]],
    names: Sequence[str],
    flip: str | None = None,
    around: Mapping[str, int] | None = None,
) -> list[View]:
    """How each of the parameters, which are the parts of these names, lies in their tensor. Raises Misfit.

    `around` has sizes of axes that none of them has.
    """
    theirs, _, ours = axes.partition("->")
    wanted = parsed(theirs)
    known: dict[str, int] = {}
    for _, param in parts:
        for name, size in factors_of(param):
            known.setdefault(name, size)
    known = {**(around or {}), **known}
    order = {name: n for n, name in enumerate(names)}
    ranked = sorted(parts, key=lambda pair: order.get(pair[0], 0))
    laid = [_laid(wanted, parsed(ours), param, known) for _, param in ranked]
    joint = next((n for n, name in enumerate(_flat(laid[0].groups)) if name == PARTS), None)
    sizes = [one.sizes[joint] if joint is not None else 0 for one in laid]
    made: dict[str, View] = {}
    for n, ((name, param), one) in enumerate(zip(ranked, laid, strict=True)):
        items = list(one.sizes)
        if joint is not None:
            items[joint] = sum(sizes)
        counts, shape = iter(items), []
        for group in one.groups:
            shape.append(prod(next(counts) for _ in group))
        flipped = _flat(one.groups).index(flip) if flip is not None else None
        view = View(tuple(shape), tuple(items), one.order, own_shape(param), joint, sum(sizes[:n]), sizes[n], flipped)
        made[name] = view
    if len({view.shape for view in made.values()}) > 1:
        raise Misfit(f"{axes}: parts of one tensor give it the shapes {', '.join(str(v.shape) for v in made.values())}")
    return [made[name] for name, _ in parts]


@dataclass(frozen=True)
class _Laid:
    """Items of a tensor by dimension, their sizes for one part, and the order that makes the parameter of them."""

    groups: list[list[str]]
    sizes: Shape
    order: tuple[int, ...]


def factors_of(param: Param) -> list[tuple[str, int]]:
    """Its axes and those that compound ones are made of, with their sizes."""
    return [pair for axis in param.axes for pair in (axis.factors or ((axis.name, axis.length),))]


def _flat(groups: list[list[str]]) -> list[str]:
    return [name for group in groups for name in group]


def _laid(theirs: list[list[str]], ours: list[list[str]], param: Param, known: dict[str, int]) -> _Laid:
    own = [dict(axis.factors or ((axis.name, axis.length),)) for axis in param.axes]
    ours = [names for names in ours if any(_alias(name, list(factors)) for factors in own for name in names)]
    if ours:  # a bias has fewer axes than its weight
        theirs = [group for group in theirs if any(_share(group, names) for names in ours)]
    groups, at = _matched(theirs, ours, own, param)
    flat = _flat(groups)
    sizes: list[int | None] = [_size(name, known) for name in flat]
    places = [n for n, group in enumerate(groups) for _ in group]
    for dim, axis in enumerate(param.axes):
        inside = (
            [n for n, group in enumerate(places) if at[group] == dim]
            if not ours
            else [flat.index(name) for name in ours[dim]]
        )
        rest = prod(size for n in inside if (size := sizes[n]) is not None)
        open_ = [n for n in inside if sizes[n] is None]
        if len(open_) > 1 or axis.length % rest or (not open_ and rest != axis.length):
            raise Misfit(
                f"{'.'.join(map(str, param.path))}: {axis.name} = {axis.length} is not {_said(flat, inside, sizes)}"
            )
        for n in open_:
            sizes[n] = axis.length // rest
    order: list[int] = []
    if ours:
        order = [flat.index(name) for group in ours for name in group]
    else:
        for dim, factors in enumerate(own):
            inside = [n for n, group in enumerate(places) if at[group] == dim]
            ranks = list(factors)
            if PARTS not in (flat[n] for n in inside) and all(_alias(flat[n], ranks) for n in inside):
                inside.sort(key=lambda n: ranks.index(_alias(flat[n], ranks) or ""))
            order += inside
    missing = [n for n in range(len(flat)) if n not in order]
    if any(sizes[n] != 1 for n in missing):
        raise Misfit(f"{'.'.join(map(str, param.path))}: {', '.join(flat[n] for n in missing)} is none of its axes")
    return _Laid(groups, tuple(size or 1 for size in sizes), (*order, *missing))


def _said(flat: list[str], inside: list[int], sizes: list[int | None]) -> str:
    return " * ".join(f"{flat[n]}{'' if sizes[n] is None else f' = {sizes[n]}'}" for n in inside) or "there"


def _matched(
    theirs: list[list[str]], ours: list[list[str]], own: list[dict[str, int]], param: Param
) -> tuple[list[list[str]], dict[int, int]]:
    """Groups that this parameter has, and the dimension of it that each is; a bias has fewer than its weight."""
    if ours:
        return theirs, {
            n: next((d for d, names in enumerate(ours) if _share(names, group)), -1) for n, group in enumerate(theirs)
        }
    at: dict[int, int] = {}
    for n, group in enumerate(theirs):
        for dim, factors in enumerate(own):
            if any(_alias(name, list(factors)) for name in group) and dim not in at.values() and n not in at:
                at[n] = dim
    left = [dim for dim in range(len(own)) if dim not in at.values()]
    for n, group in enumerate(theirs):
        if n not in at and PARTS in group and left:
            at[n] = left.pop(0)
    if left:
        names = ", ".join(param.axes[dim].name for dim in left)
        raise Misfit(f"{'.'.join(map(str, param.path))}: nothing says where {names} is")
    kept = [n for n, group in enumerate(theirs) if n in at or group == ["1"]]
    return [theirs[n] for n in kept], {i: at.get(n, -1) for i, n in enumerate(kept)}


def _share(a: list[str], b: list[str]) -> bool:
    return any(name in b for name in a if not name.isdecimal())


def _alias(name: str, factors: list[str]) -> str | None:
    """The axis of a parameter that is meant: heads of keys are heads."""
    return next((other for other in SAME.get(name, (name,)) if other in factors), None)


def _size(name: str, known: dict[str, int]) -> int | None:
    if name.isdecimal():
        return int(name)
    return next((known[other] for other in SAME.get(name, (name,)) if other in known), None)
