"""Families of Hugging Face as specs: the keys of attention, rope and ffn that they need, in small and odd sizes.

Each has a spec, their config and a table of our modules and theirs; every parameter of theirs is in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MethodType
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from specc.interpret import interpret
from specc.source import Source
from specc.spec import Spec, load
from specc.spec.core import Model
from tests.graphs import graph_of
from tests.parity import Case, From, random_ids

HEAD = "specc: 1\nname: family\nd_model: 32\nvocab: 96\nmax_seq: 64\n"
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 96,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-2,
    "layer_norm_eps": 1e-2,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA: dict[str, str | From] = {
    "embedding": "model.embed_tokens",
    "attention_norm": "model.layers.{}.input_layernorm",
    "ffn_norm": "model.layers.{}.post_attention_layernorm",
    **{f"attention.{name}": f"model.layers.{{}}.self_attn.{name}_proj" for name in "qkvo"},
    **{f"ffn.{name}": f"model.layers.{{}}.mlp.{name}_proj" for name in ("gate", "up", "down")},
    "norm": "model.norm",
    "head": "lm_head",
}
QK = {f"attention.{name}_norm": f"model.layers.{{}}.self_attn.{name}_norm" for name in "qk"}
SMALL_ROPE = {"rope_type": "default", "rope_theta": 100.0}


@dataclass(frozen=True)
class Fused(From):
    """Of a linear that makes q, k and v of each head in turn."""

    heads: int = 1

    def __call__(self, tensors: Mapping[str, Tensor]) -> Tensor:
        return tensors[self.name].unflatten(0, (self.heads, self.parts, -1))[:, self.part].flatten(0, 1)


@dataclass(frozen=True)
class PerHead(From):
    """A list of one vector for each head."""

    heads: int = 1

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.name.replace("HEAD", str(head)) for head in range(self.heads))

    def __call__(self, tensors: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([tensors[name] for name in self.names])


@dataclass(frozen=True)
class Family:
    """A spec behind HEAD, their class and config, our modules and theirs, and what makes theirs exact in float64."""

    spec: str
    cls: str
    config: Mapping[str, Any]
    table: Mapping[str, str | From]
    prepare: Callable[[nn.Module], None] = lambda module: None
    inputs: tuple[Tensor, ...] = (random_ids(2),)
    config_class: str = ""

    @property
    def model(self) -> Model:
        found = load(Source("family.yaml", HEAD + self.spec))
        assert isinstance(found, Spec), found
        return found.model

    def reference(self) -> nn.Module:
        config = getattr(transformers, self.config_class or f"{re.sub('For[A-Z].*|LMHeadModel', '', self.cls)}Config")
        known = set(getattr(config, "__dataclass_fields__", {})) | set(config.attribute_map)
        sizes = {key: value for key, value in SIZES.items() if key in known}
        made = config(**{**sizes, **self.config})
        made._attn_implementation = "eager"
        made.use_cache = False
        module = getattr(transformers, self.cls)(made).eval()
        self.prepare(module)
        return exact(module)

    @property
    def case(self) -> Case:
        model = self.model
        names = [name for name, _ in interpret(graph_of(model)).named_parameters()]
        views = {name: self.view(name) for name in names}
        theirs = {name for name, _ in self.reference().named_parameters()}
        used = {name for view in views.values() for name in view.names}
        assert theirs == used, f"not mapped, or mapped in vain: {sorted(theirs ^ used)}"
        return Case(model, self.reference, self.inputs, views)

    def view(self, name: str) -> From:
        stem, _, leaf = name.rpartition(".")
        match = re.fullmatch(r"(?:layers\.|((?:en|de)coder\.))(\d+)\.(.+)", stem)
        number, own = (match[2], f"{match[1] or ''}{match[3]}") if match else ("", stem)
        found = self.table.get(f"layer.{own}", self.table[own]) if match else self.table[own]
        view = found if isinstance(found, From) else From(found)
        theirs = view.name.format(number)
        alone = isinstance(found, From) and ("act" in own or "sinks" in own)
        return replace(view, name=theirs if alone else f"{theirs}.{leaf}")


@contextmanager
def in_double() -> Iterator[None]:
    """What they compute in float32 whatever comes in is computed as it comes."""
    softmax, to = torch.nn.functional.softmax, Tensor.to

    def as_it_comes(x: Tensor, dim: int = -1, dtype: torch.dtype | None = None, **more: Any) -> Tensor:
        return softmax(x, dim=dim)

    def to_others(x: Tensor, *args: Any, **more: Any) -> Tensor:
        return x if x.dtype == torch.float64 and args == (torch.float32,) else to(x, *args, **more)

    torch.nn.functional.softmax, Tensor.to = as_it_comes, to_others
    try:
        yield
    finally:
        torch.nn.functional.softmax, Tensor.to = softmax, to


def exact(module: nn.Module) -> nn.Module:
    """Norms and softmax compute in the type of their input."""
    for part in module.modules():
        if type(part).__name__.endswith("RMSNorm"):
            part.forward = MethodType(_rms_norm, part)
    forward = module.forward

    def run(*args: Any, **more: Any) -> Any:
        with in_double():
            return forward(*args, **more)

    module.forward = run
    return module


def _rms_norm(self: Any, x: Tensor) -> Tensor:
    """x [..., features] -> the same"""
    eps = getattr(self, "variance_epsilon", None) or self.eps
    weight = getattr(self, "weight", 1) + 1 * (type(self).__name__ == "Gemma2RMSNorm")
    return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps))


def decoder(block: str, *, more: str = "", norm: str = "{kind: rms, eps: 1e-2}", blocks: str = "") -> str:
    return f"norm: {norm}\n{more}{blocks}decoder: {{layers: 3, {block}}}\n"


LAYER = "{kind: layer, eps: 1e-2}"
GATED = "ffn: {kind: gated, hidden: 48}"
FAMILIES: dict[str, Family] = {
    "qwen2": Family(
        decoder(f"block: [attention: {{heads: 4, kv_heads: 2, bias: [q, k, v], rope: {{theta: 100}}}}, {GATED}]"),
        "Qwen2ForCausalLM",
        {"rope_parameters": SMALL_ROPE},
        LLAMA,
    ),
    "qwen3": Family(
        decoder(
            f"block: [attention: {{heads: 4, kv_heads: 2, head_dim: 10, qk_norm: true, rope: {{theta: 100}}}}, {GATED}]"
        ),
        "Qwen3ForCausalLM",
        {"rope_parameters": SMALL_ROPE, "head_dim": 10},
        {**LLAMA, **QK},
    ),
    "mistral": Family(
        decoder(f"block: [attention: {{heads: 4, kv_heads: 2, window: 7, rope: {{theta: 100}}}}, {GATED}]"),
        "MistralForCausalLM",
        {"rope_parameters": SMALL_ROPE, "sliding_window": 7, "head_dim": 8},
        LLAMA,
    ),
    "arcee": Family(
        decoder(
            "block: [attention: {heads: 4, kv_heads: 2, rope: {theta: 100, scaling: {kind: yarn, factor: 4, "
            "original_seq: 16, beta_fast: 3}}}, ffn: {hidden: 48, activation: relu2}]"
        ),
        "ArceeForCausalLM",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 100.0,
                "factor": 4.0,
                "original_max_position_embeddings": 16,
                "beta_fast": 3.0,
            },
            "head_dim": 8,
            "hidden_act": "relu2",
        },
        LLAMA,
    ),
    "apertus": Family(
        decoder(
            "block: [attention: {heads: 4, kv_heads: 2, qk_norm: true, rope: {theta: 100}}, "
            "ffn: {hidden: 48, activation: xielu}]"
        ),
        "ApertusForCausalLM",
        {"rope_parameters": SMALL_ROPE, "hidden_act": "xielu"},
        {
            **LLAMA,
            **QK,
            "attention_norm": "model.layers.{}.attention_layernorm",
            "ffn_norm": "model.layers.{}.feedforward_layernorm",
            "ffn.act": "model.layers.{}.mlp.act_fn",
        },
    ),
    "bitnet": Family(
        decoder(
            "block: [attention: {heads: 4, kv_heads: 2, sub_norm: true, rope: {theta: 100}}, "
            "ffn: {kind: gated, hidden: 48, activation: relu2, sub_norm: true}]",
            more="embedding: {tied: true}\n",
        ),
        "BitNetForCausalLM",
        {"rope_parameters": SMALL_ROPE, "hidden_act": "relu2", "tie_word_embeddings": True},
        {
            **LLAMA,
            "attention.sub_norm": "model.layers.{}.self_attn.attn_sub_norm",
            "ffn.sub_norm": "model.layers.{}.mlp.ffn_sub_norm",
        },
    ),
    "stablelm": Family(
        decoder(
            "block: [attention: {heads: 4, kv_heads: 2, qk_norm: {weight: per_head, bias: false}, "
            f"rope: {{theta: 100, dim: 4}}}}, {GATED}]",
            norm=LAYER,
        ),
        "StableLmForCausalLM",
        {"rope_parameters": {**SMALL_ROPE, "partial_rotary_factor": 0.5}, "qk_layernorm": True},
        {
            **LLAMA,
            "attention.q_norm": PerHead("model.layers.{}.self_attn.q_layernorm.norms.HEAD", heads=4),
            "attention.k_norm": PerHead("model.layers.{}.self_attn.k_layernorm.norms.HEAD", heads=2),
        },
    ),
    "phi": Family(
        decoder(
            "block: [parallel: [attention: {heads: 4, kv_heads: 2, bias: true, rope: {theta: 100, dim: 4}}, "
            "ffn: {hidden: 48, activation: gelu_tanh, bias: true}]]",
            norm=LAYER,
            more="head: {bias: true}\n",
        ),
        "PhiForCausalLM",
        {"rope_parameters": {**SMALL_ROPE, "partial_rotary_factor": 0.5}},
        {
            **LLAMA,
            "attention.o": "model.layers.{}.self_attn.dense",
            "ffn.up": "model.layers.{}.mlp.fc1",
            "ffn.down": "model.layers.{}.mlp.fc2",
            "layer.norm": "model.layers.{}.input_layernorm",
            "norm": "model.final_layernorm",
        },
    ),
    "gptj": Family(
        decoder(
            "block: [parallel: [attention: {heads: 4, rope: {dim: 4, pairing: adjacent}}, "
            "ffn: {hidden: 48, activation: gelu_tanh, bias: true}]]",
            norm=LAYER,
            more="head: {bias: true}\n",
        ),
        "GPTJForCausalLM",
        {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_inner": 48, "rotary_dim": 4, "layer_norm_epsilon": 1e-2},
        {
            "embedding": "transformer.wte",
            "layer.norm": "transformer.h.{}.ln_1",
            **{f"attention.{name}": f"transformer.h.{{}}.attn.{name}_proj" for name in "qkv"},
            "attention.o": "transformer.h.{}.attn.out_proj",
            "ffn.up": "transformer.h.{}.mlp.fc_in",
            "ffn.down": "transformer.h.{}.mlp.fc_out",
            "norm": "transformer.ln_f",
            "head": "lm_head",
        },
    ),
    "gpt_neo": Family(
        decoder(
            "pattern: [far, near]",
            norm=LAYER,
            more="embedding: {positions: learned, tied: true}\n",
            blocks="blocks:\n  far: [attention: {heads: 4, bias: [o], scale: 1}, "
            "ffn: {hidden: 48, activation: gelu_tanh, bias: true}]\n"
            "  near: {like: far, with: {attention: {window: 7}}}\n",
        ),
        "GPTNeoForCausalLM",
        {
            "num_layers": 3,
            "num_heads": 4,
            "attention_types": [[["global", "local", "global"], 1]],
            "window_size": 7,
            "intermediate_size": 48,
            "layer_norm_epsilon": 1e-2,
        },
        {
            "embedding": "transformer.wte",
            "position_embedding": "transformer.wpe",
            "attention_norm": "transformer.h.{}.ln_1",
            "ffn_norm": "transformer.h.{}.ln_2",
            **{f"attention.{name}": f"transformer.h.{{}}.attn.attention.{name}_proj" for name in "qkv"},
            "attention.o": "transformer.h.{}.attn.attention.out_proj",
            "ffn.up": "transformer.h.{}.mlp.c_fc",
            "ffn.down": "transformer.h.{}.mlp.c_proj",
            "norm": "transformer.ln_f",
        },
    ),
    "gpt_neox": Family(
        decoder(
            "block: [attention: {heads: 4, bias: true, rope: {theta: 100, dim: 2}}, ffn: {hidden: 48, bias: true}]",
            norm=LAYER,
        ),
        "GPTNeoXForCausalLM",
        {"rope_parameters": {**SMALL_ROPE, "partial_rotary_factor": 0.25}, "use_parallel_residual": False},
        {
            "embedding": "gpt_neox.embed_in",
            **{
                f"attention.{name}": Fused("gpt_neox.layers.{}.attention.query_key_value", part, 3, heads=4)
                for part, name in enumerate("qkv")
            },
            "attention.o": "gpt_neox.layers.{}.attention.dense",
            "ffn.up": "gpt_neox.layers.{}.mlp.dense_h_to_4h",
            "ffn.down": "gpt_neox.layers.{}.mlp.dense_4h_to_h",
            "attention_norm": "gpt_neox.layers.{}.input_layernorm",
            "ffn_norm": "gpt_neox.layers.{}.post_attention_layernorm",
            "norm": "gpt_neox.final_layer_norm",
            "head": "lm_head",
        },
    ),
}
