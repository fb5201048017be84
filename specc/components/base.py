"""What a component is, and what spec models of all components share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from specc.ir.op import Ref
from specc.ir.types import Axis

if TYPE_CHECKING:
    from specc.components.norm import Norm
    from specc.lower.builder import Builder

Dim = Annotated[int, Field(ge=1, le=2**24)]
"""A size of an axis. The bound keeps products below 2**63 and typos from filling memory."""

Rate = Annotated[float, Field(ge=0.0, le=0.99)]
"""A dropout rate. What is kept is divided by 1 - rate, which has to be a number in half precision."""

Factor = Annotated[float, Field(ge=-1e4, le=1e4)]
"""A constant that activations are multiplied by. float16 ends at 65504."""

Eps = Annotated[float, Field(ge=1e-15, lt=1.0)]
"""Added to a mean square. The backward pass has its root to the power -3, float32 ends at 3e38."""

Scale = Annotated[float, Field(ge=1e-6, le=1e4)]
"""A factor on scores. With 0 or less the masked ones are no longer the smallest, or not a number."""

Bound = Annotated[float, Field(ge=1e-3, le=1e4)]
"""What values are kept below, in size."""

Std = Annotated[float, Field(ge=1e-6, le=10)]
"""A standard deviation."""

Stretch = Annotated[float, Field(ge=1e-3, le=1e6)]
"""A ratio of lengths."""


class Config(BaseModel):
    """Base of all spec models: frozen, strict, unknown keys are errors, docstrings are descriptions."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        defer_build=True,  # only the whole document needs its validator: a third of the start-up time
    )


def kind(value: Any) -> str:
    """The kind of a YAML value."""
    kinds = ((bool, "bool"), (dict, "mapping"), (list, "list"), (str, "text"), (int, "number"), (float, "number"))
    return next((name for type, name in kinds if isinstance(value, type)), "nothing")


by_kind = Discriminator(kind)
"""Unions are told apart by the kind of YAML value, so that an error speaks of one alternative."""

Arithmetic = Annotated[str, Field(max_length=200), Tag("text")]
"""A formula as written; `specc.spec.formulas` makes a number of it, which is in the range of the numbers beside it."""

Formula = Annotated[Annotated[Factor, Tag("number")] | Arithmetic, by_kind]
"""A factor, or arithmetic on names of sizes."""

RateFormula = Annotated[Annotated[Rate, Tag("number")] | Arithmetic, by_kind]
"""A dropout rate, or arithmetic on names of sizes."""

StdFormula = Annotated[Annotated[Std, Tag("number")] | Arithmetic, by_kind]
"""A standard deviation, or arithmetic on names of sizes."""

ScaleFormula = Annotated[Annotated[Scale, Tag("number")] | Arithmetic, by_kind]
"""A factor on scores, or arithmetic on names of sizes."""

BoundFormula = Annotated[Annotated[Bound, Tag("number")] | Arithmetic, by_kind]
"""What values are kept below or multiplied by, or arithmetic on names of sizes."""

StretchFormula = Annotated[Annotated[Stretch, Tag("number")] | Arithmetic, by_kind]
"""A ratio of lengths, or arithmetic on names of sizes."""


def settled(value: float | str) -> float:
    """Of a resolved config, where formulas are numbers."""
    assert not isinstance(value, str), "formulas are made numbers first"
    return value


@dataclass(frozen=True)
class Problem:
    """A broken rule: where (relative to the component), what with its values, and what would be right."""

    code: str
    path: tuple[str | int, ...]
    message: str
    help: str | None = None


Problems = Iterator[Problem]


MAX_PARAMETER = 2**40  # elements of one matrix


def too_large(path: tuple[str | int, ...], what: str, count: int, d_model: int) -> Problems:
    """E216 where a matrix [count, d_model] is beyond all machines; `what` is the count with its name."""
    if count * d_model > MAX_PARAMETER:
        message = f"{what} at d_model = {d_model} makes a matrix of more than 2**40 numbers"
        yield Problem("E216", path, message, f"at most {MAX_PARAMETER // d_model}")


Outside = Literal["memory", "memory_mask", "own_mask", "documents", "stream"]
"""The encoder's output, which of its tokens are no padding, and which of an encoder's own are none; where the document
of each token starts in its row [batch, seq], not there where a row is one; what a norm on the input reads."""


@dataclass(frozen=True)
class Tokens:
    """Where the tokens of a stack stand: what tables and masks are made of."""

    index: Ref
    """Place of each in its row [seq]."""
    positions: Ref
    """What positional encodings are of [seq]; [batch, seq] where they start again at each document of a row."""
    real: Ref | None = None
    """Which of them are no padding [batch, seq]; None: all are."""
    first: Ref | None = None
    """Index of the first token of the same document [batch, seq]; None: a row is one."""
    mask: Ref | None = None
    """Which see each other, causality apart; None: all do."""
    prefix: str = ""
    """What stands before the names of the stack's own parameters."""
    marked: Ref | None = None
    """Which of them are of a prefix [batch, seq]."""
    group: Ref | None = None
    """Numbers [batch, seq], equal for tokens that may see each other, where padding is an input; None: as first."""

    @property
    def apart(self) -> dict[str, Ref]:
        """Operands of a mask that keeps documents apart and padding away."""
        group = self.first if self.group is None else self.group
        documents = {} if group is None else {"documents": group, "documents of keys": group}
        return documents if self.real is None else {**documents, "real": self.real}


@dataclass(frozen=True)
class Table:
    """A value made of positions, once for all components of a stack that ask for an equal one.

    It may be made of others: `of`.
    """

    name: str
    mark: str  # tells tables of one name apart
    config: Config
    size: int  # features
    lower: Callable[..., Ref]
    """(config, builder, tokens of the stack, size, what to call it, those that it is made of) -> the table."""
    of: tuple[Table, ...] = ()


