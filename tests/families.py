"""Families of Hugging Face in small sizes, and one of their models against the interpreter, by the mapping alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import AutoConfig, PreTrainedConfig

from specc.interop import weights
from specc.interop.importing import Imported, import_config
from specc.interop.library import known
from specc.interop.move import to_own
from specc.interop.plan import Part, Plan, parameters, plan
from specc.interpret import interpret
from specc.kernels.positions import sinusoid_of
from specc.lower import lower
from specc.passes import typed
from specc.source import Source
from specc.spec import Model, Spec, load
from specc.verify.run import in_double
from tests.family_ends import ENDS

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 96,
    "max_position_embeddings": 64,
    "sliding_window": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
"""What most families call their sizes; those that a config has not are left out, None in a row takes one out."""


@dataclass(frozen=True)
class Row:
    """A config of a family. `quick` ones are in every run, the others behind the marker zoo."""

    family: str
    name: str = ""
    sizes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    quick: bool = False
    attention: str = "sdpa"
    double: bool = False
    """Its buffers are made in float64, so that what they hold is as exact as ours."""

    def __str__(self) -> str:
        return f"{self.family}{'-' * bool(self.name)}{self.name}"

    def config(self) -> PreTrainedConfig:
        known = AutoConfig.for_model(self.family)
        names = {*known.to_dict(), *type(known).attribute_map}
        own = type(known).attribute_map
        given = {own.get(key, key): value for key, value in SMALL.items() if key in names} | dict(self.sizes)
        made = AutoConfig.for_model(self.family, **{key: value for key, value in given.items() if value is not None})
        made._attn_implementation = self.attention
        made._experts_implementation = "eager"
        return made


OLD = {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 64, "vocab_size": 96}
LLAMA3 = {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
YARN = {"rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0, "original_max_position_embeddings": 16}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 100.0,
    "partial_rotary_factor": 1.0,
    "factor": 4.0,
    "short_factor": [1.0, 1.25, 1.5, 2.0],
    "long_factor": [1.0, 2.0, 3.0, 4.0],
}
WHOLE_YARN = {**YARN, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False}
UNSEEN = {"sliding_window": None}
EXPERTS = {"num_experts_per_tok": 3, "router_aux_loss_coef": 0.7}
FINE = {**EXPERTS, "num_experts": 6, "moe_intermediate_size": 24}
MPT = {"d_model": 48, "n_layers": 3, "n_heads": 6, "max_seq_len": 64, "vocab_size": 96}
LIMITED = {
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "n_group": 4,
    "topk_group": 2,
    "moe_intermediate_size": 24,
    "n_shared_experts": 2,
    "routed_scaling_factor": 1.5,
    "first_k_dense_replace": 1,
    "head_dim": None,
    "num_key_value_heads": 4,
    "q_lora_rank": 20,
    "kv_lora_rank": 12,
    "qk_nope_head_dim": 6,
    "qk_rope_head_dim": 4,
    "v_head_dim": 10,
}
OLDER = {**OLD, "rotary_dim": 4}
MIXED = {"layer_types": ["conv", "full_attention", "conv", "conv"]}
SPACE = {"num_heads": 8, "head_dim": 8, "state_size": 6, "chunk_size": 8}
FACTORS = {"linear_attn_alpha_factor": 1.5, "linear_attn_beta_factor": 0.7, "mlp_alpha_factor": 1.25, "block_size": 8}
ROWS = (
    Row("afmoe", "", {**FINE, "num_hidden_layers": 5, "route_scale": 1.5, "router_aux_loss_coef": None}),
    Row("apertus", "", {"rope_parameters": {"rope_theta": 100.0, "rope_type": "default"}}),
    Row("arcee"),
    Row("bitnet"),
    Row("codegen", "", {**OLDER, "n_ctx": 64}, attention="eager"),
    Row("deepseek_v3", "", LIMITED, quick=True),
    Row("deepseek_v3", "whole-queries", {**LIMITED, "q_lora_rank": None, "norm_topk_prob": False}),
    Row("falcon", quick=True),
    Row("falcon", "grouped", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    Row("falcon", "grouped-one-norm", {"new_decoder_architecture": True, "num_ln_in_parallel_attn": 1, "bias": True}),
    Row("falcon", "slopes", {"alibi": True, "num_attention_heads": 8}),
    Row(
        "falcon", "slopes-each", {"alibi": True, "multi_query": False, "parallel_attn": False, "num_attention_heads": 8}
    ),
    Row("gemma", "", {"hidden_size": 64}),  # its root is exact: they round it to float32
    Row("glm"),
    Row("glm4"),
    Row("gpt2", "", OLD, quick=True),
    Row("gpt2", "narrow-untied", {**OLD, "n_inner": 40, "tie_word_embeddings": False}),
    Row("gpt_bigcode", "", OLD),
    Row("gpt_bigcode", "many", {**OLD, "multi_query": False}, quick=True),
    Row(
        "gpt_neo",
        "",
        {
            "hidden_size": 32,
            "num_layers": 4,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 2]],
            "window_size": 8,
        },
        attention="eager",
    ),
    Row("gpt_neox"),
    Row("gpt_neox", "in-turn", {"use_parallel_residual": False, "attention_bias": False}),
    Row("gpt_oss", "", {**EXPERTS, "num_local_experts": 6, "rope_parameters": WHOLE_YARN}, attention="eager"),
    Row("gptj", "", OLDER, attention="eager"),
    Row("lfm2", "", {**MIXED, "block_auto_adjust_ff_dim": False, "conv_bias": True}, quick=True),
    Row("lfm2", "rounded", {**MIXED, "full_attn_idxs": [1], "layer_types": None, "tie_word_embeddings": False}),
    Row("llama", quick=True),
    Row("llama", "scaled-tied", {"rope_parameters": {"rope_theta": 100.0, "rope_type": "llama3", **LLAMA3}}),
    Row("llama", "yarn", {"rope_parameters": YARN}),
    Row("llama", "yarn-weaker", {"rope_parameters": {**YARN, "attention_factor": 1.5, "truncate": False}}),
    Row("llama", "biases", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    Row("mamba", "", {"state_size": 5, "time_step_rank": 3, "use_bias": True}, attention="eager"),
    Row("falcon_mamba", "", {"state_size": 5, "tie_word_embeddings": False}, attention="eager"),
    Row("mamba2", "", {**SPACE, "n_groups": 2}, quick=True, attention="eager"),
    Row(
        "mamba2", "limits", {**SPACE, "n_groups": 1, "time_step_limit": [0.1, 0.5], "use_bias": True}, attention="eager"
    ),
    Row("minimax", "", {**FACTORS, "num_local_experts": 4, "sliding_window": None}, double=True),
    Row("mistral", quick=True),
    Row("mistral", "wide", UNSEEN),
    Row("mixtral", "", {**EXPERTS, "num_local_experts": 6}, quick=True),
    Row("mixtral", "window-alone", {**EXPERTS, "num_local_experts": 6, "num_hidden_layers": 1, "sliding_window": None}),
    Row("mpt", "", MPT, attention="eager"),
    Row("mpt", "clipped", {**MPT, "attn_config": {"clip_qkv": 0.3, "softmax_scale": 0.5}}, attention="eager"),
    Row("nemotron", "", {"norm_eps": 1e-2}),
    Row("olmo", "", {"clip_qkv": 0.2}),
    Row("olmo2", quick=True),
    Row("olmo3"),
    Row(
        "olmo_hybrid",
        "",
        {
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 6,
            "linear_value_head_dim": 5,
        },
        quick=True,
    ),
    Row("olmoe", "", {**EXPERTS, "num_experts": 6, "clip_qkv": 0.2}),
    Row("persimmon"),
    Row("phi", "", {"head_dim": None}),
    Row("phi3", "", UNSEEN, quick=True),
    Row("phi3", "window"),
    Row("phi3", "longrope", {**UNSEEN, "original_max_position_embeddings": 16, "rope_parameters": LONGROPE}),
    Row("phi3", "longrope-within", {**UNSEEN, "original_max_position_embeddings": 40, "rope_parameters": LONGROPE}),
    Row("qwen2"),
    Row("qwen2_moe", "", {**FINE, "shared_expert_intermediate_size": 40}, quick=True),
    Row("qwen3", "", UNSEEN),
    Row("qwen3_moe", "", {**FINE, "norm_topk_prob": True}),
    Row("seed_oss"),
    Row("smollm3", "", {"no_rope_layer_interval": 3, "num_hidden_layers": 5, **UNSEEN}, quick=True),
    Row("stablelm", "", {"head_dim": None}),
    Row("stablelm", "parallel-biases", {"head_dim": None, "use_parallel_residual": True, "use_qkv_bias": True}),
    Row("starcoder2"),
    Row("starcoder2", "plain", {**UNSEEN, "use_bias": False, "tie_word_embeddings": False}),
    *(Row(*of) for of in ENDS),
)


class Double(TorchFunctionMode):
    """What a model computes in float32 whatever its type is computed in float64, but for the angles of a rope.

    So are means of whole numbers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.off = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self.off and func is Tensor.float and args[0].dtype == torch.int64:
            return args[0].double()
        if not self.off and args and isinstance(args[0], Tensor) and args[0].dtype == torch.float64:
            cast = func in (Tensor.to, Tensor.type) and torch.float32 in (*args[1:], kwargs.get("dtype"))
            if func is Tensor.float or cast:
                return args[0]
            if func in (F.softmax, torch.softmax, Tensor.softmax) and kwargs.get("dtype") is torch.float32:
                kwargs = {**kwargs, "dtype": torch.float64}
        return func(*args, **kwargs)


