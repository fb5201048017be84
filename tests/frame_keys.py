"""Keys of norms, sublayers and stacks: for each a text, and a change of it that makes another file."""

from __future__ import annotations

from tests.broken import BOTH, DECODER, FFN

CROSS = "cross_attention: {heads: 4, head_dim: 8"
GENERAL = DECODER.replace(FFN, "- {norm: true, ffn: {hidden: 64, activation: silu}}")
BRANCHES = DECODER.replace(FFN, "- {parallel: [{ffn: {hidden: 64}}, {attention: {heads: 4}}]}")
KEPT = "{ffn: {hidden: 32}, into: a}, {parallel: [{ffn: {hidden: 8}, into: b}, {ffn: {hidden: 4}}]}, "
KEPT = f"{DECODER.partition('decoder')[0]}decoder: {{layers: 1, block: [{KEPT}{{ffn: {{hidden: 16}}, add: [a, b]}}]}}\n"
ZIPPED = f"{DECODER.partition('decoder')[0]}blocks: {{one: [{FFN[2:]}], two: [attention: {{heads: 4}}]}}\n"
ZIPPED += "decoder: {layers: 2, patterns: {a: [one], b: [two]}}\n"
OWN = GENERAL.replace("norm: true", "norm: {eps: 1e-3}")
PLAIN = DECODER.replace("{save: [attention.core]}", "full")
FRAME: dict[str, tuple[str, str, str]] = {
    "ModelNorm.kind": (DECODER, "kind: rms", "kind: layer"),
    "ModelNorm.eps": (DECODER, "eps: 1e-5", "eps: 1e-6"),
    "ModelNorm.bias": (DECODER, "kind: rms", "kind: rms, bias: true"),
    "ModelNorm.placement": (DECODER, "kind: rms", "kind: rms, placement: post"),
    "Norm.kind": (OWN, "{eps: 1e-3}", "{eps: 1e-3, kind: layer}"),
    "Norm.eps": (OWN, "{eps: 1e-3}", "{eps: 0.1}"),
    **{
        f"{model}.{key}": (base, old, f"{old}, {key}: {value}")
        for model, base, old in (("ModelNorm", DECODER, "kind: rms"), ("Norm", OWN, "{eps: 1e-3"))
        for key, value in (("weight", "false"), ("weight_offset", 1), ("groups", 4))
    },
    "Norm.bias": (OWN, "{eps: 1e-3}", "{eps: 1e-3, bias: true}"),
    "ResidualDoc.base": (DECODER, "vocab", "residual: {base: normed}\nvocab"),
    "ResidualDoc.alpha": (DECODER, "vocab", "residual: {alpha: 2}\nvocab"),
    "ResidualDoc.beta": (DECODER, "vocab", "residual: {beta: 2}\nvocab"),
    "Document.residual": (DECODER, "vocab", "residual: {beta: 1 / layers}\nvocab"),
    "StackDoc.patterns": (ZIPPED, "b: [two]", "b: [two, one]"),
    "StackDoc.norm": (BOTH, "  layers: 2\n", "  layers: 2\n  norm: {eps: 0.1}\n"),
    "StackDoc.d_model": (
        BOTH.replace("encoder, decoder, head", "decoder, head"),
        "  layers: 2\n",
        "  layers: 2\n  d_model: 64\n",
    ),
    "StackDoc.embedding": (BOTH, "  layers: 2\n", "  layers: 2\n  embedding: {scale: 2}\n"),
    **{
        f"StackEmbeddingDoc.{key}": (BOTH, "  layers: 2\n", f"  layers: 2\n  embedding: {{{key}: {value}}}\n")
        for key, value in (("scale", "1 / layers"), ("positions", "none"), ("norm", "true"), ("dropout", 0.1))
    },
    "SublayerDoc.attention": (DECODER, FFN, "- attention: {heads: 4}"),
    "SublayerDoc.cross_attention": (BOTH, f"- {CROSS}}}", f"- {CROSS}}}\n    - {CROSS}}}"),
    "SublayerDoc.gated_delta": (PLAIN, FFN, "- gated_delta: {heads: 4}"),
    "SublayerDoc.mamba": (PLAIN, FFN, "- mamba: {}"),
    "SublayerDoc.rg_lru": (PLAIN, FFN, "- rg_lru: {heads: 4}"),
    "SublayerDoc.lightning": (PLAIN, FFN, "- lightning: {heads: 4}"),
    "SublayerDoc.mamba2": (PLAIN, FFN, "- mamba2: {heads: 4}"),
    "SublayerDoc.short_conv": (PLAIN, FFN, "- short_conv: {}"),
    "SublayerDoc.mla": (DECODER, FFN, "- mla: {heads: 4, kv_rank: 8, nope_dim: 8, rope_dim: 4}"),
    "SublayerDoc.ffn": (DECODER, FFN, "- ffn: {hidden: 64}\n    - ffn: {hidden: 64}"),
    "SublayerDoc.moe": (DECODER, FFN, "- moe: {experts: 4, top_k: 2, hidden: 16}"),
    "SublayerDoc.parallel": (BRANCHES, "4}}]", "4}}, {ffn: {hidden: 64}}]"),
    **{
        f"SublayerDoc.{key}": (GENERAL, "norm: true", change)
        for key, change in {
            "norm": "norm: {eps: 0.1}",
            "placement": "placement: sandwich",
            "pre": "pre: {eps: 0.1}",
            "post": "norm: true, post: true",
            "after": "norm: true, after: true",
            "base": "norm: true, base: normed",
            "alpha": "norm: true, alpha: 2",
            "beta": "norm: true, beta: 2",
            "in_scale": "norm: true, in_scale: 2",
            "out_scale": "norm: true, out_scale: 2",
            "layerscale": "norm: true, layerscale: 2",
            "dropout": "norm: true, dropout: 0.1",
            "after_scale": "norm: true, after_scale: 2",
        }.items()
    },
    "SublayerDoc.into": (KEPT, "{ffn: {hidden: 32}, into: a}", "{ffn: {hidden: 32}, out_scale: 2, into: a}"),
    "SublayerDoc.add": (KEPT, "add: [a, b]", "add: [b, a]"),
    "BranchDoc.into": (
        KEPT,
        "{ffn: {hidden: 8}, into: b}, {ffn: {hidden: 4}}",
        "{ffn: {hidden: 8}}, {ffn: {hidden: 4}, into: b}",
    ),
    "BranchDoc.attention": (BRANCHES, "{ffn: {hidden: 64}}", "{attention: {heads: 4}}"),
    "BranchDoc.mla": (BRANCHES, "{ffn: {hidden: 64}}", "{mla: {heads: 4, kv_rank: 8, nope_dim: 8, rope_dim: 4}}"),
    "BranchDoc.ffn": (BRANCHES, "{ffn: {hidden: 64}}", "{ffn: {hidden: 32}}"),
    "BranchDoc.gated_delta": (BRANCHES, "{ffn: {hidden: 64}}", "{gated_delta: {heads: 4}}"),
    "BranchDoc.mamba": (BRANCHES, "{ffn: {hidden: 64}}", "{mamba: {}}"),
    "BranchDoc.rg_lru": (BRANCHES, "{ffn: {hidden: 64}}", "{rg_lru: {heads: 4}}"),
    "BranchDoc.lightning": (BRANCHES, "{ffn: {hidden: 64}}", "{lightning: {heads: 4}}"),
    "BranchDoc.mamba2": (BRANCHES, "{ffn: {hidden: 64}}", "{mamba2: {heads: 4}}"),
    "BranchDoc.short_conv": (BRANCHES, "{ffn: {hidden: 64}}", "{short_conv: {}}"),
    "BranchDoc.moe": (BRANCHES, "{ffn: {hidden: 64}}", "{moe: {experts: 4, top_k: 2, hidden: 16}}"),
    "BranchDoc.cross_attention": (BOTH, f"- {CROSS}}}", f"- parallel: [{{{CROSS}}}}}, {{ffn: {{hidden: 64}}}}]"),
    **{
        f"BranchDoc.{key}": (BRANCHES, "{ffn", f"{{{key}: {value}, ffn")
        for key, value in {
            "pre": "true",
            "post": "true",
            "in_scale": 2,
            "out_scale": 2,
            "layerscale": 2,
            "dropout": 0.1,
        }.items()
    },
}
