"""Scaling laws: how many parameters and tokens a compute is for, what tokens are worth again, rates and batches.

N are parameters, D tokens of training, C = 6 N D their flops: matrices forward and backward, without the products of
attention and without what is computed twice (Kaplan et al. 2020, 2001.08361, 2.1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import exp
from typing import Literal

Measure = Literal["parameters", "tokens", "flops"]
LEAST, MOST = 1e-9, 1e40  # of parameters or tokens, between which is searched


@dataclass(frozen=True)
class Point:
    """A model and its training. Of `parameters`, the law says whether embeddings are among them."""

    parameters: float
    tokens: float

    @property
    def flops(self) -> float:
        """Of training."""
        return 6 * self.parameters * self.tokens

    def measure(self, of: Measure) -> float:
        """One of the three."""
        return {"parameters": self.parameters, "tokens": self.tokens, "flops": self.flops}[of]


@dataclass(frozen=True)
class Fitted:
    """Of which trainings a law was made."""

    of: Measure
    low: float
    high: float

    def holds(self, point: Point) -> bool:
        """Whether the point is among them."""
        return self.low <= point.measure(self.of) <= self.high


@dataclass(frozen=True)
class Law:
    """Where a law comes from: paper, and section."""

    source: str
    fitted: Fitted


@dataclass(frozen=True)
class Loss(Law):
    """L(N, D) = E + a / N**alpha + b / D**beta; E does not change what is best.

    `again` and `more`: how often tokens and parameters can be repeated before that stops to help; None: as new.
    """

    a: float
    b: float
    alpha: float
    beta: float
    again: float | None = None
    more: float | None = None


BEST = Loss("2404.10102, table 1, N with embeddings", Fitted("flops", 1e18, 1e22), 482.01, 2085.43, 0.3478, 0.3658)
"""Besiroglu et al. 2024 fit the runs of Hoffmann et al. 2022 anew; the constants that those print are rounded, and give
half the parameters at 6e23 flops. Embeddings are parameters (Pearce and Song 2024, 2406.12907)."""
REPEATED = Loss(
    "2305.16264, eq. 5 and app. A",
    Fitted("parameters", 7e6, 9e9),
    *(521.0, 1488.0, 0.3526596, 0.3526596),
    again=15.387756,
    more=5.309743,
)
"""Muennighoff et al. 2023, for tokens that are met several times."""
REPEATS = 500
"""As often at most in their runs (app. A)."""
EPOCHS = 4
"""So often tokens are as good as new (2305.16264, abstract)."""
RULE = Law("2203.15556, table 3", Fitted("flops", 1e18, 1e22))
"""Hoffmann et al. 2022 by their first and second approach: TOKENS for each parameter."""
TOKENS = 20.0
SPREAD = 2.5
"""Tokens a parameter that others measured are so many times those of the law, or so small a part of them: 10 where it
says 25 (sweeps of nanochat at 1e19 flops), 41 where it says 17 (Llama 3 405B, 2407.21783, 3.2.1)."""
SERVED = "2401.00448, sec. 2"
"""Sardana et al. 2024: of those of one loss the model that takes the fewest flops, 6 N D + 2 N for a token served."""


@dataclass(frozen=True)
class Rate(Law):
    """Best learning rate and batch, in tokens, of AdamW. N is without embeddings, C is 6 N D of it."""

    rate: Callable[[Point], float]
    batch: Callable[[Point], float]


RATES = (
    Rate(
        "2503.04715, eq. 1",
        Fitted("parameters", 6e7, 1.1e9),
        rate=lambda at: 1.79 * at.parameters**-0.713 * at.tokens**0.307,
        batch=lambda at: 0.58 * at.tokens**0.571,
    ),
    Rate(
        "2401.02954, eq. 1",
        Fitted("flops", 1e17, 2e19),
        rate=lambda at: 0.3118 * at.flops**-0.125,
        batch=lambda at: 0.2920 * at.flops**0.3271,
    ),
    Rate(
        "2406.19146, the rate halved",
        Fitted("parameters", 5e6, 9e8),
        rate=lambda at: 0.0047 * (at.parameters / 1.08e8) ** (-1 / 3) / 2,
        batch=lambda at: 160 * 2048 * (at.parameters / 1.08e8) ** (2 / 3),
    ),
)
"""Li et al. 2025; Bi et al. 2024; Porian et al. 2024 as the ladder of OLMo-core has it, with half the rate, for a
schedule that stays level. They agree on rates within a factor of 2, on batches within 3 to 5."""


def best(law: Loss, of: Measure, amount: float, served: float = 0, unique: float | None = None) -> Point:
    """The best training that has so many parameters, tokens or flops: any other of its loss takes more flops.

    Those of `served` tokens are among them. `unique`: tokens that there are, by a law of what they are worth again.
    """

    def at(tokens: float) -> Point:
        return Point(_parameters(law, tokens, served, unique), tokens)

    return at(_solved(lambda tokens: at(tokens).measure(of), amount))


def even(of: Measure, amount: float, ratio: float) -> Point:
    """The training of so many parameters, tokens or flops, with so many tokens for each parameter."""
    parameters = {"parameters": amount, "tokens": amount / ratio, "flops": (amount / 6 / ratio) ** 0.5}[of]
    return Point(parameters, parameters * ratio)


def worth(amount: float, unique: float, again: float) -> float:
    """New tokens that do as much as `amount` tokens of `unique` ones; the same of parameters (2305.16264, eq. 5)."""
    return amount if amount <= unique else unique * (1 + again * (1 - exp(-(amount / unique - 1) / again)))


def _parameters(law: Loss, tokens: float, served: float, unique: float | None) -> float:
    """For which so many tokens are best: N dL/dN = (D + S/3) dL/dD, so that what keeps the loss keeps the flops."""
    fitting = None if unique is None else _parameters(law, unique, 0, None)
    of_tokens = (tokens + served / 3) * _slope(law.b, law.beta, tokens, unique, law.again)
    return _solved(lambda n: -n * _slope(law.a, law.alpha, n, fitting, law.more), -of_tokens)


def _slope(scale: float, power: float, amount: float, unique: float | None, again: float | None) -> float:
    """Of scale / amount**power, negative: how much the loss falls with one more."""
    if unique is None or again is None or amount <= unique:
        return scale * power * amount ** (-power - 1)
    return scale * power * worth(amount, unique, again) ** (-power - 1) * exp(-(amount / unique - 1) / again)


def _solved(rising: Callable[[float], float], value: float) -> float:
    """Where a function that rises has the value; by halves, of the exponent."""
    low, high = LEAST, MOST
    while high / low > 1 + 1e-12:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if rising(middle) < value else (low, middle)
    return high
