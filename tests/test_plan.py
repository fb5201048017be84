"""`specc plan` is true: values with their lines, counts that add up, what stages hold and exchange."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from specc.cli import cli
from specc.compile import compile_spec
from specc.components.attention import Attention
from specc.components.cross_attention import CrossAttention
from specc.components.ffn import Ffn
from specc.components.norm import Norm
from specc.components.rope import LinearScaling, Llama3Scaling
from specc.cost.counts import crossing, stage_costs
from specc.cost.decided import decided
from specc.emit import emit
from specc.ir.graph import Graph
from specc.ir.stored import stored, total
from specc.lower import lower
from specc.passes import compile_graph
from specc.source import Source
from specc.spec import Spec, load
from specc.spec.core import Layout, Pipeline
from tests import zoo
from tests.broken import BOTH, DECODER, PATTERN

ROOT = Path(__file__).parents[1]
Rows = dict[str, tuple[str, str]]


def spec(text: str) -> Spec:
    found = load(Source("s.yaml", text))
    assert isinstance(found, Spec), found
    return found


def values(text: str, layout: str | None = None) -> Rows:
    """Value and origin by key."""
    found = spec(text)
    made = decided(found, found.layout(layout), ("layers.2",))
    assert len({row.key for row in made}) == len(made)
    return {row.key: (row.value, row.origin) for row in made}


def plan(path: str | Path, *arguments: str) -> str:
    result = CliRunner().invoke(cli, ["plan", str(path), *arguments], standalone_mode=False)
    assert result.return_value == 0, result.output
    return result.stdout


def table(text: str, head: str) -> list[list[str]]:
    """Cells of the table that begins with that word, without its head."""
    lines = text.splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith(head))
    end = next((n for n in range(first, len(lines)) if not lines[n]), len(lines))
    return [re.split(r"  +", line.strip()) for line in lines[first + 1 : end]]


def compiled(found: Spec, layout: Layout) -> Graph:
    return compile_graph(lower(found.model), layout)


@pytest.mark.parametrize("name", [*zoo.TINY, "transformer-base", "llama-3.1-8b"])
def test_what_comes_from_a_line_stands_in_that_line(name: str) -> None:
    """The last word of the key, or what it is a number of, is in the line; a number is there as it is."""
    found = zoo.spec(name)
    text = Path(found.file).read_text().splitlines()
    written = 0
    for layout in found.layouts:
        for row in decided(found, layout, ()):
            if row.origin.startswith("line "):
                number, _, formula = row.origin.removeprefix("line ").partition(": ")
                line = text[int(number) - 1]
                assert formula in line, (row, line)
                key = re.split(r"[. ]", row.key)[-1]
                assert key in line or (key == "stages" and "pp:" in line), (row, line)
                if re.fullmatch(r"[\d.e-]+", row.value) and not formula:
                    numbers = [float(n) for n in re.findall(r"(?<![\w.])\d[\d.e-]*", line)]
                    assert any(abs(float(row.value) - n) < 1e-9 * max(1, n) for n in numbers), (row, line)
                written += 1
            else:
                assert row.origin.startswith("default"), row
    assert written > 10


def test_values_of_a_block_that_is_like_another() -> None:
    made = values(PATTERN)
    assert made["decoder.local.attention.kv_heads"] == ("2", "line 7")
    assert made["decoder.global.attention.kv_heads"] == ("4", "default: heads")  # null restored it
    assert made["decoder.global.attention.heads"] == ("4", "line 7")
    assert made["decoder.global.attention.rope.theta"] == ("1000", "line 9")
    assert made["decoder.local.attention.rope.theta"] == ("100", "line 7")
    assert made["decoder.global.ffn.kind"] == ("gated", "line 8")
    assert made["decoder.global.ffn.activation"] == ("silu", "default: silu for gated, gelu for plain")


def test_parameters_stand_in_the_order_of_layers() -> None:
    firsts = [row.layers[0] for row in stored(compiled(zoo.spec("hybrid-tiny"), Layout())) if row.layers]
    assert firsts == sorted(firsts) and len(set(firsts)) == 5


def test_values_of_equal_blocks_stand_once() -> None:
    made = values(
        PATTERN.replace("{theta: 1000}", "{theta: 100}").replace(
            "with: {attention: {kv_heads: null, ", "with: {attention: {"
        )
    )
    assert made["blocks.global"] == ("as local", "line 9")
    assert "decoder.global.attention.heads" not in made


def test_values_of_a_sublayer_that_states_them() -> None:
    made = values(
        PATTERN.replace("norm: true", "norm: {kind: layer}\n      alpha: 1 / layers").replace(
            "vocab", "residual: {beta: 2 / (1 + 1)}\nvocab"
        )
    )
    key = "decoder.joined"
    assert made[f"{key}.sublayer1.norm.kind"] == ("layer", "line 17")
    assert made[f"{key}.sublayer1.norm.bias"] == ("true", "default: layer norm")
    assert made[f"{key}.sublayer1.base"] == ("normed", "line 19")
    assert made[f"{key}.sublayer1.alpha"] == ("0.125", "line 18: 1 / layers")
    assert made[f"{key}.sublayer1.beta"] == ("1", "line 4: 2 / (1 + 1)")
    assert made["residual.alpha"] == ("1", "default") and f"{key}.sublayer1.after" not in made
    assert made[f"{key}.attention.post"] == ("as norm", "line 14") and f"{key}.attention.pre" not in made
    assert made[f"{key}.ffn.out_scale"] == ("0.5", "line 16") and f"{key}.ffn.in_scale" not in made
    assert made["decoder.pattern"] == ("0: joined; 1..6: local, local, global; 7: joined", "line 22")
    cut = values(PATTERN.replace("layers: 8", "layers: 7"))
    assert "1..5: local, local, global, the last repeat cut short;" in cut["decoder.pattern"][0]


def test_defaults_say_what_they_follow() -> None:
    made = values(BOTH, "four")
    assert made["encoder.attention.causal"] == ("false", "default: in the encoder")
    assert made["decoder.attention.causal"] == ("true", "default: in the decoder")
    assert made["decoder.cross_attention.kv_heads"] == ("4", "default: heads")
    assert made["decoder.cross_attention.scale"] == ("0.3535533906", "default: head_dim ** -0.5")
    assert made["embedding.tied"] == ("encoder, decoder, head", "line 6")
    assert made["encoder.final_norm"] == ("true", "default: by norm.placement")
    assert made["init.parameters.embedding.std"] == ("0.02", "default: init.std")
    assert made["layouts.four.pp.stages"] == ("2", "line 20")
    assert made["layouts.four.microbatches"] == ("2", "default: stages")
    assert made["layouts.four.pp.starts"] == ("layers.2", "default: balanced by flops")
    assert "layouts.one.pp.schedule" not in values(BOTH, "one")  # one stage has none
    assert values(DECODER)["decoder.attention.head_dim"] == ("8", "default: d_model / heads")
    given = values(DECODER.replace("stages: 2", "stages: 2, starts: [layers.2]"))
    assert given["layout.pp.starts"] == ("layers.2", "line 12")
    for text, told in (("full", "every layer"), ("{every: 3}", "layers whose number is a multiple of 3")):
        made = values(DECODER.replace("{save: [attention.core]}", text))
        assert made["layout.checkpoint"] == (told, "line 12")
    assert values(DECODER)["layout.checkpoint"] == ("every layer but for attention.core", "line 12")


def test_every_value_of_every_component_is_shown() -> None:
    """Rope and its scalings too, and both kinds of norm."""
    text = f"{PATTERN}encoder: {{layers: 1, block: [attention: {{heads: 4}}]}}\n".replace(
        "  joined:\n", "  joined:\n    - cross_attention: {heads: 4}\n"
    )
    scaling = "rope: {theta: 100, scaling: {kind: llama3, factor: 8}}"
    made = values(text.replace("rope: {theta: 100}", scaling))
    parts = {"local.attention": Attention, "joined.cross_attention": CrossAttention, "local.ffn": Ffn}
    expected = {
        f"decoder.{part}.{name}" for part, model in parts.items() for name in model.model_fields if name != "rope"
    }
    expected |= {f"decoder.local.attention.rope.scaling.{name}" for name in Llama3Scaling.model_fields}
    expected |= {"decoder.local.attention.rope.theta", *(f"norm.{name}" for name in Norm.model_fields)}
    assert expected <= set(made)
    assert made["decoder.local.attention.rope.scaling.high_freq"] == ("4", "default")
    linear = values(text.replace("rope: {theta: 100}", "rope: {scaling: {kind: linear, factor: 8}}"))
    assert {f"decoder.local.attention.rope.scaling.{name}" for name in LinearScaling.model_fields} <= set(linear)


LAYOUTS = (
    Layout(tp=2, pp=Pipeline(2), microbatches=2),
    Layout(tp=4, sequence_parallel=True, pp=Pipeline(4, "gpipe"), microbatches=4),
    Layout(dp=2, pp=Pipeline(3), microbatches=3),
    Layout(tp=2, dp=2),
    Layout(),
)


@pytest.mark.parametrize("name", zoo.TINY)
def test_stages_hold_all_parameters_and_copies_of_tied_ones(name: str) -> None:
    found = zoo.spec(name)
    whole = total(compiled(found, Layout()))
    for layout in LAYOUTS:
        graph = compiled(found, layout)
        costs = stage_costs(graph, layout.pp.stages)
        copies = sum(row.count * (len(row.stages) - 1) for row in stored(graph) if row.layers is None)
        shared = found.model.embed.tied or any(row.param.role == "relative_bias" for row in stored(graph))
        assert bool(copies) == bool(shared and layout.pp.stages > 1)
        assert sum(cost.parameters for cost in costs) == whole + copies
        layers = [(path, n) for cost in costs for path, first, last in cost.layers for n in range(first, last + 1)]
        assert layers == [(stack.path, n) for stack in found.model.stacks for n in range(stack.layers)]
        assert all(cost.local <= cost.parameters for cost in costs)
        assert all((cost.local < cost.parameters) == bool(graph.mesh) for cost in costs)


def test_what_a_rank_holds_by_hand() -> None:
    """d_model 32, hidden 64, vocabulary 97: rows of the first rank, which has the larger half."""
    found = spec(DECODER.replace(", pp: {stages: 2}, microbatches: 4, checkpoint: {save: [attention.core]}", ""))
    layer = 4 * 32 * 32 + 2 * 32 * 64
    (cost,) = stage_costs(compiled(found, found.layout()), 1)
    assert cost.parameters == 2 * 97 * 32 + 32 + 4 * (layer + 64)
    assert cost.local == 2 * 49 * 32 + 32 + 4 * (layer // 2 + 64)
    (sharded,) = stage_costs(compiled(found, replace(found.layout(), tp=1, dp=3)), 1)
    thirds = 4 * 11 * 32 + 22 * 32 + 11 * 64 + 2 * 11  # of q, k, v, o, then up, down, and the norms
    assert sharded.local == 2 * 33 * 32 + 11 + 4 * thirds


def test_flops_are_counted_over_no_more_tokens_than_a_model_takes() -> None:
    """In `plan` and where stages are balanced, after every pass."""
    text = plan(ROOT / "specs" / "transformer-base.yaml")
    assert "flops at 1024 tokens" in text and "flops at 4096 tokens" in plan(ROOT / "specs" / "llama-3.1-8b.yaml")
    found = zoo.spec("transformer-base")
    graphs = compile_spec(found, found.layout()).passes
    assert {graph.tokens for graph in graphs.values()} == {1024}
    deep = replace(found, model=replace(found.model, max_seq=8192))
    cuts = [stage_costs(compiled(other, found.layout()), 2)[1].layers[0][1] for other in (found, deep)]
    assert cuts == [3, 2]  # attention costs more over more tokens, the head does not


def test_each_stage_is_told_what_it_takes() -> None:
    """Equal stages are held once, and told of each; tokens that are split are counted by what a rank sends."""
    found = zoo.spec("llama-3.1-8b")
    graph = compiled(found, found.layout("h100x64"))
    sent = [[(value.name, value.bytes) for value in values] for values in crossing(graph, 4)]
    assert sent == [[("x", 2 * 4096 / 8)]] * 3
    found = zoo.spec("transformer-base")
    graph = compiled(found, found.layout())
    assert [[(value.name, value.bytes) for value in values] for values in crossing(graph, 2)] == [
        [("x", 2048.0), ("memory", 2048.0)]
    ]


def test_plan_of_a_model_as_a_user_reads_it() -> None:
    text = plan(ROOT / "specs" / "llama-3.1-8b.yaml")
    lines = text.splitlines()
    assert lines[0] == "llama-3.1-8b, layout h100x64" and "8,030,261,248 parameters" in lines
    assert all(len(line) <= 120 and line == line.rstrip() and line.isascii() for line in lines)
    values = {cells[0]: cells[1:] for cells in table(text, "value")}
    assert values["decoder.attention.kv_heads"] == ["8", "line 13"]
    assert values["layouts.h100x64.pp.starts"] == ["layers.9, layers.17, layers.26", "default: balanced by flops"]
    parameters = {cells[0]: cells[1:] for cells in table(text, "parameter")}
    assert parameters["embedding.weight"] == [
        "[128256, 4096]",
        "[8016, 4096]",
        "dp FSDP, tp Shard(0)",
        "0",
        "525,336,576",
    ]
    assert parameters["layers.{0..31}.attention.o.weight"][1:4] == ["[2048, 512]", "dp FSDP, tp Shard(1)", "0..3"]
    assert sum(int(cells[-1].replace(",", "")) for cells in parameters.values()) == 8_030_261_248
    stages = table(text, "stage ")
    assert [cells[1] for cells in stages] == ["layers.0..8", "layers.9..16", "layers.17..25", "layers.26..31"]
    assert sum(int(cells[2].replace(",", "")) for cells in stages) == 8_030_261_248
    assert abs(sum(float(cells[-1].split()[0]) for cells in stages) - 100) < 0.3
    assert ["0", "1", "x", "[seq/tp, batch, d_model]", "1,024"] in table(text, "from")
    assert table(text, "collectives") == [
        ["decoder", "2 all-gather, 2 reduce-scatter", "2 all-gather, 2 reduce-scatter", "2 all-gather"],
        ["outside of layers", "1 all-gather, 1 reduce-scatter", "1 all-gather, 1 reduce-scatter", "none"],
        ["loss", "2 all-reduce", "none", "none"],
    ]


@pytest.mark.parametrize("layout", ["a", "c"])
def test_a_token_meets_the_experts_that_it_goes_to(layout: str) -> None:
    """By hand: layers 1 and 3 have four experts of 3 * 16 * 32 numbers, of which two are met; 2 and 4 six of 2 * 8 * 32
    and 40 biases, of which three are."""
    text = plan(ROOT / "specs" / "tiny" / "experts-tiny.yaml", "--layout", layout)
    held, met = (
        int(number.replace(",", "")) for number in re.findall(r"([\d,]+) param.* meets at most ([\d,]+)", text)[0]
    )
    assert held - met == 2 * (2 * 3 * 16 * 32 + 3 * (2 * 8 * 32 + 40))
    found = zoo.spec("experts-tiny")
    assert held == total(compiled(found, found.layout(layout)))
    assert "meets" not in plan(ROOT / "specs" / "gpt2.yaml")


def test_plan_says_nothing_of_what_a_layout_has_not() -> None:
    text = plan(ROOT / "specs" / "llama-3.1-8b.yaml", "--layout", "single")
    assert "collectives" not in text and "stage" not in text.replace("pp.stages", "") and "on a rank" not in text
    assert text.splitlines()[0] == "llama-3.1-8b, layout single"


def test_plan_tells_of_tied_copies_and_of_each_block(tmp_path: Path) -> None:
    text = plan(ROOT / "specs" / "transformer-base.yaml")
    assert "81,989,632 in all: several stages hold a copy of embedding.weight" in text.splitlines()
    assert [cells[0] for cells in table(text, "collectives")] == ["encoder", "decoder", "outside of layers", "loss"]
    assert table(text, "collectives")[1][1:] == ["3 all-reduce"] * 3
    (tmp_path / "s.yaml").write_text(PATTERN.replace("tp: 2", "tp: 2, pp: 4"))
    text = plan(tmp_path / "s.yaml")
    blocks = [cells[0] for cells in table(text, "collectives")]
    assert blocks[:-2] == ["decoder.joined", "decoder.local", "decoder.global"]
    assert [cells[1] for cells in table(text, "stage ")] == ["layers.0..1", "layers.2..3", "layers.4..5", "layers.6..7"]


def test_collectives_stand_at_the_block_that_issues_them(tmp_path: Path) -> None:
    """Where a run begins in the middle of its period, too."""
    blocks = "blocks:\n  a: [attention: {heads: 4}]\n  b: [attention: {heads: 4}, ffn: {hidden: 64}]\n"
    for pattern in ("{head: [a], cycle: [a, b]}", "{head: [b, a, a], cycle: [b, a]}", "[a, b]"):
        stack = f"decoder: {{layers: 6, pattern: {pattern}}}\nlayout: {{tp: 2}}\n"
        (tmp_path / "s.yaml").write_text(f"specc: 1\nname: s\nd_model: 32\nvocab: 96\n{blocks}{stack}")
        counts = {cells[0]: cells[1] for cells in table(plan(tmp_path / "s.yaml"), "collectives")}
        assert (counts["decoder.a"], counts["decoder.b"]) == ("1 all-reduce", "2 all-reduce")


@pytest.mark.parametrize("name", ["llama-3.1-8b", "transformer-base"])
def test_collectives_of_a_layer_are_those_that_its_file_calls(name: str) -> None:
    """Calls in the forwards of the classes of a layer, counted in the text."""
    found = zoo.spec(name)
    source = emit(found, found.layout()).source
    classes = dict(re.findall(r"^class (\w+)\(nn\.Module\):\n(.*?)(?=^\S)", source, re.S | re.M))
    block = {"decoder": "DecoderBlock" if "DecoderBlock" in classes else "Block", "encoder": "EncoderBlock"}
    for cells in table(plan(ROOT / "specs" / f"{name}.yaml"), "collectives"):
        if cells[0] in block:
            body = classes[block[cells[0]]]
            inner = [classes[made] for made in re.findall(r"self\.\w+ = (\w+)\(tp", body) if made in classes]
            for kind in ("all-reduce", "all-gather", "reduce-scatter"):
                calls = sum(len(re.findall(rf"\b{kind.replace('-', '_')}\(", text)) for text in (body, *inner))
                planned = re.search(rf"(\d+) {kind}", cells[1])
                assert calls == (int(planned[1]) if planned else 0), (cells, kind)
