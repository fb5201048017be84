"""Modules that hold what a stem is made of."""

from __future__ import annotations

from specc.emit.forms.base import Form

FORMS = (
    Form(
        "own_tokens",
        "OwnTokens",
        "Vectors that stand among the tokens of every sample.",
        {"weight": ("count", "dim")},
        ("count", "dim"),
    ),
)
