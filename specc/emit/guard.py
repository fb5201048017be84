"""What a generated file may contain: checked on its syntax tree before anything is written."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

MODULES = ("torch", "math", "hashlib", "threading", "functools", "contextlib", "collections")
FORBIDDEN = ("exec", "eval", "compile", "open", "__import__", "globals", "vars", "breakpoint", "input", "getattr")
_BUILTINS = frozenset(dir(builtins))
TOP = (ast.Assign, ast.AnnAssign, ast.ClassDef, ast.FunctionDef)


class Unsafe(Exception):
    """Generated text that is not what a generated file may be: a bug."""


def parse(source: str, name: str) -> ast.Module:
    """The syntax tree. Raises Unsafe, with the text, where it is not Python."""
    try:
        return ast.parse(source)
    except SyntaxError as error:
        raise Unsafe(f"{name}:{error.lineno}: {error.msg}\n{source}") from error


@dataclass(frozen=True)
class Names:
    """Names that a module has, each with its first line, those that it binds, its functions and classes, imports."""

    used: dict[str, int]
    bound: frozenset[str]
    defined: frozenset[str]
    imports: tuple[int, ...]  # their lines
    hidden: frozenset[str] = frozenset()  # of functions and classes, those that are names of locals, too


def names(tree: ast.Module) -> Names:
    """In one walk of its own: `ast.walk` on a file of 400 lines is a tenth of a build."""
    used: dict[str, int] = {}
    defined: list[str] = []
    bound: set[str] = set()
    lines: list[int] = []
    found: list[ast.AST] = [tree]
    for node in found:
        if isinstance(node, ast.Name):
            used.setdefault(node.id, node.lineno)
            if not isinstance(node.ctx, ast.Load):
                bound.add(node.id)
            continue
        if isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            defined.append(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            lines.append(node.lineno)
        for inner in node.__dict__.values():
            if isinstance(inner, ast.AST):
                if inner._fields:  # operators and contexts have none
                    found.append(inner)
            elif isinstance(inner, list):
                found += [item for item in cast("list[object]", inner) if isinstance(item, ast.AST)]
    hidden = frozenset(bound.intersection(defined))
    return Names(used, frozenset((*bound, *defined)), frozenset(defined), tuple(lines), hidden)


def guard(head: ast.Module, body: ast.Module, words: Names, source: str, name: str) -> None:
    """`head` is docstring and imports, `body` all else with the names `words`, `source` both.

    Raises Unsafe, naming the line of its part.
    """
    if not source.isascii():
        raise Unsafe(f"{name}: not ASCII")
    try:
        compile(ast.Module([*head.body, *body.body], []), name, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        raise Unsafe(f"{name}: {error}\n{source}") from error
    for problem in (*_head(head), *_top(head, body), *_names(words), *_unknown(head, words), *_unbound(body, words)):
        raise Unsafe(f"{name}: {problem}")


def _head(tree: ast.Module) -> Iterable[str]:
    docstring, *lines = tree.body
    if not (isinstance(docstring, ast.Expr) and isinstance(docstring.value, ast.Constant)):
        yield "no docstring"
    for node in lines:
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            modules = [str(node.module)]
        else:
            modules = [ast.unparse(node)]
        yield from (f"import of {module}" for module in modules if module.split(".")[0] not in MODULES)


def _top(head: ast.Module, body: ast.Module) -> Iterable[str]:
    """Constants, classes and functions, each name once and none that is imported."""
    imports = (node for node in head.body if isinstance(node, (ast.Import, ast.ImportFrom)))
    lines = {(alias.asname or alias.name).split(".")[0]: node.lineno for node in imports for alias in node.names}
    for node in body.body:
        if not isinstance(node, TOP):
            yield f"line {node.lineno}: {type(node).__name__} at top level"
        for name in _bound(node):
            if name in lines:
                yield f"line {node.lineno}: {name} is defined in line {lines[name]} already"
            lines[name] = node.lineno


def _bound(node: ast.stmt) -> list[str]:
    """Names that a statement at top level binds."""
    if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _unknown(head: ast.Module, words: Names) -> Iterable[str]:
    """Names that nothing gives: of a kernel that is called and not pasted, say."""
    imported = {
        (alias.asname or alias.name).split(".")[0] for node in head.body for alias in getattr(node, "names", ())
    }
    known = words.bound | imported | _BUILTINS
    yield from (f"line {line}: {name} is nothing's name" for name, line in words.used.items() if name not in known)


def _unbound(body: ast.Module, words: Names) -> Iterable[str]:
    """Functions that are called where a local has their name: it is unbound there, or a tensor. What a function of the
    file takes may be meant to be called.
    """
    own = {node.name: node for node in body.body if isinstance(node, ast.FunctionDef)}
    for node in ast.walk(body) if words.hidden else ():
        if not isinstance(node, ast.FunctionDef):
            continue
        inner = [*ast.walk(node)]
        local = set[str]() if own.get(node.name) is node else {arg.arg for arg in inner if isinstance(arg, ast.arg)}
        local |= {name.id for name in inner if isinstance(name, ast.Name) and not isinstance(name.ctx, ast.Load)}
        called = (call.func for call in inner if isinstance(call, ast.Call))
        clash = (name for name in called if isinstance(name, ast.Name) and name.id in local & own.keys())
        yield from (f"line {name.lineno}: {name.id} is a local of {node.name}" for name in clash)


def _names(words: Names) -> Iterable[str]:
    yield from (f"line {words.used[name]}: {name}" for name in FORBIDDEN if name in words.used)
    yield from (f"line {line}: an import inside" for line in words.imports)
