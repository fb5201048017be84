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


FORMS = (
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
