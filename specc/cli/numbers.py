"""Large numbers on the command line: 70B, 15T, 5.88e23."""

from __future__ import annotations

import re
from collections.abc import Callable

import click

SUFFIXES = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
_NUMBER = re.compile(r"(\d[\d_]*(?:\.\d+)?(?:[eE]\+?\d{1,3})?)([KMBT]?)", re.ASCII | re.IGNORECASE)


def large(low: float = 1, high: float = 1e30) -> Callable[[click.Context, click.Parameter, str | None], float | None]:
    """A callback of an option that is such a number, in bounds."""

    def read(context: click.Context, option: click.Parameter, text: str | None) -> float | None:
        if text is None:
            return None
        found = _NUMBER.fullmatch(text)
        if found is None:
            raise click.BadParameter(
                f"{text!r} is no number: write 70B, 15T or 5.88e23; K, M, B and T are powers of 1000"
            )
        number = float(found[1].replace("_", "")) * SUFFIXES[found[2].upper()]
        if not low <= number <= high:
            raise click.BadParameter(f"{text} is not between {shown(low)} and {shown(high)}")
        return number

    return read


def shown(number: float, digits: int = 4, unit: str = "") -> str:
    """`73B`, `146 GB` of bytes, `5.88e23` where there is no suffix or of flops: rounded, without zeros at the end."""
    mantissa, exponent = f"{number:.{digits - 1}e}".split("e")
    rounded = float(f"{mantissa}e{exponent}")
    if number and (rounded < 0.01 or rounded >= 1e15 or (unit == "flops" and rounded >= 1e6)):
        return f"{float(mantissa):g}e{int(exponent)}"
    suffix, scale = next((pair for pair in reversed(SUFFIXES.items()) if rounded >= pair[1]), ("", 1.0))
    text = f"{rounded / scale:.10g}"
    return f"{text} {suffix.replace('K', 'k').replace('B', 'G')}B" if unit == "bytes" else f"{text}{suffix}"
