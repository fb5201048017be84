"""Valid specs, and for every error code a breakage of one that gives that code alone."""

from __future__ import annotations

from dataclasses import dataclass

DECODER = """\
specc: 1
name: small
d_model: 32
vocab: 97
max_seq: 64
norm: {kind: rms, eps: 1e-5}
decoder:
  layers: 4
  block:
    - attention: {heads: 4, rope: {theta: 10000}}
    - ffn: {hidden: 64, activation: silu}
layout: {tp: 2, pp: {stages: 2}, microbatches: 4, checkpoint: {save: [attention.core]}}
"""

OWNED = DECODER.replace("ffn: {hidden", "moe: {experts: 12, top_k: 2, hidden").replace("{tp: 2,", "{dp: 4, ep: 4,")
BOTH = """\
specc: 1
name: both
d_model: 32
vocab: 96
pad: 0
embedding: {positions: sinusoidal, tied: [encoder, decoder, head]}
encoder:
  layers: 2
  block:
    - attention: {heads: 4, head_dim: 8}
    - ffn: {hidden: 64}
decoder:
  layers: 3
  block:
    - attention: {heads: 4, head_dim: 8}
    - cross_attention: {heads: 4, head_dim: 8}
    - ffn: {hidden: 64}
layouts:
  one: {}
  four: {tp: 2, pp: 2}
"""

PATTERN = """\
specc: 1
name: mixed
d_model: 32
vocab: 96
blocks:
  local:
    - attention: {heads: 4, kv_heads: 2, rope: {theta: 100}}
    - ffn: {kind: gated, hidden: 64}
  global: {like: local, with: {attention: {kv_heads: null, rope: {theta: 1000}}}}
  joined:
    - parallel:
        - attention: {heads: 4}
          post: true
        - ffn: {hidden: 64}
          out_scale: 0.5
      norm: true
      base: normed
decoder:
  layers: 8
  pattern: {head: [joined], cycle: [local*2, global], tail: [joined]}
layout: {tp: 2}
"""


FFN = "- ffn: {hidden: 64, activation: silu}"
BLOCK = f"  block:\n    - attention: {{heads: 4, rope: {{theta: 10000}}}}\n    {FFN}"
ONE = f"  patterns: {{all: [one]}}\nblocks:\n  one:\n    - attention: {{heads: 4}}\n    {FFN}"
ACTIVATIONS = "values here are relu, relu2, gelu, gelu_tanh, quick_gelu, silu, tanh, sigmoid, softplus, xielu"
LONG = "factor: 8, short: [1], long: [1, 2, 3, 4]"
SEGMENTS = DECODER.replace("vocab", "inputs: [segments]\nvocab", 1)
KEPT = f"""\
{DECODER.partition("decoder:")[0]}blocks:
  a: [attention: {{heads: 4, kv_to: one}}]
  b: [attention: {{heads: 4, kv_from: one}}]
decoder: {{layers: 4, pattern: {{cycle: [a, b]}}}}
"""
LATENT = DECODER.replace(
    "attention: {heads: 4, rope: {theta: 10000}}", "mla: {heads: 4, kv_rank: 8, nope_dim: 8, rope_dim: 4, rope: {}}"
).replace("attention.core", "mla.core")
WIDE = LATENT.replace("d_model: 32", "d_model: 16777216")
TWO = "specc: 1\nname: two\nd_model: 2\nvocab: 9\nembedding: {positions: {kind: sinusoidal, order: halves}}\n"
TWO += "decoder: {layers: 1, block: [ffn: {hidden: 4}]}\n"
STARTS = "init: {parameters: {head: {kind: "
LEARNED = "embedding: {positions: {kind: learned, "
ALONE = f"{DECODER[: DECODER.index('layout:')]}layout: {{generate: true}}\n"
COUNTED = f"{LEARNED}offset: 1, skip_pad: true}}}}"
ENCODER = ALONE.replace("decoder:", "encoder:").partition("layout:")[0]
PARTED = DECODER.replace("{tp: 2, ", "{cp: 2, ")
STEM = "stem: {kind: patches, image: 8, patch: 4}"
STEM_OF_FRAMES = "stem: {kind: frames, channels: 8, convs: [{width: 3}]}"
SEEN = ENCODER.replace("vocab: 97\nmax_seq: 64\n", f"head: none\nembedding: {{{STEM}}}\n")
WIDER = BOTH.replace("encoder, decoder, head", "decoder, head").replace("layers: 2\n", "layers: 2\n  d_model: 48\n")
WIDER = WIDER.replace("pad: 0", "pad: 0\nnorm: {groups: 4}")
PAIRED = BOTH.replace("pad: 0\n", "").replace(", tied: [encoder, decoder, head]", "")
AT97 = "{kind: token, token: 97}"
CYCLE = "layers: 8\n  pattern: {head: [joined], cycle: [local*2"


