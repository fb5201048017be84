"""The same model written by others: a comparison of logits and of every gradient, and the cases to run it on.

A case has nothing to do with how the model under test was made, so it serves the interpreter and generated files alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MethodType

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from specc.kernels.positions import sinusoid
from specc.spec.core import Model
from tests import models
from tests.models import D_MODEL, MAX_SEQ, PAD, VOCAB

EPS, SEQ = 1e-2, 23  # large, and odd, so that errors show


@dataclass(frozen=True)
class From:
    """A linear view of one tensor of the reference; so a gradient is viewed in the same way."""

    name: str
    part: int = 0
    parts: int = 1  # fused tensors: cut along rows
    transposed: bool = False
    rows: Callable[[Tensor], Tensor] = lambda tensor: tensor  # moves and chooses rows, of gradients too

    @property
    def names(self) -> tuple[str, ...]:
        """Tensors that it reads."""
        return (self.name,)

    def __call__(self, tensors: Mapping[str, Tensor]) -> Tensor:
        tensor = tensors[self.name]
        return self.rows((tensor.T if self.transposed else tensor).chunk(self.parts)[self.part])


Views = dict[str, From]


@dataclass(frozen=True)
class Case:
    """A model in the core form, and the same model of others."""

    model: Model
    reference: Callable[[], nn.Module]
    inputs: tuple[Tensor, ...]
    mapping: Views


def check_against(
    reference: nn.Module, model: nn.Module, inputs: tuple[Tensor, ...], mapping: Views, tolerance: float = 1e-9
) -> float:
    """Give both the same noisy weights, compare logits and all gradients; returns the largest difference.

    Parameters of the reference that the mapping leaves out are set to zero; all of the model's must be in it.
    """
    theirs, ours = dict(reference.named_parameters()), dict(model.named_parameters())
    assert ours.keys() == mapping.keys(), f"not mapped, or mapped in vain: {sorted(ours.keys() ^ mapping.keys())}"
    covered = {name for view in mapping.values() for name in view.names}
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in theirs.items():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.2
            parameter.copy_(parameter + noise if name in covered else torch.zeros_like(parameter))
        for name, parameter in ours.items():
            parameter.copy_(mapping[name](theirs))
    expected, actual = _logits(reference(*inputs)), _logits(model(*inputs))
    probe = torch.randn(expected.shape, generator=generator, dtype=torch.float64).to(expected.dtype)
    (expected * probe).sum().backward()
    (actual * probe).sum().backward()
    pairs = {"logits": (actual, expected)}
    gradients = {name: parameter.grad for name, parameter in theirs.items() if parameter.grad is not None}
    for name, parameter in ours.items():
        assert parameter.grad is not None, f"{name} has no gradient"
        pairs[name] = (parameter.grad, mapping[name](gradients))
    worst = 0.0
    for name, (a, b) in pairs.items():
        assert a.shape == b.shape and a.dtype == b.dtype, f"{name}: {a.shape} {a.dtype}, not {b.shape} {b.dtype}"
        assert bool(b.isfinite().all()) and bool((b != 0).any()), f"{name}: the reference shows nothing"
        difference = (a - b).abs().max().item() / max(1.0, b.abs().max().item())
        assert difference <= tolerance, f"{name}: difference {difference:.3g}"  # false for NaN
        worst = max(worst, difference)
    return worst


def _logits(output: Tensor | object) -> Tensor:
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    assert isinstance(logits, Tensor)
    return logits


def random_ids(seed: int, *, padded: bool = False, seq: int = SEQ, vocab: int = VOCAB) -> Tensor:
    """Token ids [batch, seq]; where padded, rows end in PAD and have it nowhere else."""
    ids = torch.randint(PAD + 1, vocab, (3, seq), generator=torch.Generator().manual_seed(seed))
    if padded:
        for row, length in enumerate((seq, seq - 7, 1)):
            ids[row, length:] = PAD
    return ids


def in_layers(count: int, pairs: Mapping[str, From], ours: str = "layers") -> Views:
    """Both sides of `pairs` once for every layer; the reference's names have {} where the number goes."""
    return {
        f"{ours}.{i}.{name}": replace(view, name=view.name.format(i))
        for i in range(count)
        for name, view in pairs.items()
    }


def gpt2(*, tied: bool = True, layers: int = 3) -> Case:
    """GPT-2: q, k and v fused, all matrices of the blocks transposed."""

    def reference() -> nn.Module:
        config = GPT2Config(
            n_embd=D_MODEL,
            n_layer=layers,
            n_head=4,
            n_positions=MAX_SEQ,
            vocab_size=VOCAB,
            layer_norm_epsilon=EPS,
            tie_word_embeddings=tied,
            bos_token_id=1,
            eos_token_id=2,
            attn_implementation="sdpa",
        )
        return GPT2LMHeadModel(config).eval()

    return Case(models.gpt2(tied=tied, layers=layers), reference, (random_ids(1),), gpt2_views(layers, tied))


