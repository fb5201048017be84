"""Modules that hold tables of biases."""

from __future__ import annotations

from specc.emit.forms.base import Form, Split

FORMS = (
    Form(
        "relative_bias",
        "RelativeBias",
        "A number for each bucket of distances and each head.",
        {"weight": ("buckets", "heads")},
        ("buckets", "heads"),
        "buckets: Tensor",
        lookup=lambda weight, cast: [f"return F.embedding(buckets, {weight}){cast}.permute(2, 0, 1)"],
        splits={"heads": Split("Split", "Heads are split over {}")},
    ),
)
