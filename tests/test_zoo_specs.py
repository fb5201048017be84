"""Every spec of specs/zoo is built, in memory, and has as many parameters as its class of Hugging Face says."""

from __future__ import annotations

from pathlib import Path

import pytest

from specc.compile import compile_spec
from specc.emit import emit
from specc.ir.stored import total
from specc.source import Source
from specc.spec import Spec, load

ZOO = Path(__file__).parents[1] / "specs" / "zoo"
COUNTS = {
    "albert-base": 11_221_680,
    "apertus": 6_979_596_352,
    "arcee": 4_022_766_080,
    "bamba": 9_992_765_440,
    "bart-large": 406_291_456,
    "bert-base": 109_514_298,
    "bert-classifier": 109_483_778,
    "bitnet": 2_741_155_840,
    "blenderbot": 2_696_268_800,
    "bloom-560m": 559_214_592,
    "camembert": 109_514_298,
    "codestral-mamba-7b": 7_285_403_648,
    "cohere": 34_980_831_232,
    "command-r": 34_980_831_232,
    "command-r7b": 34_980_831_232,
    "dbrx": 2_459_207_680,
    "deepseek-v2": 38_612_307_968,
    "deepseek-v3": 671_026_404_352,
    "dinov2": 85_724_928,
    "dinov2-registers": 85_820_160,
    "distilbert": 66_985_530,
    "dots1": 163_585_920_960,
    "electra-small-generator": 13_546_682,
    "ernie4-5": 360_748_032,
    "ernie4-5-moe": 21_825_436_160,
    "exaone4": 9_429_069_824,
    "falcon-40b": 41_303_293_952,
    "falcon-7b": 6_921_720_704,
    "falcon-h1": 8_514_961_408,
    "falcon-h1-plain": 8_514_961_408,
    "falcon-mamba-7b": 7_272_665_088,
    "gemma-7b": 8_537_680_896,
    "gemma2-2b": 2_614_341_888,
    "gemma3-text": 2_628_658_432,
    "glm": 9_399_951_360,
    "glm4": 9_400_279_040,
    "glm4-moe": 106_851_586_048,
    "gpt-bigcode": 111_446_784,
    "gpt-neo": 1_315_575_808,
    "gpt-neox-20b": 20_554_567_680,
    "gpt-oss-120b": 116_829_156_672,
    "gptj": 6_050_882_784,
    "granite": 6_738_415_616,
    "granite-hybrid": 38_601_064_448,
    "granite-moe": 37_039_116_288,
    "helium": 2_172_643_840,
    "hunyuan-7b": 8_859_684_864,
    "hunyuan-moe": 13_188_337_664,
    "jamba": 51_570_323_328,
    "kimi-linear": 49_133_074_464,
    "lfm2": 2_705_497_600,
    "lfm2-1.2b": 1_170_340_608,
    "lfm2-8b-a1b": 8_339_929_856,
    "llama": 6_738_415_616,
    "llama4-scout": 107_769_861_120,
    "mamba": 159_308_544,
    "marian": 412_210_176,
    "mbart": 406_295_552,
    "megatron-bert": 333_671_808,
    "minicpm3": 4_073_875_968,
    "minimax": 47_373_946_880,
    "mistral": 7_241_732_096,
    "mixtral": 46_702_792_704,
    "modernbert": 149_655_232,
    "modernbert-base": 149_655_232,
    "mpt": 1_311_213_568,
    "mt5": 172_119_424,
    "nanochat": 256_573_440,
    "nemotron": 17_642_041_344,
    "nemotron-h": 1_968_355_712,
    "olmo": 6_888_095_744,
    "olmo-1b": 1_176_764_416,
    "olmo-hybrid": 7_430_870_688,
    "olmo2": 6_888_624_128,
    "olmo3": 6_888_624_128,
    "olmoe": 13_361_612_800,
    "opt": 125_239_296,
    "opt-350m": 331_196_416,
    "pegasus": 404_190_208,
    "persimmon": 9_397_175_296,
    "phi-1": 1_418_270_720,
    "phi3": 3_821_079_552,
    "plbart": 139_220_736,
    "qwen2": 12_049_846_272,
    "qwen2-moe": 14_315_784_192,
    "qwen3": 12_049_461_248,
    "qwen3-moe": 15_350_731_776,
    "qwen3-next": 79_674_391_296,
    "recurrent-gemma": 2_010_263_040,
    "roberta": 124_696_665,
    "roberta-prelayernorm": 124_698_201,
    "seed-oss": 28_921_040_896,
    "smollm3-3b": 3_075_098_624,
    "stablelm": 2_795_443_200,
    "starcoder2": 3_030_371_328,
    "t5": 60_506_624,
    "t5gemma": 5_596_853_760,
    "umt5": 172_122_112,
    "vaultgemma": 2_614_222_080,
    "vit-base": 86_567_656,
    "whisper-tiny": 37_184_640,
}


def test_every_spec_of_the_zoo_is_counted() -> None:
    assert sorted(path.stem for path in ZOO.iterdir()) == list(COUNTS)


@pytest.mark.parametrize("name", COUNTS)
def test_a_spec_of_the_zoo_is_built(name: str) -> None:
    found = load(Source(f"{name}.yaml", (ZOO / f"{name}.yaml").read_text()))
    assert isinstance(found, Spec) and found.model.name == name, found
    compiled = compile_spec(found, found.layout())
    assert total(compiled.placed) == COUNTS[name]
    assert "Block(nn.Module):" in emit(found, found.layout()).source
