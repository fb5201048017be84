"""Which parameter is in which tensor, and how: made of a mapping and the parameters, before a byte is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from specc.interop.axes import Misfit, Shape, View, factors_of, own_shape, plain, views
from specc.interop.names import Line, bracket, filled, lines, open_index, wildcard
from specc.interop.schema import Mapping as Family
from specc.interop.schema import Packed, as_on_hub, as_packed
from specc.ir.graph import Graph
from specc.ir.op import Param
from specc.ir.stored import stored
from specc.source import Diagnostic

BLOCK = 32
"""Numbers that share a power of two, in a tensor that is packed."""


@dataclass(frozen=True)
class Part:
    """A parameter in a tensor. `add` makes the parameter of what is there.

    With an `index` (dim, n) it is only what the parameter has at n of that dim.
    """

    name: str
    view: View
    add: float = 0.0
    index: tuple[int, int] | None = None


@dataclass(frozen=True)
class Tensor:
    """A tensor of the files with all parameters in it; `copies` are names that may hold the same.

    One that is `packed` is in two of other names, and has its shape once it is unpacked.
    """

    name: str
    shape: Shape
    parts: tuple[Part, ...]
    copies: tuple[str, ...] = ()
    packed: Packed | None = None

    @property
    def stored(self) -> dict[str, Shape]:
        """The tensors that the files have of it."""
        if self.packed is None:
            return {self.name: self.shape}
        *rest, last = self.shape
        blocks = (*rest, last // BLOCK)
        return {self.name + self.packed.blocks: (*blocks, BLOCK // 2), self.name + self.packed.scales: blocks}


@dataclass(frozen=True)
class Plan:
    """All tensors in the order of parameters.

    `hub` is the plan of files as the hub has them, where these differ, and `packed` that of files of few bits a number.
    """

    tensors: tuple[Tensor, ...]
    shapes: dict[str, Shape]  # of parameters
    prefix: str = ""
    drop: tuple[str, ...] = ()
    zeros: tuple[str, ...] = ()
    hub: Plan | None = None
    packed: Plan | None = None

    def dropped(self, name: str) -> bool:
        """Whether the tensor is left out on purpose."""
        return any(wildcard(text).fullmatch(name) for text in self.drop)

    def zero(self, name: str) -> bool:
        """Whether the tensor must be zero, and is left out then."""
        return any(wildcard(text).fullmatch(name) for text in self.zeros)


def parameters(graph: Graph) -> dict[str, Param]:
    """Every parameter by its global name, layer by layer."""
    found: list[tuple[tuple[str, int], str, Param]] = []
    for row in stored(graph):
        for name, layer in zip(row.names(), row.layers or (-1,), strict=True):
            found.append(((str(row.param.path[0]), layer), name, row.param))
    places = {key: n for n, key in enumerate(dict.fromkeys(key[0] for key, _, _ in found))}
    return {name: param for _, name, param in sorted(found, key=lambda item: (places[item[0][0]], item[0][1]))}


def plan(mapping: Family, params: Mapping[str, Param]) -> Plan | list[Diagnostic]:
    """The plan, or everything in which the mapping does not fit the parameters (E640)."""
    made = _plan(mapping, params)
    hub, packed = as_on_hub(mapping), as_packed(mapping)
    if hub.weights != mapping.weights and isinstance(made, Plan):
        theirs = _plan(hub, params)
        made = replace(made, hub=theirs) if isinstance(theirs, Plan) else theirs
    if packed.weights != mapping.weights and isinstance(made, Plan):
        theirs = _plan(packed, params, packed=True)
        if not isinstance(theirs, Plan):
            return theirs
        whole = all(tensor.shape[-1] % BLOCK == 0 for tensor in theirs.tensors if tensor.packed)
        made = replace(made, packed=theirs) if whole else made
    return made


def _plan(mapping: Family, params: Mapping[str, Param], packed: bool = False) -> Plan | list[Diagnostic]:
    known = list(lines(mapping.weights))
    found: list[Diagnostic] = []
    inside: dict[str, list[tuple[str, Line]]] = {}
    copies: dict[str, tuple[str, ...]] = {}
    for name in params:
        fitting = [(line, where) for line in known if (where := line.match(name)) is not None]
        if len(fitting) != 1:
            several = ": " + ", ".join(line.text for line, _ in fitting) if fitting else ""
            message = f"{len(fitting) or 'no'} lines of the mapping of {mapping.family} say where {name} is{several}"
            found.append(Diagnostic("E640", message, None))
            continue
        ((line, where),) = fitting
        inside.setdefault(where[0], []).append((name, line))
        copies[where[0]] = where[1:]
    tensors: list[Tensor] = []
    for name, held in inside.items():
        made = _tensors(name, held, params, copies[name])
        if isinstance(made, str):
            found.append(Diagnostic("E640", f"{name} of the mapping of {mapping.family}: {made}", None))
            continue
        form = held[0][1].weight.packed if packed else None
        tensors += [replace(one, packed=form) for one in made]
    if found:
        return found
    shapes = {name: own_shape(param) for name, param in params.items()}
    return Plan(tuple(tensors), shapes, mapping.prefix or "", tuple(mapping.drop), tuple(mapping.zeros))


def _tensors(
    name: str, held: list[tuple[str, Line]], params: Mapping[str, Param], copies: Iterable[str]
) -> list[Tensor] | str:
    """The tensors of that name, one for each index that stands open in it, or why they cannot be."""
    axis = open_index(name)
    if axis is None:
        made = _tensor(name, held, params, copies)
        return made if isinstance(made, str) else [made]
    rest = dict(params)
    places: dict[str, int] = {}
    for own, _ in held:
        names = [one.name for one in params[own].axes]
        if axis not in names:
            return f"{own} has no axis {axis}, only {', '.join(names)}"
        places[own] = names.index(axis)
        axes = params[own].axes
        rest[own] = replace(params[own], axes=(*axes[: places[own]], *axes[places[own] + 1 :]))
    made = _tensor(name, held, rest, copies)
    return made if isinstance(made, str) else list(_each(made, axis, places, params))


def _each(tensor: Tensor, axis: str, places: Mapping[str, int], params: Mapping[str, Param]) -> Iterator[Tensor]:
    """The tensor for each index of that axis."""
    first = tensor.parts[0].name
    for n in range(params[first].axes[places[first]].length):
        parts = tuple(replace(part, index=(places[part.name], n)) for part in tensor.parts)
        name, *copies = (filled(text, {axis: str(n)}) for text in (tensor.name, *tensor.copies))
        yield Tensor(name, tensor.shape, parts, tuple(copies))


def _around(name: str, params: Mapping[str, Param]) -> dict[str, int]:
    """Sizes of axes of all parameters of the same module."""
    module, *_ = name.rsplit(".", 2)
    beside = (param for other, param in params.items() if other.rsplit(".", 2)[0] == module)
    return dict(pair for param in beside for pair in factors_of(param))


def _tensor(
    name: str, held: list[tuple[str, Line]], params: Mapping[str, Param], copies: Iterable[str]
) -> Tensor | str:
    """The tensor with these parameters in it, or why it cannot be."""
    weight = held[0][1].weight
    parts = bracket(weight.axes)
    if sorted(line.part for _, line in held) != sorted(parts or ("",)):
        return f"{' and '.join(own for own, _ in held)} are not {', '.join(parts) or 'one parameter'}"
    if weight.axes is None:
        made = [plain(params[own]) for own, _ in held]
    else:
        try:
            pairs = [(line.part, params[own]) for own, line in held]
            made = views(weight.axes, pairs, parts, weight.flip, _around(held[0][0], params))
        except (Misfit, ValueError) as problem:
            return str(problem)
    laid = [Part(own, view, line.weight.add or 0.0) for (own, line), view in zip(held, made, strict=True)]
    return Tensor(name, made[0].shape, tuple(laid), tuple(copies))
