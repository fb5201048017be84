"""What every component's spec model shares."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field

Dim = Annotated[int, Field(ge=1, le=2**24)]
"""A size of an axis. The bound keeps products below 2**63 and typos from filling memory."""

Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
"""A dropout rate."""

Factor = Annotated[float, Field(allow_inf_nan=False)]
"""A finite constant."""


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


@dataclass(frozen=True)
class Problem:
    """A broken rule: where (relative to the component), what with its values, and what would be right."""

    code: str
    path: tuple[str | int, ...]
    message: str
    help: str | None = None


Problems = Iterator[Problem]


def divisors(*numbers: int) -> list[int]:
    """Common divisors of all numbers, ascending."""
    smallest = min(numbers)
    small = [d for d in range(1, int(smallest**0.5) + 1) if smallest % d == 0]
    every = sorted({*small, *(smallest // d for d in small)})
    return [d for d in every if all(n % d == 0 for n in numbers)]


def choices(values: list[int], most: int = 16) -> str:
    """`1, 2 or 4`; of many numbers the first."""
    words = [str(v) for v in values[:most]] + ["..."] * (len(values) > most)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
