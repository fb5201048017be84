"""A graph under construction: the one mutable thing in lowering."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from specc.ir.graph import TOKENS, Graph, Scope
from specc.ir.op import Attr, Init, Layer, Op, Param, Path, Ref, dotted
from specc.ir.types import Axis
from specc.spec.core import Init as InitSpec
from specc.tables import Tables, tables

TERMS = "terms of the loss"
"""The name under which they are summed up; no spec can say it."""


class Builder:
    """Appends ops in op order; scopes nest by `with`."""

    def __init__(self, init: InitSpec, known: Tables | None = None):
        self.init = init
        self.tables = known or tables()
        self.ops: list[Op] = []
        self.scopes: list[Scope] = []
        self.path: Path = ()
        self.at: tuple[str | int, ...] = ()
        self.residual_updates = 1  # of the stack being lowered
        self._ids: set[str] = set()
        self.named: dict[str, Ref] = {}  # what layers gave to later ones, the latest of each name
        self._terms: list[Ref] = []
        self._returned: list[tuple[Ref, ...]] = []  # by the scopes that are open

    def op(
        self,
        kind: str,
        *inputs: Ref,
        name: str | None = None,
        hint: str = "x",
        hints: tuple[str, ...] = (),
        params: tuple[Param, ...] = (),
        **attrs: Attr,
    ) -> Ref:
        """Append an op in the current scope; its id is the scope's path and its name."""
        base = dotted((*self.path, name or kind))
        number, id = 2, base
        while id in self._ids:
            number, id = number + 1, f"{base}{number}"
        self._ids.add(id)
        self.ops.append(Op(id, kind, inputs, params, tuple(attrs.items()), self.path, hint, hints, self.at))
        return Ref(id)

    @contextmanager
    def scope(
        self, name: str | Layer, inputs: tuple[Ref, ...], names: tuple[str, ...], verb: str = ""
    ) -> Iterator[None]:
        """A call: what is lowered inside stands in a module of that name. It returns its last value, or what `returns`
        says."""
        outer, self.path = self.path, (*self.path, name)
        place, own = len(self.scopes), Scope(self.path, inputs, names, verb=verb)
        self.scopes.append(own)
        self._returned.append(())
        yield
        self.scopes[place] = replace(own, outputs=self._returned.pop() or (self.ops[-1].ref,))
        self.path = outer

    def returns(self, *outputs: Ref) -> None:
        """What the innermost scope that is open returns, in order."""
        self._returned[-1] = outputs

    def term(self, value: Ref) -> None:
        """Add a sum over tokens to the loss, a scalar. The component must say that it `adds_to_loss`."""
        self._terms.append(value)

    def settle(self) -> None:
        """Sum up the terms that were added since, in the current scope."""
        for term in self._terms:
            self.named[TERMS] = self.op("add", self.named[TERMS], term, name="terms", hint="terms")
        self._terms = []

    @property
    def left(self) -> tuple[Ref, ...]:
        """Terms that are not summed up yet."""
        return tuple(self._terms)

    def param(self, leaf: str, name: str, axes: tuple[Axis, ...], init: Init, role: str) -> Param:
        """Parameter `leaf.name` of the current scope."""
        return Param((*self.path, leaf, name), axes, init, role)

    def linear(self, x: Ref, name: str, out: Axis, inner: Axis, bias: bool, hint: str = "x", last: bool = False) -> Ref:
        """A linear; `last` marks the one that ends a branch of a residual update."""
        weight = self.param(name, "weight", (out, inner), self.weight_init(out, inner, last), "linear")
        params = (weight, self.param(name, "bias", (out,), Init("zeros"), "linear")) if bias else (weight,)
        return self.op("linear", x, name=name, hint=hint, params=params)

    def weight_init(self, out: Axis, inner: Axis, last: bool) -> Init:
        """`xavier` is Glorot and Bengio 2010, eq. 16, as a normal; depth scaling is GPT-2's (2019), section 2.3."""
        std = (2 / (out.length + inner.length)) ** 0.5 if self.init.kind == "xavier" else self.init.std
        if last and self.init.depth_scaled:
            std /= self.residual_updates**0.5
        return Init("normal", std)

    def graph(self, outputs: tuple[Ref, ...], loss: Ref, max_seq: int) -> Graph:
        return Graph.of(self.ops, self.scopes, outputs, loss, tokens=min(TOKENS, max_seq), known=self.tables)
