"""The same models written by others: how each is built, and where it has our weights."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Weights = dict[str, Tensor]
RMS_EPS = 1e-8  # tiny, since the norms of x-transformers have none


@dataclass(frozen=True)
class Sizes:
    """Of a decoder and its batches."""

    layers: int
    d_model: int
    heads: int
    kv_heads: int
    hidden: int
    vocab: int
    batch: int
    seq: int


@dataclass(frozen=True)
class Other:
    """The same model of somebody else: how it is built, its weights from ours, logits from its output."""

    name: str
    package: str
    build: Callable[[Sizes], nn.Module]
    weights: Callable[[Weights, Sizes], Weights]
    logits: Callable[[Any], Tensor]


def hf_llama(sizes: Sizes) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=sizes.d_model,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.kv_heads,
        intermediate_size=sizes.hidden,
        vocab_size=sizes.vocab,
        max_position_embeddings=sizes.seq,
        rms_norm_eps=RMS_EPS,
        tie_word_embeddings=False,
        use_cache=False,
    )
    module = LlamaForCausalLM(config)
    module.set_attn_implementation("sdpa")
    return module


def hf_llama_weights(ours: Weights, sizes: Sizes) -> Weights:
    block = {
        "input_layernorm.weight": "attention_norm.weight",
        "post_attention_layernorm.weight": "ffn_norm.weight",
        **{f"self_attn.{name}_proj.weight": f"attention.{name}.weight" for name in "qkvo"},
        **{f"mlp.{name}_proj.weight": f"ffn.{name}.weight" for name in ("gate", "up", "down")},
    }
    return {
        "model.embed_tokens.weight": ours["embedding.weight"],
        "model.norm.weight": ours["norm.weight"],
        "lm_head.weight": ours["head.weight"],
        **{f"model.layers.{n}.{k}": ours[f"layers.{n}.{v}"] for n in range(sizes.layers) for k, v in block.items()},
    }


def litgpt_llama(sizes: Sizes) -> nn.Module:
    litgpt = importlib.import_module("litgpt")
    config = litgpt.Config(
        block_size=sizes.seq,
        n_layer=sizes.layers,
        n_embd=sizes.d_model,
        n_head=sizes.heads,
        n_query_groups=sizes.kv_heads,
        intermediate_size=sizes.hidden,
        vocab_size=sizes.vocab,
        padded_vocab_size=sizes.vocab,
        norm_class_name="RMSNorm",
        norm_eps=RMS_EPS,
        mlp_class_name="LLaMAMLP",
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
    )
    return litgpt.GPT(config)


def litgpt_llama_weights(ours: Weights, sizes: Sizes) -> Weights:
    found = {
        "transformer.wte.weight": ours["embedding.weight"],
        "transformer.ln_f.weight": ours["norm.weight"],
        "lm_head.weight": ours["head.weight"],
    }
    for n in range(sizes.layers):
        layer = {name: ours[f"layers.{n}.{name}.weight"] for name in LLAMA_BLOCK}
        found |= {
            f"transformer.h.{n}.norm_1.weight": layer["attention_norm"],
            f"transformer.h.{n}.norm_2.weight": layer["ffn_norm"],
            f"transformer.h.{n}.attn.qkv.weight": torch.cat([layer[f"attention.{name}"] for name in "qkv"]),
            f"transformer.h.{n}.attn.proj.weight": layer["attention.o"],
            f"transformer.h.{n}.mlp.fc_1.weight": layer["ffn.gate"],
            f"transformer.h.{n}.mlp.fc_2.weight": layer["ffn.up"],
            f"transformer.h.{n}.mlp.proj.weight": layer["ffn.down"],
        }
    return found


LLAMA_BLOCK = (
    *("attention_norm", "attention.q", "attention.k", "attention.v", "attention.o"),
    *("ffn_norm", "ffn.gate", "ffn.up", "ffn.down"),
)


def x_llama(sizes: Sizes) -> nn.Module:
    x_transformers = importlib.import_module("x_transformers")
    layers = x_transformers.Decoder(
        dim=sizes.d_model,
        depth=sizes.layers,
        heads=sizes.heads,
        attn_kv_heads=sizes.kv_heads,
        attn_dim_head=sizes.d_model // sizes.heads,
        attn_flash=True,
        use_rmsnorm=True,
        norm_add_unit_offset=False,
        rotary_pos_emb=True,
        rotary_emb_dim=sizes.d_model // sizes.heads,
        ff_mult=sizes.hidden / sizes.d_model,
        ff_glu=True,
        ff_swish=True,
        ff_no_bias=True,
        verbose=False,
    )
    module = x_transformers.TransformerWrapper(num_tokens=sizes.vocab, max_seq_len=sizes.seq, attn_layers=layers)
    for name, child in module.named_modules():
        if name.endswith("ff.0.proj"):
            child.bias = None  # the one that ff_no_bias leaves
    return module


def x_llama_weights(ours: Weights, sizes: Sizes) -> Weights:
    """A pair to rotate lies side by side there, not half a head apart; head n reads key n modulo the keys' number."""
    groups, head_dim = sizes.heads // sizes.kv_heads, sizes.d_model // sizes.heads

    def pairs(weight: Tensor) -> Tensor:
        return weight.unflatten(0, (-1, 2, head_dim // 2)).transpose(1, 2).flatten(0, 2)

    def heads(weight: Tensor) -> Tensor:
        return weight.unflatten(0, (sizes.kv_heads, groups, head_dim)).transpose(0, 1).flatten(0, 2)

    found = {
        "token_emb.emb.weight": ours["embedding.weight"],
        "attn_layers.final_norm.g": ours["norm.weight"],
        "to_logits.weight": ours["head.weight"],
    }
    for n in range(sizes.layers):
        layer = {name: ours[f"layers.{n}.{name}.weight"] for name in LLAMA_BLOCK}
        attention, ffn = f"attn_layers.layers.{2 * n}", f"attn_layers.layers.{2 * n + 1}"
        found |= {
            f"{attention}.0.0.g": layer["attention_norm"],
            f"{attention}.1.to_q.weight": heads(pairs(layer["attention.q"])),
            f"{attention}.1.to_k.weight": pairs(layer["attention.k"]),
            f"{attention}.1.to_v.weight": layer["attention.v"],
            f"{attention}.1.to_out.weight": heads(layer["attention.o"].T).T,
            f"{ffn}.0.0.g": layer["ffn_norm"],
            f"{ffn}.1.ff.0.proj.weight": torch.cat((layer["ffn.up"], layer["ffn.gate"])),
            f"{ffn}.1.ff.2.weight": layer["ffn.down"],
        }
    return found


def hf_gpt2(sizes: Sizes) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        n_embd=sizes.d_model,
        n_layer=sizes.layers,
        n_head=sizes.heads,
        n_inner=sizes.hidden,
        n_positions=sizes.seq,
        vocab_size=sizes.vocab,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
        bos_token_id=1,
        eos_token_id=2,
    )
    module = GPT2LMHeadModel(config)
    module.set_attn_implementation("sdpa")
    return module


def hf_gpt2_weights(ours: Weights, sizes: Sizes) -> Weights:
    """Matrices of the blocks are transposed there, and q, k and v one."""
    found = {
        "transformer.wte.weight": ours["embedding.weight"],
        "transformer.wpe.weight": ours["position_embedding.weight"],
        "lm_head.weight": ours["embedding.weight"],
    }
    for leaf in ("weight", "bias"):
        found[f"transformer.ln_f.{leaf}"] = ours[f"norm.{leaf}"]
        for n in range(sizes.layers):
            layer = {k.removeprefix(f"layers.{n}."): v for k, v in ours.items() if k.startswith(f"layers.{n}.")}
            found |= {
                f"transformer.h.{n}.ln_1.{leaf}": layer[f"attention_norm.{leaf}"],
                f"transformer.h.{n}.ln_2.{leaf}": layer[f"ffn_norm.{leaf}"],
                f"transformer.h.{n}.attn.c_attn.{leaf}": torch.cat([layer[f"attention.{k}.{leaf}"] for k in "qkv"]).t(),
                f"transformer.h.{n}.attn.c_proj.{leaf}": layer[f"attention.o.{leaf}"].t(),
                f"transformer.h.{n}.mlp.c_fc.{leaf}": layer[f"ffn.up.{leaf}"].t(),
                f"transformer.h.{n}.mlp.c_proj.{leaf}": layer[f"ffn.down.{leaf}"].t(),
            }
    return found


def of_output(output: Any) -> Tensor:
    return output.logits


def itself(output: Any) -> Tensor:
    return output


LLAMAS = (
    Other("transformers", "transformers", hf_llama, hf_llama_weights, of_output),
    Other("litgpt", "litgpt", litgpt_llama, litgpt_llama_weights, itself),
    Other("x-transformers", "x_transformers", x_llama, x_llama_weights, itself),
)
GPT2S = (Other("transformers", "transformers", hf_gpt2, hf_gpt2_weights, of_output),)  # the others have no GPT-2
