"""What a training takes, from its purpose: parameters, tokens, flops, rates, bytes, each with its law and its range."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil

from specc.cost.laws import (
    BEST,
    EPOCHS,
    RATES,
    REPEATED,
    REPEATS,
    RULE,
    SERVED,
    SPREAD,
    TOKENS,
    Fitted,
    Law,
    Loss,
    Measure,
    Point,
    best,
    even,
    worth,
)
from specc.cost.shape import VOCAB, shape_of

FLOPS = "compute is 6 N D: no scores of heads, nothing twice (2001.08361, 2.1)"
STATES = {"weights": 4, "gradients": 4, "states of AdamW": 8}
"""Bytes of a parameter while files train, in any precision of a layout; activations come on top."""
KEPT = STATES["weights"] + STATES["states of AdamW"]
"""Of them in a checkpoint."""
SHORT = 2**16
"""Tokens of a vocabulary that 2 bytes can number."""


@dataclass(frozen=True)
class Amount:
    """A number and what it may be instead; low = high of what is given or follows from it alone."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> Amount:
        """Scaled."""
        return Amount(self.value * factor, self.low * factor, self.high * factor)

    def by(self, other: Amount) -> Amount:
        """The product, of any two in the ranges."""
        return Amount(self.value * other.value, self.low * other.low, self.high * other.high)

    def over(self, other: Amount) -> Amount:
        """The ratio, of any two in the ranges."""
        return Amount(self.value / other.value, self.low / other.high, self.high / other.low)


def exactly(value: float) -> Amount:
    """Without a range."""
    return Amount(value, value, value)


USED = Amount(0.4, 0.35, 0.45)
"""Of a training that was made fast; `specc plan` models that of a layout."""


@dataclass(frozen=True)
class Machine:
    """What a training runs on: devices with so many flops a second and bytes each, and how many, if that is known.

    `used`: the part of the flops that a model makes use of (MFU, 2204.02311, app. B).
    """

    name: str
    peak: float
    memory: float
    used: Amount = USED
    count: int | None = None

    @property
    def hour(self) -> Amount:
        """Flops of a training that one of them does in an hour."""
        return self.used.times(self.peak * 3600)


@dataclass(frozen=True)
class Wish:
    """What is known: one or two of parameters, tokens and flops. Hours of a machine's devices give flops, too."""

    parameters: float | None = None
    tokens: float | None = None
    flops: float | None = None
    hours: float | None = None
    machine: Machine | None = None
    served: float | None = None
    """Tokens that it will read and write in its life."""
    unique: float | None = None
    """Tokens that there are to train on; more than these are met again."""
    vocab: int = VOCAB

    @property
    def given(self) -> dict[Measure, Amount]:
        """By what they measure."""
        stated: dict[Measure, float | None] = {
            "parameters": self.parameters,
            "tokens": self.tokens,
            "flops": self.flops,
        }
        found: dict[Measure, Amount] = {of: exactly(amount) for of, amount in stated.items() if amount is not None}
        if self.hours is not None and self.machine is not None:
            found["flops"] = self.machine.hour.times(self.hours)
        return found


@dataclass(frozen=True)
class Training:
    """Parameters, tokens, flops, tokens a parameter, and the law that they follow; None: they are given."""

    parameters: Amount
    tokens: Amount
    flops: Amount
    ratio: Amount
    law: Law | None

    @property
    def point(self) -> Point:
        """Without ranges."""
        return Point(self.parameters.value, self.tokens.value)


@dataclass(frozen=True)
class Row:
    """A line of the table: an amount, the same for 20 tokens a parameter, and where they come from.

    `fitted`: what the law was made of; `outside`: the amounts are not among that.
    """

    name: str
    unit: str
    amount: Amount
    source: str
    fitted: Fitted | None = None
    outside: bool = False
    beside: Amount | None = None


def sizing(wish: Wish) -> tuple[Row, ...]:
    """The table of a wish. Raises ValueError where it gives none or all of parameters, tokens and flops."""
    given = wish.given
    if len(given) not in (1, 2):
        raise ValueError("one or two of parameters, tokens and flops are known")
    if len(given) == 2:
        return tuple(_rows(wish, _follows(given)))
    ((of, amount),) = given.items()
    law, point = _law(wish, of, amount.value)
    rows = _rows(wish, _around(of, amount, point.tokens / point.parameters, SPREAD, law))
    others = _rows(wish, _around(of, amount, TOKENS, 1, RULE))
    return tuple(replace(row, beside=other.amount) for row, other in zip(rows, others, strict=True))


def _law(wish: Wish, of: Measure, amount: float) -> tuple[Loss, Point]:
    """The law for what is there, and the best training by it."""
    found = best(BEST, of, amount, wish.served or 0)
    if wish.unique is None or wish.unique >= found.tokens / EPOCHS:
        return BEST, found
    return REPEATED, best(REPEATED, of, amount, wish.served or 0, wish.unique)


def _follows(given: dict[Measure, Amount]) -> Training:
    """Two of them give the third."""
    parameters, tokens, flops = (given.get(of) for of in ("parameters", "tokens", "flops"))
    if parameters is None:
        assert tokens is not None and flops is not None, "two of three are given"
        parameters = flops.over(tokens.times(6))
    elif tokens is None:
        assert flops is not None, "two of three are given"
        tokens = flops.over(parameters.times(6))
    return Training(parameters, tokens, flops or parameters.by(tokens).times(6), tokens.over(parameters), None)