@dataclass(frozen=True)
class Case:
    """Put `new` in the place of `old`: exactly one finding, in the text at the `|` of `at`, which occurs once."""

    code: str
    base: str
    old: str
    new: str
    at: str

    @property
    def text(self) -> str:
        assert self.old in self.base, f"{self.code}: {self.old!r} is not in its base"
        return self.base.replace(self.old, self.new, 1)

    @property
    def start(self) -> int:
        """Where the finding points."""
        around = self.at.replace("|", "")
        assert self.text.count(around) == 1, f"{self.code}: {around!r} is not in its text once"
        return self.text.index(around) + self.at.index("|")


SHARED = DECODER.replace("layers: 4", "layers: 4\n  shared: true")
GENERATED = "{generate: true}"
TEXT = (
    Case("E101", DECODER, "heads: 4, ", "heads: [4, ", "10000}|}"),
    Case("E102", DECODER, DECODER, "# nothing\n", "|# nothing"),
    Case("E104", DECODER, "vocab: 97\n", "vocab: 97\n---\n", "|---"),
    Case("E105", DECODER, "heads: 4", "heads: &h 4", "|&h 4"),
    Case("E106", DECODER, "heads: 4", "heads: !!int 4", "|!!int 4"),
    Case("E107", DECODER, "heads: 4", f"heads: {'[' * 70}4{']' * 70}", f": {'[' * 59}|{'[' * 11}4"),
    Case("E109", DECODER, "vocab: 97", "vocab: 97\nvocab: 98", "|vocab: 98"),
    Case("E110", DECODER, "vocab: 97", "vocab: 97\n7: 96", "|7: 96"),
    Case("E111", DECODER, "heads: 4", "<<: {}, heads: 4", "|<<"),
)

SHAPE = (
    Case("E201", DECODER, "heads: 4", "heads: 4, kvheads: 2", "|kvheads"),
    Case("E202", DECODER, "hidden: 64, ", "", "|{activation: silu}"),
    Case("E203", DECODER, "activation: silu", "activation: swish", "|swish"),
    Case("E204", DECODER, "hidden: 64", "hidden: -64", "|-64"),
    Case("E205", DECODER, "hidden: 64", 'hidden: "64"', '|"64"'),
)

