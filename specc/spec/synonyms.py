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
    "ep": ("expert_parallel", "expert_model_parallel_size", "expert_parallel_size", "ep_size"),
    "cp": ("context_parallel", "context_parallel_size", "cp_size", "ring_attention", "ulysses", "sp_size"),
    "pp": ("pipeline", "pipeline_parallel", "pipeline_model_parallel_size", "pipeline_parallel_size"),
    "stages": ("num_stages", "n_stages", "size"),
    "per_rank": ("virtual", "vpp", "virtual_stages", "virtual_pipeline_model_parallel_size", "stages_per_rank"),
    "interleaved_1f1b": ("interleaved", "interleaved1f1b"),
    "interleaved_zero_bubble": ("zb", "zb1p", "zbh1", "zero_bubble", "interleavedzerobubble"),
    "zbv": ("zb_v", "zbv_zero_bubble", "zbvzerobubble"),
    "dualpipev": ("dualpipe", "dual_pipe_v"),
    "looped_bfs": ("bfs", "loopedbfs"),
    "microbatches": ("num_microbatches", "n_microbatches", "gradient_accumulation_steps", "accumulation"),
    "checkpoint": ("checkpointing", "activation_checkpointing", "recompute", "gradient_checkpointing", "remat"),
    "rms": ("rmsnorm", "rms_norm"),
    "layer": ("layernorm", "layer_norm", "ln"),
    "xavier": ("glorot", "xavier_normal", "glorot_normal"),
    "sinusoidal": ("sincos", "sin", "sine"),
    "learned": ("absolute", "learnable", "trained"),
    "weight_offset": ("zero_centered", "add_unit_offset", "layernorm1p", "unit_offset"),
    "weight": ("elementwise_affine", "affine"),
    "placement": ("sandwich_norm", "norm_placement"),
    "output": ("reordered", "res_post"),
    "beta": ("residual_multiplier", "depth_scale", "residual_scale"),
    "parallel": ("parallel_residual", "use_parallel_residual", "parallel_attn"),
    "softcap": ("final_logit_softcapping",),
    "scale": ("logit_scale", "lm_head_multiplier", "embedding_multiplier", "scale_emb"),
    "transform": ("mlm_head", "cls_head"),
    "pool": ("pooler", "pooling", "classifier_pooling"),
    "classes": ("num_labels", "num_classes"),
    "pattern": ("layer_types", "layers_block_type", "sliding_window_pattern", "layer_pattern"),
    "shared": ("share_layers", "num_hidden_groups", "num_hidden_layer_groups"),
}

ELSEWHERE = ("celu", "crelu", "dyt", "elu", "prelu", "reglu", "rrelu", "selu", "sglu", "smelu")
"""Words of the field that the language has not, and that are no slips of those it has."""
SAID = {
    "swiglu": "it is kind: gated, activation: silu",
    "geglu": "it is kind: gated, activation: gelu",
    "reglu": "it is kind: gated, activation: relu",
    "partial_rotary_factor": "dim of a rope counts features: 0.25 of 128 is 32",
    "rotary_pct": "dim of a rope counts features: 0.25 of 128 is 32",
    "query_pre_attn_scalar": "scale is the factor itself: 256 ** -0.5",
    "logit_scale": "scale multiplies; what divides logits is 1 over that",
    "expand": "hidden counts features: 2 * d_model of 1024 is 2048",
    "n_shared_experts": "shared has hidden, of all of them together",
    "num_shared_experts": "shared has hidden, of all of them together",
    "capacity_factor": "no token is dropped, so there is no capacity",
    "no_rope_layers": "give those layers a block with rope: null",
    "first_k_dense_replace": "a pattern may begin with others: {head: [dense*3], cycle: [sparse]}",
    "l2": "it is rms with weight: false",
    "use_cache": "generate: true in a layout writes a cache",
    "tie_encoder_decoder": "tied: [encoder, decoder] ties embeddings; layers have weights of their own",
    **dict.fromkeys(("lr", "learning_rate"), "the loop gives it to Trainer"),
    **dict.fromkeys(("batch_size", "micro_batch_size", "seq_length"), "the loop gives it to Trainer"),
    **dict.fromkeys(("optimizer", "weight_decay", "adam_beta1", "max_grad_norm"), "how to train stands in the loop"),
    **dict.fromkeys(("zero_stage", "zero2", "zero3"), "dp shards parameters, gradients and states (FSDP2)"),
    **dict.fromkeys(("flash_attention", "use_flash_attn", "attn_implementation"), "torch picks the kernel"),
    **dict.fromkeys(("hsdp", "replicas", "replicate"), "not yet in the language"),
    **dict.fromkeys(("streams", "per_layer", "sections", "capacity", "towers"), "kept for a later version"),
}
"""What a word of others is where it is more than another name, or why there is none."""
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
