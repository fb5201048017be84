"""The config that a class of Hugging Face has by default is imported as the family's spec in specs/zoo."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoConfig

from specc.emit import emit
from specc.interop.importing import Imported, import_config
from specc.source import Source
from specc.spec import Spec, load
from tests.test_families import NEEDS

ZOO = Path(__file__).parents[1] / "specs" / "zoo"
FAMILIES = {
    "apertus": "apertus",
    "arcee": "arcee",
    "bart": "bart-large",
    "bert": "bert-base",
    "bitnet": "bitnet",
    "bamba": "bamba",
    "blenderbot": "blenderbot",
    "camembert": "camembert",
    "codegen": "gptj",
    "cohere": "cohere",
    "cohere2": "command-r7b",
    "data2vec-text": "camembert",
    "dbrx": "dbrx",
    "deepseek_v2": "deepseek-v2",
    "deepseek_v3": "deepseek-v3",
    "dinov2": "dinov2",
    "dinov2_with_registers": "dinov2-registers",
    "distilbert": "distilbert",
    "dots1": "dots1",
    "electra": "electra-small-generator",
    "ernie": "bert-base",
    "ernie4_5": "ernie4-5",
    "ernie4_5_moe": "ernie4-5-moe",
    "exaone4": "exaone4",
    "falcon": "falcon-7b",
    "falcon_h1": "falcon-h1-plain",
    "gemma": "gemma-7b",
    "gemma2": "gemma2-2b",
    "glm": "glm",
    "glm4": "glm4",
    "glm4_moe": "glm4-moe",
    "gpt_bigcode": "gpt-bigcode",
    "gpt_neo": "gpt-neo",
    "gpt_neox": "gpt-neox-20b",
    "gpt_oss": "gpt-oss-120b",
    "gptj": "gptj",
    "granitemoe": "granite-moe",
    "granitemoehybrid": "granite-hybrid",
    "helium": "helium",
    "hunyuan_v1_dense": "hunyuan-7b",
    "hunyuan_v1_moe": "hunyuan-moe",
    "jamba": "jamba",
    "kimi_linear": "kimi-linear",
    "lfm2": "lfm2",
    "llama": "llama",
    "llama4_text": "llama4-scout",
    "mamba": "mamba",
    "mamba2": "codestral-mamba-7b",
    "marian": "marian",
    "mbart": "mbart",
    "megatron-bert": "megatron-bert",
    "minicpm3": "minicpm3",
    "minimax": "minimax",
    "ministral": "mistral",
    "mistral": "mistral",
    "mixtral": "mixtral",
    "modernbert": "modernbert",
    "mpt": "mpt",
    "mt5": "mt5",
    "nemotron": "nemotron",
    "nemotron_h": "nemotron-h",
    "olmo": "olmo",
    "olmo2": "olmo2",
    "olmo3": "olmo3",
    "olmo_hybrid": "olmo-hybrid",
    "olmoe": "olmoe",
    "opt": "opt",
    "pegasus": "pegasus",
    "persimmon": "persimmon",
    "phi": "phi-1",
    "phi3": "phi3",
    "plbart": "plbart",
    "qwen2": "qwen2",
    "qwen2_moe": "qwen2-moe",
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3-moe",
    "qwen3_next": "qwen3-next",
    "recurrent_gemma": "recurrent-gemma",
    "roberta": "roberta",
    "roberta-prelayernorm": "roberta-prelayernorm",
    "seed_oss": "seed-oss",
    "smollm3": "smollm3-3b",
    "stablelm": "stablelm",
    "starcoder2": "starcoder2",
    "t5": "t5",
    "t5gemma": "t5gemma",
    "umt5": "umt5",
    "vaultgemma": "vaultgemma",
    "whisper": "whisper-tiny",
    "xlm-roberta": "camembert",
}
"""The spec of each model type."""
GIVEN = {
    "deepseek_v2": {
        "num_experts_per_tok": 6,
        "topk_method": "group_limited_greedy",
        "n_group": 8,
        "topk_group": 3,
        "routed_scaling_factor": 16.0,
    },
    "dots1": NEEDS["dots1"],
    "glm4_moe": NEEDS["glm4_moe"],
}
"""What is not as the class has it by default."""


def digests(text: str) -> dict[str, str]:
    """What parameters there are, and what is computed of them."""
    found = load(Source("s.yaml", text))
    assert isinstance(found, Spec), found
    return {name: digits for name, digits in emit(found, found.layout()).digests if name != "layout"}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_default_config_is_the_spec(family: str) -> None:
    config = AutoConfig.for_model(family, **GIVEN.get(family, {})).to_dict()
    made = import_config(Source("config.json", json.dumps(config)))
    assert isinstance(made, Imported), made
    assert digests(made.text) == digests((ZOO / f"{FAMILIES[family]}.yaml").read_text())
