"""What a module looks like that holds the parameters of one kind of op."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Values = Mapping[str, str]
"""Parameters as the module reads them, by name; those that no leaf has are not there."""


@dataclass(frozen=True)
class Split:
    """How a class is called and described if a mesh axis splits a size: `{}` stands for the axis."""

    prefix: str
    doc: str


@dataclass(frozen=True)
class Form:
    """A module of one role, and of one lowering if `when` says so.

    `params` gives each parameter's shape by names of sizes; all but the first are optional. `sizes` are the arguments
    of the constructor, `attrs` those that are attributes of the op. `call` writes the lines of forward; `optional` are
    parameters that may be None. A form without `inputs` has none: what surrounds it reads the parameters.
    """

    role: str
    name: str
    doc: str
    params: Mapping[str, tuple[str, ...]]
    sizes: tuple[str, ...]
    inputs: str = ""
    call: Callable[[Values, bool], list[str]] = lambda values, optional: []
    attrs: tuple[str, ...] = ()
    splits: Mapping[str, Split] = field(default_factory=dict[str, Split])
    when: str = ""
    torch: tuple[str, ...] = ()  # parameters that torch's class of that name has
    ends: str = ""  # of the description, if surrounding code adds the bias
    init: Callable[[bool, str], list[str]] = lambda uneven, axis: []


def _reading(values: Values, optional: bool, call: Callable[[str | None], str]) -> list[str]:
    """A call that takes a bias or None."""
    if not optional:
        return [f"return {call(values.get('bias'))}"]
    return [f"bias = None if self.bias is None else {values['bias']}", f"return {call('bias')}"]


def _linear(values: Values, optional: bool) -> list[str]:
    return _reading(values, optional, lambda bias: f"F.linear(x, {values['weight']}{f', {bias}' if bias else ''})")


def _layer_norm(values: Values, optional: bool) -> list[str]:
    def call(bias: str | None) -> str:
        return f"F.layer_norm(x, x.shape[-1:], {values['weight']}, {f'{bias}, self.eps' if bias else 'eps=self.eps'})"

    return _reading(values, optional, call)


def _rms_norm(values: Values, optional: bool) -> list[str]:
    normed = f"F.rms_norm(x, x.shape[-1:], {values['weight']}, self.eps)"
    if "bias" not in values:
        return [f"return {normed}"]
    none = "x if self.bias is None else " if optional else ""
    return [f"x = {normed}", f"return {none}x + {values['bias']}"]


def _vocab_embedding(values: Values, optional: bool) -> list[str]:
    return [
        f"weight = {values['weight']}",
        "rows = ids - self.start",
        "mine = (rows >= 0) & (rows < len(weight))",
        "others = ~mine & (ids >= 0) & (ids < self.vocab)  # what is neither raises an IndexError",
        "return F.embedding(rows.masked_fill(others, 0), weight) * mine.unsqueeze(-1)",
    ]


def _vocab_start(uneven: bool, axis: str) -> list[str]:
    rows = f"math.ceil(vocab / {axis}.size())" if uneven else f"vocab // {axis}.size()"
    return ["self.vocab = vocab", f"self.start = {rows} * {axis}.get_local_rank()"]


WHOLE = "Parameters are whole on every rank."
COLUMN = Split("Column", "Output features are split over {}")
ROW = Split("Row", "Input features are split over {}, so outputs are partial sums")
VECTOR = {"weight": ("dim",), "bias": ("dim",)}
MATRIX = {"weight": ("n_out", "n_in"), "bias": ("n_out",)}

FORMS = (
    Form(
        "linear",
        "Linear",
        WHOLE,
        MATRIX,
        ("n_in", "n_out"),
        "x: Tensor",
        _linear,
        splits={"n_out": COLUMN, "n_in": ROW},
        torch=("weight", "bias"),
        ends="; the bias is added to their sum",
    ),
    Form("bias", "Bias", "The bias of a head that has no weight of its own.", {"bias": ("dim",)}, ("dim",)),
    Form(
        "embedding",
        "Embedding",
        "A table that every rank of {} holds.",
        {"weight": ("rows", "dim")},
        ("rows", "dim"),
        "ids: Tensor",
        lambda values, optional: [f"return F.embedding(ids, {values['weight']})"],
        torch=("weight",),
    ),
    Form(
        "embedding",
        "Embedding",
        "",
        {"weight": ("vocab", "dim")},
        ("vocab", "dim"),
        "ids: Tensor",
        _vocab_embedding,
        splits={
            "vocab": Split(
                "Vocab", "Rows are split over {}; ids of other ranks give zeros, so outputs are partial sums"
            )
        },
        when="vocab_parallel",
        init=_vocab_start,
    ),
    Form("rms_norm", "RMSNorm", WHOLE, VECTOR, ("dim",), "x: Tensor", _rms_norm, ("eps",), torch=("weight",)),
    Form(
        "layer_norm", "LayerNorm", WHOLE, VECTOR, ("dim",), "x: Tensor", _layer_norm, ("eps",), torch=("weight", "bias")
    ),
    Form("channel_scale", "ChannelScale", "A factor for each feature.", {"weight": ("dim",)}, ("dim",)),
)

_FORM = {(form.role, form.when): form for form in FORMS}


def form_of(role: str, lowering: str) -> Form:
    """Raises KeyError where nothing holds parameters of that role."""
    return _FORM.get((role, lowering)) or _FORM[role, ""]
