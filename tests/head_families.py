"""Classifiers of Hugging Face: specs, and their modules by our names. Rows end with padding where one class has one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.parity import From, random_ids
from tests.parity_families import GATED, LLAMA, SIZES, SMALL_ROPE, Family
from tests.parity_frames import exact

PADDED = random_ids(4, padded=True)
REAL = PADDED.ne(0).long()
WHOLE = random_ids(5)  # what padding itself is made to is nobody's business
TYPES = torch.randint(2, PADDED.shape, generator=torch.Generator().manual_seed(0))
POST = "norm: {kind: layer, eps: 1e-2, placement: post}\n"
BERT_LAYER = "layers: 3, block: [attention: {heads: 4, bias: true}, ffn: {hidden: 48, bias: true}]"
BERT = f"embedding: {{positions: learned, types: 2, norm: true}}\nencoder: {{{BERT_LAYER}}}\n"
ROBERTA = BERT.replace("learned", "{kind: learned, size: 63, offset: 1, skip_pad: true}")
TANH = "transform: {activation: tanh, norm: false}"


def bert(base: str, **more: str) -> dict[str, str | From]:
    layer, self = f"{base}.encoder.layer.{{}}", f"{base}.encoder.layer.{{}}.attention.self"
    return {
        "embedding": f"{base}.embeddings.word_embeddings",
        "position_embedding": f"{base}.embeddings.position_embeddings",
        "type_embedding": f"{base}.embeddings.token_type_embeddings",
        "embedding_norm": f"{base}.embeddings.LayerNorm",
        **{f"attention.{n}": f"{self}.{of}" for n, of in (("q", "query"), ("k", "key"), ("v", "value"))},
        "attention.o": f"{layer}.attention.output.dense",
        "attention_norm": f"{layer}.attention.output.LayerNorm",
        "ffn.up": f"{layer}.intermediate.dense",
        "ffn.down": f"{layer}.output.dense",
        "ffn_norm": f"{layer}.output.LayerNorm",
        **more,
    }


def third(part: int) -> From:
    return From("model.layers.{}.attn.Wqkv", part, 3)


def half(part: int) -> From:
    """Gate, then up."""
    return From("model.layers.{}.mlp.Wi", part, 2)


MODERN: dict[str, str | From] = {
    "embedding": "model.embeddings.tok_embeddings",
    "embedding_norm": "model.embeddings.norm",
    "attention_norm": "model.layers.{}.attn_norm",
    "ffn_norm": "model.layers.{}.mlp_norm",
    **{f"attention.{name}": third(part) for part, name in enumerate("qkv")},
    "attention.o": "model.layers.{}.attn.Wo",
    "ffn.gate": half(0),
    "ffn.up": half(1),
    "ffn.down": "model.layers.{}.mlp.Wo",
    "norm": "model.final_norm",
    "head_transform": "head.dense",
    "head_norm": "head.norm",
    "head": "classifier",
}
MODERN_SIZES = {
    **SIZES,
    "num_labels": 5,
    "norm_eps": 1e-2,
    "local_attention": 8,
    "rope_parameters": {
        "full_attention": SMALL_ROPE,
        "sliding_attention": {**SMALL_ROPE, "rope_theta": 50.0},
    },
}
LOCAL = "attention: {heads: 4, window: 5, rope: {theta: 50}}"
MODERN_SPEC = f"""\
inputs: [mask]
norm: {{kind: layer, eps: 1e-2, bias: false}}
embedding: {{norm: true}}
blocks:
  first: [{{attention: {{heads: 4, rope: {{theta: 100}}}}, pre: false}}, {{{GATED[:-1]}, activation: gelu}}}}]
  local: [{{{LOCAL}}}, {{{GATED[:-1]}, activation: gelu}}}}]
encoder: {{layers: 3, pattern: {{head: [first], cycle: [local]}}}}
"""


def exactly(module: nn.Module) -> None:
    """Attention turns in the type of its input, too."""
    exact(module)


def given(head: str) -> tuple[Tensor, Tensor]:
    return (PADDED, REAL) if "pool" in head else (WHOLE, torch.ones_like(WHOLE))


def modern(head: str, cls: str, **more: object) -> Family:
    return Family(
        f"{MODERN_SPEC}head: {{kind: classes, classes: 5, bias: true, transform: {{bias: false}}{head}}}\n",
        cls,
        {**MODERN_SIZES, **more},
        MODERN,
        exactly,
        inputs=given(head),
    )


def classes(head: str) -> str:
    return f"head: {{kind: classes, classes: 5, {head}}}\n"


def of_bert(head: str, cls: str, table: dict[str, str | From]) -> Family:
    sizes = {"num_labels": 5, "layer_norm_eps": 1e-2, "pad_token_id": 0}
    spec = ROBERTA if cls.startswith("Roberta") else BERT
    inputs = given(head)
    return Family(f"inputs: [mask]\n{POST}{spec}{classes(head)}", cls, sizes, table, inputs=(*inputs, TYPES))


FAMILIES: dict[str, Family] = {
    "bert, a class a row": of_bert(
        f"bias: true, pool: first, {TANH}",
        "BertForSequenceClassification",
        bert("bert", head_transform="bert.pooler.dense", head="classifier"),
    ),
    "bert, a class a token": of_bert("bias: true", "BertForTokenClassification", bert("bert", head="classifier")),
    "roberta, a class a row": of_bert(
        f"bias: true, pool: first, {TANH}",
        "RobertaForSequenceClassification",
        bert("roberta", head_transform="classifier.dense", head="classifier.out_proj"),
    ),
    "roberta, a class a token": of_bert(
        "bias: true", "RobertaForTokenClassification", bert("roberta", head="classifier")
    ),
    "modernbert, a class a row": modern(
        ", pool: first", "ModernBertForSequenceClassification", classifier_pooling="cls"
    ),
    "modernbert, a class of the mean": modern(
        ", pool: mean", "ModernBertForSequenceClassification", classifier_pooling="mean"
    ),
    "modernbert, a class a token": modern("", "ModernBertForTokenClassification"),
    "llama, a class a row": Family(
        f"norm: {{eps: 1e-2}}\ninputs: [mask]\n{classes('pool: last')}"
        f"decoder: {{layers: 3, block: [attention: {{heads: 4, kv_heads: 2, rope: {{theta: 100}}}}, {GATED}]}}\n",
        "LlamaForSequenceClassification",
        {"num_labels": 5, "pad_token_id": 0, "rope_parameters": SMALL_ROPE},
        {**{name: of for name, of in LLAMA.items() if name != "head"}, "head": "score"},
        inputs=(PADDED, REAL),
    ),
    "llama, a class a token": Family(
        f"norm: {{kind: rms, eps: 1e-2}}\n{classes('bias: true')}"
        f"decoder: {{layers: 3, block: [attention: {{heads: 4, kv_heads: 2, rope: {{theta: 100}}}}, {GATED}]}}\n",
        "LlamaForTokenClassification",
        {"num_labels": 5, "rope_parameters": SMALL_ROPE},
        {**{name: of for name, of in LLAMA.items() if name != "head"}, "head": "score"},
    ),
}
