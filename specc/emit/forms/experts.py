"""Modules of which each expert has its own part."""

from __future__ import annotations

from dataclasses import replace

from specc.emit.forms.base import Form, Split, Values
from specc.emit.forms.dense import COLUMN, ROW, linear


def _grouped(values: Values, optional: bool) -> list[str]:
    weight, bias = values["weight"], values.get("bias")
    if optional:
        return [
            f"bias = None if self.bias is None else {bias}",
            f"return grouped_linear(rows, owner, {weight}, bias)",
        ]
    return [f"return grouped_linear(rows, owner, {weight}{f', {bias}' if bias else ''})"]


EXPERTS = Form(
    "grouped_linear",
    "Experts",
    "A linear of each expert.",
    {"weight": ("experts", "n_out", "n_in"), "bias": ("experts", "n_out")},
    ("experts", "n_in", "n_out"),
    "rows: Tensor, owner: Tensor",
    _grouped,
    splits={"experts": Split("Own", "Experts are split over {}"), "n_out": COLUMN, "n_in": ROW},
)
LAST = replace(
    EXPERTS,
    role="grouped_last",
    name="LastExperts",
    doc="A linear of each expert; biases are added to the weighted sum of its rows.",
    ends="; biases are added to their weighted sum",
)
ROUTER = Form(
    "router",
    "Router",
    "A linear, and what is added to scores for the choice alone.",
    {"weight": ("n_out", "n_in"), "bias": ("n_out",), "correction": ("n_out",)},
    ("n_in", "n_out"),
    "x: Tensor",
    linear,
)
SCALE = Form("expert_scale", "ExpertScale", "A factor for each expert.", {"weight": ("n_experts",)}, ("n_experts",))
FORMS: tuple[Form, ...] = (EXPERTS, LAST, ROUTER, SCALE)
