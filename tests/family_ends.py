"""Families whose embedding, head or encoder asks for more: name, variant, sizes, whether in every run, attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Row = tuple[str, str, Mapping[str, Any], bool, str]


def row(
    family: str, name: str = "", sizes: Mapping[str, Any] | None = None, quick: bool = False, attention: str = "sdpa"
) -> Row:
    return family, name, sizes or {}, quick, attention


LATENT = {
    "q_lora_rank": 20,
    "kv_lora_rank": 12,
    "qk_nope_head_dim": 6,
    "qk_rope_head_dim": 4,
    "v_head_dim": 10,
    "head_dim": None,
    "num_key_value_heads": 4,
}
"""Of attention over latents."""
UNSEEN = {"sliding_window": None}
WIDE = {"ffn_dim": 48, "dropout": 0.0}
SEQ = {
    **{"d_model": 32, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 4},
    **{"decoder_attention_heads": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 40},
}
SHORT = {
    **{"local_attention": 6, "norm_bias": True, "attention_bias": True, "mlp_bias": True, "classifier_bias": True},
    **{"layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]},
    **{"tie_word_embeddings": False, "decoder_bias": False},
}
SPEECH = {
    **{**SEQ, "num_mel_bins": 6},
    **{"max_source_positions": 13, "max_target_positions": 16, "activation_function": "gelu_new"},
}
IMAGES = {"image_size": 12, "patch_size": 4, "num_channels": 2}
ENDS = (
    row("vit", "", {**IMAGES, "num_labels": 5}, quick=True),
    row("vit", "unbiased", {**IMAGES, "qkv_bias": False, "hidden_act": "gelu_new"}),
    row("whisper", "", SPEECH, quick=True),
    row("dinov2", "", {**IMAGES, "layerscale_value": 0.5, "qkv_bias": False}),
    row("dinov2_with_registers", "", {**IMAGES, "num_register_tokens": 3}, quick=True),
    row("albert", "", {"embedding_size": 24, "attention_probs_dropout_prob": 0.0}, quick=True),
    row("bart", "", SEQ),
    row("bart", "scaled", {**SEQ, "scale_embedding": True, "pad_token_id": 1}, quick=True),
    row("bert", quick=True),
    row("blenderbot", "", SEQ),
    row("camembert", "", {"pad_token_id": 1}),
    row("data2vec-text"),
    row("distilbert", "", {"dim": 32, "hidden_dim": 48, "n_layers": 3, "n_heads": 4}),
    row("electra", "", {"embedding_size": 24}, quick=True),
    row("electra", "wide", {"embedding_size": 32, "hidden_act": "relu"}),
    row("ernie"),
    row("marian", "", {**SEQ, "decoder_vocab_size": 96}),
    row("mbart", "", SEQ),
    row("megatron-bert", attention="eager"),
    row("modernbert", "", {"local_attention": 8, "num_hidden_layers": 5}, quick=True),
    row("modernbert", "biased", {**SHORT, "num_hidden_layers": 4}),
    row("pegasus", "", SEQ),
    row("plbart", "", SEQ),
    row("roberta", "", {"pad_token_id": 1}, quick=True),
    row("roberta-prelayernorm"),
    row("xlm-roberta"),
    row("cohere", "", {"logit_scale": 0.25}),
    row("cohere", "normed", {"use_qk_norm": True, "attention_bias": True}),
    row("cohere2", "", {"logit_scale": 0.25}),
    row("exaone4"),
    row("exaone4", "wide", UNSEEN),
    row("gemma2", "", {"hidden_size": 64, "final_logit_softcapping": 3.0}, attention="eager", quick=True),
    row("gemma3_text", "", {"hidden_size": 64, "final_logit_softcapping": 3.0, "num_hidden_layers": 7}),
    row(
        "granite",
        "",
        {
            "embedding_multiplier": 12.0,
            "logits_scaling": 8.0,
            "residual_multiplier": 0.22,
            "attention_multiplier": 0.125,
            "mlp_bias": True,
        },
        quick=True,
    ),
    row("helium"),
    row("hunyuan_v1_dense"),
    row("ministral"),
    row("opt", "", {**WIDE, "word_embed_proj_dim": 32}),
    row("opt", "narrow-post", {**WIDE, "word_embed_proj_dim": 24, "do_layer_norm_before": False}, quick=True),
    row("vaultgemma", "", {"hidden_size": 64, "final_logit_softcapping": 3.0}, attention="eager"),
)
