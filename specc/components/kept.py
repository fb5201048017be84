"""Keys and values that a layer keeps for later ones (Brandon et al. 2024), and values mixed in (Zhou et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, TypeVar

from pydantic import Field

from specc.components import heads
from specc.components.base import Config, Factor, Given, Problem, Problems, Synonyms
from specc.components.heads import Heads
from specc.ir.op import Init, Ref
from specc.ir.types import Axis

if TYPE_CHECKING:
    from specc.lower.builder import Builder

SYNONYMS: Synonyms = {
    "kv_from": ("num_kv_shared_layers", "kv_shared"),
    "value_residual": ("v_residual", "resformer"),
}
Name = Annotated[str, Field(max_length=64)]
SIZES = ("kv_heads", "head_dim", "v_head_dim")


class ValueResidual(Config):
    """Values of an earlier layer are mixed in."""

    from_: Annotated[Name, Field(alias="from")]
    """The name of a `kv_to`."""
    own: Factor = 0.5
    """Factor on this layer's values."""
    other: Factor = 0.5
    """Factor on the others."""
    learned: bool = False
    """The factors are parameters, which start there."""


class Keeping(Heads):
    """Attention that may share keys and values with other layers."""

    kv_to: Name | None = None
    """Keys and values are kept under this name; the latest holds."""
    kv_from: Name | None = None
    """Keys and values of that name in place of own ones; there is no k and no v."""
    value_residual: ValueResidual | None = None
    """Values of an earlier layer are mixed in."""


K = TypeVar("K", bound=Keeping)


def keys_of(name: str) -> str:
    """What the keys kept under a name are called among the values that layers give."""
    return f"keys of {name}"


def values_of(name: str) -> str:
    """The same of the values."""
    return f"values of {name}"


def takes(config: Keeping) -> tuple[str, ...]:
    """What it reads of earlier layers."""
    other = () if config.value_residual is None else (values_of(config.value_residual.from_),)
    return other if config.kv_from is None else (keys_of(config.kv_from), values_of(config.kv_from), *other)


def gives(config: Keeping) -> tuple[str, ...]:
    """What it leaves for later ones."""
    return () if config.kv_to is None else (keys_of(config.kv_to), values_of(config.kv_to))


def unsized(config: K, resolved: K) -> K:
    """A resolved config, but for sizes that follow from what it reads."""
    sizes = {} if config.kv_from is None else {size: getattr(config, size) for size in SIZES}
    return resolved.model_copy(update=sizes)


def fitted(config: K, kept: Mapping[str, Config], d_model: int) -> tuple[K, Problem | None]:
    """With the sizes of the keys and values that it reads, which it may state."""
    known = {name: found for name, found in kept.items() if isinstance(found, Heads)}
    problem: Problem | None = None
    if config.kv_from is not None:
        name = config.kv_from
        keeper = known.get(values_of(name))
        sizes = {} if keeper is None else {size: getattr(config, size) or getattr(keeper, size) for size in SIZES}
        config = heads.resolved(config.model_copy(update=sizes), d_model)
        problem = _unlike(config, name, keeper, ("kv_from",), SIZES, known)
    if config.value_residual is not None and problem is None:
        name = config.value_residual.from_
        keeper = known.get(values_of(name))
        problem = _unlike(config, name, keeper, ("value_residual", "from"), ("kv_heads", "v_head_dim"), known)
    return config, problem


def _unlike(
    config: Keeping,
    name: str,
    keeper: Heads | None,
    at: tuple[str, ...],
    sizes: tuple[str, ...],
    kept: Mapping[str, Heads],
) -> Problem | None:
    """Nothing is kept under that name, or something of other sizes."""
    if keeper is None:
        start = values_of("")
        there = ", ".join(word.removeprefix(start) for word in kept if word.startswith(start))
        help = f"kept are: {there}" if there else "give a layer before it kv_to"
        return Problem("E282", at, f"no earlier layer keeps keys and values under {name}", help)
    own, theirs = ([getattr(item, size) for size in sizes] for item in (config, keeper))
    if own == theirs:
        return None
    said = [f"{count} kv_heads of {' and '.join(map(str, dict.fromkeys(dims)))}" for count, *dims in (own, theirs)]
    return Problem("E283", at, f"reads {said[0]}, but {name} keeps {said[1]}", "give both layers the same sizes")


def rules(config: Keeping, excluded: Mapping[str, bool]) -> Problems:
    """A layer that reads keys and values makes none; `excluded`: which of the keys that speak of them are stated."""
    if config.kv_from is None:
        return
    gone = [] if isinstance(config.bias, bool) else [name for name in config.bias if name in ("k", "v")]
    if gone:
        message = f"keys and values come from {config.kv_from}: there is no {gone[0]} that could have a bias"
        yield Problem("E281", ("bias",), message, "leave it out")
    for key, stated in excluded.items():
        if stated:
            message = f"keys and values come from {config.kv_from}: {key} has nothing to do"
            yield Problem("E281", (key,), message, f"leave {key} out")


def mixed(config: Keeping, b: Builder, v: Ref, given: Given) -> Ref:
    """Values [batch, kv_heads, seq, v_head_dim] -> the same, with those of an earlier layer."""
    how = config.value_residual
    if how is None:
        return v
    parts = {"own": (v, how.own), "other": (given[values_of(how.from_)], how.other)}
    scaled: list[Ref] = []
    for name, (value, factor) in parts.items():
        if how.learned:
            leaf = f"{name}_value"
            param = b.param(leaf, "weight", (Axis("one", 1),), Init("constant", factor), "channel_scale")
            scaled.append(b.op("channel_scale", value, name=leaf, hint="v", params=(param,)))
        else:
            scaled.append(
                value if factor == 1.0 else b.op("scale", value, name=f"{name}_value", hint="v", factor=factor)
            )
    return b.op("add", *scaled, name="values", hint="v")


def keep(config: Keeping, b: Builder, k: Ref, v: Ref) -> None:
    """Leave them for later layers, if any are to read them."""
    if config.kv_to is not None:
        b.named[keys_of(config.kv_to)], b.named[values_of(config.kv_to)] = k, v