MODEL = (
    Case("E206", DECODER, "name: small", "name: ../x", "|../x"),
    Case("E207", DECODER, "vocab: 97", 'vocab: 97\ndescription: "a \\u00e9"', 'description: |"a'),
    Case("E208", BOTH, "four:", "../four:", "|../four"),
    Case("E210", DECODER, "heads: 4", "heads: 6", "heads: |6"),
    Case("E211", DECODER, "heads: 4", "heads: 4, kv_heads: 3", "kv_heads: |3"),
    Case("E212", DECODER, "heads: 4", "heads: 4, head_dim: 7", "|{theta: 10000}"),
    Case("E213", BOTH, "pad: 0", "pad: 96", "pad: |96"),
    Case("E214", DECODER, "vocab: 97", "vocab: 97\npad: 0", "pad: |0"),
    Case("E215", BOTH, "d_model: 32", "d_model: 33", "|sinusoidal"),
    Case("E216", DECODER, "d_model: 32", "d_model: 16777216", "heads: |4"),
    Case("E217", BOTH, "tied: [encoder, decoder, head]", "tied: [encoder, encoder]", "|[encoder, encoder]"),
    Case("E218", DECODER, FFN, "- cross_attention: {heads: 4}", "|cross_attention"),
    Case("E219", DECODER, "theta: 10000", "scaling: {kind: llama3, factor: 8, high_freq: 1}", "high_freq: |1"),
    Case("E260", DECODER, "vocab: 97", "vocab: 97\nembedding: {scale: 2 * (3 + 1}", "|1}"),
    Case("E261", DECODER, "vocab: 97", "vocab: 97\nembedding: {scale: sqrt(d_modl)}", "|d_modl"),
    Case("E262", DECODER, FFN, "- {ffn: {hidden: 64}, out_scale: 2 * (1 / layer)}", "|1 / layer"),
    Case("E265", DECODER, "kind: rms", "kind: rms, weight: false, weight_offset: 1", "weight_offset: |1"),
    Case("E266", DECODER, "kind: rms", "kind: rms, groups: 5", "groups: |5"),
    Case("E226", DECODER, "vocab: 97", "vocab: 97\ninit: {kind: xavier, std: 0.02}", "|0.02"),
    Case("E226", DECODER, "vocab: 97", f"vocab: 97\n{STARTS}zeros, std: 0.1}}}}}}", "std: |0.1"),
    Case("E239", DECODER, "vocab: 97", "vocab: 97\ninit: {kind: uniform, truncate: 2}", "truncate: |2"),
    Case("E239", DECODER, "vocab: 97", f"vocab: 97\n{STARTS}constant}}}}}}", "head: |{kind"),
    Case("E239", DECODER, "vocab: 97", "vocab: 97\ninit: {value: 2}", "value: |2"),
    Case("E227", DECODER, "heads: 4", "heads: 4, bias: [q, q]", "|[q, q]"),
    Case("E250", DECODER, "hidden: 64", "hidden: 64, clamp: 7", "clamp: |7"),
    Case("E250", DECODER, "hidden: 64", "hidden: 64, bias: [gate]", "[|gate]"),
    *(
        Case(code, DECODER, FFN, f"- moe: {{experts: 4, top_k: {top_k}, hidden: 64, router: {{{router}}}}}", at)
        for code, top_k, router, at in (
            ("E286", 4, "correction: true", "correction: |true"),
            ("E286", 4, "groups: {count: 2, keep: 2}", "groups: |{"),
            ("E287", 2, "groups: {count: 3, keep: 2}", "count: |3"),
            ("E287", 2, "groups: {count: 2, keep: 3}", "keep: |3"),
            ("E287", 3, "groups: {count: 2, keep: 1}", "keep: |1"),
            ("E287", 2, "groups: {count: 4, keep: 3, score: top2}", "score: |top2"),
            ("E288", 2, "reads: stream, jitter: 0.1", "jitter: |0.1"),
            ("E265", 2, "norm: {weight: false, bias: true}", "bias: |true"),
        )
    ),
    Case("E285", DECODER, FFN, "- moe: {experts: 4, top_k: 5, hidden: 64}", "top_k: |5"),
    Case("E285", DECODER, FFN, "- moe: {experts: 4, zero_experts: 2, top_k: 7, hidden: 64}", "top_k: |7"),
    Case("E212", DECODER, "theta: 10000", "theta: 10000, dim: 5", "dim: |5"),
    Case("E212", DECODER, "theta: 10000", "theta: 10000, dim: 10", "dim: |10"),
    Case("E212", LATENT, "rope: {}", "rope: {dim: 6}", "dim: |6"),
    Case("E212", LATENT, "rope_dim: 4", "rope_dim: 5", "rope_dim: |5"),
    Case("E216", WIDE, "kv_rank: 8", "kv_rank: 131072", "kv_rank: |131072"),
    Case("E216", WIDE, "kv_rank: 8", "kv_rank: 8, q_rank: 131072", "q_rank: |131072"),
    Case("E227", LATENT, "kv_rank: 8", "kv_rank: 8, bias: [kv, kv]", "|[kv, kv]"),
    Case("E266", LATENT, "kv_rank: 8", "kv_rank: 8, norm: {groups: 3}", "groups: |3"),
    Case("E219", DECODER, "theta: 10000", "scaling: {kind: yarn, factor: 8, beta_fast: 1}", "beta_fast: |1"),
    Case("E270", DECODER, "heads: 4", "heads: 4, qk_norm: {over: width, weight: per_head}", "|per_head"),
    Case("E270", DECODER, "heads: 4", "heads: 4, qk_norm: {over: width, after_rope: true}", "after_rope: |true"),
    Case("E270", DECODER, ", rope: {theta: 10000}", ", qk_norm: {after_rope: true}", "after_rope: |true"),
    Case("E281", KEPT, "kv_from: one", "kv_from: one, bias: [v]", "bias: |[v]"),
    Case("E281", KEPT, "kv_from: one", "kv_from: one, v_norm: true", "v_norm: |true"),
    Case("E281", KEPT, "kv_from: one", "kv_from: one, tied_kv: true", "tied_kv: |true"),
    Case("E281", KEPT, "kv_from: one", "kv_from: one, value_residual: {from: one}", "value_residual: |{from"),
    Case("E282", KEPT, "kv_from: one", "kv_from: two", "kv_from: |two"),
    Case("E282", KEPT, "cycle: [a, b]", "cycle: [b, a]", "kv_from: |one"),
    Case("E282", KEPT, "kv_from: one", "value_residual: {from: two}", "from: |two"),
    Case("E283", KEPT, "kv_from: one", "kv_heads: 2, kv_from: one", "kv_from: |one"),
    Case("E283", KEPT, "kv_from: one", "kv_heads: 2, value_residual: {from: one}", "from: |one"),
    Case("E280", DECODER, "heads: 4", "heads: 4, relative_bias: {buckets: 1}", "buckets: |1"),
    Case("E280", DECODER, "heads: 4", "heads: 4, relative_bias: {max_distance: 16}", "max_distance: |16"),
    Case("E280", BOTH, "heads: 4, head_dim: 8", "heads: 4, head_dim: 8, relative_bias: {buckets: 3}", "buckets: |3"),
    Case("E271", DECODER, "heads: 4", "heads: 4, window: 8, chunk: 16", "chunk: |16"),
    Case("E272", DECODER, "heads: 4", "heads: 4, tied_kv: true, v_head_dim: 4", "v_head_dim: |4"),
    Case("E272", DECODER, "heads: 4", "heads: 4, tied_kv: true, bias: [v]", "[|v]"),
    Case(
        "E273", DECODER, "theta: 10000", "scaling: {kind: longrope, factor: 8, short: [1], long: [1, 2, 3, 4]}", "|[1],"
    ),
    Case("E274", SEGMENTS, "theta: 10000", "scaling: {kind: dynamic, factor: 8}", "|dynamic"),
    Case("E273", DECODER, "theta: 10000", "dim: 2, scaling: {kind: dynamic, factor: 8}", "|dynamic"),
    Case("E273", DECODER, "theta: 10000", "dim: 2, scaling: {kind: longrope, short: [1], long: [2]}", "|longrope"),
    Case("E298", DECODER, "vocab", "components: [mine.py]\nvocab", "[|mine.py]"),
    Case("E234", BOTH, "pad: 0", "pad: 0\ninputs: [segments]", "|[segments]"),
    Case("E235", BOTH, "{positions", "{types: 2, positions", "types: |2"),
    Case("E236", DECODER, "vocab: 97", f"vocab: 97\n{LEARNED}order: halves}}}}", "|order"),
    Case("E236", BOTH, "sinusoidal", "{kind: sinusoidal, size: 8}", "|size"),
    Case("E236", TWO, "order", "endpoint: true, order", "endpoint: |true"),
    Case("E237", DECODER, "vocab: 97", f"vocab: 97\n{LEARNED}offset: 2, skip_pad: true}}}}", "skip_pad: |true"),
    Case(
        "E237", BOTH, "layers: 2\n", "layers: 2\n  embedding: {positions: {kind: learned, skip_pad: true}}\n", "|true"
    ),
    Case("E242", DECODER, "vocab: 97", "vocab: 97\nhead: {pool: mean}", "|pool"),
    Case("E242", DECODER, "vocab: 97", "vocab: 97\nhead: {kind: vector, classes: 3}", "|classes"),
    Case("E242", DECODER, "vocab: 97", "vocab: 97\nhead: {kind: vector, bias: true}", "|bias"),
    Case("E243", DECODER, "vocab: 97", "vocab: 97\nhead: {kind: classes}", "kind: |classes"),
    Case("E244", SEGMENTS, "vocab: 97", "vocab: 97\nhead: {kind: vector, pool: mean}", "pool: |mean"),
    Case("E245", DECODER, "vocab: 97", "vocab: 97\nhead: none\nloss: {z_loss: 0.1}", "|z_loss"),
    Case("E247", ENCODER, "vocab: 97", "vocab: 97\nhead: {multi_token: {block: [x]}}", "|multi_token"),
    Case("E248", KEPT, "vocab: 97", "vocab: 97\nhead: {multi_token: {block: [a]}}", "block: [|a]"),
    Case("E246", DECODER, "vocab: 97", f"vocab: 97\nhead: {{kind: vector, pool: {AT97}}}", "token: |97"),
    Case("E253", SEEN, "patch: 4", "patch: 3", "patch: |3"),
    Case("E253", SEEN, STEM, STEM_OF_FRAMES.replace("3}", "4}"), "width: |4"),
    Case("E251", SEEN, "head: none", "head: none\nvocab: 97", "|vocab"),
    Case("E251", SEEN, "head: none", "head: none\npad: 0", "pad: |0"),
    Case("E251", SEEN, "head: none", "head: none\ninputs: [mask]", "|[mask]"),
    Case("E251", SEEN, "{stem", "{types: 2, stem", "types: |2"),
    Case("E251", PAIRED, "{positions", f"{{{STEM}, positions", "|stem"),
    Case("E252", SEEN, "head: none", "head: none\nmax_seq: 9", "max_seq: |9"),
    Case("E252", SEEN, "{stem", "{positions: {kind: learned, size: 5}, stem", "size: |5"),
    Case("E252", DECODER, "vocab: 97", "vocab: 97\nembedding: {class_token: true}", "class_token: |true"),
    Case("E252", DECODER, "vocab: 97", "vocab: 97\nembedding: {registers: 2}", "registers: |2"),
    Case(
        "E418", f"{SEEN}layout: {{tp: 2, sequence_parallel: true}}\n", "{stem", "{class_token: true, stem", ": |true}"
    ),
    Case("E443", OWNED, "ep: 4", "ep: 3", "ep: |3"),
    Case("E446", OWNED, "{dp: 4,", "{dp: 8,", "ep: |4"),
    Case("E444", DECODER, "{tp: 2,", "{dp: 2, ep: 2, tp: 2,", "ep: |2"),
    Case("E445", OWNED, "top_k: 2", "top_k: 2, bias: true", "ep: |4"),
    Case("E442", PARTED, "{cp: 2,", "{cp: {size: 2, attention: ulysses, order: zigzag},", "order: |zigzag"),
    Case("E430", PARTED, "vocab: 97", "vocab: 97\nhead: {kind: vector, pool: mean}", "cp: |2"),
    Case("E430", PARTED, "vocab: 97", "vocab: 97\ndrop_path: 0.1", "cp: |2"),
    Case("E418", SEEN, "head: none", "head: none\nlayout: {cp: 2}", "cp: |2"),
    Case("E266", WIDER, "d_model: 48", "d_model: 50", "groups: |4"),
    Case("E259", DECODER, "layers: 4", "layers: 4\n  d_model: 64", "|d_model: 64"),
    Case("E259", BOTH, "layers: 3", "layers: 3\n  d_model: 64", "3\n  |d_model: 64"),
    Case("E238", BOTH, "layers: 2", "layers: 2\n  d_model: 64", "tied: |["),
    Case("E238", DECODER, "vocab: 97", "vocab: 97\nhead: {dim: 16}\nembedding: {tied: true}", "tied: |true"),
    Case("E234", BOTH, "pad: 0", "inputs: [mask]", "|[mask]"),
    Case("E234", ENCODER, "vocab: 97", "vocab: 97\npad: 0\ninputs: [mask]", "|[mask]"),
    Case("E237", DECODER, "vocab: 97", f"vocab: 97\ninputs: [positions]\n{COUNTED}", "skip_pad: |true"),
    Case("E227", DECODER, "vocab: 97", "vocab: 97\ninputs: [mask, mask]", "|[mask, mask]"),
    Case("E228", BOTH, "    - cross_attention: {heads: 4, head_dim: 8}\n", "", "\n|encoder:"),
)

