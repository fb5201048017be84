"""Multi-head attention (Vaswani et al. 2017, 3.2) with grouped key and value heads (Ainslie et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Tag

from specc.components import bias, heads, kept, norm, qk_norm, rope, temperature
from specc.components.base import Bound, Component, Dim, Given, Problem, Problems, Synonyms, Table, by_kind
from specc.components.bias import Alibi, Biases, OwnAlibi, RelativeBias
from specc.components.kept import Keeping
from specc.components.mask import Mask
from specc.components.norm import Norm, OwnNorm
from specc.components.rope import Rope
from specc.components.temperature import Temperature
from specc.ir.op import Init, Ref
from specc.ir.types import Axis

if TYPE_CHECKING:
    from specc.lower.builder import Builder


Causal = Annotated[Annotated[bool, Tag("bool")] | Annotated[Literal["prefix"], Tag("text")], by_kind]


class Attention(Keeping):
    """Self-attention."""

    causal: Causal = True
    """A token sees itself and those before it; `prefix`: those of its document's prefix, too, which the input `prefix`
    [batch, seq] marks by ones. Default: true in a decoder, false in an encoder."""
    window: Dim | None = None
    """A token sees those fewer than so many places away."""
    chunk: Dim | None = None
    """A token sees those of its own chunk of so many tokens."""
    clip: Bound | None = None
    """Queries, keys and values stay between this and its negative."""
    rope: Rope | None = None
    """Rotary positions."""
    alibi: OwnAlibi = False
    """Scores fall with the distance, in each head by a slope of its own."""
    relative_bias: RelativeBias | None = None
    """A learned number for each head and bucket of distance is added to scores."""
    temperature: Temperature | None = None
    """Queries grow with the log of the position."""
    sinks: bool = False
    """A learned logit for each head takes part in the softmax and is dropped."""
    v_norm: OwnNorm = False
    """A norm on each value head."""
    tied_kv: bool = False
    """Values are the keys before norm and rope; there is no v."""


def resolve(config: Attention, d_model: int, role: str) -> Attention:
    """With every default filled in."""
    if "causal" not in config.model_fields_set:
        config = config.model_copy(update={"causal": role == "decoder"})
    config = config.model_copy(update={"alibi": bias.own(config.alibi)})
    return kept.unsized(config, heads.resolved(config, d_model))


def normed(config: Attention, model: Norm) -> Attention:
    """With its norms, given the model's."""
    return heads.normed(config, model).model_copy(update={"v_norm": norm.own(config.v_norm, model)})


def rules(config: Attention, d_model: int, stated: Callable[[str], bool]) -> Problems:
    """Of heads, of rotated ones, and of what excludes each other."""
    own, (_, head_dim) = stated("head_dim") or config.kv_from is not None, heads.sizes(config)
    yield from heads.rules(config, d_model, own, config.rope is not None)
    if config.rope is not None:
        if config.rope.dim is None and head_dim % 2 and (own or d_model % config.heads == 0):
            message = f"rope rotates pairs, but head_dim = {head_dim} is odd"
            yield Problem("E212", ("rope",), message, "make head_dim even, or give rope.dim")
        yield from rope.rules(config.rope, ("rope",), head_dim)
    if config.window is not None and config.chunk is not None:
        message = f"window = {config.window} and chunk = {config.chunk} both bound what a token sees"
        yield Problem("E271", ("chunk",), message, "give one of them")
    if config.tied_kv:
        if heads.value_dim(config) != head_dim:
            message = f"values that are the keys have their {head_dim} features, not v_head_dim = {config.v_head_dim}"
            yield Problem("E272", ("v_head_dim",), message, "leave v_head_dim out")
        if not isinstance(config.bias, bool) and "v" in config.bias:
            at = ("bias", config.bias.index("v"))
            yield Problem("E272", at, "with tied_kv there is no v that could have a bias", "leave it out")
    excluded = {"v_norm": bool(config.v_norm), "tied_kv": config.tied_kv, "value_residual": config.value_residual}
    yield from kept.rules(config, {key: bool(value) for key, value in excluded.items()})
    yield from bias.rules(config.relative_bias, config.causal is True)
    yield from norm.inner(config.v_norm, heads.value_dim(config), "v_norm")
    yield from heads.size_rule(config, d_model)


def shrink(config: Attention, tp: int) -> Attention:
    """Small heads, of which the same part is rotated, and a reach that a short sequence shows."""
    made = heads.shrink(config, tp)
    reach = {key: min(size, heads.SMALL_REACH) for key in ("window", "chunk") if (size := getattr(config, key))}
    turned = config.rope and rope.shrink(config.rope, heads.sizes(config)[1], heads.sizes(made)[1])
    return made.model_copy(update={**reach, "rope": turned, "relative_bias": bias.shrink(config.relative_bias)})


def tables(config: Attention) -> tuple[Table, ...]:
    """Of rope, temperature, mask and biases, where there are any."""
    rotary = () if config.rope is None else (rope.table(config.rope, heads.sizes(config)[1]),)
    heated = () if config.temperature is None else (temperature.table(config.temperature),)
    return (*rotary, *heated, *bias.tables(_biases(config)))


