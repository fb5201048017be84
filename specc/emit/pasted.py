"""Kernels as text: the source of their functions and classes, with what these use, and imports."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from specc.emit.code import Code
from specc.emit.guard import MODULES as ALLOWED
from specc.emit.guard import Names
from specc.spec.schedules import SCHEDULES
from specc.tables import Tables, tables

MODULES = {
    "hashlib": "hashlib",
    "math": "math",
    "torch": "torch",
    "torch.distributed": "dist",
    "torch.distributed._functional_collectives": "fc",
    "torch.nn.functional": "F",
}
NAMES = {
    "collections.abc": ("Callable",),
    "functools": ("partial",),
    "torch": ("Tensor", "nn"),
    "torch.distributed.device_mesh": ("DeviceMesh",),
    "torch.distributed.fsdp": ("FSDPModule", "MixedPrecisionPolicy", "fully_shard"),
    "torch.distributed.pipelining": ("PipelineStage", *(kind.cls for kind in SCHEDULES.values())),
    "torch.distributed.tensor": ("DTensor", "Partial", "Replicate", "Shard"),
    "torch.utils.checkpoint": ("checkpoint",),
}
"""What templates and expressions use: modules by what they are called, names by module; kernels bring their own."""


@dataclass(frozen=True)
class Kernel:
    """A function, class or constant at the top of a kernel module."""

    module: str
    name: str
    source: str
    line: int
    uses: tuple[str, ...]  # names of its module, qualified

    @property
    def key(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True)
class Import:
    """One imported name: `from module import name as bound`, or `import module as bound` without a name."""

    module: str
    name: str | None
    bound: str


def pasted(names: Iterable[str], known: Tables | None = None) -> Code:
    """Sources of the named kernels and of all kernels they use, those first; two blank lines between.

    A name that several modules have is given as `module.name`. `known` are specc's own tables unless given. Raises
    KeyError for a name that does not exist.
    """
    found: dict[str, Kernel] = {}
    known = known or tables()

    def visit(kernel: Kernel) -> None:
        if kernel.key not in found and kernel.module != "precision":  # a file has these on top, in its own words
            for used in kernel.uses:
                visit(_kernel(used, known))
            found[kernel.key] = kernel

    for kernel in sorted(
        (_kernel(_key(name, known), known) for name in names), key=lambda kernel: (kernel.module, kernel.line)
    ):
        visit(kernel)
    return Code("\n\n\n".join(_joined(found.values())))


def imports(words: Names, known: Tables | None = None) -> Code:
    """The import lines that a module with these names needs, sorted as the linter sorts them."""
    bound = _known_imports(known or tables())  # of a name that the module defines, locally or not, none is needed
    needed = [bound[name] for name in sorted(words.used.keys() - words.defined) if name in bound]
    sections = [[i for i in needed if _root(i) != "torch"], [i for i in needed if _root(i) == "torch"]]
    return Code("\n\n".join("\n".join(_lines(section)) for section in sections if section))


def _root(item: Import) -> str:
    return item.module.split(".")[0]


def _lines(section: list[Import]) -> list[str]:
    plain = sorted((i for i in section if i.name is None), key=lambda i: i.module)
    lines = [f"import {i.module}{'' if i.bound == i.module else f' as {i.bound}'}" for i in plain]
    for module in sorted({i.module for i in section if i.name is not None}):
        names = sorted((i.name for i in section if i.module == module and i.name is not None), key=_isort_key)
        lines.append(f"from {module} import {', '.join(names)}")
    return lines


def _isort_key(name: str) -> tuple[int, str]:
    """Constants, then classes, then the rest."""
    return (0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2, name)


def _joined(kernels: Iterable[Kernel]) -> list[str]:
    """Sources; constants that follow each other stand together."""
    parts: list[str] = []
    constant = False
    for kernel in kernels:
        is_constant = not kernel.source.startswith(("def ", "class ", "@"))
        if is_constant and constant:
            parts[-1] += f"\n{kernel.source}"
        else:
            parts.append(kernel.source)
        constant = is_constant
    return parts


def _key(name: str, known: Tables) -> str:
    modules, _, last = name.rpartition(".")
    keys = [f"{module}.{last}" for module in _defining(known).get(last, ()) if modules in ("", module)]
    if len(keys) != 1:
        raise KeyError(f"kernel {name}: {'no such kernel' if not keys else ' or '.join(keys)}")
    return keys[0]


@cache
def _texts(known: Tables) -> dict[str, str]:
    return {module: path.read_text(encoding="utf-8") for module, path in known.kernels.items()}


@cache
def _defining(known: Tables) -> dict[str, tuple[str, ...]]:
    """Which modules define a name at their top, read off the text: most modules are never parsed."""
    found: dict[str, tuple[str, ...]] = {}
    for module, text in _texts(known).items():
        for name in re.findall(r"^(?:def |class )?(\w+)(?:\(|:| = )", text, re.MULTILINE):
            found[name] = (*found.get(name, ()), module)
    return found


def _kernel(key: str, known: Tables) -> Kernel:
    return _of_module(key.partition(".")[0], known)[key]


@cache
def _of_module(module: str, known: Tables) -> dict[str, Kernel]:
    tree, text = ast.parse(_texts(known)[module]), _texts(known)[module].splitlines()
    here = {name: f"{module}.{name}" for node in tree.body for name in _names(node)}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and _is_kernel(node):
            other = str(node.module).rpartition(".")[2]
            here |= {alias.name: f"{other}.{alias.name}" for alias in node.names}
    found: dict[str, Kernel] = {}
    for node in tree.body:
        for name in _names(node):
            decorators = node.decorator_list if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
            first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
            source = "\n".join(text[first - 1 : node.end_lineno])
            used = [n.id for n in ast.walk(node) if isinstance(n, ast.Name)]
            uses = tuple(dict.fromkeys(here[u] for u in used if u in here and u != name))
            found[f"{module}.{name}"] = Kernel(module, name, source, node.lineno, uses)
    return found


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _is_kernel(node: ast.ImportFrom) -> bool:
    """Whether other kernels are imported: what a generated file may import, they are not."""
    return (node.module or "").split(".")[0] not in ALLOWED


@cache
def _known_imports(known: Tables) -> dict[str, Import]:
    found = {bound: Import(module, None, bound) for module, bound in MODULES.items()}
    found |= {name: Import(module, name, name) for module, names in NAMES.items() for name in names}
    for text in _texts(known).values():
        lines = [line for line in text.splitlines() if line.startswith(("import ", "from "))]
        for node in ast.parse("\n".join(lines)).body:
            if isinstance(node, ast.ImportFrom) and not _is_kernel(node):
                items = [Import(str(node.module), alias.name, alias.asname or alias.name) for alias in node.names]
            elif isinstance(node, ast.Import):
                items = [Import(alias.name, None, alias.asname or alias.name) for alias in node.names]
            else:
                continue
            for item in items:
                if found.setdefault(item.bound, item) != item:
                    raise ValueError(f"{item.bound} is imported from {item.module} and {found[item.bound].module}")
    return found
