"""Pages on families say what mappings and gaps say, and name no family as missing that is there."""

from __future__ import annotations

import pytest
from transformers import CONFIG_MAPPING

from specc.interop.library import families, gaps
from specc.spec.synonyms import SAID
from tests.families import ROWS
from tests.family_pages import BEGIN, DOCS, PAGES, names, page, read_as, row

LIMITS = (DOCS / "limits.md").read_text(encoding="utf-8")


QUICK = sorted({row.family for row in ROWS if row.quick} | {"qwen2_vl_text", "recurrent_gemma", "lfm2_moe"})


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.zoo] * (name == "families.md")) for name in PAGES]
)
def test_the_page_is_current(name: str) -> None:
    """`python -m tests.family_pages` makes it so."""
    assert page(name) == (DOCS / name).read_text(encoding="utf-8")


def test_the_page_of_families_has_a_row_for_each_and_those_of_some_are_current() -> None:
    table = (DOCS / "families.md").read_text(encoding="utf-8").partition(BEGIN)[2]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert [line.split("`")[1] for line in rows] == list(read_as())
    assert {row(family) for family in QUICK} <= set(rows)


def test_a_family_of_the_page_has_a_mapping_only_where_some_values_are_fine() -> None:
    named = names(LIMITS)
    assert len(named) > 40 and {*CONFIG_MAPPING} >= named
    for name in named & set(families()):
        assert all(gap.imports or gap.but or gap.only for gap in gaps().families[name].gaps)


def test_words_of_layouts_that_the_page_names_are_told_as_missing() -> None:
    for word in ("replicate",):
        assert f"`{word}`" in LIMITS and SAID[word] == "not yet in the language"
