"""How weights start, as a short rule over the ends of their names."""

from __future__ import annotations

from collections import Counter

from specc.emit.code import Code, lit, part
from specc.emit.wrap import wrapped
from specc.ir.op import STARTS
from specc.ir.stored import Stored
from specc.spec.core import Init

NORMAL = "torch.randn(16, *shape[1:], generator=generator, dtype=torch.float32)"
WORDS = {"1.0": "Norms are 1", "0.0": "biases 0"}


def init_weights(params: tuple[Stored, ...], init: Init, placed: bool) -> Code:
    """`draw` and `init_weights`. `placed`: parameters are DTensors, of which a rank draws its own part."""
    trained = all(param.param.trained for param in params)
    named = "module.named_parameters()" if trained else "(*module.named_parameters(), *module.named_buffers())"
    code = _init_weights({next(param.names()): _value(param, init) for param in params}, placed, named)
    if "name in" in code or "name ==" in code:  # ends of names do not tell: every layer counts
        code = _init_weights({name: _value(param, init) for param in params for name in param.names()}, placed, named)
    return code


def _init_weights(values: dict[str, tuple[str, str]], placed: bool, named: str) -> Code:
    filled = {name: value for name, (kind, value) in values.items() if kind == "fill"}
    drawn = {name: value for name, (kind, value) in values.items() if kind == "normal"}
    others = {name: value for name, (kind, value) in values.items() if kind == "draw"}
    lines: list[Code] = []
    for condition, value in _rules(filled, drawn | others):
        head = f"{'el' if lines else ''}if {condition}:"
        lines += [Code(line) for line in (*wrapped(f"        {head}"),)]
        lines.append(Code(f"            p.fill_({value})"))
    if lines:
        lines.append(Code("        else:"))
    lines = [Code(line[8:]) for line in lines]
    words = [WORDS[value] for value in WORDS if value in filled.values()]
    rest = "drawn" if others else "normal"
    doc = f"{', '.join(words)}, the rest is {rest}" if words else f"Weights are {rest}"
    doc = doc[0].upper() + doc[1:]
    fill = "fill_parts.j2" if placed else "fill_whole.j2"
    depth = 12 if lines else 8  # of what draws a weight
    given = {"lines": _draws(drawn, others), "constants": lines, "doc": Code(doc), "depth": depth, "fill": fill}
    return part("weights.j2", named=Code(named), **given)


def _draws(normal: dict[str, str], others: dict[str, str]) -> list[Code]:
    """Lines that return what a block of rows of a weight starts as: normal, but for what is drawn otherwise."""
    rules = _rules(others, normal)
    if normal or not others:
        std, ends = _std(normal)
        ends = [*ends, Code(f"return {NORMAL} * {std}")]
    else:
        ends = [Code(f"return {rules.pop()[1]}")]
    lines: list[Code] = []
    for condition, value in rules:
        lines += [Code(row[4:]) for row in wrapped(f"    if {condition}:")] + [Code(f"    return {value}")]
    return [*lines, *ends]


def _std(drawn: dict[str, str]) -> tuple[Code, list[Code]]:
    """What is drawn is multiplied by, and lines that set it where it is not one value: the commonest, exceptions."""
    if not drawn:
        return Code("1.0"), []
    common = Counter(drawn.values()).most_common(1)[0][0]
    usual = {name: value for name, value in drawn.items() if value == common}
    rules = _rules({name: value for name, value in drawn.items() if value != common}, usual)
    if len(rules) == 1:
        line = f"std = {rules[0][1]} if {rules[0][0]} else {common}"
        if len(line) + 4 <= 120:
            return Code("std"), [Code(line)]
    if not rules:
        return Code(f"({common})" if "/" in common else common), []
    lines: list[str] = []
    for n, (condition, value) in enumerate(rules):
        lines += [row[4:] for row in wrapped(f"    {'el' if n else ''}if {condition}:")]
        lines.append(f"    std = {value}")
    return Code("std"), [Code(line) for line in (*lines, "else:", f"    std = {common}")]


def _value(param: Stored, init: Init) -> tuple[str, str]:
    """What a parameter is filled with, or the standard deviation it is drawn with, as source."""
    own = param.param.init
    if own.kind in ("ones", "zeros", "constant"):
        return "fill", str(lit({"ones": 1.0, "zeros": 0.0}.get(own.kind, own.std)))
    if own.kind in STARTS:
        return "draw", f"{own.kind}(generator, block, shape)"
    if own.kind == "uniform":
        return "draw", f"uniform(generator, shape, {lit(own.std)})"
    if own.kind == "truncated":
        return "draw", f"truncated(generator, shape, {lit(own.std)}, {lit(own.cut)})"
    if own.kind != "normal":
        raise ValueError(f"{param.name} starts as {own.kind}")
    sizes = [axis.size for axis in param.param.axes if isinstance(axis.size, int)]
    bases = [(init.std, str(lit(init.std)))]
    if init.kind == "xavier":
        bases = [((2 / sum(sizes)) ** 0.5, "(2 / sum(shape)) ** 0.5")]
    if init.kind == "kaiming":
        bases = [((2 / sizes[-1]) ** 0.5, "(2 / shape[-1]) ** 0.5")]
    for base, text in bases:
        if own.std == base:
            return "normal", text
        updates = round((base / own.std) ** 2)
        if updates > 1 and base / updates**0.5 == own.std:
            return "normal", f"{text} / {updates}**0.5"
    whole = round(own.std**-2)
    return "normal", f"{whole}**-0.5" if whole > 1 and whole**-0.5 == own.std else str(lit(own.std))


def _rules(wanted: dict[str, str], others: dict[str, str]) -> list[tuple[str, str]]:
    """(condition on `name`, value) in turn, so that each name in `wanted` meets its value first and no other any."""
    rules: list[tuple[str, str]] = []
    left = dict(wanted)
    for value in dict.fromkeys(wanted.values()):
        mine = [name for name, other in left.items() if other == value]
        rest = [name for name, other in {**left, **others}.items() if name in others or other != value]
        rules.append((condition(mine, rest), value))
        left = {name: other for name, other in left.items() if other != value}
    return rules


def condition(names: list[str], others: list[str]) -> str:
    """On `name`, true for these and false for the others."""
    ends = _ends(names, others)
    if ends is not None:
        return f"name.endswith({_choice(ends)})"
    first = names[0].split(".")[0] + "."
    if all(name.startswith(first) for name in names):
        ends = _ends(names, [name for name in others if name.startswith(first)])
        if ends is not None:
            return f'name.startswith("{first}") and name.endswith({_choice(ends)})'
    return f"name in {_choice(names)}" if len(names) > 1 else f'name == "{names[0]}"'


def _choice(texts: list[str]) -> str:
    quoted = [f'"{text}"' for text in texts]
    return quoted[0] if len(quoted) == 1 else f"({', '.join(quoted)})"


def _ends(names: list[str], others: list[str]) -> list[str] | None:
    """Shortest ends of names, of whole words and without layer numbers, that none of the others has."""
    found: list[str] = []
    for name in names:
        if name.endswith(tuple(found)):
            continue
        starts = [n for n in range(len(name)) if n == 0 or name[n - 1] in "._"]
        ends = [name[n:] for n in reversed(starts) if not any(part.isdigit() for part in name[n:].split("."))]
        end = next((end for end in ends if not any(other.endswith(end) for other in others)), None)
        if end is None:
            return None
        found.append(end)
    return [end for end in found if not any(end != other and end.endswith(other) for other in found)]
