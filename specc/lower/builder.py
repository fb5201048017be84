"""A graph under construction: the one mutable thing in lowering."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import prod

from specc.ir.graph import TOKENS, Graph, Scope
from specc.ir.op import Attr, Init, Layer, Op, Param, Path, Ref, Shared, dotted, plain_name
from specc.ir.types import Axis
from specc.spec.core import Init as InitSpec
from specc.spec.core import Start
from specc.tables import Tables, tables

TERMS = "terms of the loss"
"""The name under which they are summed up; no spec can say it."""


def started(start: Start, axes: tuple[Axis, ...]) -> Init:
    """`xavier` is Glorot and Bengio 2010, eq. 16, `kaiming` He et al. 2015, eq. 10; of a weight [..., out, inner]."""
    std = start.std
    if start.kind in ("xavier", "kaiming"):
        *_, out, inner = (axis.length for axis in (axes[-1], *axes))
        std = (2 / (out + inner)) ** 0.5 if start.kind == "xavier" else (2 / inner) ** 0.5
    if start.kind in ("zeros", "ones"):
        return Init(start.kind)
    if start.kind in ("uniform", "constant"):
        return Init(start.kind, start.value if start.kind == "constant" else std)
    return Init("normal", std) if start.truncate is None else Init("truncated", std, start.truncate)


class Builder:
    """Appends ops in op order; scopes nest by `with`."""

    def __init__(self, init: InitSpec, known: Tables | None = None):
        self.init = init
        self._starts = dict(init.parameters)
        self.tables = known or tables()
        self.ops: list[Op] = []
        self.scopes: list[Scope] = []
        self.path: Path = ()
        self.at: tuple[str | int, ...] = ()
        self.residual_updates = 1  # of the stack being lowered
        self.memory: Axis | None = None  # features of what an encoder has made
        self.shared = ""  # the block being lowered, where its layers share their parameters
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
        self, name: str | Layer, inputs: tuple[Ref, ...], names: tuple[str, ...], verb: str = "", component: str = ""
    ) -> Iterator[None]:
        """A call: what is lowered inside stands in a module of that name. It returns its last value, or what `returns`
        says."""
        outer, self.path = self.path, (*self.path, name)
        place, own = len(self.scopes), Scope(self.path, inputs, names, verb=verb, component=component)
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

    def param(self, leaf: str, name: str, axes: tuple[Axis, ...], init: Init, role: str, trained: bool = True) -> Param:
        """Parameter `leaf.name` of the current scope, or a buffer; it starts as it is told by name, or so."""
        where = (Shared(self.shared) if self.shared and isinstance(part, Layer) else part for part in self.path)
        path = (*where, leaf, name)
        plain = plain_name(path)
        own = self._starts.get(plain) or self._starts.get(plain.removesuffix(".weight"))
        if own is None and role == "embedding":
            own = self._starts.get("embedding")
        if own is not None:  # a convolution sums over all axes but the first
            fan = (axes[0], Axis("inner", prod(axis.length for axis in axes[1:]))) if role == "time_conv" else axes
            init = started(own, fan if len(axes) > 1 else axes)
        return Param(path, axes, init, role, trained)

    def linear(self, x: Ref, name: str, out: Axis, inner: Axis, bias: bool, hint: str = "x", last: bool = False) -> Ref:
        """A linear; `last` marks the one that ends a branch of a residual update."""
        weight = self.param(name, "weight", (out, inner), self.weight_init(out, inner, last), "linear")
        params = (weight, self.param(name, "bias", (out,), Init("zeros"), "linear")) if bias else (weight,)
        return self.op("linear", x, name=name, hint=hint, params=params)

    def weight_init(self, out: Axis, inner: Axis, last: bool) -> Init:
        """Depth scaling is GPT-2's (2019), section 2.3."""
        init = started(Start(self.init.kind, self.init.std, self.init.truncate, self.init.value), (out, inner))
        if last and self.init.depth_scaled and init.kind in ("normal", "truncated", "uniform"):
            init = replace(init, std=init.std / self.residual_updates**0.5)
        return init

    def table_init(self) -> Init:
        """Of a table of embeddings."""
        of = self.init
        shaped = of.kind in ("normal", "xavier", "kaiming")
        start = Start("normal", of.embedding_std, of.truncate) if shaped else Start(of.kind, of.std, None, of.value)
        return started(start, ())

    def graph(self, outputs: tuple[Ref, ...], loss: Ref, max_seq: int) -> Graph:
        return Graph.of(self.ops, self.scopes, outputs, loss, tokens=min(TOKENS, max_seq), known=self.tables)
