"""What specs mean: sugar is the general form, patterns are their layers, changed blocks are blocks written out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from specc.components.attention import Attention
from specc.emit import Files, emit
from specc.ir.stored import total
from specc.lower import lower
from specc.passes import compile_graph
from specc.source import Source
from specc.spec import Spec, load
from specc.spec.core import Checkpoint, Pipeline
from specc.tables import tables
from tests.broken import BOTH, DECODER, PATTERN
from tests.component_keys import BLOCK, CHANGES

ROOT = Path(__file__).parents[1]
HEAD = "specc: 1\nname: small\nd_model: 32\nvocab: 96\n"
COUNTS = {
    "gpt2": 124_439_808,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.1-405b": 405_853_388_800,
    "deepseek-v3": 671_026_404_352,
    "gemma-3-4b": 3_880_263_168,
    "jamba": 51_570_323_328,
    "t5-small": 60_506_624,
}


def spec(text: str) -> Spec:
    found = load(Source("s.yaml", text))
    assert isinstance(found, Spec), found
    return found


def files(text: str, layout: str | None = None) -> Files:
    found = spec(text)
    return emit(found, found.layout(layout))


def decoder(block: str, more: str = "", layers: int = 3) -> str:
    return f"{HEAD}{more}decoder:\n  layers: {layers}\n  block: {block}\n"


def order(text: str, role: str = "decoder") -> list[str]:
    """Names of the blocks by layer."""
    stack = next(stack for stack in spec(text).model.stacks if stack.role == role)
    return [run.blocks[n % len(run.blocks)].name for run in stack.runs for n in range(run.layers)]


def parameters(text: str) -> int:
    found = spec(text)
    return total(compile_graph(lower(found.model), found.layout()))


@pytest.mark.parametrize("name", COUNTS)
def test_published_models_have_their_published_number_of_parameters(name: str) -> None:
    assert parameters((ROOT / "specs" / f"{name}.yaml").read_text()) == COUNTS[name]


def test_transformer_base_has_the_parameters_of_its_matrices() -> None:
    d, hidden, vocab = 512, 2048, 37_000
    attention, ffn, norm = 4 * d * d, 2 * d * hidden + hidden + d, 2 * d
    encoder, decoder = attention + ffn + 2 * norm, 2 * attention + ffn + 3 * norm
    text = (ROOT / "specs" / "transformer-base.yaml").read_text()
    assert parameters(text) == vocab * d + 6 * encoder + 6 * decoder


A, F = "attention: {heads: 4}", "ffn: {hidden: 64}"
PARTS = f"{{parallel: [{A}, {F}]"
POST, OUTPUT, NONE = "norm: {placement: post}\n", "norm: {placement: output}\n", "pre: false"
SUGAR = {
    "pre": ("", f"[{A}, {F}]", f"[{{{A}, pre: true, post: false, after: false}}, {{{F}, norm: true}}]"),
    "post": (POST, f"[{A}, {F}]", f"[{{{A}, after: true}}, {{{F}, placement: post}}]"),
    "output": (OUTPUT, f"[{A}, {F}]", f"[{{{A}, post: true}}, {{{F}, {NONE}, after: false, post: true}}]"),
    "sandwich": (
        "norm: {placement: sandwich}\n",
        f"[{A}, {F}]",
        f"[{{{A}, placement: sandwich}}, {{{F}, pre: true, post: true}}]",
    ),
    "one of two placements": (
        OUTPUT,
        f"[{{{A}, placement: pre}}, {F}]",
        f"[{{{A}, pre: true, post: false}}, {F}]",
    ),
    "parallel": ("", f"[{PARTS}}}]", f"[{PARTS}, norm: true, post: false, after: false}}]"),
    "parallel post": (
        "norm: {placement: post, kind: layer}\n",
        f"[{PARTS}}}]",
        f"[{PARTS}, norm: false, after: {{kind: layer}}}}]",
    ),
    "parallel output": (OUTPUT, f"[{PARTS}}}]", f"[{PARTS}, norm: false, post: true}}]"),
    "parallel, norms of its own": (
        "",
        f"[parallel: [{{{A}, pre: true}}, {{{F}, pre: true}}]]",
        f"[{{parallel: [{{{A}, pre: {{}}}}, {{{F}, pre: {{}}}}], norm: false}}]",
    ),
    "defaults": (
        "",
        f"[{A}, {F}]",
        "[{norm: {kind: rms, eps: 1e-5, bias: false}, base: stream, alpha: 1, beta: 1, after: false, "
        "attention: {heads: 4, kv_heads: 4, head_dim: 8, bias: [], dropout: 0, causal: true}, in_scale: 1, "
        "out_scale: 1, pre: false, post: false, dropout: 0}, "
        "ffn: {kind: plain, hidden: 64, activation: gelu, bias: false, dropout: 0}]",
    ),
    "residual": (
        "residual: {alpha: 3 / 2, beta: 1 / sqrt(layers + 1)}\n",
        f"[{A}, {F}]",
        f"[{{{A}, alpha: 1.5, beta: 0.5}}, {{{F}, alpha: 1.5, beta: 0.5}}]",
    ),
    "residual that is not meant": (
        "residual: {base: normed, beta: 2}\n",
        f"[{{{A}, base: stream, beta: 1}}, {F}]",
        f"[{{{A}, base: stream, beta: 1}}, {{{F}, base: normed, beta: 2}}]",
    ),
    "a norm changed": (
        "norm: {kind: layer, eps: 1e-3}\n",
        f"[{{{A}, pre: {{bias: false}}, post: {{kind: rms}}}}]",
        f"[{{{A}, pre: {{kind: layer, eps: 1e-3, bias: false}}, post: {{kind: rms, eps: 1e-5}}}}]",
    ),
    "arithmetic": (
        "",
        f"[{{{A}, out_scale: 'max(d_model, 2) ** -0.5 * log(exp(1)) * floor(1.5)'}}]",
        f"[{{{A}, out_scale: {32**-0.5}}}]",
    ),
}


@pytest.mark.parametrize("name", SUGAR)
def test_sugar_is_the_general_form(name: str) -> None:
    more, sugar, general = SUGAR[name]
    assert files(decoder(sugar, more)) == files(decoder(general, more))


GENERAL = {
    "norm": "norm: {kind: layer}",
    "no norm": "norm: false",
    "base": "base: normed",
    "alpha": "alpha: 1.5",
    "beta": "beta: 0.5",
    "post": "post: true",
    "after": "after: true",
    "after of its own": "after: {kind: layer, bias: false}",
    "output": "placement: output",
}
BRANCH = {
    "pre": "pre: {eps: 1e-3}",
    "post": "post: true",
    "in_scale": "in_scale: 0.5",
    "out_scale": "out_scale: 0.5",
    "layerscale": "layerscale: 0.1",
    "dropout": "dropout: 0.2",
}


def test_every_key_of_a_sublayer_makes_another_file() -> None:
    general = [f"[{PARTS}, {keys}}}]" for keys in GENERAL.values()]
    branch = [f"[parallel: [{{{A}, {keys}}}, {F}]]" for keys in BRANCH.values()]
    made = {files(decoder(block)).source for block in (*general, *branch, f"[{PARTS}}}]")}
    assert len(made) == len(general) + len(branch) + 1


def test_a_block_is_an_ordered_list_and_names_what_repeats() -> None:
    found = spec(decoder(f"[{A}, {F}, {A}, {F}]"))
    block = found.model.stacks[0].runs[0].blocks[0]
    names = [branch.name for sublayer in block.sublayers for branch in sublayer.branches]
    assert names == ["attention", "ffn", "attention2", "ffn2"]
    assert files(decoder(f"[{A}, {F}]")) != files(decoder(f"[{F}, {A}]"))


PATTERNS = {
    "[a]": "a a a a a a a",
    "[a*2, b]": "a a b a a b a",
    "[a, a, b]": "a a b a a b a",
    "[a * 2, b*9]": "a a b b b b b",
    "{cycle: [a, b]}": "a b a b a b a",
    "{head: [b], cycle: [a]}": "b a a a a a a",
    "{head: [b*2], cycle: [a, b], tail: [a]}": "b b a b a b a",
    "{cycle: [a, b, a]}": "a b a a b a a",
    "{head: [a*3, b*4]}": "a a a b b b b",
    "{tail: [b, a, b*5]}": "b a b b b b b",
    "{head: [a, b, a, b, a, b, a]}": "a b a b a b a",
    "[a, b, a, b]": "a b a b a b a",
    "[b, a*20]": "b a a a a a a",
}


def patterned(pattern: str, layers: int = 7) -> str:
    blocks = f"blocks:\n  a: [{A}]\n  b: [{F}]\n"
    used = [
        line
        for line in blocks.splitlines()
        if line == "blocks:" or line[2] in pattern.replace("tail", "").replace("head", "")
    ]
    return f"{HEAD}{chr(10).join(used)}\ndecoder: {{layers: {layers}, pattern: {pattern}}}\n"


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_is_its_layers(pattern: str) -> None:
    assert order(patterned(pattern)) == PATTERNS[pattern].split()


def test_a_repeat_is_held_once_however_it_is_written() -> None:
    same = (
        "[a, b]",
        "[a, b, a, b]",
        "{cycle: [a, b*1]}",
        "{cycle: [a, b, a, b, a, b]}",
        "{head: [a, b, a, b, a, b, a]}",
    )
    assert len({files(patterned(pattern)).source for pattern in same}) == 1
    found = spec(patterned("{head: [a*7]}"))
    assert [(len(run.blocks), run.layers) for run in found.model.stacks[0].runs] == [(1, 7)]
    assert files(patterned("[a]")).params == files(decoder(f"[{A}]", layers=7)).params


def test_a_changed_block_is_the_block_written_out() -> None:
    """`like` twice, a null that restores a default, a mapping within a mapping, another kind of scaling."""
    head = f"{HEAD}decoder: {{layers: 4, pattern: [one, two, three]}}\nblocks:\n"
    one = (
        "{heads: 8, kv_heads: 2, rope: {theta: 100, scaling: {kind: llama3, factor: 8, low_freq: 2, original_seq: 16}}}"
    )
    derived = f"""\
  one: [attention: {one}, parallel: [ffn: {{hidden: 64}}, attention: {{heads: 4, kv_heads: 4}}]]
  two: {{like: one, with: {{attention: {{kv_heads: null, rope: {{theta: 7}}}}, ffn: {{kind: gated}},
    attention2: {{kv_heads: null, rope: {{theta: 7}}}}}}}}
  three: {{like: two, with: {{attention: {{heads: 4, rope: {{scaling: {{kind: linear, factor: 3}}}}}}}}}}
