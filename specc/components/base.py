"""What every component's spec model shares."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

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


def choices(values: list[int]) -> str:
    """`1, 2 or 4`."""
    words = [str(v) for v in values]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
