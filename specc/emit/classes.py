"""Bodies with equal skeletons become one class: constants that differ are its arguments, the rest are literals."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from specc.emit.body import CLOSE, OPEN, Body, Function
from specc.emit.code import Code
from specc.emit.function import Function as Method
from specc.emit.function import Module, function, lines, listed, shape
from specc.emit.parts import Hole
from specc.ir.op import Path


@dataclass(frozen=True)
class Class:
    """A class of the generated file, and the expression that makes it for each scope."""

    name: str
    source: str
    parameters: tuple[str, ...]  # of the constructor; the mesh last
    constructors: dict[Path, tuple[str, ...]]  # their values for each scope

    def call(self, path: Path) -> str:
        """The expression that makes the module of a scope; by keyword where places would not tell."""
        values = self.constructors[path]
        own = [value for name, value in zip(self.parameters, values, strict=True) if name != value]
        if len(own) > 1 or any(value in ("True", "False") for value in own):
            pairs = zip(self.parameters, values, strict=True)
            return f"{self.name}({', '.join(f'{name}={value}' for name, value in pairs)})"
        return f"{self.name}({', '.join(values)})"


def group(bodies: list[Body]) -> list[list[Body]]:
    """Bodies by skeleton, in order of first appearance."""
    groups: dict[tuple[object, ...], list[Body]] = {}
    for item in bodies:
        groups.setdefault(item.skeleton, []).append(item)
    return list(groups.values())


def name_groups(groups: list[list[Body]], taken: dict[str, None]) -> list[str]:
    """The shortest name that no other group could have. Names are added to `taken`."""
    candidates = [[n for n in g[0].names if all(n in other.names for other in g)] or [g[0].names[0]] for g in groups]
    wanted = Counter(name for names in candidates for name in names)
    chosen: list[str] = []
    for names in candidates:
        free = [name for name in names if wanted[name] == 1 and name not in taken]
        free += [name for name in names if name not in taken]
        free += [f"{names[0]}{number}" for number in range(2, 100) if f"{names[0]}{number}" not in taken]
        chosen.append(free[0])
        taken[free[0]] = None
    return chosen


def make_class(name: str, bodies: list[Body], axes: list[str]) -> Class:
    """One class for all these bodies. `axes`: names under which the mesh may be asked for."""
    first = bodies[0]
    columns = list(zip(*(item.holes for item in bodies), strict=True))
    read = {int(n) for item in first.methods for line in item.lines for n in re.findall(f"{OPEN}(\\d+){CLOSE}", line)}
    members = {member for line in first.init for member in re.findall(r"^self\.(\w+) = ", line)}
    arguments = _arguments(columns, read, members)
    init = [_fill(line, columns, arguments, "") for line in first.init]
    methods = [
        _method(item, [_fill(line, columns, arguments, "self.") for line in item.lines]) for item in first.methods
    ]
    forward = "\n".join(line for method in methods for line in (method.takes, *method.body))
    text = "\n".join([*init, forward])
    code = re.sub(r"# .*", "", text)  # without what comments say of shapes
    meshes = [axis for axis in axes if re.search(rf"\b{axis}\b", code)]
    stored = [axis for axis in meshes if re.search(rf"\bself\.{axis}\b", forward)]
    stored += dict.fromkeys(arg for n, arg in arguments.items() if n in read)
    typed = {arg: _annotation([hole.value for hole in columns[n]]) for n, arg in arguments.items()}
    parameters = [f"{arg}: {kind}" for arg, kind in typed.items()] + [f"{axis}: DeviceMesh" for axis in meshes]
    body = ["super().__init__()", *(f"self.{item} = {item}" for item in stored), *init]
    view = Module(Code(name), (), listed(["self", *parameters]), lines(body), tuple(methods))
    numbers = {arg: n for n, arg in reversed(arguments.items())}
    constructors = {
        item.path: tuple(item.holes[numbers[arg]].value for arg in typed) + tuple(meshes) for item in bodies
    }
    return Class(name, shape("class.j2", of=view), (*typed, *meshes), constructors)


def _method(item: Function, body: list[str]) -> Method:
    result = "Tensor" if item.results == 1 else f"tuple[{', '.join(['Tensor'] * item.results)}]"
    takes = zip(item.formals, item.types, strict=True)
    return function(item.name, ["self", *(f"{name}: {kind}" for name, kind in takes)], result, body)


def _arguments(columns: list[tuple[Hole, ...]], read: set[int], members: set[str]) -> dict[int, str]:
    """Constructor argument of each hole whose values differ; holes of one name and equal values share one.

    One that methods `read` is stored under its name, which must not be that of a module or a parameter.
    """
    alike: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    for n, column in enumerate(columns):
        values = tuple(hole.value for hole in column)
        if len(set(values)) > 1:
            base = re.sub(r"\W", "_", column[0].name).lstrip("0123456789_")  # of 1*rope_dim it is rope_dim
            alike.setdefault((base, values), []).append(n)
    found: dict[int, str] = {}
    for (base, _), numbers in alike.items():
        taken = {*found.values(), *(members if read.intersection(numbers) else ())}
        names = [base, *(f"{base}{number}" for number in range(2, 100))]
        found |= dict.fromkeys(numbers, next(name for name in names if name not in taken))
    return dict(sorted(found.items()))


def _fill(line: str, columns: list[tuple[Hole, ...]], arguments: dict[int, str], prefix: str) -> str:
    def value(match: re.Match[str]) -> str:
        n = int(match[1])
        hole = columns[n][0]
        if n in arguments:
            return f"{hole.before}{prefix}{arguments[n]}{hole.after}"
        return "" if hole.default == hole.value else f"{hole.before}{hole.value}{hole.after}"

    return re.sub(f"{OPEN}(\\d+){CLOSE}", value, line)


def _annotation(values: list[str]) -> str:
    if "None" in values:
        return f"{_annotation([value for value in values if value != 'None'])} | None"
    first = values[0]
    if first in ("True", "False"):
        return "bool"
    if first.startswith("range("):
        return "range"
    if all(re.fullmatch(r"-?\d+", value) for value in values):
        return "int"
    if all(re.fullmatch(r"-?[\d.e+*-]+", value) for value in values):
        return "float"
    return "nn.Module"
