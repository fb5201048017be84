"""Context parallelism: ranks that hold parts of every row compute what one device computes."""

from __future__ import annotations

from fractions import Fraction

import pytest

from specc.compile import compile_spec
from specc.cost.device import Device, device
from specc.cost.fed import fed
from specc.cost.seconds import step
from specc.cost.sizes import Sizes
from specc.emit import emit
from specc.lower import lower
from specc.ops.conversions import conversion
from specc.passes import run
from specc.passes.check import SpmdError, check
from specc.source import Diagnostic, Source
from specc.spec import Spec, load
from specc.verify.relations import layout_relations, setting
from specc.verify.shrink import shrink
from tests import zoo
from tests.mutants import mutants, retyped, short_cut

CONTIGUOUS = "cp: {size: 4, order: contiguous}"
ULYSSES = "cp: {size: 2, attention: ulysses}"
SP = "tp: 2, sequence_parallel: true"
EVERY = (
    *("transformer", "gpt2", "llama-tied", "llama", "hybrid", "packed", "latent", "biased", "ends", "experts"),
    *("prefix", "recurrent", "routed", "shared", "steps", "kept"),
)
WIDE = ("{cp: 2}", "{cp: 4, checkpoint: full}", f"{{cp: 2, {SP}}}", "{cp: 2, dp: 2, pp: 2}", "{cp: 2, tp: 2, dp: 2}")
FEW = (
    ("packed", "{cp: 2}"),
    ("biased", f"{{cp: {{size: 2, order: zigzag}}, {SP}}}"),
    ("kept", "{cp: {size: 2, order: contiguous}}"),
    ("llama-tied", "{cp: 2, pp: 2, checkpoint: {save: [attention.core]}}"),
)
ASKED = ("prefix", "biased", "routed", "hybrid")  # with masks that no flag says
BOTH = pytest.param("biased", f"{{{ULYSSES}, {SP}}}", marks=pytest.mark.matrix)
ALL = (*FEW, BOTH, *(pytest.param(name, layout, marks=pytest.mark.matrix) for name in EVERY for layout in WIDE))


@pytest.mark.matrix
@pytest.mark.parametrize("name", ASKED)
def test_masks_follow_positions(name: str) -> None:
    exact(spec_of(name, f"{{cp: {{size: 2, order: zigzag}}, {SP}, checkpoint: full}}"))


def spec_of(name: str, layout: str) -> Spec:
    text = (zoo.ROOT / "specs" / "tiny" / f"{name}-tiny.yaml").read_text().partition("\nlayout")[0]
    found = load(Source(f"{name}.yaml", f"{text}\nlayout: {layout}\n"))
    assert isinstance(found, Spec), found
    return found


def source_of(name: str, layout: str) -> str:
    spec = spec_of(name, layout)
    return emit(spec, spec.layout()).source


def exact(spec: Spec, ranks: int = 8) -> None:
    model, small = shrink(spec.model, spec.layout(), ranks)
    assert small.cp > 1
    assert not [row for row in layout_relations(setting(model, small), small) if not row.holds]


@pytest.mark.parametrize(("name", "layout"), ALL)
def test_parts_of_rows_are_exact(name: str, layout: str) -> None:
    exact(spec_of(name, layout))


@pytest.mark.matrix
@pytest.mark.parametrize("layout", [f"{{{ULYSSES}, checkpoint: full}}", f"{{{ULYSSES}, dp: 2, pp: 2}}"])
@pytest.mark.parametrize("name", [name for name in EVERY if name not in ("kept", "routed")])
def test_heads_in_place_of_parts_of_rows_are_exact(name: str, layout: str) -> None:
    exact(spec_of(name, layout))


@pytest.mark.matrix
def test_all_axes_together_are_exact() -> None:
    exact(spec_of("llama", f"{{cp: 2, {SP}, dp: 2, pp: 2, checkpoint: full}}"), 16)


def test_a_trainer_is_given_whole_rows() -> None:
    """So nobody cuts them wrong: it takes its part of them, and gives logits of whole ones."""
    text = source_of("llama", f"{{cp: 2, {SP}, dp: 2}}")
    for line in (
        "whole rows of which a rank of cp takes its part.",
        "        if seq % 4:",
        '        return [chunks_of_rows(x, self.mesh["cp"]) for x in rows]',
        '        logits = rows_of_chunks(logits, self.mesh["cp"])',
        "        early, late = causal_chunks(positions, self.cp)",
        "        x = attention_of_chunks(q, k, v, early, late, self.cp, enable_gqa=True)",
    ):
        assert f"{line}\n" in text, line
    text = source_of("llama", "{cp: {size: 2, order: contiguous}}")
    for line in ("        mask = causal_part(positions, self.cp)", '[part_of_rows(x, self.mesh["cp"]) for x in rows]'):
        assert f"{line}\n" in text, line
    assert "device, batch // MICROBATCHES, seq // 4, seed)\n" in source_of("llama", "{cp: 4, pp: 2}")


def order(name: str, layout: str) -> str:
    """In which ranks hold rows."""
    return "zigzag" if "chunks_of_rows" in source_of(name, layout) else "contiguous"


