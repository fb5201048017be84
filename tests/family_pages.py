"""What pages say of families, made of the mappings and of what the language does not have.

`python -m tests.family_pages` writes it.
"""

from __future__ import annotations

import re
from pathlib import Path

from specc.interop.library import gaps

DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- families -->\n", "<!-- end -->"


def limits() -> str:
    """A row for each thing that the language does not have, with the families that have it."""
    rows = ["| what | families | a component of one's own |", "| --- | --- | --- |"]
    for code, reason in gaps().reasons.items():
        named = [
            name
            for name, family in gaps().families.items()
            if any(gap.code == code and not gap.imports for gap in family.gaps)
        ]
        rows.append(f"| {code}: {reason.what} | {', '.join(f'`{name}`' for name in named)} | {reason.component} |")
    return "\n".join(rows) + "\n"


PAGES = {"limits.md": limits}


def page(name: str) -> str:
    """A page with its part written anew."""
    text = (DOCS / name).read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{name} has no {BEGIN.strip()} with {END} behind it")
    return before + begin + PAGES[name]() + end + after


def names(text: str) -> set[str]:
    """The families in a table's second column."""
    rows = [line.split("|")[2] for line in text.splitlines() if line.startswith("|")][2:]
    return {name for row in rows for name in re.findall(r"`([\w.-]+)`", row)}


if __name__ == "__main__":
    for name in PAGES:
        (DOCS / name).write_text(page(name), encoding="utf-8")