def gpt2_views(layers: int, tied: bool) -> Views:
    """Our names, and where GPT2LMHeadModel has them."""
    block: Views = {}
    for leaf, transposed in (("weight", True), ("bias", False)):
        for part, name in enumerate("qkv"):
            block[f"attention.{name}.{leaf}"] = From(f"transformer.h.{{}}.attn.c_attn.{leaf}", part, 3, transposed)
        for name, theirs in (("attention.o", "attn.c_proj"), ("ffn.up", "mlp.c_fc"), ("ffn.down", "mlp.c_proj")):
            block[f"{name}.{leaf}"] = From(f"transformer.h.{{}}.{theirs}.{leaf}", transposed=transposed)
        for name, theirs in (("attention_norm", "ln_1"), ("ffn_norm", "ln_2")):
            block[f"{name}.{leaf}"] = From(f"transformer.h.{{}}.{theirs}.{leaf}")
    return {
        "embedding.weight": From("transformer.wte.weight"),
        "position_embedding.weight": From("transformer.wpe.weight"),
        **in_layers(layers, block),
        "norm.weight": From("transformer.ln_f.weight"),
        "norm.bias": From("transformer.ln_f.bias"),
        **({} if tied else {"head.weight": From("lm_head.weight")}),
    }


def llama(
    *, tied: bool = False, scaling: str | None = "llama3", bias: bool = False, layers: int = 3, exact: bool = True
) -> Case:
    """Llama with grouped heads. Their norm computes in float32; `exact` lets it compute in the dtype of its input."""
    ropes = {
        None: {"rope_type": "default"},
        "linear": {"rope_type": "linear", "factor": 4.0},
        "llama3": {
            "rope_type": "llama3",
            "factor": models.LLAMA3.factor,
            "low_freq_factor": models.LLAMA3.low_freq,
            "high_freq_factor": models.LLAMA3.high_freq,
            "original_max_position_embeddings": models.LLAMA3.original_seq,
        },
    }

    def reference() -> nn.Module:
        config = LlamaConfig(
            hidden_size=D_MODEL,
            intermediate_size=48,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=VOCAB,
            max_position_embeddings=2 * MAX_SEQ,
            rms_norm_eps=EPS,
            rope_parameters={"rope_theta": 100.0, **ropes[scaling]},
            tie_word_embeddings=tied,
            attention_bias=bias,
            mlp_bias=bias,
            attn_implementation="sdpa",
        )
        model = LlamaForCausalLM(config).eval()
        return with_exact_norms(model) if exact else model

    ours = {None: None, "linear": models.LinearScaling(kind="linear", factor=4.0), "llama3": models.LLAMA3}[scaling]
    model = models.llama(tied=tied, scaling=ours, bias=bias, layers=layers)
    return Case(model, reference, (random_ids(2),), llama_views(layers, tied, bias))


def llama_views(layers: int, tied: bool, bias: bool = False) -> Views:
    """Our names, and where LlamaForCausalLM has them."""
    leaves = ("weight", "bias") if bias else ("weight",)
    linears = {**{f"attention.{n}": f"self_attn.{n}_proj" for n in "qkvo"}}
    linears |= {f"ffn.{n}": f"mlp.{n}_proj" for n in ("gate", "up", "down")}
    block = {
        f"{ours}.{leaf}": From(f"model.layers.{{}}.{theirs}.{leaf}")
        for ours, theirs in linears.items()
        for leaf in leaves
    }
    block["attention_norm.weight"] = From("model.layers.{}.input_layernorm.weight")
    block["ffn_norm.weight"] = From("model.layers.{}.post_attention_layernorm.weight")
    return {
        "embedding.weight": From("model.embed_tokens.weight"),
        **in_layers(layers, block),
        "norm.weight": From("model.norm.weight"),
        **({} if tied else {"head.weight": From("lm_head.weight")}),
    }


def with_exact_norms(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """Their norms compute in the dtype of their input, not in float32."""
    for module in model.modules():
        if isinstance(module, LlamaRMSNorm):
            module.forward = MethodType(_rms_norm, module)
    return model


def _rms_norm(self: LlamaRMSNorm, x: Tensor) -> Tensor:
    """x [..., d_model] -> the same"""
    return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))


