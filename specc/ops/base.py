"""What an op declares: shapes, signatures for placing, facts for checking, flops and saved values.

Signatures and facts are stated independently of each other: placing chooses among signatures, the checker derives
types from facts alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from specc.ir.op import Op
from specc.ir.types import UNEVEN, Axis, MeshAxis, Place, TensorType
from specc.ops.work import Worker

Types = tuple[TensorType, ...]
Stream = Callable[[TensorType], Place]
"""The layout's type of a value of that tensor type on a mesh axis."""


@dataclass(frozen=True)
class Signature:
    """For one mesh axis: types of inputs (None: any, only the shape is read), of parameters as used, and of outputs."""

    inputs: tuple[Place | None, ...]
    outputs: tuple[Place, ...]
    params: tuple[Place, ...] = ()
    lowering: str = "plain"


@dataclass(frozen=True)
class Exchange:
    """A collective that moves elements between ranks: how operands are sharded before it, and the results after it."""

    operands: tuple[str, ...]
    results: str


@dataclass(frozen=True)
class Owned:
    """That elements an op makes along a ragged `axis` belong each to one of `owners`, of which others have parameters.

    The op gives the elements, and the owner of each. Where ranks that are fed different tokens share out the owners,
    legalise puts an op of kind `there` behind it: of both results and the number of owners, an attribute of their name,
    it makes the same results, of those that this rank owns, with the axis of the owners before `axis`, and where each
    came from. In front of what has no such axis any more stands one of kind `back`: of a value, where each came from,
    and the owners as they were, it makes the value in its former order.
    """

    axis: str
    owners: str
    there: str
    back: str


@dataclass(frozen=True)
class Facts:
    """What an op does to its indices, in its own index space; the basis of the checker.

    Operands are numbered inputs first, then parameters. `rename` maps, for an operand, axis names (as they shard) to
    the op's indices; an axis not named keeps its name. `results` does the same for outputs. Indices of `regroup` are
    parts of another one, in no order (the tokens of rows): a shard of one is a shard of that.
    """

    rename: Mapping[int, Mapping[str, str]] = field(default_factory=dict[int, Mapping[str, str]])
    results: Mapping[int, Mapping[str, str]] = field(default_factory=dict[int, Mapping[str, str]])
    contract: tuple[str, ...] = ()  # summed over: a shard of it gives a partial sum
    mix: tuple[str, ...] = ()  # elements along it meet: must be whole, unless `lowered` names how
    linear: tuple[int, ...] = ()  # operands the op is linear in, each by itself
    additive: bool = False  # linear in all its operands together: a sum of them
    lowered: Mapping[str, str] = field(default_factory=dict[str, str])  # index -> communicating lowering that exists
    regroup: Mapping[str, str] = field(default_factory=dict[str, str])  # index -> one that has its elements and others'
    exchanges: Mapping[str, Exchange] = field(default_factory=dict[str, Exchange])  # lowering -> what it does
    selects: Mapping[str, str] = field(
        default_factory=dict[str, str]
    )  # lowering -> axis of which a rank makes its part
    shape_only: tuple[int, ...] = ()  # operands of which only the shape is read
    source: bool = False  # makes a value from shapes alone, the same on every rank
    zero: bool = False  # which is zero, so of any type: a partial sum too


def as_first(op: Op, ins: Types) -> Types:
    """The shape rule of an op whose result is like its first operand."""
    return (ins[0],)


def made_in(op: Op, usual: str = "float") -> str:
    """The dtype of a value of the stream that is made of whole numbers: the layout's, where it says one."""
    return op.text("dtype") if "dtype" in dict(op.attrs) else usual


@dataclass(frozen=True)
class Traffic:
    """Collectives that a placed op runs, by kind: forward, and in backward for what carries gradient."""

    forward: Mapping[str, int] = field(default_factory=dict[str, int])
    backward: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True)
class OpDef:
    """A kind of op. `signatures(op, ins, mesh, stream)` lists what is possible on a mesh axis, cheapest-to-read first.

    `flops` counts a forward pass; `saves` says which values backward needs ("in0", "out0", ...); `traffic` says what
    ranks exchange on a mesh axis for which the op has that lowering.
    """

    kind: str
    infer: Callable[[Op, Types], Types]
    signatures: Callable[[Op, Types, MeshAxis, Stream], list[Signature]]
    facts: Callable[[Op, Types], Facts]
    flops: Callable[[Op, Types, Mapping[str, int]], int] = lambda op, ins, symbols: 0
    saves: Callable[[Op], tuple[str, ...]] = lambda op: ()
    random: Callable[[Op], bool] = lambda op: False
    any_order: bool = False  # what mixes tokens takes them before or after samples, as its types say
    traffic: Callable[[Op, str], Traffic] = lambda op, lowering: Traffic()
    again: bool = False  # pipeline stages make it again, with its parameters, though it has a gradient: it is large
    owned: Owned | None = None  # what it makes is wanted where its owners are
    later: str = ""  # the kind that stands for it in `decode`, with the cache behind its operands
    keeps: bool = False  # it keeps something of the tokens so far in the cache that is its last operand
    wide: bool = False  # it computes in float32 at least, and reads its parameters as they are stored
    stays: bool = False  # what it makes is kept where layers are run again: a choice is made once
    shares: Callable[[Types], tuple[Axis, Axis] | None] = lambda ins: None  # its heads, and what each of several reads
    work: Worker | None = None  # what a device does for it; else specc.cost.work says, of its flops and operands


def shardable(axis: Axis, mesh: MeshAxis) -> bool:
    """Whether the mesh axis splits parameters by that axis; what may be uneven apart, it must divide."""
    name = axis.shard_name
    return name in mesh.shards and not axis.whole and (name in UNEVEN or axis.divides(mesh.size))


def splits_tokens(axis: Axis, mesh: MeshAxis) -> bool:
    """Whether the mesh axis splits tokens, or samples, along that axis; where their number is known, it must divide."""
    return axis.shard_name in mesh.tokens and axis.divides(mesh.size)
