"""What a generated file may contain: checked on its syntax tree before anything is written."""

from __future__ import annotations

import ast

MODULES = ("torch", "math", "hashlib", "threading", "functools", "contextlib", "collections")
FORBIDDEN = ("exec", "eval", "compile", "open", "__import__", "globals", "vars", "breakpoint", "input")
TOP = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.ClassDef, ast.FunctionDef)


class Unsafe(Exception):
    """Generated text that is not what a generated file may be: a bug."""


def guard(source: str, name: str) -> None:
    """Raises Unsafe, naming the line, unless the text is a module of imports, constants, classes and functions."""
    try:
        tree = ast.parse(source)
        compile(tree, name, "exec", dont_inherit=True)
    except SyntaxError as error:
        raise Unsafe(f"{name}:{error.lineno}: {error.msg}\n{source}") from error
    if not source.isascii():
        raise Unsafe(f"{name}: not ASCII")
    names: dict[str, int] = {}
    for node in tree.body[1:]:
        if not isinstance(node, TOP):
            raise Unsafe(f"{name}:{node.lineno}: {type(node).__name__} at top level")
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            if node.name in names:
                raise Unsafe(f"{name}:{node.lineno}: {node.name} is defined in line {names[node.name]} already")
            names[node.name] = node.lineno
    for node in ast.walk(tree):
        _node(node, name)


def _node(node: ast.AST, name: str) -> None:
    if isinstance(node, ast.Import):
        modules = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        modules = [node.module or ""]
    else:
        modules = []
    for module in modules:
        if module.split(".")[0] not in MODULES:
            raise Unsafe(f"{name}: import of {module}")
    if isinstance(node, ast.Name) and node.id in FORBIDDEN:
        raise Unsafe(f"{name}:{node.lineno}: {node.id}")
