"""What pages say of families, made of the mappings and of what the language does not have.

`python -m tests.family_pages` writes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from math import prod
from pathlib import Path

from transformers import AutoConfig

from specc.interop.fields import shown
from specc.interop.importing import Imported, import_config
from specc.interop.library import families, gaps, known
from specc.interop.plan import parameters
from specc.lower import lower
from specc.source import Source
from specc.spec import Spec, load

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


def read_as() -> dict[str, str]:
    """Families by the mapping that reads them: their own, or that of one which is the same."""
    more = {name: one.like.family for name, one in gaps().families.items() if one.like is not None and one.like.whole}
    return dict(sorted(({name: name for name in families()} | more).items()))


def count(family: str) -> str:
    """Parameters of the spec that the class's default config makes, or which field keeps it from making one."""
    made = import_config(Source("config.json", json.dumps(AutoConfig.for_model(family).to_dict(), indent=1)))
    if not isinstance(made, Imported):
        return f"none: {'; '.join(item.message.partition(' has no counterpart')[0] for item in made)}"
    found = load(Source("spec.yaml", made.text))
    assert isinstance(found, Spec), found
    params = parameters(lower(found.model)).values()
    return f"{sum(prod(axis.length for axis in param.axes) for param in params):,}"


def refused(family: str) -> Iterator[str]:
    """Fields of which one value imports, and no variant has another; tensors that must be zero."""
    mapping = known(family)
    chosen = {name for variant in mapping.variants for name in variant.when}
    for name, value in mapping.require.items():
        if name not in chosen:
            yield f"`{name}{shown(value)}`"
    for name in mapping.zeros:
        yield f"`{name}` zero"


def row(family: str) -> str:
    """The line of a family."""
    own = read_as()[family]
    like = "" if own == family else f", as `{own}`"
    told = gaps().families.get(family)
    notes = "; ".join(f"{gap.code}: {gap.says}" for gap in told.gaps if gap.imports) if told else ""
    cells = (f"`{family}`{like}", f"`{known(own).architecture}`", count(family), ", ".join(refused(own)), notes)
    return f"| {' | '.join(cells)} |"


def every_family() -> str:
    """A row for each family that imports."""
    head = ["| family | class | parameters | only with | told |", "| --- | --- | --- | --- | --- |"]
    return "\n".join([*head, *map(row, read_as())]) + "\n"


PAGES = {"limits.md": limits, "families.md": every_family}


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
