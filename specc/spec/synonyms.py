"""What others call the words of the language: for hints."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from specc.components.base import Component

LANGUAGE: dict[str, tuple[str, ...]] = {
    "d_model": ("hidden_size", "n_embd", "dim", "embed_dim", "embedding_dim", "model_dim", "width", "n_embed"),
    "vocab": ("vocab_size", "padded_vocab_size", "vocabulary", "n_vocab"),
    "max_seq": ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_len", "context_length"),
    "pad": ("pad_token_id", "padding_idx", "pad_id"),
    "norm": ("normalization", "layer_norm", "layernorm", "rmsnorm", "rms_norm"),
    "eps": ("epsilon", "rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps"),
    "dropout": ("hidden_dropout_prob", "resid_pdrop", "attention_dropout", "attn_pdrop", "embd_pdrop", "drop"),
    "embedding": ("embeddings", "embed"),
    "tied": ("tie_word_embeddings", "tie_embeddings", "share_embeddings", "weight_tying", "tie"),
    "init": ("initialization", "initializer", "initialization_scheme"),
    "std": ("initializer_range", "init_std", "stddev", "sigma"),
    "layers": ("num_hidden_layers", "num_layers", "n_layers", "n_layer", "depth"),
    "kind": ("type", "rope_type", "name"),
    "like": ("inherit", "inherits", "extends", "base", "from"),
    "with": ("override", "overrides", "changes"),
    "tp": ("tensor_parallel", "tensor_model_parallel_size", "tensor_parallel_size", "model_parallel"),
    "sequence_parallel": ("sp", "seq_parallel"),
    "dp": ("fsdp", "data_parallel", "fsdp2", "dp_size", "data_parallel_size", "zero"),
    "pp": ("pipeline", "pipeline_parallel", "pipeline_model_parallel_size", "pipeline_parallel_size"),
    "stages": ("num_stages", "n_stages", "size"),
    "microbatches": ("num_microbatches", "n_microbatches", "gradient_accumulation_steps", "accumulation"),
    "checkpoint": ("checkpointing", "activation_checkpointing", "recompute", "gradient_checkpointing", "remat"),
    "rms": ("rmsnorm", "rms_norm"),
    "layer": ("layernorm", "layer_norm", "ln"),
    "xavier": ("glorot", "xavier_normal", "glorot_normal"),
    "sinusoidal": ("sincos", "sin", "sine"),
    "learned": ("absolute", "learnable", "trained"),
}

ELSEWHERE = ("celu", "crelu", "dyt", "elu", "prelu", "reglu", "rrelu", "selu", "sglu", "smelu")
"""Words of the field that the language has not, and that are no slips of those it has."""
MOVED: dict[tuple[str, str], str] = {
    ("pp", "microbatches"): "microbatches stands in the layout, beside pp",
    ("init", "embedding_std"): "give parameters: {embedding: {std: ...}}",
}
"""Keys that stand elsewhere now, with the key around them: where."""


def synonyms(components: Iterable[Component[Any]]) -> dict[str, tuple[str, ...]]:
    """Of the language itself and of components, by word in lower case: each is the word's wherever that may stand."""
    found = dict(LANGUAGE)
    for component in components:
        for word, names in component.synonyms.items():
            found[word] = tuple(dict.fromkeys((*found.get(word, ()), *names)))
    return found
