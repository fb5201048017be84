"""The compiler's own extensions."""

from __future__ import annotations

from pathlib import Path

from specc.components.attention import ATTENTION
from specc.components.cross_attention import CROSS_ATTENTION
from specc.components.ffn import FFN
from specc.components.gated_delta import GATED_DELTA
from specc.components.lightning import LIGHTNING
from specc.components.mamba import MAMBA
from specc.components.mamba2 import MAMBA2
from specc.components.mla import MLA
from specc.components.moe import MOE
from specc.components.rg_lru import RG_LRU
from specc.components.short_conv import SHORT_CONV
from specc.emit.expr import attention as attention_text
from specc.emit.expr import biases as biases_text
from specc.emit.expr import cache as cache_text
from specc.emit.expr import collectives as collectives_text
from specc.emit.expr import dense as dense_text
from specc.emit.expr import experts as experts_text
from specc.emit.expr import loss as loss_text
from specc.emit.expr import pool as pool_text
from specc.emit.expr import recurrent as recurrent_text
from specc.emit.expr import sources as sources_text
from specc.emit.expr import stem as stem_text
from specc.emit.forms import biases as bias_forms
from specc.emit.forms import dense as dense_forms
from specc.emit.forms import experts as experts_forms
from specc.emit.forms import recurrent as recurrent_forms
from specc.emit.forms import stem as stem_forms
from specc.extension import Extension, LayoutAxis
from specc.ir.types import TOKEN_AXES
from specc.ops import (
    attention,
    biases,
    cache,
    control,
    experts,
    features,
    matmul,
    norm,
    order,
    own,
    pointwise,
    pool,
    recurrent,
    routing,
    sources,
    stem,
)

AXES = (
    LayoutAxis(
        "dp",
        "Ranks that hold different samples (FSDP2).",
        "data parallel with FSDP2 over dp = {}, or what the ranks allow",
        tokens=("batch",),
        data=True,
    ),
    LayoutAxis(
        "cp",
        "Ranks that hold parts of every sample (context parallel).",
        "context parallel over cp = {}: rows are cut into parts, keys and values gathered",
        tokens=TOKEN_AXES,
        data=True,
    ),
    LayoutAxis(
        "ep",
        "Data ranks that hold different experts (expert parallel).",
        "expert parallel over ep = {} of the data ranks: experts are split, tokens go to them by all-to-all",
        tokens=("batch",),
        shards=("experts",),
        data=True,
    ),
    LayoutAxis(
        "tp",
        "Ranks that share every weight (tensor parallel).",
        "tensor parallel over tp = {}",
        tokens=TOKEN_AXES,
        when="sequence_parallel",
        shards=("vocab",),
        features=True,
    ),
)
KERNELS = tuple(sorted((Path(__file__).parent / "kernels").glob("[a-z]*.py")))

EXTENSIONS = (
    Extension(
        "core",
        ops=(*sources.OPS, *order.OPS, *control.OPS),
        expressions={**sources_text.TABLE, **collectives_text.TABLE, **loss_text.TABLE},
        kernels=KERNELS,
        functions="specc.interpret.table:TABLE",
        axes=AXES,
    ),
    Extension(
        "attention",
        (ATTENTION, CROSS_ATTENTION, MLA),
        (*attention.OPS, *features.OPS, *own.OPS),
        expressions=attention_text.TABLE,
        functions="specc.interpret.attention:TABLE",
    ),
    Extension(
        "biases",
        ops=biases.OPS,
        forms=bias_forms.FORMS,
        expressions=biases_text.TABLE,
        functions="specc.interpret.biases:TABLE",
    ),
    Extension("heads", ops=pool.OPS, expressions=pool_text.TABLE, functions="specc.interpret.pool:TABLE"),
    Extension(
        "stems",
        ops=stem.OPS,
        forms=stem_forms.FORMS,
        expressions=stem_text.TABLE,
        functions="specc.interpret.stem:TABLE",
    ),
    Extension("generation", ops=cache.OPS, expressions=cache_text.TABLE),
    Extension(
        "dense",
        (FFN,),
        (*matmul.OPS, *norm.OPS, *pointwise.OPS),
        forms=dense_forms.FORMS,
        expressions=dense_text.TABLE,
    ),
    Extension(
        "recurrent",
        (SHORT_CONV, MAMBA, MAMBA2, GATED_DELTA, RG_LRU, LIGHTNING),
        recurrent.OPS,
        recurrent_forms.FORMS,
        recurrent_text.TABLE,
        functions="specc.interpret.recurrent:TABLE",
    ),
    Extension(
        "experts",
        (MOE,),
        (*routing.OPS, *experts.OPS),
        forms=experts_forms.FORMS,
        expressions=experts_text.TABLE,
        functions="specc.interpret.experts:TABLE",
        alike={"slots": ("batch", *TOKEN_AXES)},
    ),
)
