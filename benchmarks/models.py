"""What a training step costs: generated files against Hugging Face's classes, a family of each kind, on one device.

    pip install -e '.[bench]'
    python -m benchmarks.models [seconds [family ...]]

Each goes the way that a user goes: the class writes a folder, `specc import` makes a spec of its config, `specc build`
the file, `specc weights to-specc` the weights that it starts from. The losses of the first steps are compared, then
both take turns in one process as in `benchmarks.step`: float32, one thread, no dropout, whole logits, clipping, the
fused AdamW.
"""

from __future__ import annotations

import inspect
import os
import statistics
import sys
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from benchmarks.step import AGREE, NOISE, NORM, Step, adamw, agree, loaded, specc, turns

BATCH, SEQ = 2, 256
LR = 1e-5  # small: a token that goes to another expert for a rounding is another loss
SIZES = {
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "vocab_size": 4096,
    "max_position_embeddings": SEQ,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
    "router_aux_loss_coef": 0.0,
    "attention_dropout": 0.0,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "dropout": 0.0,
}
"""What most families call their sizes; of these a config takes those that it has."""


@dataclass(frozen=True)
class Family:
    kind: str
    name: str
    cls: str
    sizes: Mapping[str, Any]
    attention: str = "sdpa"


FAMILIES = (
    Family("dense", "qwen3", "Qwen3ForCausalLM", {}),
    Family("dense, windows and caps", "gemma2", "Gemma2ForCausalLM", {"sliding_window": 64}, "eager"),
    Family("experts", "mixtral", "MixtralForCausalLM", {"num_local_experts": 8}),
    Family("fine experts", "qwen3_moe", "Qwen3MoeForCausalLM", {"num_experts": 32, "moe_intermediate_size": 128}),
    Family(
        "latents, experts",
        "deepseek_v3",
        "DeepseekV3ForCausalLM",
        {
            **{"q_lora_rank": 128, "kv_lora_rank": 64, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16},
            **{"v_head_dim": 32, "num_key_value_heads": 8, "head_dim": None, "first_k_dense_replace": 1},
            **{"n_routed_experts": 32, "moe_intermediate_size": 128, "num_experts_per_tok": 4},
            **{"n_group": 4, "topk_group": 2},
        },
    ),
    Family(
        "hybrid, delta rule",
        "olmo_hybrid",
        "OlmoHybridForCausalLM",
        {
            **{"linear_num_key_heads": 8, "linear_num_value_heads": 8},
            **{"linear_key_head_dim": 32, "linear_value_head_dim": 32},
        },
    ),
    Family("hybrid, short convolutions", "lfm2", "Lfm2ForCausalLM", {}),
    Family(
        "state space",
        "mamba2",
        "Mamba2ForCausalLM",
        {"num_heads": 16, "head_dim": 32, "state_size": 32, "n_groups": 1},
        "eager",
    ),
    Family(
        "encoder-decoder",
        "bart",
        "BartForConditionalGeneration",
        {
            **{"d_model": 256, "encoder_layers": 4, "decoder_layers": 4, "encoder_attention_heads": 8},
            **{"decoder_attention_heads": 8, "encoder_ffn_dim": 1024, "decoder_ffn_dim": 1024},
            **{"tie_word_embeddings": True},
        },
    ),
    Family("encoder", "bert", "BertForMaskedLM", {"intermediate_size": 1024, "tie_word_embeddings": True}),
    Family(
        "encoder, windows",
        "modernbert",
        "ModernBertForMaskedLM",
        {"local_attention": 64, "tie_word_embeddings": True, "cls_token_id": 1, "sep_token_id": 2},
    ),
)


def theirs(family: Family) -> Any:
    """The class with noise on every parameter."""
    kind: Any = getattr(transformers, family.cls)
    default = kind.config_class()
    known = {*default.to_dict(), *type(default).attribute_map}
    given = {name: value for name, value in SIZES.items() if name in known} | dict(family.sizes)
    config = kind.config_class(**{name: value for name, value in given.items() if value is not None})
    torch.manual_seed(0)
    config._attn_implementation = family.attention  # sdpa has no caps
    module = kind(config)
    with torch.no_grad():
        for p in module.parameters():
            p += NOISE * torch.randn_like(p)
    return module


