"""Specs in YAML and the same models of others: the tiny ones as they are, the published ones by their configs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedConfig

from specc.components.attention import Attention
from specc.components.cross_attention import CrossAttention
from specc.components.ffn import Ffn
from specc.spec.core import Model, Run, Stack, Sublayer
from tests import zoo
from tests.models import D_MODEL, PAD, VOCAB
from tests.parity import (
    EPS,
    Case,
    Vaswani,
    Views,
    gpt2_views,
    llama_views,
    random_ids,
    transformer_views,
    with_exact_norms,
)


def _tiny_gpt2() -> nn.Module:
    sizes = {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 64, "vocab_size": 97}
    return GPT2LMHeadModel(GPT2Config(**sizes, layer_norm_epsilon=EPS, bos_token_id=1, eos_token_id=2)).eval()


def _tiny_llama(tied: bool) -> Callable[[], nn.Module]:
    scaling = {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 8,
        "vocab_size": 96,
        "max_position_embeddings": 64,
    }
    config = LlamaConfig(
        **sizes,
        rms_norm_eps=EPS,
        rope_parameters={"rope_type": "llama3", "rope_theta": 100.0, **scaling},
        tie_word_embeddings=tied,
    )
    return lambda: with_exact_norms(LlamaForCausalLM(config).eval())


TINY = {
    "gpt2-tiny": Case(zoo.model("gpt2-tiny"), _tiny_gpt2, (random_ids(1, vocab=97),), gpt2_views(4, True)),
    "llama-tiny": Case(zoo.model("llama-tiny"), _tiny_llama(False), (random_ids(2),), llama_views(4, False)),
    "llama-tied-tiny": Case(zoo.model("llama-tied-tiny"), _tiny_llama(True), (random_ids(2),), llama_views(4, True)),
    "transformer-tiny": Case(
        zoo.model("transformer-tiny"),
        lambda: Vaswani(3, PAD, True, hidden=64),
        (random_ids(3, padded=True, seq=19), random_ids(4)),
        transformer_views(3, True, False, True),
    ),
}


def _llama(hidden: int, ffn: int, layers: int, heads: int, factor: float, tied: bool = False) -> LlamaConfig:
    """From the config.json that was published with the weights."""
    scaling = {"factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    return LlamaConfig(
        hidden_size=hidden,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=8,
        vocab_size=128256,
        max_position_embeddings=131072,
        rms_norm_eps=1e-5,
        hidden_act="silu",
        attention_bias=False,
        mlp_bias=False,
        tie_word_embeddings=tied,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "original_max_position_embeddings": 8192,
            **scaling,
        },
    )


@dataclass(frozen=True)
class Published:
    """A config of Hugging Face, its parameters, and which of them are ours."""

    config: PreTrainedConfig
    parameters: int
    views: Views

    def reference(self) -> nn.Module:
        if isinstance(self.config, GPT2Config):
            return GPT2LMHeadModel(self.config).eval()
        assert isinstance(self.config, LlamaConfig)
        return with_exact_norms(LlamaForCausalLM(self.config).eval())


PUBLISHED = {
    "gpt2": Published(GPT2Config(), 124_439_808, gpt2_views(12, True)),
    "llama-3.2-1b": Published(_llama(2048, 8192, 16, 32, 32.0, tied=True), 1_235_814_400, llama_views(16, True)),
    "llama-3.1-8b": Published(_llama(4096, 14336, 32, 32, 8.0), 8_030_261_248, llama_views(32, False)),
    "llama-3.1-405b": Published(_llama(16384, 53248, 126, 128, 8.0), 405_853_388_800, llama_views(126, False)),
}


LAYERS, HEADS, FFN = 3, 4, 48


def narrow(model: Model) -> Model:
    """Sizes that a laptop runs; every other number stays, and so does the grouping of heads."""

    def component(config: object) -> Attention | CrossAttention | Ffn:
        if isinstance(config, Ffn):
            return config.model_copy(update={"hidden": FFN})
        assert isinstance(config, (Attention, CrossAttention)) and config.kv_heads
        kv_heads = HEADS if config.kv_heads == config.heads else HEADS // 2
        size = D_MODEL // HEADS
        sizes = {"heads": HEADS, "kv_heads": kv_heads, "head_dim": size, "v_head_dim": size}
        return config.model_copy(update=sizes)

    def sublayer(found: Sublayer) -> Sublayer:
        return replace(found, branches=tuple(replace(b, component=component(b.component)) for b in found.branches))

    def stack(found: Stack) -> Stack:
        ((block,),) = (run.blocks for run in found.runs)
        return replace(found, runs=(Run((replace(block, sublayers=tuple(map(sublayer, block.sublayers))),), LAYERS),))

    assert model.head.dim == model.d_model
    head = replace(model.head, dim=D_MODEL)
    return replace(model, d_model=D_MODEL, vocab=VOCAB, head=head, stacks=tuple(map(stack, model.stacks)))


def narrow_case(name: str) -> Case:
    """A published spec against its published config, in small sizes."""
    model, config = narrow(zoo.spec(name).model), PUBLISHED[name].config
    if isinstance(config, GPT2Config):
        sizes = {"n_embd": D_MODEL, "n_layer": LAYERS, "n_head": HEADS, "n_inner": FFN}
        sizes |= {"bos_token_id": 1, "eos_token_id": 2}
        views = gpt2_views(LAYERS, True)
    else:
        sizes = {"hidden_size": D_MODEL, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
        sizes |= {"num_key_value_heads": HEADS // 2, "head_dim": D_MODEL // HEADS, "intermediate_size": FFN}
        views = llama_views(LAYERS, bool(config.tie_word_embeddings))
    small = replace(PUBLISHED[name], config=type(config)(**config.to_dict() | sizes | {"vocab_size": VOCAB}))
    return Case(model, small.reference, (random_ids(5),), views)


def narrow_transformer() -> Case:
    """transformer-base against torch.nn; the paper gives no eps, so it is ours. Tokens are scaled by their width."""
    inputs = (random_ids(3, padded=True, seq=19), random_ids(4))
    return Case(
        narrow(zoo.spec("transformer-base").model),
        lambda: Vaswani(LAYERS, PAD, True, hidden=FFN, eps=1e-6, scale=512**0.5),
        inputs,
        transformer_views(LAYERS, True, False, True),
    )