Synonyms = Mapping[str, tuple[str, ...]]
"""What others call a key or a word of a component: of its config, and its own."""
Need = Outside | Table | str
"""A text: the name under which an earlier layer gave a value."""
Given = Mapping[Need, Ref]
C = TypeVar("C", bound=Config)


@dataclass(frozen=True, eq=False)
class Component(Generic[C]):
    """All that the compiler asks of a component. But for `resolve`, functions get a resolved config."""

    key: str
    """In a spec; what it is called in module paths."""
    config: type[C]
    class_name: str
    """In generated files; `variant` goes before it where another class has that name."""
    lower: Callable[[C, Builder, Ref, Given, Axis], Ref]
    """(config, builder, x [batch, seq, d_model], what it reads and is there, d_model) -> [batch, seq, d_model]."""
    smallest: Mapping[str, Any]
    """A valid config as written, for the place of one that cannot be read."""
    shards: tuple[str, ...]
    """Names of axes by which tp splits its parameters."""
    split_by_tp: Callable[[C], tuple[tuple[str, int], ...]]
    """Keys and numbers that tp must divide. Counts have keys in the plural."""
    results: Callable[[C], tuple[str, ...]]
    """Names of the ops whose results `checkpoint.save` can keep, in op order."""
    shrink: Callable[[C, int], C]
    """The same structure in sizes that a laptop runs and that a tp divides."""
    grows: tuple[str, ...] = ()
    """Keys of sizes that grow with d_model in a spec of another size, dotted where they are of a part; of counts, which
    end in `heads`, the later ones divide the first. Without them a spec cannot be scaled (`specc init --like`)."""
    parted_by_tp: Callable[[C], tuple[tuple[str, int], ...]] = lambda config: ()
    """The same of numbers that ranks may share unevenly, as torch.chunk parts them, so that none is without."""
    split_by: Mapping[str, Callable[[C], tuple[tuple[str, int], ...]]] = field(default_factory=dict[str, Any])
    """The same of other axes of the mesh, by name."""
    spread: Callable[[C], tuple[tuple[str, int], ...]] = lambda config: ()
    """Those of heads that ranks with parts of rows share out while attention computes, where a layout says so."""
    reads: tuple[Outside, ...] = ()
    """Values of the stack that it reads beside x; masks and documents may be missing."""
    streamed: Callable[[C], bool] = lambda config: False
    """Whether it reads `stream`, which is not there where that is its input."""
    inputs: Callable[[C], tuple[Literal["prefix"], ...]] = lambda config: ()
    """Inputs of the model, each [batch, seq], that are there because of it."""
    takes: Callable[[C], tuple[str, ...]] = lambda config: ()
    """Names of values that earlier layers gave, of which it reads the latest."""
    gives: Callable[[C], tuple[str, ...]] = lambda config: ()
    """Names under which lowering leaves values in `Builder.named`, for later layers; their types are the layout's."""
    adds_to_loss: Callable[[C], bool] = lambda config: False
    """Whether lowering it adds terms to the loss (`Builder.term`)."""
    tables: Callable[[C], tuple[Table, ...]] = lambda config: ()
    """Tables that it reads, too."""
    resolve: Callable[[C, int, str], C] = lambda config, d_model, role: config
    """Fills in defaults that depend on d_model or on the role of the stack, encoder or decoder."""
    normed: Callable[[C, Norm], C] = lambda config, model: config
    """Fills in its inner norms, given the model's norm. It comes first."""
    fitted: Callable[[C, Mapping[str, Config], int], tuple[C, Problem | None]] = lambda config, kept, d_model: (
        config,
        None,
    )
    """Fills in what follows from those that gave what it takes, behind `resolve` and for every layer: `kept` has the
    latest giver of each name. What does not fit is told beside."""
    by_length: Callable[[C], tuple[str | int, ...]] = lambda config: ()
    """Where a key stands whose meaning depends on how long a row is; () where there is none."""
    rules: Callable[[C, int, Callable[[str], bool]], Problems] = lambda config, d_model, stated: iter(())
    """What must hold of a config at d_model; `stated` tells whether the spec itself gives the value of a key."""
    decided: Callable[[C, str], Mapping[str, tuple[object, str]]] = lambda config, role: {}
    """For `specc plan`: by key, values that a default decided in a stack of that role, and how."""
    synonyms: Synonyms = field(default_factory=dict[str, tuple[str, ...]])
    """For hints."""
    verb: str = ""
    """What a part of a layer is called that runs it where checkpointing cuts layers; by default `run_` and the name."""
    variant: Callable[[C], str] = lambda config: ""
    """A word that tells its class from others of that name."""
    summary: Callable[[C], str] = lambda config: ""
    """A few words on its sizes, for the docstring of a generated file."""


def divisors(*numbers: int) -> list[int]:
    """Common divisors of all numbers, ascending."""
    smallest = min(numbers)
    small = [d for d in range(1, int(smallest**0.5) + 1) if smallest % d == 0]
    every = sorted({*small, *(smallest // d for d in small)})
    return [d for d in every if all(n % d == 0 for n in numbers)]


def fewer(count: int, ranks: int) -> int:
    """At most two for each rank, or with the same rest where ranks cannot hold as many each."""
    return count if count < 2 * ranks else ranks + count % ranks if count % ranks else 2 * ranks


def choices(values: list[int], most: int = 16) -> str:
    """`1, 2 or 4`; of many numbers the first."""
    words = [str(v) for v in values[:most]] + ["..."] * (len(values) > most)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