BLOCKS = (
    Case("E220", PATTERN, "tail: [joined]", "tail: [join]", "tail: [|join]"),
    Case("E221", PATTERN, "like: local", "like: global", "like: |global"),
    Case("E222", PATTERN, "with: {attention", "with: {cross_attention: {}, attention", "|cross_attention"),
    Case("E223", DECODER, FFN, "- {}", "|{}"),
    Case("E224", PATTERN, "norm: true", "norm: false", "|normed"),
    Case("E225", PATTERN, "cycle: [local*2, global]", "cycle: [local*2]", "|global: {like"),
    Case("E229", DECODER, FFN, "- {ffn: {hidden: 64}, norm: true, pre: true}", "|norm: true"),
    Case("E263", PATTERN, "norm: true", "norm: true\n      out_scale: 2", "|out_scale: 2"),
    Case(
        "E264",
        PATTERN,
        "norm: true",
        "norm: true\n      placement: output\n      post: true",
        "|post: true\n      base",
    ),
    Case("E267", DECODER, FFN, "- {ffn: {hidden: 64}, into: kept}", "|kept"),
    Case("E291", DECODER, FFN, "- mamba2: {heads: 4, groups: 3}", "groups: |3"),
    Case("E292", DECODER, FFN, "- mamba2: {heads: 4, norm: false, norm_order: norm_first}", "|norm_first"),
    Case("E293", DECODER, FFN, "- mamba2: {heads: 4, dt_limit: [1, 0.5]}", "dt_limit: |["),
    Case("E294", DECODER, FFN, "- gated_delta: {heads: 4, qk_heads: 3}", "qk_heads: |3"),
    Case("E295", DECODER.replace("tp: 2", "tp: 1"), FFN, "- rg_lru: {hidden: 16, heads: 3}", "heads: |3"),
    Case("E296", DECODER, FFN, "- lightning: {heads: 4, decay: -1}", "decay: |-1"),
    Case("E268", DECODER, BLOCK, ONE, "|patterns"),
    Case("E225", DECODER, "layers: 4", "layers: 4\n  shared: [blocc]", "[|blocc]"),
    Case("E269", SHARED, FFN, "- {ffn: {hidden: 64}, out_scale: 1 / (layer + 1)}", "shared: |true"),
    Case("E230", DECODER, DECODER[DECODER.index("decoder:") :], "", "|specc: 1"),
    Case("E231", DECODER, "  layers: 4", "  layers: 4\n  pattern: [x]", "|decoder"),
    Case("E232", PATTERN, "layers: 8", "layers: 1", "layers: |1"),
    Case("E233", PATTERN, CYCLE, CYCLE.replace("8", "800").replace("local*2", "local*300"), "pattern: |{"),
    Case("E240", BOTH, "layouts:", "layout: {}\nlayouts:", "|layouts"),
)

