"""Modules of linear layers, tables of embeddings, norms and scales."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from specc.emit.forms.base import Form, Split, Values


def _reading(values: Values, optional: bool, call: Callable[[str | None], str]) -> list[str]:
    """A call that takes a bias or None."""
    if not optional:
        return [f"return {call(values.get('bias'))}"]
    return [f"bias = None if self.bias is None else {values['bias']}", f"return {call('bias')}"]


def linear(values: Values, optional: bool) -> list[str]:
    """The forward of a linear layer."""
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


def _changed_norm(kind: str, offset: bool, grouped: bool) -> Callable[[Values, bool], list[str]]:
    """A norm that torch has no class of: of groups of features, or with a constant beside the weight."""

    def call(values: Values, optional: bool) -> list[str]:
        weight = f"(self.offset + {values['weight']})" if offset else values["weight"]
        ends = ".flatten(-2)" if grouped else ""
        lines = ["x = x.unflatten(-1, (-1, self.width))"] * grouped
        lines.append(f"x = F.{kind}_norm(x, x.shape[-1:], eps=self.eps){ends}")
        if "bias" not in values:
            return [*lines, f"return x * {weight}"]
        none = "x if self.bias is None else " if optional else ""
        return [*lines, f"x = x * {weight}", f"return {none}x + {values['bias']}"]

    return call


def _changed_norms() -> tuple[Form, ...]:
    """With either or both, by what their ops are called."""
    return tuple(
        Form(
            f"{'grouped_' * grouped}{'offset_' * offset}{kind}_norm",
            f"{'Grouped' * grouped}{'Offset' * offset}{name}",
            ". ".join([GROUPED] * grouped + [OFFSET] * offset) + ".",
            VECTOR,
            ("dim",),
            "x: Tensor",
            _changed_norm(kind, offset, grouped),
            ("eps", *("offset",) * offset, *("width",) * grouped),
        )
        for kind, name in (("rms", "RMSNorm"), ("layer", "LayerNorm"))
        for offset, grouped in ((True, False), (False, True), (True, True))
    )


def _split_norm(kind: str, offset: bool) -> Callable[[Values, bool], list[str]]:
    """A norm of features that ranks share."""

    def call(values: Values, optional: bool) -> list[str]:
        weight = f"(self.offset + {values['weight']})" if offset else values["weight"]
        normed = f"split_{kind}_norm(x, self.eps, self.ranks) * {weight}"
        if "bias" not in values:
            return [f"return {normed}"]
        none = "x if self.bias is None else " if optional else ""
        return [f"x = {normed}", f"return {none}x + {values['bias']}"]

    return call


def _split_norms() -> tuple[Form, ...]:
    """Where ranks share features: by what all have together, or each its own groups."""
    own = Split("Split", "Groups of features are split over {}")
    shared = Split("Split", "Features are split over {}, which sums up what they have together")
    found: list[Form] = []
    for form in (form for form in (*_plain_norms(), *_changed_norms()) if form.when == ""):
        kind = "rms" if form.role.endswith("rms_norm") else "layer"
        if "width" in form.attrs:
            found.append(replace(form, splits={"dim": own}, when="own_groups", torch=()))
        else:
            call = _split_norm(kind, "offset" in form.attrs)
            more = replace(form, call=call, splits={"dim": shared}, when="sum_statistic", torch=(), init=_kept_ranks)
            found.append(more)
    return tuple(found)


def _kept_ranks(uneven: bool, axis: str) -> list[str]:
    return [f"self.ranks = {axis}"]


def _plain_norms() -> tuple[Form, ...]:
    """Those of torch."""
    rms = Form("rms_norm", "RMSNorm", WHOLE, VECTOR, ("dim",), "x: Tensor", _rms_norm, ("eps",), torch=("weight",))
    both = ("weight", "bias")
    return rms, Form("layer_norm", "LayerNorm", WHOLE, VECTOR, ("dim",), "x: Tensor", _layer_norm, ("eps",), torch=both)


def _xielu(values: Values, optional: bool) -> list[str]:
    return [f"return xielu(x, {values['alpha_p']}, {values['alpha_n']})"]


def _vocab_embedding(weight: str, cast: str) -> list[str]:
    return [
        f"weight = {weight}",
        "rows = ids - self.start",
        "mine = (rows >= 0) & (rows < len(weight))",
        "others = ~mine & (ids >= 0) & (ids < self.vocab)  # what is neither raises an IndexError",
        f"return F.embedding(rows.masked_fill(others, 0), weight){cast} * mine.unsqueeze(-1)",
    ]


def _vocab_start(uneven: bool, axis: str) -> list[str]:
    rows = f"math.ceil(vocab / {axis}.size())" if uneven else f"vocab // {axis}.size()"
    return ["self.vocab = vocab", f"self.start = {rows} * {axis}.get_local_rank()"]


OFFSET, GROUPED = "The factor is a constant plus the weight", "Each group of features is normed by itself"
WHOLE = ""  # nothing to say: parameters are whole on every rank
COLUMN = Split("Column", "Output features are split over {}")
ROW = Split("Row", "Input features are split over {}, so outputs are partial sums")
VECTOR = {"weight": ("dim",), "bias": ("dim",)}
MATRIX = {"weight": ("n_out", "n_in"), "bias": ("n_out",)}

FORMS: tuple[Form, ...] = (
    Form(
        "linear",
        "Linear",
        WHOLE,
        MATRIX,
        ("n_in", "n_out"),
        "x: Tensor",
        linear,
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
        lookup=lambda weight, cast: [f"return F.embedding(ids, {weight}){cast}"],
        torch=("weight",),
    ),
    Form(
        "embedding",
        "Embedding",
        "",
        {"weight": ("vocab", "dim")},
        ("vocab", "dim"),
        "ids: Tensor",
        lookup=_vocab_embedding,
        splits={
            "vocab": Split(
                "Vocab", "Rows are split over {}; ids of other ranks give zeros, so outputs are partial sums"
            )
        },
        when="vocab_parallel",
        init=_vocab_start,
    ),
    *_plain_norms(),
    *_changed_norms(),
    *_split_norms(),
    Form("xielu", "XIELU", WHOLE, {"alpha_p": ("1",), "alpha_n": ("1",)}, (), "x: Tensor", _xielu),
    Form(
        "head_scale",
        "HeadScale",
        "A factor for each feature of each head.",
        {"weight": ("heads", "dim"), "bias": ("heads", "dim")},
        ("heads", "dim"),
        splits={"heads": Split("Split", "Heads are split over {}")},
    ),
    Form(
        "sinks",
        "Sinks",
        "A score for each head that takes part in the softmax and is dropped.",
        {"weight": ("heads",)},
        ("heads",),
        splits={"heads": Split("Split", "Heads are split over {}")},
    ),
    Form("channel_scale", "ChannelScale", "A factor for each feature.", {"weight": ("dim",)}, ("dim",)),
)
