"""Lines that are too long, broken as the formatter breaks them."""

from __future__ import annotations

WIDTH = 120


def wrapped(line: str) -> list[str]:
    """The line, or its last brackets opened: their content on a line of its own, else one element a line.

    A comment that does not fit behind moves in front.
    """
    if len(line) <= WIDTH:
        return [line]
    indent = " " * (len(line) - len(line.lstrip()))
    code, mark, comment = line.partition("  # ")
    if mark:
        return [f"{indent}# {comment}", *wrapped(code)]
    if chain := _chain(code):
        return _bracketed(indent, *chain)
    start = code.index("(") if code.lstrip().startswith("def ") else _last_bracket(code)  # parameters, not what returns
    if start is None:
        return [line]
    end = _closing(code, start)
    head, content, tail = code[: start + 1], code[start + 1 : end], code[end:]
    inner = f"{indent}    {content}"
    if len(inner) <= WIDTH:
        return [head, inner, f"{indent}{tail}"]
    return [head, *(row for part in _rows(content) for row in wrapped(f"{indent}    {part}")), f"{indent}{tail}"]


OPERATORS = ((" | ",), (" & ",), (" + ", " - "), (" * ", " / ", " @ "))
"""Loosest first."""


def _chain(code: str) -> tuple[str, list[str]] | None:
    """What stands before a value that is three or more terms joined by one kind of operator, and the terms."""
    head, mark, value = code.partition(" = ") if not code.lstrip().startswith("return ") else code.partition("return ")
    if not mark or '"' in value or any(len(_split(value, word)) > 1 for word in (",", " if ", " for ", " = ")):
        return None
    for kind in OPERATORS:
        terms = [value]
        for operator in kind:
            parts = [_split(term, operator) for term in terms]
            terms = [part if n == 0 else f"{operator[1:]}{part}" for row in parts for n, part in enumerate(row)]
        if len(terms) > 1:
            return (f"{head}{mark}", terms) if len(terms) > 2 else None
    return None


def _bracketed(indent: str, head: str, terms: list[str]) -> list[str]:
    """The terms in brackets: on a line of their own, else one a line."""
    inner = f"{indent}    {' '.join(terms)}"
    rows = [inner] if len(inner) <= WIDTH else [f"{indent}    {term}" for term in terms]
    return [f"{head}(", *rows, f"{indent})"]


def _rows(content: str) -> list[str]:
    """What stands in brackets, an element a line: the clauses of a comprehension, or elements with a comma each.

    A comma is no part of a comprehension; alone in the brackets, neither it nor anything in brackets has one behind.
    """
    clauses = _split(content, " for ")
    if len(clauses) > 1:
        return [clauses[0], *(f"for {clause}" for clause in clauses[1:])]
    elements = [part for part in _split(content, ",") if part]
    alone = len(elements) == 1 and content[0] in "([{" and _closing(content, 0) == len(content) - 1
    return elements if alone else [f"{part}," for part in elements]


def _last_bracket(code: str) -> int | None:
    """Where the last outermost bracket with content opens, of those whose line is not too long."""
    depth, found = 0, None
    for n, character in enumerate(code):
        if character in "([{":
            if depth == 0 and code[n + 1] not in ")]}" and (found is None or n < WIDTH):
                found = n
            depth += 1
        elif character in ")]}":
            depth -= 1
    return found


def _closing(code: str, start: int) -> int:
    depth = 0
    for n in range(start, len(code)):
        depth += (code[n] in "([{") - (code[n] in ")]}")
        if depth == 0:
            return n
    raise ValueError(f"brackets of {code!r} do not match")


def _split(content: str, separator: str) -> list[str]:
    """At the separators outside of brackets."""
    parts: list[str] = []
    depth, begin = 0, 0
    for n, character in enumerate(content):
        depth += (character in "([{") - (character in ")]}")
        if depth == 0 and content.startswith(separator, n):
            parts.append(content[begin:n].strip())
            begin = n + len(separator)
    return [*parts, content[begin:].strip()]
