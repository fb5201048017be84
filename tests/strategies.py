"""Specs as Hypothesis draws them: every one is valid by construction, so nothing is filtered.

The layout is drawn first, sizes as multiples of its tp; what is drawn last shrinks to one layer of one head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import lcm
from typing import Any, get_args

import yaml
from hypothesis import strategies as st

from specc.components.activation import Activation
from tests import drawn_routers
from tests.drawn_ends import embeddings, fitting, heads, imaged, marked

Doc = dict[str, Any]
SAVES = ("attention.core", "attention.o", "attention.k", "mla.core", "mla.kv_b", "ffn.up", "ffn.down", "moe.combine")


@dataclass(frozen=True)
class Drawn:
    """A document as plain data, its layout included."""

    document: Doc

    @property
    def text(self) -> str:
        return dump(self.document)

    def __repr__(self) -> str:
        return f"\n{self.text}"


def dump(document: Doc, **style: Any) -> str:
    return yaml.safe_dump(document, **{"sort_keys": False, "default_flow_style": None, **style})


def some(draw: st.DrawFn, **values: st.SearchStrategy[Any]) -> Doc:
    """Each key or its default: shrinks to nothing."""
    return {key: draw(value) for key, value in values.items() if draw(st.booleans())}


@st.composite
def attentions(draw: st.DrawFn, tp: int, d_model: int, cross: bool, kept: bool) -> Doc:
    """Heads a multiple of tp and of kv_heads, which need not be one of tp."""
    kv_heads = draw(st.integers(1, 2 * tp))
    heads = lcm(kv_heads, tp) * draw(st.integers(1, 2))
    doc: Doc = {"heads": heads}
    if heads != kv_heads:
        doc["kv_heads"] = kv_heads
    if d_model % (2 * heads) or draw(st.booleans()):
        doc["head_dim"] = 2 * draw(st.integers(1, 3))
    biases = st.one_of(st.booleans(), st.lists(st.sampled_from("qkvo"), unique=True))
    doc |= some(draw, bias=biases, scale=st.sampled_from((0.3, 1)))
    gate = st.fixed_dictionaries({"activation": st.sampled_from(("sigmoid", "softplus"))})
    per_head = some(draw, per=st.just("head"), rank=st.just(3), bias=st.booleans())
    doc |= some(
        draw,
        v_head_dim=st.sampled_from((2, 4)),
        qk_norm=st.one_of(st.booleans(), qk_norms()),
        output_gate=st.one_of(st.booleans(), gate.map(lambda one: one | per_head)),
        sub_norm=st.one_of(st.booleans(), norms()),
    )
    if not kept:
        doc |= some(draw, dropout=st.just(0.1), softcap=st.just(2))
    if cross:
        return doc
    reach = draw(st.sampled_from(({}, {}, {"window": 3}, {"chunk": 3})))
    heat = st.fixed_dictionaries({"floor": st.just(2), "scale": st.just(0.3), "offset": st.sampled_from((0, 1))})
    slopes = st.fixed_dictionaries({"slopes": st.sampled_from(("below", "above")), "scale": st.sampled_from((0.5, 1))})
    learned = st.fixed_dictionaries({"buckets": st.just(6), "max_distance": st.just(9), "shared": st.booleans()})
    reach = reach | some(draw, alibi=st.one_of(st.booleans(), slopes), relative_bias=learned)
    more = some(draw, causal=st.booleans(), rope=ropes(), clip=st.just(0.5), temperature=heat, v_norm=st.booleans())
    if not kept:
        more |= some(draw, sinks=st.booleans())
    return doc | reach | more


@st.composite
def latents(draw: st.DrawFn, tp: int, kept: bool) -> Doc:
    doc: Doc = {"heads": tp * draw(st.integers(1, 2)), "kv_rank": 6, "nope_dim": 4, "rope_dim": 2}
    biases = st.one_of(st.booleans(), st.lists(st.sampled_from(("q", "kv", "o")), unique=True))
    factor = st.sampled_from((0.7, "sqrt(d_model / kv_rank)"))
    turned = ropes().map(lambda doc: {key: value for key, value in doc.items() if key != "dim"})
    doc |= some(draw, q_rank=st.just(5), v_head_dim=st.sampled_from((2, 4, 6)), norm=st.one_of(st.booleans(), norms()))
    doc |= some(draw, bias=biases, scale=st.sampled_from((0.3, "1 / nope_dim")), q_scale=factor, kv_scale=factor)
    doc |= some(draw, causal=st.booleans(), window=st.just(3), rope=turned, output_gate=st.booleans())
    return doc if kept else doc | some(draw, dropout=st.just(0.1))


@st.composite
def qk_norms(draw: st.DrawFn) -> Doc:
    none = {"weight": False, "bias": False, "weight_offset": 0}
    per_head = {"weight": "per_head", "weight_offset": 0}
    return draw(norms()) | draw(st.sampled_from(({}, {"over": "width"}, per_head, none)))


@st.composite
def ropes(draw: st.DrawFn) -> Doc:
    llama3 = st.fixed_dictionaries({"kind": st.just("llama3"), "factor": st.just(4), "original_seq": st.just(16)})
    linear = st.fixed_dictionaries({"kind": st.just("linear"), "factor": st.sampled_from((2, 4.5))})
    yarn = st.fixed_dictionaries({"kind": st.just("yarn"), "factor": st.just(4), "original_seq": st.just(16)})
    some_turn = st.fixed_dictionaries({"kind": st.just("proportional"), "fraction": st.just(0.5)})
    scaling = st.one_of(llama3, linear, yarn, some_turn)
    pairing = st.sampled_from(("halves", "adjacent"))
    return some(draw, theta=st.sampled_from((100, 10000.0)), scaling=scaling, dim=st.just(2), pairing=pairing)


@st.composite
def ffns(draw: st.DrawFn, tp: int) -> Doc:
    kind = draw(st.sampled_from(("plain", "gated")))
    biases = st.lists(st.sampled_from(("gate", "up", "down")[kind == "plain" :]), unique=True)
    rest = some(
        draw,
        kind=st.just(kind),
        activation=st.sampled_from(get_args(Activation)),
        bias=st.one_of(st.booleans(), biases),
        dropout=st.just(0.1),
        sub_norm=st.one_of(st.booleans(), norms()),
    )
    if rest.get("kind") == "gated":
        rest |= some(draw, clamp=st.just(0.5), up_offset=st.just(1), gate_scale=st.just(0.7))
    elif kind == "gated" and isinstance(rest.get("bias"), list):
        rest["bias"] = [name for name in rest["bias"] if name != "gate"]
    return {"hidden": 4 * tp * draw(st.integers(1, 2)), **rest}


@st.composite
def moes(draw: st.DrawFn, tp: int) -> Doc:
    doc = {key: value for key, value in draw(ffns(tp)).items() if key not in ("dropout", "sub_norm", "gate_scale")}
    return draw(drawn_routers.moes(doc, norms(), tp))


@st.composite
def norms(draw: st.DrawFn, groups: bool = False) -> Doc:
    kinds = st.sampled_from(("rms", "layer"))
    parts = {"groups": st.sampled_from((2, 4))} if groups else {}  # of d_model; heads may be smaller
    doc = some(draw, kind=kinds, eps=st.sampled_from((1e-2, 1e-5)), **parts)
    if draw(st.sampled_from((True, True, False))):
        return doc | {"weight": True} | some(draw, bias=st.booleans(), weight_offset=st.sampled_from((1, 0.5)))
    return doc | {"weight": False, "bias": False, "weight_offset": 0}


@st.composite
def short_convs(draw: st.DrawFn, tp: int) -> Doc:
    return some(draw, bias=st.booleans(), conv=st.integers(1, 4)) | {"hidden": 2 * tp * draw(st.integers(1, 3))}


@st.composite
def mamba2s(draw: st.DrawFn, tp: int) -> Doc:
    groups = draw(st.sampled_from((1, tp, 2 * tp)))
    heads = (tp if groups == 1 else groups) * draw(st.integers(1, 2))
    doc = some(
        draw, bias=st.booleans(), conv_bias=st.booleans(), conv=st.integers(1, 4), dt_limit=st.just([0.01, None])
    )
    doc |= some(draw, scales=st.just({"z": 0.5, "dt": 2})) | {"heads": heads, "head_dim": 4, "state": 3}
    doc |= {"groups": groups} if groups > 1 else {}
    if draw(st.booleans()):
        return doc | {"norm": False}
    return doc | some(draw, norm=st.one_of(norms(groups=True)), norm_order=st.just("norm_first"))


@st.composite
def gated_deltas(draw: st.DrawFn, tp: int) -> Doc:
    qk_heads = tp * draw(st.integers(1, 2))
    per = st.sampled_from(("head", "channel"))
    gate = st.one_of(st.booleans(), st.fixed_dictionaries({"rank": st.just(3), "per": per}))
    doc = some(draw, v_head_dim=st.just(4), conv=st.integers(1, 4), decay=st.just("channel"), decay_rank=st.just(3))
    doc |= some(draw, beta_scale=st.just(2), norm=st.one_of(st.booleans(), norms()), output_gate=gate)
    return doc | {"heads": qk_heads * draw(st.integers(1, 2)), "qk_heads": qk_heads, "head_dim": 6}


@st.composite
def mambas(draw: st.DrawFn, tp: int) -> Doc:
    doc = some(draw, bias=st.booleans(), conv_bias=st.booleans(), conv=st.integers(1, 4), dt_rank=st.integers(1, 3))
    doc |= some(draw, inner_norm=st.one_of(st.booleans(), norms()))
    return doc | {"hidden": 4 * tp * draw(st.integers(1, 2)), "state": draw(st.integers(1, 3))}


@st.composite
def rg_lrus(draw: st.DrawFn, tp: int) -> Doc:
    heads = tp * draw(st.integers(1, 2))
    return some(draw, conv=st.integers(1, 4), activation=st.just("silu")) | {"heads": heads, "hidden": 3 * heads}


@st.composite
def lightnings(draw: st.DrawFn, tp: int) -> Doc:
    per = st.fixed_dictionaries({"per": st.sampled_from(("head", "channel"))})
    doc = some(draw, decay=st.sampled_from((0, 0.5, "1 / layers")), norm=st.one_of(st.booleans(), norms()))
    doc |= some(draw, output_gate=st.one_of(st.booleans(), per))
    return doc | {"heads": tp * draw(st.integers(1, 2)), "head_dim": 4}


MIXERS: dict[str, Callable[[int], st.SearchStrategy[Doc]]] = {
    "short_conv": short_convs,
    "mamba2": mamba2s,
    "gated_delta": gated_deltas,
    "mamba": mambas,
    "rg_lru": rg_lrus,
    "lightning": lightnings,
    "moe": moes,
}
"""What goes along a sequence, and mixtures of experts, for a tp."""


@dataclass(frozen=True)
class Sizes:
    """What components of one model share. `cross`: the stack reads an encoder; `first`: norms stand on inputs."""

    tp: int
    d_model: int
    kept: bool
    cross: bool
    first: bool


@st.composite
def components(draw: st.DrawFn, sizes: Sizes) -> Doc:
    kinds = ("ffn", "attention", "cross_attention") if sizes.cross else ("ffn", "attention", "mla")
    kind = draw(st.sampled_from((*kinds, *MIXERS)))
    if kind == "ffn":
        return {kind: draw(ffns(sizes.tp))}
    if kind == "mla":
        return {kind: draw(latents(sizes.tp, sizes.kept))}
    if kind in MIXERS:
        return {kind: draw(MIXERS[kind](sizes.tp))}
    return {kind: draw(attentions(sizes.tp, sizes.d_model, kind == "cross_attention", sizes.kept))}


@st.composite
def general(draw: st.DrawFn, sizes: Sizes, first: bool) -> Doc:
    """A sublayer with keys of its own; `base: normed` needs a shared norm, and a shared norm a reader.

    `first`: whether the placement of the model's norm has one on the input.
    """
    own = st.one_of(st.booleans(), norms(groups=True))
    factor = st.sampled_from((0.7, 1.3, -1, "1 / layers", "0.5 ** (layer + 1)"))
    rest = {"post": own, "in_scale": factor, "out_scale": factor, "layerscale": st.just(0.5)}
    parts = draw(st.lists(components(sizes), min_size=1, max_size=2))
    doc: Doc = some(draw, alpha=factor, beta=factor, after=own)
    doc |= some(draw, placement=st.sampled_from(("pre", "post", "sandwich", "output")))
    if "placement" in doc:
        first = doc["placement"] in ("pre", "sandwich")
        doc.pop("after", None)
        rest.pop("post")
    if len(parts) == 1:
        doc |= parts[0] | some(draw, **rest)
        if draw(st.booleans()) and "placement" not in doc:
            doc["pre"] = draw(own)
            first = doc["pre"] is not False
    else:
        doc["parallel"] = [part | some(draw, **rest, pre=own) for part in parts]
        doc |= some(draw, post=own) if "placement" not in doc else {}
        read = any(part.get("pre", False) is False for part in doc["parallel"])
        if read and draw(st.booleans()):
            doc["norm"] = draw(own)
            first = doc["norm"] is not False
        elif not read:
            first = False
    return doc | (some(draw, base=st.just("normed")) if first else {})


@st.composite
def sublayers(draw: st.DrawFn, sizes: Sizes) -> list[Doc]:
    """A decoder beside an encoder reads it in every block."""
    parallel = st.lists(components(sizes), min_size=2, max_size=2).map(lambda parts: {"parallel": parts})
    found = draw(st.lists(st.one_of(components(sizes), parallel, general(sizes, sizes.first)), min_size=1, max_size=2))
    if not sizes.cross:
        return found
    return [*found, {"cross_attention": draw(attentions(sizes.tp, sizes.d_model, True, sizes.kept))}]


@st.composite
def stacks(draw: st.DrawFn, role: str, sizes: Sizes, blocks: Doc) -> Doc:
    """A block or a pattern; named blocks go to `blocks`."""
    own = st.fixed_dictionaries({}, optional={"scale": st.just(0.5), "positions": st.just("sinusoidal")})
    rest = some(draw, final_norm=st.booleans(), norm=st.just({"eps": 1e-3}), embedding=own)
    if not draw(st.booleans()):
        return {"layers": draw(st.integers(1, 4)), "block": draw(sublayers(sizes)), **rest}
    names = [f"{role}_{letter}" for letter in "abc"[: draw(st.integers(1, 3))]]
    for n, name in enumerate(names):
        first = blocks.get(names[0])
        changed = isinstance(first, list) and n and draw(st.booleans())
        blocks[name] = {"like": names[0]} if changed else draw(sublayers(sizes))
    name = st.sampled_from(names)
    head, tail = draw(st.lists(name, max_size=1)), draw(st.lists(name, max_size=1))
    cycle = draw(st.lists(st.one_of(name, name.map(lambda word: f"{word}*2")), min_size=1, max_size=2))
    named = expanded([*head, *cycle, *tail])
    likes = [names[0] for name in named if isinstance(blocks[name], dict)]
    for unused in set(names) - {*named, *likes}:
        del blocks[unused]
    layers = len(head) + len(tail) + draw(st.integers(1, 4))
    plain = not head and not tail and draw(st.booleans())
    return {"layers": layers, "pattern": cycle if plain else {"head": head, "cycle": cycle, "tail": tail}, **rest}


@st.composite
def layouts(draw: st.DrawFn, tp: int, dp: int, names: list[str], saves: list[str]) -> Doc:
    """`names`: of the layers in order."""
    doc: Doc = {"tp": tp} if tp > 1 else {}
    if tp > 1:
        doc |= some(draw, sequence_parallel=st.just(True))
    if dp > 1:
        doc["dp"] = dp
    stages = draw(st.integers(1, min(3, len(names))))
    if stages > 1:
        pipeline: Doc = {"stages": stages, **some(draw, schedule=st.sampled_from(("gpipe", "1f1b")))}
        doc["microbatches"] = stages + draw(st.integers(0, 1))
        if draw(st.booleans()):
            starts = draw(
                st.lists(st.integers(1, len(names) - 1), min_size=stages - 1, max_size=stages - 1, unique=True)
            )
            pipeline["starts"] = [names[n] for n in sorted(starts)]
        doc["pp"] = pipeline
    doc |= some(draw, precision=st.sampled_from(("bf16", "fp16")))
    kept = [{"save": saves}] * 3 if saves else []
    return doc | some(draw, checkpoint=st.sampled_from(["none", "full", {"every": 2}, *kept]))


@st.composite
def specs(draw: st.DrawFn, ranks: int = 4) -> Drawn:
    """Any valid spec with one layout of at most `ranks` tensor and data ranks."""
    tp = draw(st.sampled_from([n for n in (1, 2, 4) if n <= ranks]))
    dp = draw(st.sampled_from([n for n in (1, 2) if n * tp <= ranks]))
    kept = draw(st.booleans())
    d_model = 4 * draw(st.integers(2, 4))
    roles = draw(st.sampled_from((("decoder",), ("encoder", "decoder"), ("encoder",))))
    uneven = 0 if dp > 1 and tp > 1 else draw(st.integers(0, 1))
    doc: Doc = {"specc": 1, "name": "drawn", "d_model": d_model, "vocab": 24 + uneven, "max_seq": 64}
    norm = draw(norms()) | some(draw, placement=st.sampled_from(("pre", "post", "sandwich", "output")))
    first = True
    if draw(st.booleans()):
        doc["norm"], first = norm, norm.get("placement", "pre") in ("pre", "sandwich")
    starts: Doc = {"parameters": {"embedding": {"std": 1}}}
    doc |= some(
        draw,
        residual=st.fixed_dictionaries({}, optional={"alpha": st.just(0.7), "beta": st.just("1 / sqrt(layers)")}),
        dropout=st.just(0.1),
        drop_path=st.sampled_from((0.1, "0.2 * layer / layers")),
        embedding=embeddings(roles, norms()),
        head=heads(norms()),
        loss=st.sampled_from(({"label_smoothing": 0.1}, {"z_loss": 0.01}, {"label_smoothing": 0.2, "z_loss": 0.1})),
        init=st.sampled_from(
            ({"kind": "xavier"}, {"std": 0.05, **starts}, {"depth_scaled": True}, {"kind": "kaiming", "truncate": 2})
        ),
    )
    doc = fitting(doc)
    blocks: Doc = {}
    for role in roles:
        cross = role == "decoder" and len(roles) == 2
        doc[role] = draw(stacks(role, Sizes(tp, d_model, kept, cross, first), blocks))
    if (
        len(roles) == 2
        and "encoder" not in str(doc.get("embedding"))
        and "'tied': True" not in str(doc.get("embedding"))
    ):
        doc["encoder"] |= some(draw, d_model=st.just(d_model + 4))
    if blocks:
        doc["blocks"] = blocks
    marked(used(doc) if len(roles) == 1 and draw(st.booleans()) else [])
    if "encoder" in roles and "attention'" in str(used(doc)):
        doc |= some(draw, pad=st.just(0))
    paths = {role: role if len(roles) == 2 else "layers" for role in roles}
    names = [f"{paths[role]}.{n}" for role in roles for n in range(doc[role]["layers"])]
    known = [name for name in SAVES if f"'{name.split('.')[0]}'" in str(used(doc))]
    saves = [name for name in known if draw(st.booleans())] if kept else []
    layout = draw(layouts(tp, dp, names, saves))
    if len(roles) == 1 and "'prefix'" not in str(doc) and draw(st.integers(0, 3)) == 0:
        doc = imaged(doc, draw(st.booleans()), draw(st.booleans()))
    return Drawn({**doc, "layout": layout} if layout else doc)


def used(document: Doc) -> list[Any]:
    """The block of every layer."""
    found: list[Any] = []
    for role in (document[name] for name in ("encoder", "decoder") if name in document):
        if "block" in role:
            found.append(role["block"])
            continue
        pattern = role["pattern"] if isinstance(role["pattern"], dict) else {"cycle": role["pattern"]}
        head, cycle, tail = (expanded(pattern.get(part, [])) for part in ("head", "cycle", "tail"))
        rest = role["layers"] - len(head) - len(tail)
        names = [*head, *(cycle * rest)[:rest], *tail]
        blocks = [document["blocks"][name] for name in dict.fromkeys(names)]
        found += [document["blocks"][block["like"]] if isinstance(block, dict) else block for block in blocks]
    return found


def expanded(names: list[str]) -> list[str]:
    """`a*2` is a twice."""
    pairs = (name.partition("*") for name in names)
    return [name for name, _, count in pairs for _ in range(int(count or 1))]