@contextmanager
def double(model: nn.Module) -> Any:
    """The model computes in float64."""
    mode = Double()
    hooks: list[Any] = []
    for module in model.modules():
        if "Rotary" in type(module).__name__:
            hooks.append(module.register_forward_pre_hook(lambda *_: setattr(mode, "off", mode.off + 1)))
            hooks.append(module.register_forward_hook(lambda *_: setattr(mode, "off", mode.off - 1)))
    with mode:
        yield
    for hook in hooks:
        hook.remove()


def _kept(model: nn.Module, buffer: Tensor) -> bool:
    """Whether it is saved with parameters."""
    return any(buffer is other for other in model.state_dict(keep_vars=True).values())


def reference(config: PreTrainedConfig, seed: int = 0, double: bool = False) -> nn.Module:
    """The model of others in float64 with noise on every parameter, and on buffers that are saved."""
    torch.manual_seed(seed)
    with in_double() if double else nullcontext():
        model = built(config).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        buffers = [x for name, x in model.named_buffers() if name != "final_logits_bias" and _kept(model, x)]
        for parameter in (*trained(model).values(), *buffers):  # that bias must be zero: specc has none
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.2)
    return model


def built(config: PreTrainedConfig) -> nn.Module:
    """A model of the class that the family's mapping is of."""
    return getattr(transformers, known(config.model_type).architecture)._from_config(config)


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Its parameters, without tables that are never trained."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def left_out(plan: Plan, name: str) -> bool:
    """Whether a tensor of others is no parameter of ours."""
    return plan.dropped(name) or plan.zero(name)


