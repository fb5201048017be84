"""Arithmetic in a spec: numbers, names of sizes, + - * / ** ( ) and a few functions; its own grammar, nothing is run.

sum   = term {("+" | "-") term}          term = sign {("*" | "/") sign}        sign = {"+" | "-"} power
power = atom ["**" sign]                 atom = number | name | name "(" sum {"," sum} ")" | "(" sum ")"
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

DEPTH = 32
"""How deep parentheses, signs and powers may stand in each other."""
FUNCTIONS: Mapping[str, tuple[Callable[..., float], int, int]] = {
    "sqrt": (math.sqrt, 1, 1),
    "exp": (math.exp, 1, 1),
    "log": (math.log, 1, 1),
    "min": (min, 2, 16),
    "max": (max, 2, 16),
    "floor": (math.floor, 1, 1),
    "ceil": (math.ceil, 1, 1),
}
"""By name, with how many values each takes at least and at most."""
_SIGNS: Mapping[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": lambda a, b: a / b,
    "**": lambda a, b: math.pow(a, b) if a or b >= 0 else a / 0,
}
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_]\w*)|(?P<sign>\*\*|[-+*/(),]))", re.ASCII
)


Kind = Literal["form", "name", "function", "value"]


@dataclass(frozen=True)
class Fault:
    """What keeps a text from being a number: characters start .. end - 1 of it.

    It has not the form of arithmetic, there is no such name or function, or a part of it has no finite value.
    """

    start: int
    end: int
    message: str
    kind: Kind = "form"


@dataclass(frozen=True)
class Number:
    """What a text comes to, and the names that it reads."""

    value: float
    reads: frozenset[str]


class _Wrong(Exception):
    def __init__(self, start: int, end: int, message: str, kind: Kind = "form"):
        super().__init__(message)
        self.fault = Fault(start, end, message, kind)


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)


def evaluate(text: str, names: Mapping[str, float]) -> Number | Fault:
    """The value of a text at most as long as the language allows: finite, in float64."""
    try:
        reader = _Reader(_tokens(text), len(text), names)
        value = reader.sum(0)
        reader.ends()
        return Number(value, frozenset(reader.reads))
    except _Wrong as wrong:
        return wrong.fault


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    at, end = 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            start = at + len(text[at:]) - len(text[at:].lstrip())
            raise _Wrong(start, start + 1, f"{text[start]} is not part of arithmetic")
        kind = match.lastgroup or ""
        found.append(_Token(kind, match[kind], match.start(kind)))
        at = match.end()
    return found


class _Reader:
    """Reads tokens from the left, and computes on the way."""

    def __init__(self, tokens: list[_Token], length: int, names: Mapping[str, float]):
        self.tokens, self.end, self.names = tokens, _Token("end", "", length), names
        self.at = 0
        self.reads: set[str] = set()

    @property
    def next(self) -> _Token:
        return self.tokens[self.at] if self.at < len(self.tokens) else self.end

    def take(self, *texts: str) -> _Token | None:
        """The next token if it is a sign of these."""
        token = self.next
        if token.kind != "sign" or token.text not in texts:
            return None
        self.at += 1
        return token

    def ends(self) -> None:
        if self.next.kind != "end":
            raise self.unexpected("an operator")

    def unexpected(self, wanted: str) -> _Wrong:
        token = self.next
        if token.kind == "end":
            return _Wrong(max(0, token.start - 1), token.start, f"the formula ends where {wanted} is missing")
        return _Wrong(token.start, token.end, f"there is {token.text} where {wanted} is missing")

    def computed(self, first: int, function: Callable[..., float], *values: float) -> float:
        """A finite number, of the tokens from `first` on."""
        try:
            made = float(function(*values))
            why = "" if math.isfinite(made) else "is infinite"
        except (OverflowError, ZeroDivisionError):
            made, why = 0.0, "is infinite"
        except ValueError:
            made, why = 0.0, "is not a number"
        if why:
            part = self.tokens[first : self.at]
            raise _Wrong(part[0].start, part[-1].end, why, "value")
        return made

    def sum(self, depth: int) -> float:
        first, value = self.at, self.term(depth)
        while sign := self.take("+", "-"):
            value = self.computed(first, _SIGNS[sign.text], value, self.term(depth))
        return value

    def term(self, depth: int) -> float:
        first, value = self.at, self.signed(depth)
        while sign := self.take("*", "/"):
            value = self.computed(first, _SIGNS[sign.text], value, self.signed(depth))
        return value

    def signed(self, depth: int) -> float:
        if depth > DEPTH:
            raise _Wrong(self.next.start, self.next.end, f"this is more than {DEPTH} deep")
        if sign := self.take("+", "-"):
            value = self.signed(depth + 1)
            return value if sign.text == "+" else -value
        first, base = self.at, self.atom(depth)
        if not self.take("**"):
            return base
        return self.computed(first, _SIGNS["**"], base, self.signed(depth + 1))

    def atom(self, depth: int) -> float:
        first, token = self.at, self.next
        if token.kind == "number":
            self.at += 1
            return self.computed(first, float, float(token.text))
        if token.kind == "name":
            self.at += 1
            return self.called(first, token, depth) if self.take("(") else self.named(token)
        if not self.take("("):
            raise self.unexpected("a number, a name or a parenthesis")
        value = self.sum(depth + 1)
        if not self.take(")"):
            raise self.unexpected(")")
        return value

    def named(self, token: _Token) -> float:
        if token.text not in self.names:
            raise _Wrong(token.start, token.end, f"there is no {token.text} here", "name")
        self.reads.add(token.text)
        return float(self.names[token.text])

    def called(self, first: int, token: _Token, depth: int) -> float:
        if token.text not in FUNCTIONS:
            raise _Wrong(token.start, token.end, f"there is no function {token.text}", "function")
        function, least, most = FUNCTIONS[token.text]
        values = [self.sum(depth + 1)]
        while self.take(","):
            values.append(self.sum(depth + 1))
        if not self.take(")"):
            raise self.unexpected(")")
        if not least <= len(values) <= most:
            wanted = f"{least}" if least == most else f"{least} to {most}"
            raise _Wrong(token.start, self.tokens[self.at - 1].end, f"{token.text} takes {wanted}, not {len(values)}")
        return self.computed(first, function, *values)
