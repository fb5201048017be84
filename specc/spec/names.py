"""Names that become files, modules and classes."""

from __future__ import annotations

import builtins
import keyword
import re
import sys

_NAME = re.compile(r"[a-z][a-z0-9._-]{0,63}", re.ASCII)
IMPORTED = ("torch", "numpy", "specc", "site", "sitecustomize", "usercustomize")
"""A generated file of such a name would be imported in place of the real one."""


def name_problem(name: str) -> str | None:
    """Why a spec cannot have that name, or None."""
    if not _NAME.fullmatch(name) or ".." in name or name[-1] in ".-":
        return "lower case letters, digits, dots, dashes and underscores make a name, a letter first"
    module = re.sub(r"[-.]", "_", name)
    if keyword.iskeyword(module) or keyword.issoftkeyword(module):
        return f"{module} is a word of Python"
    if hasattr(builtins, module):
        return f"{module} is a builtin of Python"
    if module in sys.stdlib_module_names or module in IMPORTED:
        return f"a file {module}.py would be imported in place of the module {module}"
    return None


def text_problem(text: str) -> str | None:
    """Why a text cannot stand in a docstring, or None."""
    if not text.isascii():
        return "generated files are ASCII"
    return None if all(c.isprintable() or c == "\n" for c in text) else "it has control characters"