def same_sinusoids(model: Model, theirs: nn.Module) -> None:
    """Tables of others are rounded otherwise: they are compared, and from there on they are ours."""
    for name, table in theirs.named_parameters():
        if table.requires_grad:
            continue
        embed = next(stack.embed for stack in model.stacks if stack.role in name)
        positions = embed and embed.positions
        assert positions is not None
        places = torch.arange(len(table)) + positions.offset
        steps, dim = model.d_model // 2 - positions.endpoint, -2 if positions.halves else -1
        made = sinusoid_of(places, model.d_model, steps, dim)
        assert (table - made).abs().max() < 1e-5
        table.data.copy_(made)


def inputs(model: Model) -> tuple[tuple[Tensor, ...], dict[str, Tensor], Tensor]:
    """Ours, the same as others call it, and where there are tokens that logits come of. Sources end in padding."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 96, (3, 23), generator=generator)
    if model.stacks[0].role == "decoder":
        return (ids,), {"input_ids": ids}, torch.ones_like(ids)
    real = torch.arange(23) < torch.tensor((23, 11, 17)).unsqueeze(-1)
    ids = ids.where(real, 0 if model.pad is None else model.pad)
    fed = {"input_ids": ids, "attention_mask": real.long()}
    if len(model.stacks) > 1:
        target = torch.randint(3, 96, (3, 9), generator=generator)
        return (ids, target), {**fed, "decoder_input_ids": target}, torch.ones_like(target)
    if "types" not in model.inputs:
        return (ids,), fed, real
    types = torch.randint(model.embed.types, ids.shape, generator=generator)
    return (ids, types), {**fed, "token_type_ids": types}, real


def spec_of(config: PreTrainedConfig) -> tuple[Imported, Model]:
    """The spec that a config imports as."""
    made = import_config(Source("config.json", json.dumps(config.to_dict(), indent=2)))
    assert isinstance(made, Imported), made
    spec = load(Source("spec.yaml", made.text))
    assert isinstance(spec, Spec), spec
    return made, spec.model


def plan_of(made: Imported, model: Model) -> Plan:
    found = plan(made.mapping, parameters(lower(model)))
    assert isinstance(found, Plan), found
    return found


def save(model: nn.Module, folder: Path) -> dict[str, Tensor]:
    """Its whole state in one file, tied tensors under each of their names."""
    folder.mkdir()
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    return state


def terms(model: Any, logits: tuple[Tensor, ...], rows: int) -> Tensor:
    """What their loss has for the balance of experts in each layer and each row of a batch, for each token."""
    module, config = sys.modules[type(model).__module__], model.config
    experts, top_k = logits[0].size(-1), config.num_experts_per_tok
    each = [row for layer in logits for row in layer.chunk(rows)]
    parts = [module.load_balancing_loss_func((row,), experts, top_k) * len(row) for row in each]
    return config.router_aux_loss_coef * torch.stack(parts).sum()


def compare(row: Row, folder: Path) -> float:
    """Logits and every gradient of both, weights going through files by the mapping; and the way back, bit by bit.

    The largest difference.
    """
    config = row.config()
    made, model = spec_of(config)
    wanted = plan_of(made, model)
    theirs = reference(config, double=row.double)
    same_sinusoids(model, theirs)
    state = save(theirs, folder / "theirs")
    assert weights.to_specc(wanted, folder / "theirs", folder / "ours", 40_000) == []
    own = {name: tensor for path in (folder / "ours").glob("*.safetensors") for name, tensor in load_file(path).items()}
    ours = interpret(typed(lower(model)), dtype=torch.float64).eval()
    ours.load_state_dict(own, strict=True)
    assert weights.to_hf(wanted, folder / "ours", folder / "back") == []
    back = load_file(folder / "back" / "model.safetensors")
    copies = {copy for tensor in wanted.tensors for copy in tensor.copies} - {t.name for t in wanted.tensors}
    assert set(back) | copies | {name for name in state if left_out(wanted, name)} >= set(state)
    assert all(torch.equal(back[name], state[name]) for name in back)
    own_inputs, their_inputs, told = inputs(model)
    given = ours(*own_inputs)
    actual, *own_terms = given if isinstance(given, tuple) else (given,)
    with double(theirs):
        found = theirs(**their_inputs, **({"output_router_logits": True} if own_terms else {}))
        rows = len(own_inputs[0])
        expected, their_terms = found.logits, [terms(theirs, found.router_logits, rows) for _ in own_terms]
    probe = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    probe = probe * told.unsqueeze(-1)
    torch.stack([(expected * probe).sum(), *their_terms]).sum().backward()
    torch.stack([(actual * probe).sum(), *own_terms]).sum().backward()
    pairs = {"logits": (actual, expected)}
    pairs |= dict(zip(("terms",), zip(own_terms, their_terms, strict=True), strict=False))
    gradients = {name: p.grad for name, p in trained(theirs).items() if p.requires_grad}
    mine = dict(ours.named_parameters())
    covered: set[str] = set()
    still = {name for name in state if name not in gradients}
    for tensor in wanted.tensors:
        names = [name for name in (tensor.name, *tensor.copies) if name in gradients]  # of a shared one the first
        if not names and tensor.name in still:
            continue
        covered.add(names[0])
        whole = gradients[names[0]]
        assert whole is not None, f"{tensor.name} has no gradient"
        for part in tensor.parts:
            pairs[part.name] = (mine[part.name].grad, to_own(whole, Part(part.name, part.view)))
    assert covered == set(gradients), covered ^ set(gradients)
    worst = 0.0
    for name, (a, b) in pairs.items():
        assert a is not None and a.shape == b.shape and a.dtype == b.dtype == torch.float64, name
        assert bool(b.isfinite().all()) and bool((b != 0).any()), f"{name}: the reference shows nothing"
        difference = (a - b).abs().max().item() / max(1.0, b.abs().max().item())
        assert difference <= 1e-9, f"{name}: difference {difference:.3g}"  # false for NaN
        worst = max(worst, difference)
    return worst
