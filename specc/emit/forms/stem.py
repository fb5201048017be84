"""Modules that hold what a stem is made of."""

from __future__ import annotations

from specc.emit.forms.base import Form, Values


def _conv(values: Values, optional: bool) -> list[str]:
    """Of a signal along time."""
    if not optional:
        return [f"return F.conv1d(x, {values['weight']}, {values.get('bias')}, self.stride, self.padding)"]
    return [
        f"bias = None if self.bias is None else {values['bias']}",
        f"return F.conv1d(x, {values['weight']}, bias, self.stride, self.padding)",
    ]


FORMS = (
    Form(
        "time_conv",
        "Conv1d",
        "A convolution along time that every rank of {} does.",
        {"weight": ("n_out", "n_in", "taps"), "bias": ("n_out",)},
        ("n_in", "n_out", "taps"),
        "x: Tensor",
        _conv,
        ("stride", "padding"),
        torch=("weight", "bias"),
    ),
    Form(
        "own_tokens",
        "OwnTokens",
        "Vectors that stand among the tokens of every sample.",
        {"weight": ("count", "dim")},
        ("count", "dim"),
    ),
)
