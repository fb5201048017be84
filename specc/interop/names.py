"""Names of parameters and of tensors by patterns: `{i}` is a number, `{a,b}` alternatives, `.*` weight or bias."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from specc.interop.schema import Place, Weight

_GROUP = re.compile(r"\{([^{}]*,[^{}]*)\}")
_INDEX = re.compile(r"\{(\w+)\}")
LEAVES = ("weight", "bias")


@dataclass(frozen=True)
class Line:
    """One line of `weights`, alternatives chosen: which names it is of, and what tensors those are in.

    `part` is the alternative that the tensor holds beside others, which `axes` lists in brackets.
    """

    pattern: re.Pattern[str]
    tensors: tuple[str, ...]
    weight: Weight
    part: str = ""
    text: str = ""

    def match(self, name: str) -> tuple[str, ...] | None:
        """The tensors of a parameter of that name; None where it is not one of this line."""
        found = self.pattern.fullmatch(name)
        return None if found is None else tuple(filled(tensor, found.groupdict()) for tensor in self.tensors)


def filled(text: str, values: Mapping[str, str]) -> str:
    """`{i}` and `.*` replaced by what a name has there; other indices stay."""
    made = _INDEX.sub(lambda match: values.get(match[1], match[0]), text)
    return f"{made[:-1]}{values['leaf']}" if made.endswith(".*") and "leaf" in values else made


def open_index(text: str) -> str | None:
    """The axis of a parameter by whose indices tensors of that name are many."""
    found = _INDEX.search(text)
    return None if found is None else found[1]


def lines(weights: Mapping[str, Place]) -> Iterator[Line]:
    """Every line with every choice of alternatives. Raises ValueError where two sides do not fit each other."""
    for left, place in weights.items():
        weight = place if isinstance(place, Weight) else Weight(hf=place)
        tensors = (weight.hf,) if isinstance(weight.hf, str) else tuple(weight.hf)
        groups = [found.split(",") for found in _GROUP.findall(left)]
        parts = bracket(weight.axes)
        joint = next((n for n, group in enumerate(groups) if parts and _fits(group, parts)), None)
        if parts and joint is None:
            raise ValueError(f"{left}: no alternatives are {', '.join(parts)}")
        paired = [n for n in range(len(groups)) if n != joint]
        for choice in product(*(range(len(group)) for group in groups)):
            chosen = [group[n] for group, n in zip(groups, choice, strict=True)]
            own = _chosen(left, chosen)
            theirs = tuple(_paired(tensor, [choice[n] for n in paired], left) for tensor in tensors)
            part = "" if joint is None else next(p for p in parts if _is(p, chosen[joint]))
            yield Line(_pattern(own), theirs, weight, part, own)


def bracket(axes: str | None) -> tuple[str, ...]:
    """What lies one after the other in a tensor of these axes."""
    found = re.search(r"\[([^\]]*)\]", (axes or "").split("->")[0])
    return tuple(found[1].split()) if found else ()


def _fits(group: list[str], parts: tuple[str, ...]) -> bool:
    return len(group) == len(parts) and all(any(_is(part, name) for part in parts) for name in group)


def _is(part: str, name: str) -> bool:
    return part == name or part.endswith(f"_{name}")


def _chosen(text: str, chosen: list[str]) -> str:
    rest = iter(chosen)
    return _GROUP.sub(lambda _: next(rest), text)


def _paired(text: str, choice: list[int], left: str) -> str:
    """The alternatives at the same places; one group may stand for several, if it has as many as all of them."""
    groups = [found.split(",") for found in _GROUP.findall(text)]
    if len(groups) != len(choice) or any(n >= len(group) for group, n in zip(groups, choice, strict=True)):
        raise ValueError(f"{left}: {text} has other alternatives")
    return _chosen(text, [group[n] for group, n in zip(groups, choice, strict=True)])


def _pattern(text: str) -> re.Pattern[str]:
    leaf = text.endswith(".*")
    body = "".join(
        f"(?P<{piece[1:-1]}>[0-9]+)" if piece.startswith("{") else re.escape(piece)
        for piece in re.split(r"(\{\w+\})", text[:-2] if leaf else text)
    )
    return re.compile(body + (rf"\.(?P<leaf>{'|'.join(LEAVES)})" if leaf else ""))


def wildcard(text: str) -> re.Pattern[str]:
    """`h.*.attn.bias`: a star is anything."""
    return re.compile(".*".join(map(re.escape, text.split("*"))))