def ours(module: Any, folder: Path) -> tuple[str, ModuleType]:
    """The text of the spec, and the file that specc makes of the folder of the class, which has its weights."""
    spec, start = folder / "spec.yaml", folder / "start"
    module.save_pretrained(folder / "theirs")
    specc("import", folder / "theirs", "--name", "model", "-o", spec)
    specc("build", spec, "-o", folder)
    specc("weights", "to-specc", spec, folder / "theirs", "-o", start)
    return spec.read_text(encoding="utf-8"), loaded(folder)


def trained(file: ModuleType, start: Path) -> tuple[nn.Module, Step]:
    trainer = file.Trainer(torch.device("cpu"), 0, LR)
    dcp.load(trainer.module.state_dict(), storage_reader=dcp.HuggingFaceStorageReader(str(start)), no_dist=True)
    return trainer.module, lambda *batch: trainer.step(*batch)[0]


WORDS = {
    "tokens": "input_ids",
    "source": "input_ids",
    "target": "decoder_input_ids",
    "types": "token_type_ids",
    "labels": "labels",
}


def trained_by(module: nn.Module, takes: list[str], masked: bool) -> Step:
    """Their forward; loss, clipping and update are torch's, as in ours."""
    optimizer = adamw(module.train(), LR)

    def step(*batch: Tensor) -> Tensor:
        given = {WORDS[name]: values for name, values in zip(takes, batch, strict=True)}
        labels = given.pop("labels")
        if masked:
            given["attention_mask"] = given["input_ids"].ne(0)
        optimizer.zero_grad()
        value = F.cross_entropy(module(**given).logits.flatten(0, 1), labels.flatten())
        value.backward()
        nn.utils.clip_grad_norm_(module.parameters(), NORM)
        optimizer.step()
        return value.detach()

    return step


def measure(family: Family, enough: float) -> str:
    """A row of the table."""
    module = theirs(family)
    with tempfile.TemporaryDirectory() as folder:
        spec, file = ours(module, Path(folder))
        own, step = trained(file, Path(folder) / "start")
    takes = list(inspect.signature(file.Trainer.step).parameters)[1:]
    generator = torch.Generator().manual_seed(0)
    vocab = module.config.vocab_size
    highest = [2 if name == "types" else vocab for name in takes]
    batches = [
        tuple(torch.randint(min(3, high - 1), high, (BATCH, SEQ), generator=generator) for high in highest)
        for _ in range(AGREE)
    ]
    steps = {"specc": step, "transformers": trained_by(module, takes, "pad:" in spec)}
    worst = agree(steps, batches)
    seconds = turns(steps, batches[0], enough)
    ratios = [a / b for a, b in zip(seconds["transformers"], seconds["specc"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    count = sum(p.numel() for p in own.parameters())
    mine, other = (statistics.median(seconds[name]) for name in ("specc", "transformers"))
    return (
        f"{family.name:<12} {family.kind:<27} {count / 1e6:5.1f} M {worst:7.0e} {mine:7.3f} {other:7.3f}"
        f" {middle:6.2f} {low:6.2f} {high:5.2f}"
    )


def main(enough: float, names: list[str]) -> None:
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", "torch.distributed is disabled")
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, one thread of {os.cpu_count()} cores")
    print(f"a batch of {BATCH} x {SEQ} tokens; CPU seconds of a step, and theirs through ours")
    print(f"{'family':<12} {'kind':<27} {'size':>7} {'losses':>7} {'specc':>7} {'theirs':>7} {'ratio':>6}    quartiles")
    for family in FAMILIES:
        if not names or family.name in names:
            print(measure(family, enough), flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 10.0, sys.argv[2:])
