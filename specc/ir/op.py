"""Ops, their parameters and where they stand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from specc.ir.types import Axis, Place, Spmd, TensorType

T = TypeVar("T")


class Layer(NamedTuple):
    """A path component inside a repeat: the layer at this position of the period of that run of the stack.

    In ids of ops `+1`, in runs after the first `2+1`: run 2, position 1.
    """

    offset: int
    run: int = 0

    def __str__(self) -> str:
        return f"{'' if not self.run else self.run}+{self.offset}"


class Stage(NamedTuple):
    """The first path component in a pipeline stage, the first of several equal ones: no part of a parameter's name."""

    number: int

    def __str__(self) -> str:
        return f"stage{self.number}"


class Shared(NamedTuple):
    """In the path of a parameter, the name of a block in the place of a layer: all layers of that block have it."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Span:
    """Of a repeat, the layers start .. start + n - 1, which a pipeline stage runs."""

    stage: int
    start: int
    n: int


PathPart = str | Layer | Stage | Shared
Path = tuple[PathPart, ...]
Attr = int | float | str | bool | None | tuple["Attr", ...] | Axis | Place | Span


def dotted(path: Path, layer: int | None = None) -> str:
    """`layers.3.attention`; without a layer number its place in the period is shown."""
    if layer is None:
        return ".".join(map(str, path))
    return ".".join([str(layer) if isinstance(p, Layer) else str(p) for p in path])


def stage_of(path: Path) -> int:
    """Number of the pipeline stage that a path stands in, 0 in a model that is not cut."""
    return path[0].number if path and isinstance(path[0], Stage) else 0


def in_model(path: Path) -> Path:
    """Where a scope stands in the model, which does not depend on stages."""
    return path[1:] if path and isinstance(path[0], Stage) else path


def plain_name(path: Path) -> str:
    """The name of a parameter without stack and layer: `attention.q.weight`."""
    layers = [n for n, part in enumerate(path) if isinstance(part, (Layer, Shared))]
    return ".".join(map(str, path[layers[0] + 1 if layers else 0 :]))


class Ref(NamedTuple):
    """Output number `out` of an op; a tuple, for it is looked up more often than anything else."""

    op: str
    out: int = 0

    def __str__(self) -> str:
        return f"%{self.op}" if not self.out else f"%{self.op}:{self.out}"


STARTS = ("log_rows", "log_columns", "slow_decay", "small_steps")
"""Kinds of starts that are kernels: of a generator, the number of a block of 16 rows, and the shape."""


@dataclass(frozen=True, slots=True)
class Init:
    """normal (std), ones or zeros; `constant` fills with std, `uniform` draws between that and its negative.

    `truncated` is normal without what is more than `cut` std from zero. Others are of STARTS.
    """

    kind: str
    std: float = 0.0
    cut: float = 0.0

    def __str__(self) -> str:
        if self.kind in ("ones", "zeros"):
            return self.kind
        return f"{self.kind}({self.std:.6g}{f', {self.cut:.6g}' if self.cut else ''})"


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter under its global name; `role` is the kind of op that its module stands for.

    One that is not `trained` is a buffer: part of the model's state without a gradient, whole on every rank.
    """

    path: Path
    axes: tuple[Axis, ...]
    init: Init
    role: str
    trained: bool = True


@dataclass(frozen=True, slots=True)
class Use:
    """How an op reads a parameter: the type it is stored as and the type it is used as."""

    stored: Spmd
    used: Spmd


@dataclass(frozen=True)
class Op:
    """A node of the graph. `types`, `uses` and `lowering` are filled by placing, one entry an output or parameter."""

    id: str
    kind: str
    inputs: tuple[Ref, ...] = ()
    params: tuple[Param, ...] = ()
    attrs: tuple[tuple[str, Attr], ...] = ()
    scope: Path = ()
    hint: str = "x"  # what the value is called
    hints: tuple[str, ...] = ()  # what each of several is called
    at: tuple[str | int, ...] = ()  # where in the document it comes from
    outs: tuple[TensorType, ...] = ()
    types: tuple[Spmd, ...] = ()
    uses: tuple[Use, ...] = ()
    lowering: tuple[tuple[str, str], ...] = ()  # mesh axis -> how it communicates, where not plainly
    kept: str = ""  # name under which checkpointing keeps the result

    def changed(self, **fields: Any) -> Op:
        """This op with other fields, in a fraction of the time of `replace`. Raises TypeError for one it has not."""
        values = {**self.__dict__, **fields}
        if len(values) != len(self.__dict__):
            raise TypeError(f"an op has no {', '.join(fields.keys() - self.__dict__.keys())}")
        made = object.__new__(Op)
        made.__dict__.update(values)
        return made

    def attr(self, name: str) -> Attr:
        """Raises KeyError."""
        return dict(self.attrs)[name]

    def number(self, name: str) -> int:
        """An attribute that is a whole number. Raises KeyError, OpError."""
        return self._typed(name, int, "a whole number")

    def text(self, name: str) -> str:
        """An attribute that is a text. Raises KeyError, OpError."""
        return self._typed(name, str, "a text")

    def place(self, name: str) -> Place:
        """An attribute that is a type on a mesh axis. Raises KeyError, OpError."""
        return self._typed(name, Place, "a place")

    def real(self, name: str) -> float:
        """An attribute that is a number. Raises KeyError, OpError."""
        return self._typed(name, (int, float), "a number")

    def _typed(self, name: str, kind: type[T] | tuple[type[T], ...], what: str) -> T:
        value = self.attr(name)
        if not isinstance(value, kind):
            raise OpError(self, f"{name} is {value!r}, not {what}")
        return value

    @property
    def ref(self) -> Ref:
        return Ref(self.id)

    def having(self, **attrs: Attr) -> Op:
        """This op with attributes set."""
        return self.changed(attrs=tuple({**dict(self.attrs), **attrs}.items()))


Likeness = tuple[str, tuple[tuple[str, Attr], ...], tuple[tuple[tuple[Axis, ...], str], ...], tuple[int, ...]]


def likeness(op: Op, given: Iterable[object]) -> Likeness:
    """Equal for ops of which an OpDef says the same: of one kind, with the same attributes and parameters but for their
    names, and given the very same objects (types that `shapes` made, say), which must live as long as it is kept.
    """
    params = tuple([(param.axes, param.role) for param in op.params]) if op.params else ()
    return op.kind, op.attrs, params, tuple(map(id, given))


class OpError(Exception):
    """A bug of specc, at an op."""

    def __init__(self, op: Op, problem: str):
        super().__init__(f"{op.id}: {problem}")
        self.op = op