def _around(of: Measure, amount: Amount, ratio: float, spread: float, law: Law) -> Training:
    """What has so many tokens a parameter, give or take a factor, and the amount that is given."""
    middle = even(of, amount.value, ratio)
    ends = [even(of, end, ratio * f) for end in (amount.low, amount.high) for f in (1 / spread, spread)]

    def ranged(one: Measure) -> Amount:
        if one == of:
            return amount
        return Amount(middle.measure(one), min(p.measure(one) for p in ends), max(p.measure(one) for p in ends))

    ratios = Amount(ratio, ratio / spread, ratio * spread)
    return Training(ranged("parameters"), ranged("tokens"), ranged("flops"), ratios, law)


def _rows(wish: Wish, of: Training) -> Iterator[Row]:
    given, law = wish.given, of.law
    budget = "hours, peak and MFU" if wish.hours is not None else "given"
    yield Row("compute", "flops", of.flops, f"{budget}; {FLOPS}" if "flops" in given else FLOPS)
    for name, amount in (("parameters", of.parameters), ("tokens", of.tokens)):
        source = "given" if name in given else FLOPS
        yield _ruled(Row(name, "", amount, source), None if name in given else law, of.point)
    yield _ruled(Row("tokens a parameter", "", of.ratio, "tokens / parameters"), law, of.point)
    if wish.unique is not None:
        times = of.tokens.times(1 / wish.unique)
        source = f"up to {EPOCHS} as good as new (2305.16264, abstract); fitted for up to {REPEATS}"
        yield Row("times each is met", "", times, source, outside=times.value > REPEATS)
        new = [worth(n, wish.unique, REPEATED.again or 0) for n in (of.tokens.value, of.tokens.low, of.tokens.high)]
        yield _ruled(Row("worth in new tokens", "", Amount(*new), ""), REPEATED, of.point)
    if wish.served is not None:
        serving = of.parameters.times(2 * wish.served)
        total = Amount(*(a + b for a, b in zip(_ends(serving), _ends(of.flops), strict=True)))
        yield Row("compute of serving", "flops", serving, f"2 N a token ({SERVED})")
        yield Row("compute in all", "flops", total, f"of one loss the least ({SERVED})" if law else "both")
    yield from _training(wish, of)
    yield from _storage(wish, of)
    if wish.machine is not None:
        yield from _hours(wish, wish.machine, of)


def _ends(amount: Amount) -> tuple[float, float, float]:
    return amount.value, amount.low, amount.high


def _ruled(row: Row, law: Law | None, point: Point) -> Row:
    """With the law that it is by, if it is by one."""
    if law is None:
        return row
    return replace(row, source=law.source, fitted=law.fitted, outside=not law.fitted.holds(point))


def _training(wish: Wish, of: Training) -> Iterator[Row]:
    """Embeddings, and rates and batches of what is beside them."""
    embeddings = Amount(*(_embeddings(n, wish.vocab) for n in _ends(of.parameters)))
    yield Row("embeddings among them", "", embeddings, f"vocab {wish.vocab}, d_model of `specc init`")
    point = Point(of.parameters.value - embeddings.value, of.tokens.value)
    first, *others = RATES
    ids = " and ".join(law.source.split(",")[0] for law in others)
    source = f"{first.source}, N without embeddings; in the range {ids}, too"
    rates, batches = [law.rate(point) for law in RATES], [law.batch(point) for law in RATES]
    rate, batch = (Amount(made[0], min(made), max(made)) for made in (rates, batches))
    for row in (Row("learning rate", "", rate, ""), Row("batch", "tokens", batch, "")):
        yield replace(_ruled(row, first, point), source=source)
    yield Row("steps", "", exactly(of.tokens.value).over(batch), "tokens / batch")


def _embeddings(parameters: float, vocab: int) -> float:
    """Of the shape that has so many parameters; 0 where there is none."""
    shape = shape_of(parameters, vocab)
    return 0 if shape is None else shape.embeddings


def _storage(wish: Wish, of: Training) -> Iterator[Row]:
    """Bytes on the devices together, and on the disk."""
    words = ", ".join(f"{n} {name}" for name, n in STATES.items())
    yield Row("weights in bf16", "bytes", of.parameters.times(2), "2 a parameter")
    yield Row("memory of training", "bytes", of.parameters.times(sum(STATES.values())), f"{words}; activations on top")
    yield Row("checkpoint", "bytes", of.parameters.times(KEPT), f"{KEPT} a parameter: weights and states, float32")
    size = 2 if wish.vocab <= SHORT else 4
    read = of.tokens if wish.unique is None else Amount(*(min(n, wish.unique) for n in _ends(of.tokens)))
    yield Row("data", "bytes", read.times(size), f"{size} a token of a vocab of {wish.vocab}")


def _hours(wish: Wish, machine: Machine, of: Training) -> Iterator[Row]:
    """How many devices for how long."""
    known = "given" if machine.used != USED else "assumed"
    peak = f"{machine.peak:.4g}".replace("e+", "e")
    yield Row("MFU", "", machine.used, f"{known}, of {peak} flops/s of {machine.name}")
    states = of.parameters.times(sum(STATES.values()) / machine.memory)
    yield Row(
        "devices at least", "", Amount(*map(ceil, _ends(states))), "memory of training alone, without activations"
    )
    hours = of.flops.over(machine.hour) if wish.hours is None else exactly(wish.hours)
    yield Row("device hours", "", hours, "compute / peak / MFU" if wish.hours is None else "given")
    if machine.count is not None:
        yield Row(f"hours on {machine.count}", "", hours.times(1 / machine.count), "device hours / devices")
