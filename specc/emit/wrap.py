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
    start = _last_bracket(code)
    if start is None:
        return [line]
    end = _closing(code, start)
    head, content, tail = code[: start + 1], code[start + 1 : end], code[end:]
    inner = f"{indent}    {content}"
    if len(inner) <= WIDTH:
        return [head, inner, f"{indent}{tail}"]
    return [head, *(row for part in _elements(content) for row in wrapped(f"{indent}    {part},")), f"{indent}{tail}"]


def _last_bracket(code: str) -> int | None:
    """Where the last outermost bracket with content opens."""
    depth, found = 0, None
    for n, character in enumerate(code):
        if character in "([{":
            if depth == 0 and code[n + 1] not in ")]}":
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


def _elements(content: str) -> list[str]:
    parts, depth, begin = [""], 0, 0
    for n, character in enumerate(content):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts[-1] = content[begin:n].strip()
            parts.append("")
            begin = n + 1
    parts[-1] = content[begin:].strip()
    return [part for part in parts if part]