LAYOUT = (
    Case("E401", DECODER, "stages: 2", "stages: 1, schedule: gpipe", "|schedule"),
    Case("E451", DECODER, "tp: 2", "tp: 2, rules: {head: none}", "{|head: none"),
    Case("E452", DECODER, "tp: 2", "tp: 2, rules: {attention.heads: dp}", "heads: |dp"),
    Case("E402", DECODER, "tp: 2", "tp: 8", "tp: |8"),
    Case("E403", DECODER, "vocab: 97", "vocab: 1", "tp: |2"),
    Case("E404", DECODER, "tp: 2", "sequence_parallel: true", "|true"),
    Case("E405", DECODER, "layers: 4", "layers: 1", "stages: |2"),
    Case("E406", DECODER, "microbatches: 4", "microbatches: 1", "microbatches: |1"),
    Case("E407", DECODER, "stages: 2", "stages: 2, starts: [layers.9]", "|layers.9"),
    Case("E408", DECODER, "stages: 2", "stages: 3, starts: [layers.2, layers.1]", "|[layers.2"),
    Case("E409", DECODER, "stages: 2", "stages: 2, starts: [layers.1, layers.2]", "|[layers.1"),
    Case("E431", DECODER, "stages: 2", "stages: 2, per_rank: 2", "per_rank: |2"),
    Case("E432", DECODER, "stages: 2", "stages: 2, schedule: zbv", "|zbv"),
    Case(
        "E433", DECODER, "stages: 2}, microbatches: 4", "stages: 4, per_rank: 2}, microbatches: 5", "microbatches: |5"
    ),
    Case("E414", DECODER, "tp: 2", "generate: true, tp: 2", "generate: |true"),
    Case("E416", ALONE, "theta: 10000", "scaling: {kind: dynamic, factor: 8}", "generate: |true"),
    Case("E415", BOTH, "one: {}", "one: {generate: true}", "|true"),
    Case(
        "E417",
        SHARED,
        "{tp: 2, pp: {stages: 2}, microbatches: 4, checkpoint: {save: [attention.core]}}",
        GENERATED,
        "generate: |true",
    ),
    Case("E411", DECODER, "save: [attention.core]", "every: 2, save: [attention.core]", "|{every"),
    Case("E412", DECODER, "attention.core", "attention.cor", "|attention.cor"),
)
CASES = (*TEXT, *SHAPE, *MODEL, *BLOCKS, *LAYOUT)