"""
    two = "{heads: 8, rope: {theta: 7, scaling: {kind: llama3, factor: 8, low_freq: 2, original_seq: 16}}}"
    three = "{heads: 4, rope: {theta: 7, scaling: {kind: linear, factor: 3}}}"
    other = "{heads: 4, rope: {theta: 7}}"
    gated = "ffn: {kind: gated, hidden: 64}"
    written = f"""\
  one: [attention: {one}, parallel: [ffn: {{hidden: 64}}, attention: {{heads: 4, kv_heads: 4}}]]
  two: [attention: {two}, parallel: [{gated}, attention: {other}]]
  three: [attention: {three}, parallel: [{gated}, attention: {other}]]
"""
    assert files(head + derived) == files(head + written)


def test_a_component_is_changed_by_its_name() -> None:
    """The names are those of parameters: `ffn` is the first ffn only, whatever form it stands in."""
    for base in (f"[{F}, {F}]", f"[parallel: [{F}, {F}]]", f"[{F}, {{{F}, norm: false}}]"):
        head = f"{HEAD}decoder: {{layers: 2, pattern: [a, b]}}\nblocks:\n  a: {base}\n"
        first, second = (f"  b: {{like: a, with: {{{name}: {{hidden: 8}}}}}}\n" for name in ("ffn", "ffn2"))
        assert files(head + first) == files(f"{head}  b: {base.replace('64', '8', 1)}\n")
        assert files(head + second) == files(f"{head}  b: {'8'.join(base.rsplit('64', 1))}\n")
        found = load(Source("s.yaml", head + second.replace("ffn2", "ffn3")))
        assert isinstance(found, list) and [item.code for item in found] == ["E222"]
        assert found[0].help == "components here are ffn, ffn2"


def test_null_takes_a_mapping_away_and_an_inner_one_is_made() -> None:
    base = "blocks:\n  a: [attention: {heads: 4, rope: {theta: 7}}]\n"
    text = (
        f"{HEAD}{base}  b: {{like: a, with: {{attention: {{rope: null}}}}}}\ndecoder: {{layers: 2, pattern: [a, b]}}\n"
    )
    runs = spec(text).model.stacks[0].runs
    configs = [block.sublayers[0].branches[0].component for block in runs[0].blocks]
    assert [isinstance(config, Attention) and config.rope is not None for config in configs] == [True, False]
    text = text.replace("{heads: 4, rope: {theta: 7}}", "{heads: 4}").replace("rope: null", "rope: {scaling: null}")
    configs = [block.sublayers[0].branches[0].component for block in spec(text).model.stacks[0].runs[0].blocks]
    assert [isinstance(config, Attention) and config.rope is not None for config in configs] == [False, True]


@pytest.mark.parametrize("kind", CHANGES)
def test_every_value_of_a_component_can_be_changed_in_a_block(kind: str) -> None:
    model = tables().components[kind].config
    assert set(CHANGES[kind]) == set(model.model_fields) - {"kv_to"}  # what nobody reads changes nothing
    base = f"[{', '.join(f'{key}: {given}' for key, given in BLOCK.items())}]"
    text = f"{HEAD}encoder: {{layers: 1, block: [{A}]}}\nblocks:\n  a: {base}\n  b: {{like: a, with: {{%s}}}}\n"
    text += "decoder: {layers: 4, pattern: [a, b]}\n"
    same = files(text % "").source
    made = [files(text % f"{kind}: {json.dumps({key: value})}").source for key, value in CHANGES[kind].items()]
    assert len({same, *made}) == len(made) + 1


def test_what_the_encoder_and_the_decoder_take_where_nothing_is_said() -> None:
    found = spec(BOTH)
    encoder, decoder = ([b for s in st.runs[0].blocks[0].sublayers for b in s.branches] for st in found.model.stacks)
    assert isinstance(encoder[0].component, Attention) and not encoder[0].component.causal
    assert isinstance(decoder[0].component, Attention) and decoder[0].component.causal
    alone = spec(f"{HEAD}encoder: {{layers: 1, block: [attention: {{heads: 8, kv_heads: 2}}]}}\n")
    (stack,) = alone.model.stacks
    config = stack.runs[0].blocks[0].sublayers[0].branches[0].component
    assert isinstance(config, Attention) and not config.causal
    assert (config.kv_heads, config.head_dim, stack.path, stack.final_norm is not None) == (2, 4, "layers", True)


def test_defaults_follow_what_they_are_said_to_follow() -> None:
    text = f"{HEAD}dropout: 0.1\nnorm: {{placement: post}}\ninit: {{std: 0.5}}\nembedding: {{tied: true}}\n"
    found = spec(f"{text}decoder: {{layers: 1, block: [{A}]}}\nlayout: {{pp: 1, checkpoint: full}}\n")
    model = found.model
    assert (model.embed.dropout, model.init.embedding_std, model.stacks[0].final_norm) == (0.1, 0.5, None)
    assert (model.embed.tied, model.max_seq) == (("decoder", "head"), 2048)
    assert found.layouts[0].checkpoint == Checkpoint(every=1)
    layout = spec(DECODER.replace("pp: {stages: 2}, microbatches: 4", "pp: 2")).layouts[0]
    assert layout.pp == Pipeline(2, "1f1b", ()) and layout.microbatches == 2 and layout.at == ("layout",)


def test_layouts_have_names_and_the_first_is_the_default() -> None:
    found = spec(BOTH)
    assert [layout.name for layout in found.layouts] == ["one", "four"]
    assert found.layout() is found.layouts[0] and found.layout("four").tp == 2
    assert spec(DECODER).layout().name is None and spec(decoder(f"[{A}]")).layout().tp == 1
    with pytest.raises(KeyError):
        found.layout("three")


def test_the_first_example_of_the_design_is_valid() -> None:
    text = """\