def _biases(config: Attention) -> Biases:
    marked = config.causal == "prefix"
    seen = Mask(causal=bool(config.causal), prefix=marked, window=config.window, chunk=config.chunk)
    alibi = config.alibi if isinstance(config.alibi, Alibi) else None
    return Biases(heads=config.heads, alibi=alibi, relative=config.relative_bias, seen=seen)


def decided(config: Attention, role: str) -> dict[str, tuple[object, str]]:
    """Values that defaults decided, and how."""
    return {**heads.decided(config), "causal": (config.causal, f"in the {role}")}


def results(config: Attention) -> tuple[str, ...]:
    """Results that checkpointing can keep."""
    gone = ("v",) * config.tied_kv + ("core",) * config.sinks + ("k", "v") * (config.kv_from is not None)
    return tuple(name for name in heads.results(config) if name not in gone)


def lower(config: Attention, b: Builder, x: Ref, given: Given, features: Axis) -> Ref:
    """x [batch, seq, d_model] -> the same."""
    found = {table.name: given[table] for table in tables(config)}
    made = _heads(config, b, x, features)
    if "v" in made and isinstance(config.v_norm, Norm):
        made["v"] = norm.lower(config.v_norm, b, made["v"], "v_norm", heads.axes(config, "v")[1], "v")
    pair = {name: ref for name, ref in made.items() if name != "v"}
    for rotated in (False, True):
        if rotated and config.rope is not None:
            pair = {name: rope.turn(config.rope, b, ref, found["rope"], name) for name, ref in pair.items()}
        for name, ref in pair.items():
            axes = heads.axes(config, name)
            pair[name] = qk_norm.over_heads(config.qk_norm, b, ref, f"{name}_norm", *axes, rotated)
    q = pair["q"]
    if config.kv_from is None:
        k, v = pair["k"], kept.mixed(config, b, made["v"], given)
    else:
        k, v = (given[of(config.kv_from)] for of in (kept.keys_of, kept.values_of))
    kept.keep(config, b, k, v)
    if config.temperature is not None:
        q = b.op("temper", q, found["temperature"], name="q_temper", hint="q")
    sinks = [b.param("sinks", "weight", (Axis("heads", config.heads),), Init("zeros"), "sinks")] * config.sinks
    hidden = bias.lower(_biases(config), b, found, given.get("own_mask"))
    mixed = heads.attended(config, b, q, k, v, hidden, tuple(sinks))
    return heads.finished(config, b, x, mixed, features)


def _heads(config: Attention, b: Builder, x: Ref, features: Axis) -> dict[str, Ref]:
    """Queries, and keys and values of its own, [batch, heads, seq, head_dim], before what is done to each head."""
    made: dict[str, Ref] = {}
    keys: Ref | None = None
    for name in ("q", "k", "v") if config.kv_from is None else ("q",):
        tied = name == "v" and config.tied_kv
        flat = keys if tied and keys is not None else heads.flat(config, b, x, name, features)
        keys = flat if name == "k" else keys
        if name != "v":
            flat = qk_norm.over_width(config.qk_norm, b, flat, f"{name}_norm", heads.joint(config, name))
        if config.clip is not None:
            flat = b.op("clamp", flat, name=f"{name}_clip", hint=name, low=-config.clip, high=config.clip)
        made[name] = heads.split(config, b, flat, name)
    return made


SYNONYMS: Synonyms = {
    "attention": ("attn", "self_attention", "self_attn", "mha", "gqa", "mqa"),
    "causal": ("is_causal", "is_decoder"),
    "prefix": ("prefix_lm", "bidirectional_prefix"),
    "window": ("sliding_window", "local_attention", "window_size"),
    "chunk": ("attention_chunk_size",),
    "clip": ("clip_qkv",),
    "sinks": ("attention_sink", "sink_tokens", "attention_sinks"),
    "tied_kv": ("attention_k_eq_v",),
    **bias.SYNONYMS,
    **kept.SYNONYMS,
    **temperature.SYNONYMS,
    **heads.SYNONYMS,
    **rope.SYNONYMS,
}

ATTENTION = Component(
    "attention",
    Attention,
    "Attention",
    lower,
    smallest=heads.SMALLEST,
    shards=heads.SHARDS,
    grows=("heads", "kv_heads"),
    split_by_tp=heads.split_by_tp,
    spread=heads.spread,
    results=results,
    shrink=shrink,
    normed=normed,
    reads=("own_mask",),
    tables=tables,
    resolve=resolve,
    inputs=lambda config: ("prefix",) if config.causal == "prefix" else (),
    takes=kept.takes,
    gives=kept.gives,
    fitted=kept.fitted,
    rules=rules,
    decided=decided,
    by_length=lambda config: ("rope", "scaling", "kind") if rope.by_length(config.rope) else (),
    verb="attend",
    summary=heads.summary,
    synonyms=SYNONYMS,
)
