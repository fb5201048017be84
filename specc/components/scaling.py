"""How wavelengths of rotary positions are stretched for longer contexts, by kind."""

from __future__ import annotations

from math import ceil, floor, log, pi, sqrt
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from specc.components.base import (
    BoundFormula,
    Config,
    Dim,
    Problem,
    Problems,
    Stretch,
    StretchFormula,
    Synonyms,
    settled,
)
from specc.ir.op import Attr

SYNONYMS: Synonyms = {
    "low_freq": ("low_freq_factor",),
    "high_freq": ("high_freq_factor",),
    "original_seq": ("original_max_position_embeddings",),
    "amplitude": ("attention_factor",),
    "short": ("short_factor",),
    "long": ("long_factor",),
    "fraction": ("partial_rotary_factor",),
}
Divisors = Annotated[list[Stretch], Field(min_length=1, max_length=2**12), AfterValidator(tuple)]


class LinearScaling(Config):
    """Positions divided by `factor` (Chen et al. 2023)."""

    kind: Literal["linear"]
    """Tells the scalings apart."""
    factor: StretchFormula
    """How much longer the context becomes."""


class Llama3Scaling(Config):
    """Low frequencies are divided by `factor`, high ones kept, those between blended (Llama 3.1, section 3.2)."""

    kind: Literal["llama3"]
    """Tells the scalings apart."""
    factor: StretchFormula
    """How much longer the context becomes."""
    low_freq: Stretch = 1.0
    """Turns over the original context below which a frequency is fully scaled."""
    high_freq: Stretch = 4.0
    """Turns over the original context above which a frequency is kept."""
    original_seq: Dim = 8192
    """Context length before scaling."""


class DynamicScaling(Config):
    """Sequences beyond the original context have a larger base, by their length."""

    kind: Literal["dynamic"]
    """Tells the scalings apart."""
    factor: StretchFormula
    """How much longer the context becomes."""
    original_seq: Dim = 8192
    """Context length before scaling."""


class YarnScaling(Config):
    """Each frequency by its turns over the original context: kept, divided, or between (Peng et al. 2023)."""

    kind: Literal["yarn"]
    """Tells the scalings apart."""
    factor: StretchFormula
    """How much longer the context becomes."""
    original_seq: Dim = 8192
    """Context length before scaling."""
    beta_fast: Stretch = 32.0
    """Turns above which a frequency is kept."""
    beta_slow: Stretch = 1.0
    """Turns below which it is divided."""
    truncate: bool = True
    """The two bounds are whole pairs."""
    amplitude: BoundFormula | None = None
    """Factor on sines and cosines. Default: 0.1 * log(factor) + 1."""


class LongropeScaling(Config):
    """Each frequency has a divisor of its own, others in sequences beyond the original context (Ding et al. 2024)."""

    kind: Literal["longrope"]
    """Tells the scalings apart."""
    factor: StretchFormula | None = None
    """How much longer the context becomes; for the default of amplitude alone."""
    original_seq: Dim = 8192
    """Context length before scaling."""
    amplitude: BoundFormula | None = None
    """Factor on sines and cosines. Default: sqrt(1 + log(factor) / log(original_seq))."""
    short: Divisors
    """Divisor of each frequency up to original_seq."""
    long: Divisors
    """Divisor beyond."""


class ProportionalScaling(Config):
    """Some of the pairs turn, with the wavelengths that all would have; the others stand still."""

    kind: Literal["proportional"]
    """Tells the scalings apart."""
    factor: StretchFormula = 1.0
    """How much longer the context becomes."""
    fraction: Annotated[float, Field(gt=0.0, le=1.0)]
    """Share of the pairs that turn."""


Scaling = Annotated[
    LinearScaling | Llama3Scaling | DynamicScaling | YarnScaling | LongropeScaling | ProportionalScaling,
    Field(discriminator="kind"),
]


def rules(config: Scaling, dim: int) -> Problems:
    """What must hold of a scaling of so many rotated features."""
    if config.kind == "llama3" and config.high_freq <= config.low_freq:
        message = f"high_freq = {config.high_freq:g} is not above low_freq = {config.low_freq:g}"
        yield Problem("E219", ("high_freq",), message, "make high_freq the larger one")
    if config.kind == "yarn" and config.beta_fast <= config.beta_slow:
        message = f"beta_fast = {config.beta_fast:g} is not above beta_slow = {config.beta_slow:g}"
        yield Problem("E219", ("beta_fast",), message, "make beta_fast the larger one")
    if config.kind == "dynamic" and dim <= 2:
        yield Problem("E273", ("kind",), "the base of a single pair cannot be scaled", "use linear, or rotate more")
    if config.kind == "longrope":
        for name, given in (("short", config.short), ("long", config.long)):
            if len(given) != dim // 2:
                message = f"{dim // 2} pairs are turned, {name} lists {len(given)} numbers"
                yield Problem("E273", (name,), message, f"list {dim // 2}")
        if config.factor is None and config.amplitude is None:
            yield Problem("E273", ("kind",), "the amplitude of longrope follows from factor", "give either of them")


def by_length(config: Scaling) -> bool:
    """Whether rotations depend on how long the sequence is."""
    return config.kind in ("dynamic", "longrope")


def shrink(config: Scaling, dim: int) -> Scaling:
    """For so many rotated features."""
    if config.kind != "longrope":
        return config
    return config.model_copy(update={name: getattr(config, name)[: dim // 2] for name in ("short", "long")})


def numbers(config: Scaling, dim: int, theta: float) -> tuple[Attr, ...]:
    """The kind, and what its kernel takes beside positions, features and base."""
    factor = None if config.factor is None else settled(config.factor)
    match config:
        case LinearScaling():
            return (config.kind, factor)
        case Llama3Scaling():
            return (config.kind, factor, config.low_freq, config.high_freq, config.original_seq)
        case DynamicScaling():
            return (config.kind, factor, config.original_seq)
        case YarnScaling():
            usual = 0.1 * log(max(factor or 1.0, 1.0)) + 1.0
            amplitude = usual if config.amplitude is None else settled(config.amplitude)
            return (config.kind, factor, *_between(config, dim, theta), amplitude)
        case LongropeScaling():
            return (config.kind, config.original_seq, _amplitude(config), tuple(config.short), tuple(config.long))
        case ProportionalScaling():
            return (config.kind, factor, int(config.fraction * dim // 2))


def _between(config: YarnScaling, dim: int, theta: float) -> tuple[float, float]:
    """Numbers of the pairs up to which frequencies are kept, and from which they are divided."""

    def pair(turns: float) -> float:
        return dim * log(config.original_seq / (turns * 2 * pi)) / (2 * log(theta))

    low, high = pair(config.beta_fast), pair(config.beta_slow)
    if config.truncate:
        low, high = floor(low), ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    return float(low), float(high if high != low else high + 0.001)


def _amplitude(config: LongropeScaling) -> float:
    if config.amplitude is not None:
        return settled(config.amplitude)
    factor = 1.0 if config.factor is None else settled(config.factor)
    return sqrt(1 + log(factor) / log(config.original_seq)) if factor > 1 else 1.0
