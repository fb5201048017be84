"""Pieces of an expression."""

from __future__ import annotations

from typing import NamedTuple

from specc.ir.op import Ref

ATOM, PRODUCT, SUM, COMPARED = 3, 2, 1, 0  # how tightly an expression binds


class Use(NamedTuple):
    """An operand: how tightly it must bind, and whether it must be a name."""

    ref: Ref
    need: int = 0
    named: bool = False


class Hole(NamedTuple):
    """A constant that may differ between calls of one class.

    An optional keyword argument is `before + value + after`; it is left out where every call has its `default`.
    """

    key: str
    name: str
    value: str
    before: str = ""
    after: str = ""
    default: str | None = None


Part = str | Use | Hole


class Expr(NamedTuple):
    """Parts in order, and how tightly the whole binds.

    `calls`: kernels that stand in it. `alone`: its value has a line of its own. `draws`: it sees to it that ranks draw
    numbers of their own. `called`: what a class that takes the value calls it, where that is not its hint.
    `view`: the value is another view of the elements of an operand.
    """

    parts: tuple[Part, ...]
    level: int = ATOM
    calls: tuple[str, ...] = ()
    alone: bool = False
    draws: bool = False
    called: str = ""
    view: bool = False
