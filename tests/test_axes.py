"""Axes of the mesh that an extension brings are known to language, layout, file and proof as the own ones are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from specc.cost.decided import decided
from specc.emit import emit
from specc.extension import Extension, LayoutAxis
from specc.ir.types import TOKEN_AXES
from specc.passes.mesh import mesh_of
from specc.source import Source
from specc.spec import Layout, Spec, load
from specc.tables import tables
from specc.verify.relations import describe, layout_relations, setting
from specc.verify.shrink import least_ranks, lengths, shrink
from tests.test_house import ROOT
from tests.toy import BOTTLENECK
from tests.toy_axis import PARTS

LLAMA = (ROOT / "specs" / "tiny" / "llama-tiny.yaml").read_text()
LAYOUTS = ("{dp: 2, cut: 2}",)


def spec_of(layout: str, *extensions: Extension, text: str = LLAMA) -> Spec:
    spec = load(Source("llama.yaml", f"{text}layout: {layout}\n"), tables(extensions))
    assert isinstance(spec, Spec), spec
    return spec


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_over_an_axis_of_an_extension_is_exact(layout: str) -> None:
    spec = spec_of(layout, PARTS)
    model, small = shrink(spec.model, spec.layout(), 8)
    assert small.size("cut") == 2
    assert not [row for row in layout_relations(setting(model, small), small) if not row.holds]


FEATURES = Extension(
    "features",
    axes=(LayoutAxis("fp", "Ranks.", "ffn over fp = {}", tokens=("batch",), shards=("ffn",), data=True),),
)


@pytest.mark.parametrize("layout", ["{fp: 2}", "{dp: 2, fp: 2, checkpoint: full}", "{fp: 2, pp: 2}"])
def test_weights_that_a_data_axis_splits_have_gradients_of_their_own_ranks(layout: str) -> None:
    """Features over ranks that are fed different samples: their gradients are summed over fewer ranks than others'."""
    spec = spec_of(layout, FEATURES)
    model, small = shrink(spec.model, spec.layout(), 8)
    assert "ignored_params" in emit(replace(spec, model=model), small).source or small.dp > 1
    assert not [row for row in layout_relations(setting(model, small), small) if not row.holds]


def test_the_language_has_its_key() -> None:
    text = f"{LLAMA}layout: {{cut: 2}}\n"
    found = load(Source("llama.yaml", text))
    assert isinstance(found, list) and [item.message for item in found] == ["unknown key cut"]
    found = load(Source("llama.yaml", text.replace("cut: 2", "cut: 0")), tables((PARTS,)))
    assert isinstance(found, list) and [item.message for item in found] == ["cut must be at least 1, not 0"]
    found = load(Source("llama.yaml", text.replace("cut: 2", "cut_: 2")), tables((PARTS,)))
    assert isinstance(found, list) and (found[0].help or "").startswith("did you mean cut?")


def test_its_size_is_told() -> None:
    spec = spec_of("{cut: 4, dp: 2}", PARTS)
    layout = spec.layout()
    assert ("layout.cut", "4", "line 18") in [(row.key, row.value, row.origin) for row in decided(spec, layout, ())]
    assert describe(layout) == "dp 2, cut 4"
    assert "\nevery sample is split over cut = 4\n" in emit(spec, layout).source
    assert least_ranks(layout) == 4 and lengths(layout, 1) == [8]
    digests = [emit(spec, layout).source.split(", layout ")[1][:12] for layout in (layout, layout.sized({"cut": 2}))]
    assert digests[0] != digests[1]


def test_axes_stand_outer_to_inner() -> None:
    """Those whose ranks are fed different tokens first, of these last those that split weights."""
    model = LayoutAxis("mp", "Ranks.", "over mp = {}", shards=("width",))
    known = tables((FEATURES, PARTS, Extension("more", axes=(model,), alike={"places": ("batch", "seq")})))
    assert list(known.axes) == ["dp", "cp", "cut", "ep", "fp", "tp", "mp"]
    layout = Layout(tp=2, dp=2, others=(("mp", 2), ("cut", 2)), tables=known)
    assert [axis.name for axis in mesh_of(layout)] == ["dp", "cut", "tp", "mp"]
    assert mesh_of(layout)[0].tokens == ("batch", "slots", "places")
    assert "slots" in mesh_of(layout)[1].tokens
    assert mesh_of(replace(layout, sequence_parallel=True))[2].tokens == TOKEN_AXES  # they are fed the same
    assert mesh_of(layout)[3].shards == ("width",) and "ffn" in mesh_of(layout)[2].shards
    assert mesh_of(Layout(tp=2, dp=2, tables=known)) == tuple(
        axis for axis in mesh_of(layout) if axis.name in ("dp", "tp")
    )


def test_what_it_must_divide_is_a_finding(tmp_path: Path) -> None:
    counted = replace(BOTTLENECK, split_by={"cut": lambda config: (("width", config.width),)})
    text = LLAMA.replace("ffn: {kind: gated, hidden: 64, activation: silu}", "bottleneck: {width: 6}")
    known = tables((PARTS, Extension("counted", (counted,))))
    (found,) = load(Source("llama.yaml", f"{text}layout: {{cut: 4}}\n"), known)
    assert (found.code, found.message) == ("E402", "width = 6 cannot be split over cut = 4")
    assert found.help == "cut can be 1, 2, 3 or 6; or with rules: {bottleneck.width: none} every rank has all"