specc: 1
name: transformer-base            # Vaswani et al. 2017
d_model: 512
vocab: 37000
max_seq: 1024
norm: {kind: layer, placement: post, eps: 1e-6}
dropout: 0.1
embedding: {scale: sqrt(d_model), positions: sinusoidal, tied: [encoder, decoder, head]}
encoder:
  layers: 6
  block:
    - attention: {heads: 8, causal: false}
    - ffn: {hidden: 2048, activation: relu}
decoder:
  layers: 6
  block:
    - attention: {heads: 8}
    - cross_attention: {heads: 8}
    - ffn: {hidden: 2048, activation: relu}
layout: {tp: 2, pp: {stages: 2, schedule: 1f1b}, microbatches: 4, checkpoint: {every: 1}}
"""
    made = files(text)
    assert made.name == "transformer_base" and "class Trainer" in made.source


def written(document: dict[str, Any], shuffled: bool, **style: Any) -> str:
    def turned(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: turned(inner) for key, inner in reversed(value.items())}
        return [turned(inner) for inner in value] if isinstance(value, list) else value

    return yaml.safe_dump(turned(document) if shuffled else document, sort_keys=False, width=10**6, **style)


@pytest.mark.parametrize("name", ["hybrid-tiny", "transformer-tiny"])
def test_the_form_of_the_text_does_not_change_a_byte(name: str) -> None:
    """Comments, order of keys, block, flow and JSON style, quotes, marks, line ends, explicit defaults."""
    text = (ROOT / "specs" / "tiny" / f"{name}.yaml").read_text()
    document = yaml.safe_load(text.replace("1e-2", "0.01"))
    first = {key: value for key, value in document.items() if key != "layouts"}
    texts = [
        written(first, True),
        written(first, False, default_flow_style=True),
        json.dumps(first),
        json.dumps(first, indent=3),
        "# c\n\n" + text.replace("\n", "  # \u00fc\n"),
        text.replace(": rms", ": 'rms'").replace(": layer,", ': "layer",').replace("name: ", "'name':   "),
        text + "\nlayout: {tp: 1, dp: 1, pp: 1, checkpoint: none, sequence_parallel: false}\nhead: {bias: false}\n",
        text.replace("max_seq: 64", "max_seq: 0x40").replace("1e-2", "0.010"),
    ]
    expected = files(text)
    for other in texts:
        assert files(other) == expected, other


def test_named_blocks_of_a_pattern_can_be_in_both_stacks() -> None:
    text = PATTERN.replace("decoder:\n", "encoder: {layers: 2, pattern: [local]}\ndecoder:\n")
    text = text.replace("  joined:\n", "  joined:\n    - cross_attention: {heads: 4}\n")
    assert order(text, "encoder") == ["local", "local"] and order(text)[0] == "joined"
    assert files(text).source