def test_rows_are_cut_as_zigzag_where_that_helps() -> None:
    """A causal mask alone, in some layers, and nothing that needs tokens in a row."""
    assert [order(name, "{cp: 2}") for name in ("llama", "transformer", "hybrid")] == ["zigzag"] * 3
    assert [order(name, "{cp: 2}") for name in ("prefix", "packed", "steps", "recurrent")] == ["contiguous"] * 4
    assert order("llama", "{cp: {size: 2, order: contiguous}}") == "contiguous"
    spec = spec_of("recurrent", "{cp: {size: 2, order: zigzag}}")
    (found,) = compile_spec(spec, spec.layout()).findings
    assert found.code == "E441" and "selective_scan" in found.message


LONG = """\
specc: 1
name: long
d_model: 4096
vocab: 128256
max_seq: 131072
decoder:
  layers: 4
  block:
    - attention: {heads: 32, kv_heads: 8, rope: {theta: 500000}}
    - ffn: {kind: gated, hidden: 14336}
"""


def attention(layout: str) -> float:
    """Seconds of attention in a step of two long rows."""
    spec = load(Source("long.yaml", f"{LONG}layout: {layout}\n"))
    assert isinstance(spec, Spec), spec
    graph = compile_spec(spec, spec.layout()).placed
    symbols = fed(spec, spec.layout(), graph, 4)
    h100 = device("h100")
    assert not isinstance(symbols, Diagnostic) and isinstance(h100, Device)
    found = step(graph, spec.layout(), h100, symbols)
    return next(part.seconds for part in found.parts if part.name == "attention")


def test_zigzag_is_as_much_work_for_every_rank() -> None:
    """So attention takes as long as where ranks share samples out; in their order the last rank has almost twice."""
    rows, zigzag, plain = (attention(f"{{{key}, precision: bf16}}") for key in ("dp: 4", "cp: 4", CONTIGUOUS))
    assert zigzag == pytest.approx(rows, rel=0.01)
    assert plain == pytest.approx((2 - 1 / 4) * zigzag, rel=0.01)


@pytest.mark.parametrize(
    ("name", "cp"),
    [("llama", "cp: 2"), ("llama", ULYSSES), pytest.param("transformer", "cp: 2", marks=pytest.mark.matrix)],
)
def test_rejects_every_mutant(name: str, cp: str) -> None:
    spec = spec_of(name, f"{{{cp}, {SP}}}")
    model, small = shrink(spec.model, spec.layout(), 8)
    graph = dict(run(lower(model), small))["place"]
    survivors: list[str] = []
    count = 0
    for description, mutant in (*mutants(graph), *short_cut(graph)):
        count += 1
        for again in (False, True):
            try:
                check(retyped(mutant) if again else mutant, small)
                survivors.append(f"{description}{' derived again' * again}")
            except SpmdError:
                pass
    assert count > 200 and survivors == []


def sent(layout: str) -> Fraction:
    """Elements that a rank sends over cp in attention of one layer, forward: (n - 1) / n of what it has in the end."""
    spec = load(Source("long.yaml", f"{LONG}layout: {layout}\n"))
    assert isinstance(spec, Spec), spec
    graph = compile_spec(spec, spec.layout()).placed
    symbols = fed(spec, spec.layout(), graph, BATCH, LENGTH)
    assert not isinstance(symbols, Diagnostic)
    sizes, total = Sizes(graph, symbols), Fraction(0)
    for op in graph.ops:
        link = (
            conversion(op.place("src"), op.place("dst")) if op.kind == "convert" and op.text("mesh") == "cp" else None
        )
        if link is not None and link.forward and graph.type(op.ref).grad:
            assert link.forward in ("all-gather", "all-to-all") and link.backward in ("reduce-scatter", "all-to-all")
            total += Fraction(RANKS - 1, RANKS) * max(sizes.numel(op.inputs[0]), sizes.numel(op.ref))
    return total


BATCH, LENGTH, RANKS, HEADS, KV_HEADS, HEAD_DIM = 2, 4096, 4, 32, 8, 128


def test_zigzag_needs_two_chunks_a_rank() -> None:
    spec = spec_of("llama", "{cp: 4}")
    found = fed(spec, spec.layout(), compile_spec(spec, spec.layout()).placed, 1, 12)
    assert isinstance(found, Diagnostic) and found.help == "the nearest are 8 and 16"
    assert found.message == "sequences of 12 tokens cannot be cut into equal parts for cp = 4, zigzag"


def test_ranks_send_what_is_published() -> None:
    """Keys and values once around (Llama 3, 3.3.2; a ring sends as much), or parts of q, k, v and the result (DeepSpeed
    Ulysses, 3.2: 4 N h / P where all heads have keys of their own).
    """
    rows = BATCH * LENGTH * HEAD_DIM
    gathered = Fraction(RANKS - 1, RANKS) * 2 * KV_HEADS * rows
    exchanged = Fraction(RANKS - 1, RANKS) * (2 * HEADS + 2 * KV_HEADS) * rows / RANKS
    assert sent("{cp: 4}") == gathered and sent("{cp: {size: 4, attention: ulysses}}") == exchanged


def test_heads_that_cannot_be_shared_out_are_told() -> None:
    text = (zoo.ROOT / "specs" / "tiny" / "llama-tiny.yaml").read_text()
    found = load(Source("llama.yaml", f"{text}layout: {{cp: {{size: 4, attention: ulysses}}, tp: 2}}\n"))
    assert isinstance(found, list) and [item.code for item in found] == ["E402"]
    assert found[0].message == "4 kv_heads cannot be shared out over tp * cp = 8 by ulysses"
    assert found[0].help == "cp can be 1 or 2, or attention: gather"
