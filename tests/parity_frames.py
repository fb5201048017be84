"""Families that differ in their frame: where norms stand and what is in them, branches, factors. Specs in YAML.

What of them the language cannot say yet is left out on both sides: heads are rotated whole, queries are not normed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from specc.source import Source
from specc.spec import Spec, load
from tests.parity import Case, From, Views, in_layers, random_ids

LAYERS, HEADS, WIDTH, HEAD = 3, 4, 32, 8
SIZES = {
    **{"hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS},
    **{"vocab_size": 96, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    "attn_implementation": "sdpa",
}
GROUPED = {**SIZES, "num_key_value_heads": 2, "head_dim": HEAD}
WHOLE = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0}
FIRST = "specc: 1\nname: family\nd_model: 32\nvocab: 96\nmax_seq: 64\n"


class _Exact(TorchFunctionMode):
    """What is float64 stays so where float32 is asked for."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        down = func is torch.Tensor.float
        down |= func is torch.Tensor.to and torch.float32 in (*args[1:], kwargs.get("dtype"))
        return args[0] if down and args[0].dtype == torch.float64 else func(*args, **kwargs)


def exact(model: nn.Module) -> nn.Module:
    """The model with norms, attention and factors of embeddings in the dtype of their input."""

    def wrapped(forward: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with _Exact():
                return forward(*args, **kwargs)

        return call

    for module in model.modules():
        if "Norm" in type(module).__name__ or "Attention" in type(module).__name__:
            module.forward = wrapped(module.forward)
        if hasattr(module, "embed_scale"):
            module.embed_scale = torch.tensor(module.scalar_embed_scale, dtype=torch.float64)
    return model.eval()


@contextmanager
def _quiet() -> Iterator[None]:
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    yield
    transformers.logging.set_verbosity(before)


def turned(heads: int) -> Callable[[Tensor], Tensor]:
    """Rows of heads in which neighbours turn together, as those in which halves do."""
    return lambda tensor: tensor.unflatten(0, (heads, HEAD // 2, 2)).transpose(1, 2).flatten(0, 2)


def third(part: int) -> Callable[[Tensor], Tensor]:
    """Of rows that hold queries, keys and values of each head in turn."""
    return lambda tensor: tensor.unflatten(0, (HEADS, 3, HEAD))[:, part].flatten(0, 1)


LINEARS: Mapping[str, str] = {
    **{f"attention.{n}": f"self_attn.{n}_proj" for n in "qkvo"},
    **{f"ffn.{n}": f"mlp.{n}_proj" for n in ("gate", "up", "down")},
}
PLAIN = {**LINEARS, "ffn.gate": ""}
PRE = {"attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
OUTSIDE = {"embedding": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}
TIED = {"embedding": "model.embed_tokens", "norm": "model.norm"}


@dataclass(frozen=True)
class Family:
    """A spec without its head, a class of Hugging Face and its config, and theirs by our names: modules."""

    name: str
    text: str
    config: Mapping[str, Any]
    block: Mapping[str, str | From]
    outside: Mapping[str, str] = field(default_factory=lambda: OUTSIDE)
    biased: tuple[str, ...] = ()  # modules with a bias, by our names
    layers: str = "model.layers"
    changed: Callable[[nn.Module], None] = lambda model: None

    def reference(self) -> nn.Module:
        with _quiet():
            config = getattr(transformers, f"{self.name}Config")(**self.config)
            model = getattr(transformers, f"{self.name}ForCausalLM")(config)
        self.changed(model)
        return exact(model)

    @property
    def case(self) -> Case:
        found = load(Source("family.yaml", FIRST + self.text))
        assert isinstance(found, Spec), found
        views = in_layers(LAYERS, self.views(self.block, f"{self.layers}.{{}}."))
        return Case(found.model, self.reference, (random_ids(7, vocab=96),), {**self.views(self.outside, ""), **views})

    def views(self, modules: Mapping[str, str | From], prefix: str) -> Views:
        found: Views = {}
        for ours, theirs in modules.items():
            view = From(theirs) if isinstance(theirs, str) else theirs
            leaves = ("weight", "bias") if ours in self.biased else ("weight",)
            if view.name:
                found |= {f"{ours}.{leaf}": replace(view, name=f"{prefix}{view.name}.{leaf}") for leaf in leaves}
        return found


def without_query_norms(model: nn.Module) -> None:
    for module in model.modules():
        if hasattr(module, "q_norm"):
            module.q_norm, module.k_norm = nn.Identity(), nn.Identity()


def turning(linears: Mapping[str, str], kv_heads: int) -> dict[str, str | From]:
    """With queries and keys in which neighbours turn together."""
    q, k = (From(linears[f"attention.{n}"], rows=turned(heads)) for n, heads in (("q", HEADS), ("k", kv_heads)))
    return {**linears, "attention.q": q, "attention.k": k}


def decoder(block: str) -> str:
    return f"decoder:\n  layers: {LAYERS}\n  block: [{block}]\n"


def neox(block: str, parallel: bool) -> Family:
    """Queries, keys and values of a head follow each other in one matrix."""
    return Family(
        "GPTNeoX",
        "norm: {kind: layer, eps: 1e-2}\n" + decoder(block),
        {**SIZES, "layer_norm_eps": 1e-2, "rope_parameters": WHOLE, "use_parallel_residual": parallel},
        {
            **{f"attention.{n}": From("attention.query_key_value", rows=third(part)) for part, n in enumerate("qkv")},
            "attention.o": "attention.dense",
            "ffn.up": "mlp.dense_h_to_4h",
            "ffn.down": "mlp.dense_4h_to_h",
            **PRE,
        },
        outside={"embedding": "gpt_neox.embed_in", "norm": "gpt_neox.final_layer_norm", "head": "lm_head"},
        biased=(*(f"attention.{n}" for n in "qkvo"), "ffn.up", "ffn.down", "attention_norm", "ffn_norm", "norm"),
        layers="gpt_neox.layers",
    )


def falcon(block: str, config: Mapping[str, Any], rows: Mapping[str, Callable[[Tensor], Tensor]], norms: Any) -> Family:
    """Queries, keys and values in one matrix."""
    return Family(
        "Falcon",
        "norm: {kind: layer, eps: 1e-2}\nembedding: {tied: true}\n" + decoder(block),
        {**SIZES, "layer_norm_epsilon": 1e-2, "ffn_hidden_size": 48, "alibi": False, "bias": False, **config},
        {
            **{f"attention.{n}": From("self_attention.query_key_value", rows=rows[n]) for n in "qkv"},
            "attention.o": "self_attention.dense",
            "ffn.up": "mlp.dense_h_to_4h",
            "ffn.down": "mlp.dense_4h_to_h",
            **norms,
        },
        outside={"embedding": "transformer.word_embeddings", "norm": "transformer.ln_f"},
        biased=(*norms, "norm"),
        layers="transformer.h",
    )


def of_group(first: int, last: int) -> Callable[[Tensor], Tensor]:
    """Of rows that hold the queries of a key and value head, then its key and its value."""
    return lambda tensor: tensor.unflatten(0, (2, HEADS // 2 + 2, HEAD))[:, first:last].flatten(0, 2)


HEADS_OF = "attention: {heads: 4, kv_heads: 2, rope: {}}"
GATED = "ffn: {kind: gated, hidden: 48}"
FAMILIES = {
    "olmo2": Family(
        "Olmo2",
        "norm: {placement: output, eps: 1e-2}\n" + decoder(f"{HEADS_OF}, {GATED}"),
        {**GROUPED, "rms_norm_eps": 1e-2},
        {
            **LINEARS,
            "attention_post_norm": "post_attention_layernorm",
            "ffn_post_norm": "post_feedforward_layernorm",
        },
        changed=without_query_norms,
    ),
    "gemma": Family(
        "Gemma",
        "norm: {weight_offset: 1, eps: 1e-2}\nembedding: {scale: sqrt(d_model), tied: true}\n"
        + decoder(f"{HEADS_OF}, ffn: {{kind: gated, hidden: 48, activation: gelu_tanh}}"),
        {**GROUPED, "rms_norm_eps": 1e-2},
        {**LINEARS, **PRE},
        outside=TIED,
    ),
    "gemma2": Family(
        "Gemma2",
        "norm: {weight_offset: 1, eps: 1e-2, placement: sandwich}\nembedding: {scale: sqrt(d_model), tied: true}\n"
        + decoder(f"{HEADS_OF}, ffn: {{kind: gated, hidden: 48, activation: gelu_tanh}}"),
        {
            **GROUPED,
            "rms_norm_eps": 1e-2,
            "query_pre_attn_scalar": HEAD,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "layer_types": ["full_attention"] * LAYERS,
        },
        {
            **LINEARS,
            "attention_norm": "input_layernorm",
            "attention_post_norm": "post_attention_layernorm",
            "ffn_norm": "pre_feedforward_layernorm",
            "ffn_post_norm": "post_feedforward_layernorm",
        },
        outside=TIED,
    ),
    "glm4": Family(
        "Glm4",
        "norm: {eps: 1e-2, placement: sandwich}\n"
        + decoder(f"attention: {{heads: 4, kv_heads: 2, bias: [q, k, v], rope: {{}}}}, {GATED}"),
        {**GROUPED, "rms_norm_eps": 1e-2, "attention_bias": True, "rope_parameters": WHOLE},
        {
            **turning(LINEARS, 2),
            "ffn.gate": From("mlp.gate_up_proj", 0, 2),
            "ffn.up": From("mlp.gate_up_proj", 1, 2),
            **PRE,
            "attention_post_norm": "post_self_attn_layernorm",
            "ffn_post_norm": "post_mlp_layernorm",
        },
        biased=("attention.q", "attention.k", "attention.v"),
    ),
    "granite": Family(
        "Granite",
        "norm: {eps: 1e-2}\nresidual: {beta: 0.22}\nembedding: {scale: 12}\n"
        + decoder(f"attention: {{heads: 4, kv_heads: 2, scale: 0.2, rope: {{}}}}, {GATED}"),
        {
            **GROUPED,
            "rms_norm_eps": 1e-2,
            "residual_multiplier": 0.22,
            "embedding_multiplier": 12.0,
            "attention_multiplier": 0.2,
        },
        {**LINEARS, **PRE},
    ),
    "olmo": Family(
        "Olmo",
        "norm: {kind: layer, weight: false}\n" + decoder(f"{HEADS_OF}, {GATED}"),
        GROUPED,
        LINEARS,
        outside={"embedding": "model.embed_tokens", "head": "lm_head"},
    ),
    "nemotron": Family(
        "Nemotron",
        "norm: {kind: layer, weight_offset: 1, eps: 1e-2}\n"
        + decoder(f"{HEADS_OF}, ffn: {{hidden: 48, activation: silu}}"),
        {**GROUPED, "norm_eps": 1e-2, "hidden_act": "silu", "rope_parameters": WHOLE},
        {**PLAIN, **PRE},
        biased=("attention_norm", "ffn_norm", "norm"),
    ),
    "cohere": Family(
        "Cohere",
        "norm: {kind: layer, bias: false, eps: 1e-2}\nembedding: {tied: true}\n"
        + decoder(f"parallel: [{HEADS_OF}, {GATED}]"),
        {**SIZES, "num_key_value_heads": 2, "layer_norm_eps": 1e-2, "logit_scale": 1.0, "rope_parameters": WHOLE},
        {**turning(LINEARS, 2), "norm": "input_layernorm"},
        outside=TIED,
    ),
    "phi": Family(
        "Phi",
        "norm: {kind: layer, eps: 1e-2}\nhead: {bias: true}\n"
        + decoder(
            "parallel: [attention: {heads: 4, bias: true, rope: {}}, "
            "ffn: {hidden: 48, activation: gelu_tanh, bias: true}]"
        ),
        {**SIZES, "layer_norm_eps": 1e-2, "rope_parameters": WHOLE},
        {
            **PLAIN,
            "attention.o": "self_attn.dense",
            "ffn.up": "mlp.fc1",
            "ffn.down": "mlp.fc2",
            "norm": "input_layernorm",
        },
        outside={**OUTSIDE, "norm": "model.final_layernorm"},
        biased=(*(f"attention.{n}" for n in "qkvo"), "ffn.up", "ffn.down", "norm", "head"),
    ),
    "gpt_neox": neox(
        "parallel: [{attention: {heads: 4, bias: true, rope: {}}, pre: true}, "
        "{ffn: {hidden: 48, activation: gelu, bias: true}, pre: true}]",
        True,
    ),
    "gpt_neox one after the other": neox(
        "attention: {heads: 4, bias: true, rope: {}}, ffn: {hidden: 48, activation: gelu, bias: true}", False
    ),
    "falcon": falcon(
        "parallel: [attention: {heads: 4, kv_heads: 1, rope: {}}, ffn: {hidden: 48, activation: gelu}]",
        {"multi_query": True, "parallel_attn": True, "new_decoder_architecture": False},
        {"q": lambda rows: rows[:WIDTH], "k": lambda rows: rows[WIDTH:-HEAD], "v": lambda rows: rows[-HEAD:]},
        {"norm": "input_layernorm"},
    ),
    "falcon of two norms": falcon(
        "parallel: [{attention: {heads: 4, kv_heads: 2, rope: {}}, pre: true}, "
        "{ffn: {hidden: 48, activation: gelu}, pre: true}]",
        {"num_kv_heads": 2, "new_decoder_architecture": True},
        {"q": of_group(0, 2), "k": of_group(2, 3), "v": of_group(3, 4)},
        {"attention_norm": "ln_attn", "ffn_norm": "ln_mlp"},
    ),
}