class Vaswani(nn.Module):
    """The 2017 transformer of torch.nn layers without final norms; embeddings, positions and head are added here."""

    def __init__(
        self,
        layers: int,
        pad: int | None,
        tied: bool,
        *,
        hidden: int = 48,
        eps: float = EPS,
        scale: float = D_MODEL**0.5,
    ):
        super().__init__()
        sizes = {"d_model": D_MODEL, "nhead": 4, "dim_feedforward": hidden}
        rest = {"dropout": 0.0, "activation": "relu", "layer_norm_eps": eps, "batch_first": True, "norm_first": False}
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(**sizes, **rest), layers, norm=None, enable_nested_tensor=False
        )
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(**sizes, **rest), layers, norm=None)
        names = ("source",) if tied else ("source", "target", "head")
        self.tables = nn.ParameterDict({name: torch.randn(VOCAB, D_MODEL) * 0.2 for name in names})
        self.pad, self.scale = pad, scale

    def table(self, name: str) -> Tensor:
        return self.tables[name] if name in self.tables else self.tables["source"]

    def embed(self, ids: Tensor, name: str) -> Tensor:
        weight = self.table(name)
        positions = sinusoid(torch.arange(ids.size(1)), D_MODEL)  # the kernel has a test of its own
        return F.embedding(ids, weight) * self.scale + positions.to(weight.dtype)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        padding = None if self.pad is None else source.eq(self.pad)
        future = torch.ones(target.size(1), target.size(1), dtype=torch.bool).triu(1)
        memory = self.encoder(self.embed(source, "source"), src_key_padding_mask=padding)
        x = self.decoder(self.embed(target, "target"), memory, tgt_mask=future, memory_key_padding_mask=padding)
        return F.linear(x, self.table("head"))


def transformer(*, bias: bool = False, pad: int | None = PAD, tied: bool = True, layers: int = 2) -> Case:
    """Encoder and decoder; without `bias` the biases of the reference are zero."""
    model = models.transformer(bias=bias, pad=pad, tied=tied, layers=layers)
    inputs = (random_ids(3, padded=pad is not None, seq=19), random_ids(4))
    return Case(model, lambda: Vaswani(layers, pad, tied), inputs, transformer_views(layers, tied, bias, bias))


def transformer_views(layers: int, tied: bool, attention_bias: bool, ffn_bias: bool) -> Views:
    """Our names, and where Vaswani has them."""
    leaves, ffn_leaves = [("weight", "bias") if bias else ("weight",) for bias in (attention_bias, ffn_bias)]

    def attention(ours: str, theirs: str) -> Views:
        fused = {
            f"{ours}.{n}.{leaf}": From(f"{theirs}.in_proj_{leaf}", part, 3)
            for part, n in enumerate("qkv")
            for leaf in leaves
        }
        return fused | {f"{ours}.o.{leaf}": From(f"{theirs}.out_proj.{leaf}") for leaf in leaves}

    def stack(role: str, norms: Mapping[str, str], attentions: Mapping[str, str]) -> Views:
        block: Views = {}
        for ours, theirs in attentions.items():
            block |= attention(ours, f"{role}.layers.{{}}.{theirs}")
        for ours, theirs in (("ffn.up", "linear1"), ("ffn.down", "linear2")):
            block |= {f"{ours}.{leaf}": From(f"{role}.layers.{{}}.{theirs}.{leaf}") for leaf in ffn_leaves}
        for ours, theirs in norms.items():
            block |= {f"{ours}.{leaf}": From(f"{role}.layers.{{}}.{theirs}.{leaf}") for leaf in ("weight", "bias")}
        return in_layers(layers, block, role)

    tables = {"embedding.weight": From("tables.source")}
    if not tied:
        tables = {
            "encoder_embedding.weight": From("tables.source"),
            "decoder_embedding.weight": From("tables.target"),
            "head.weight": From("tables.head"),
        }
    return {
        **tables,
        **stack("encoder", {"attention_norm": "norm1", "ffn_norm": "norm2"}, {"attention": "self_attn"}),
        **stack(
            "decoder",
            {"attention_norm": "norm1", "cross_attention_norm": "norm2", "ffn_norm": "norm3"},
            {"attention": "self_attn", "cross_attention": "multihead_attn"},
        ),
    }


CASES = {
    "gpt2": gpt2(),
    "gpt2-untied": gpt2(tied=False, layers=1),
    "llama": llama(),
    "llama-tied": llama(tied=True),
    "llama-plain-rope-biases": llama(scaling=None, bias=True, layers=1),
    "llama-linear-rope": llama(scaling="linear", layers=1),
    "transformer": transformer(),
    "transformer-biases": transformer(bias=True),
    "transformer-untied-unpadded": transformer(tied=False, pad=None, layers=1),
}
