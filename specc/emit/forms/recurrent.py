"""Modules of what goes along a sequence."""

from __future__ import annotations

from specc.emit.forms.base import Form, Split, Values


def _conv(role: str, name: str, when: str, takes: str, gives: str) -> Form:
    def call(values: Values, optional: bool) -> list[str]:
        bias = str(values.get("bias"))
        lines = [f"bias = None if self.bias is None else {bias}"] if optional and bias != "self.bias" else []
        return [*lines, f"return {role}(x, {values['weight']}, {'bias' if lines else bias}{gives})"]

    return Form(
        role,
        name,
        "A convolution of each channel over positions and those before them.",
        {"weight": ("channels", "taps"), "bias": ("channels",)},
        ("channels", "taps"),
        f"x: Tensor{takes}",
        call,
        splits={"channels": Split("Split", "Channels are split over {}")},
        when=when,
    )


def _blocks(values: Values, optional: bool) -> list[str]:
    return [f"return block_linear(x, {values['weight']}, {values['bias']})"]


CHANNELS = Split("Split", "Channels are split over {}")
FORMS = (
    Form(
        "block_linear",
        "BlockLinear",
        "A matrix for the features of each head.",
        {"weight": ("heads", "width", "width"), "bias": ("heads", "width")},
        ("heads", "width"),
        "x: Tensor",
        _blocks,
        splits={"heads": Split("Split", "Heads are split over {}")},
    ),
    Form(
        "per_channel",
        "PerChannel",
        "A number for each channel.",
        {"weight": ("channels",)},
        ("channels",),
        splits={"channels": CHANNELS},
    ),
    Form(
        "per_state",
        "PerState",
        "A number for each row of the state of each channel.",
        {"weight": ("channels", "state")},
        ("channels", "state"),
        splits={"channels": CHANNELS},
    ),
    Form(
        "per_head",
        "PerHead",
        "A number for each head.",
        {"weight": ("heads",)},
        ("heads",),
        splits={"heads": Split("Split", "Heads are split over {}")},
    ),
    _conv("causal_conv", "CausalConv", "", "", ""),
    _conv("causal_conv", "CausalConv", "halo", ", before: Tensor", ", before"),
    _conv("document_conv", "DocumentConv", "", ", first: Tensor", ", first"),
)
