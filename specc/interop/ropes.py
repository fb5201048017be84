"""Functions of holes for rotary positions: how they are scaled, and what yarn has for amplitudes and scores."""

from __future__ import annotations

from math import log
from typing import Any, cast

from specc.interop.context import Context, Function, Unmapped, as_is
from specc.interop.schema import Data

LENGTH = "max_position_embeddings"


def _read_scaling(value: Any, _: tuple[Any, ...], context: Context) -> Any:
    """By the kind that it names. A class takes the length of a model for an original length that nobody gives."""
    given = cast(Data, value) if isinstance(value, dict) else {}
    kind = given.get("rope_type", "default")
    context.seen.add("rope_type")
    if kind not in context.common.scaling:
        raise Unmapped(f"specc has {', '.join(context.common.scaling)}", ("rope_type",))
    template = context.common.scaling[kind]
    if template is None:
        return None
    assert context.fill is not None
    length = context.beside((LENGTH,))
    if length is None and (f"${LENGTH}" in template.values() or given.get(f"original_{LENGTH}", 0) is None):
        raise Unmapped(f"nothing says {LENGTH}", ("rope_type",))
    beside = {} if length is None else {LENGTH: length, f"original_{LENGTH}": length}
    made, seen = context.fill(template, {**beside, **given})
    context.seen.update(seen)
    return made


def _write_scaling(value: Any, _: tuple[Any, ...], context: Context) -> Any:
    assert context.match is not None
    for kind, template in context.common.scaling.items():
        if value is None and template is None:
            return {"rope_type": kind}
        if isinstance(value, dict) and template is not None:
            solved = context.match(template, cast(Data, value))
            if solved is not None:
                return {"rope_type": kind, **{key: one for key, one in solved.items() if key != LENGTH}}
    raise Unmapped("others have no rope_type for it")


def _stretched(factor: float, by: float) -> float:
    """What yarn multiplies by for a context that is so much longer (Peng et al. 2023, 3.4)."""
    return 1.0 if factor <= 1 else 0.1 * by * log(factor) + 1.0


def _read_amplitude(value: Any, args: tuple[Any, ...], _: Context) -> Any:
    """As stated, else the quotient of two such factors; null where it is the usual one."""
    factor, rotated, whole = args
    if value is not None or factor is None or not (rotated and whole):
        return value
    return _stretched(factor, rotated) / _stretched(factor, whole)


def _read_mscale(value: Any, args: tuple[Any, ...], context: Context) -> Any:
    """The scale of scores: that of features of heads, which stand in two parts, by the square of such a factor."""
    given = cast(Data, value) if isinstance(value, dict) else {}
    context.seen.update(("rope_type", "mscale_all_dim"))
    factor, by = args[0], given.get("mscale_all_dim")
    if not by or given.get("rope_type", "default") == "default":
        return None
    if not isinstance(factor, (int, float)):
        raise Unmapped("nothing says by how much the context is longer", ("mscale_all_dim",))
    return _scaled(by, args)


def _scaled(by: float, args: tuple[Any, ...]) -> float:
    factor, *widths = args
    one = _stretched(factor, by)
    return sum(widths) ** -0.5 * one * one


def _write_mscale(value: Any, args: tuple[Any, ...], _: Context) -> Any:
    factor, *widths = args
    usual = sum(widths) ** -0.5
    if value is None or value == usual:
        return {}
    if not isinstance(factor, (int, float)) or factor <= 1 or value < usual:
        raise Unmapped("it follows from the features of heads, and from the factor of a scaled rope, here")
    exact = ((value / usual) ** 0.5 - 1.0) / (0.1 * log(factor))
    short = (float(f"{exact:.{digits}g}") for digits in range(1, 17))
    return {"mscale_all_dim": next((by for by in short if _scaled(by, args) == value), exact)}


ROPES = {
    "scaling": Function(_read_scaling, _write_scaling),
    "amplitude": Function(_read_amplitude, as_is),
    "mscale": Function(_read_mscale, _write_mscale),
}
