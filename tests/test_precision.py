"""In what a file computes: weights, gradients, norm and loss in float32, what is between in the layout's precision."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from specc.source import Source
from specc.spec import Spec, load
from specc.spec.core import Checkpoint, Layout, Model, Pipeline
from specc.verify import run
from specc.verify.course import LR, MAX_NORM, SEED
from specc.verify.launch import run_ranks
from specc.verify.relations import Setting, setting
from specc.verify.run import load_file, world_size
from specc.verify.shrink import shrink
from tests import models
from tests.files import file_of, source_of
from tests.test_axes import FEATURES, spec_of

CPU = torch.device("cpu")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SHELLS = {
    "one": Layout(),
    "tp": Layout(tp=2),
    "tp sp": Layout(tp=2, sequence_parallel=True, checkpoint=Checkpoint(every=1)),
    "dp": Layout(dp=2, checkpoint=Checkpoint(every=2)),
    "dp parts": Layout(dp=2, microbatches=2),
    "pp": Layout(pp=Pipeline(2, "1f1b"), microbatches=2),
    "pp tp sp dp": Layout(dp=2, tp=2, sequence_parallel=True, pp=Pipeline(2, "1f1b"), microbatches=2),
}
CASES = [
    *(("llama", shell) for shell in SHELLS),
    ("gpt2", "tp sp"),
    ("gpt2", "pp"),
    ("llama-tied", "pp tp sp dp"),
    ("patterned", "tp"),
    ("transformer", "one"),
    ("transformer", "tp sp"),
    ("transformer", "pp"),
    ("transformer", "dp"),
    ("packed", "pp tp sp dp"),
    ("packed gpt2", "pp"),
]
MODELS = {
    **models.MODELS,
    "packed": replace(models.MODELS["llama"], inputs=("segments",)),
    "packed gpt2": replace(models.MODELS["gpt2"], inputs=("segments",)),
}
NEAR = {"fp32": 1e-5, "bf16": 0.01, "fp16": 0.002}
"""Losses, relative to those of float64."""


# --- text


def test_a_file_casts_in_half_precision_and_between_stages() -> None:
    """Else it is a model as one writes it, in whatever type it is built."""
    for name, layout in SHELLS.items():
        for word, dtype in DTYPES.items():
            source = source_of(MODELS["llama"], replace(layout, precision=word))
            said = word != "fp32" or "pp" in name
            assert ("COMPUTE" in source) == said, (name, word)
            if said:
                assert f"\nCOMPUTE = {dtype}  # " in source
    assert "nn.Linear(" in source_of(MODELS["llama"], SHELLS["one"])


@pytest.mark.parametrize("name", MODELS)
def test_weights_are_cast_where_they_are_used_or_by_fsdp(name: str) -> None:
    """A table is cast after the lookup, so that its gradient is summed in float32."""
    policy = "MixedPrecisionPolicy(param_dtype=COMPUTE, reduce_dtype=REDUCE, cast_forward_inputs=False)"
    for shell, layout in {**SHELLS, "tp dp": Layout(tp=2, dp=2)}.items():
        source = source_of(MODELS[name], replace(layout, precision="bf16"))
        data = "dp" in shell
        assert source.count(policy) == data
        assert source.count("mp_policy=policy") == source.count("fully_shard(")
        tables = re.search("rope|-torch.inf", source)  # are cast with dp, too
        assert bool(re.search(r"\b(weight|bias|local\(\)|\))\.to\(COMPUTE\)", source)) != data or tables
        assert all(
            line.endswith(").to(COMPUTE)") for line in re.findall(r"rope = (.*)  #", source)
        )  # once for all layers
        calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
        for call in calls:
            read = [ast.unparse(given) for given in call.args[1:] if "self." in ast.unparse(given)]
            if ast.unparse(call.func) in ("F.linear", "F.rms_norm", "F.layer_norm"):
                assert all((".to(COMPUTE)" in word) != data for word in read if re.search("weight|bias", word)), read
        for line in re.findall(r"return F\.embedding\(.*", source):
            assert (").to(COMPUTE)" in line) != data


MIXERS = {
    "selective_scan": "mamba: {}",
    "state_space": "mamba2: {heads: 4}",
    "delta_rule": "gated_delta: {heads: 4}",
    "gated_recurrence": "rg_lru: {heads: 4}",
}
RECURRENT = """
specc: 1
name: recurrent
d_model: 32
vocab: 50
norm: {{kind: rms, eps: 1e-5}}
decoder: {{layers: 1, block: [{mixer}, ffn: {{hidden: 40}}]}}
"""


@pytest.mark.parametrize("kernel", MIXERS)
def test_recurrences_read_their_parameters_as_they_are_stored(kernel: str) -> None:
    """Rates of decay lose steps in half precision, which add up over a sequence; what they act on is in it."""
    spec = load(Source("recurrent.yaml", RECURRENT.format(mixer=MIXERS[kernel])))
    assert isinstance(spec, Spec), spec
    file = file_of(spec.model, Layout(precision="bf16"))
    module = file.build_model(CPU, SEED)
    given: list[Tensor] = []
    compute = getattr(file, kernel)

    def seen(*values: Tensor, **more: Any) -> Tensor:
        given.extend(values)
        return compute(*values, **more)

    file.__dict__[kernel] = seen
    module(torch.arange(12).view(1, -1))
    held = {id(p) for p in module.parameters()}
    read = [x for x in given if id(x) in held]
    assert read and all(x.dtype == torch.float32 for x in read)
    assert all(x.dtype == torch.bfloat16 for x in given if id(x) not in held)


# --- a step on ranks


@dataclass(frozen=True)
class Told:
    """What a rank tells of a step. `after`: the loss after it, of training and evaluation.

    `seen`: types of what its module takes and gives, token ids apart; `stored`: of weights and their gradients; `sums`:
    of loss and norm.
    """

    loss: float
    norm: float
    after: tuple[float, float]
    seen: set[torch.dtype]
    stored: set[torch.dtype]
    sums: set[torch.dtype]
    gradients: dict[str, Tensor]


def stepped(
    source: str,
    layout: Layout,
    found: Setting,
    default: torch.dtype = torch.float32,
    to: torch.dtype | None = None,
    smaller: float = 1.0,
    scale: float = 1.0,
) -> dict[str, Any]:
    """A step and the loss after it, from noisy weights, as `Told` takes it.

    `to`: what the module is cast to when it is built. The loss is made `smaller` and its gradients larger by `scale`.
    """
    torch.set_default_dtype(default)
    file = load_file(source, "file")
    inputs, labels, sizes = found.batch.inputs, found.batch.labels, []
    if world_size(layout) > 1:
        mesh = file.device_mesh("cpu")
        inputs, labels = tuple(run.own(x, layout, mesh) for x in inputs), run.own(labels, layout, mesh)
        sizes = [mesh, CPU, len(labels), *dict.fromkeys(x.size(1) for x in inputs)]
    trainer = file.Trainer(*(sizes or [CPU]), seed=SEED, lr=LR)
    module = trainer.module.eval()
    for name, p in module.named_parameters():
        run.fill(p, found.weights[name])
    if to is not None:
        module.to(to)
    seen = _watched(module)
    count = found.batch.labels.ne(-100).sum() * torch.tensor(smaller / scale) if smaller > 1 else None
    loss = trainer.forward_backward(*inputs, labels, count)
    gradients = {name: _double(p.grad) * smaller / scale for name, p in module.named_parameters()}
    stored = {x.dtype for p in module.parameters() for x in (p, p.grad)}
    norm = trainer.clip_gradients(MAX_NORM)
    sums = {loss.dtype, norm.dtype}
    trainer.optimizer.step()
    trainer.optimizer.zero_grad()
    after = trainer.forward_backward(*inputs, labels)
    total, number = trainer.evaluate(*inputs, labels)
    logits = trainer.predict(*inputs)
    seen |= {logits.dtype} if logits is not None else set()
    return vars(Told(float(loss), float(norm), (float(after), float(total / number)), seen, stored, sums, gradients))


def _watched(module: nn.Module) -> set[torch.dtype]:
    seen: set[torch.dtype] = set()

    def look(module: nn.Module, args: tuple[Tensor, ...], result: Any) -> None:
        values = (*args, *(result if isinstance(result, tuple) else (result,)))
        seen.update(x.dtype for x in values if x.is_floating_point())

    module.register_forward_hook(look)
    return seen


def _double(p: Tensor) -> Tensor:
    return (p.full_tensor() if isinstance(p, DTensor) else p).double()


@cache
def wanted(model: Model, layout: Layout) -> tuple[Setting, float]:
    """Noisy weights, a batch, its step in float64, and the loss after that step."""
    found = setting(model, layout)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    file = file_of(model)
    module = file.build_model(CPU, SEED).eval()
    module.load_state_dict(found.reference.weights)
    labels = found.batch.labels
    after = file.loss(module(*found.batch.inputs), labels, 1 / labels.ne(-100).sum()).item()
    torch.set_default_dtype(before)
    return found, after


def relative(results: list[Told], wanted: dict[str, Tensor]) -> float:
    """The norm of the difference of all gradients over theirs; a weight that several ranks tell counts once."""
    assert {name for one in results for name in one.gradients} == set(wanted)
    ours = {name: grad for one in results for name, grad in one.gradients.items()}
    off = sum(float((torch.as_tensor(ours[name]) - grad).square().sum()) for name, grad in wanted.items())
    return (off / sum(float(grad.square().sum()) for grad in wanted.values())) ** 0.5


def told(model: Model, layout: Layout, found: Setting, *options: Any) -> list[Told]:
    """What all ranks tell of a step."""
    ranks, arguments = world_size(layout), (source_of(model, layout), layout, found, *options)
    answers = run_ranks(ranks, stepped, *arguments) if ranks > 1 else [stepped(*arguments)]
    return [Told(**answer) for answer in answers]


@cache
def rounding(model: Model, layout: Layout) -> float:
    """How far gradients on one device are off; of the batch that ranks of the layout are fed."""
    found, _ = wanted(model, replace(layout, precision="fp32"))
    return relative(told(model, Layout(precision=layout.precision), found), found.reference.gradients)


def check(model: Model, layout: Layout, near: float, *options: Any) -> list[Told]:
    """A step on all ranks of the layout is that of float64, its gradients as far as they can be in its precision."""
    found, after = wanted(model, replace(layout, precision="fp32"))
    results = told(model, layout, found, *options)
    assert abs(after - found.reference.loss) > 0.1 * after  # an update that is left out is seen in the loss after it
    for one in results:
        assert (one.loss, *one.after) == pytest.approx((found.reference.loss, after, after), rel=near)
        assert one.norm == pytest.approx(found.reference.norm, rel=5 * near)
    return results


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("name", "shell"), CASES)
def test_a_step_of_every_shell_is_near_that_in_double(name: str, shell: str, precision: str) -> None:
    """Weights and gradients stay in float32; what enters and leaves a stage is in the precision."""
    model, layout = MODELS[name], replace(SHELLS[shell], precision=precision)
    results = check(model, layout, NEAR[precision])
    for one in results:
        assert one.stored == one.sums == {torch.float32}
        assert one.seen == {DTYPES[precision]}
    found, _ = wanted(model, SHELLS[shell])
    worst = 1e-5 if precision == "fp32" else 2 * rounding(model, layout)
    assert relative(results, found.reference.gradients) <= worst <= 0.3


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("layout", ["{fp: 2}", "{dp: 2, fp: 2}"])
def test_gradients_that_are_sums_need_nothing_that_gloo_has_not(layout: str, precision: str) -> None:
    """Where a data axis splits weights, FSDP2 must not average: by a factor of 1 alone it would ask for PREMUL_SUM."""
    spec = spec_of(layout, FEATURES)
    model, ranks = shrink(spec.model, replace(spec.layout(), precision=precision), 8)
    results = check(model, ranks, NEAR[precision])
    assert all(one.stored == {torch.float32} and one.seen == {DTYPES[precision]} for one in results)
    found, _ = wanted(model, replace(ranks, precision="fp32"))
    worst = 1e-5 if precision == "fp32" else 2 * rounding(model, ranks)
    assert relative(results, found.reference.gradients) <= worst <= 0.3


@pytest.mark.parametrize("shell", ["pp", "tp sp"])
def test_half_precision_is_that_of_16_bits(shell: str) -> None:
    """float16 has three bits more than bfloat16; no gradient is small enough here to vanish."""
    model, layout = MODELS["llama"], replace(SHELLS[shell], precision="fp16")
    results = check(model, layout, NEAR["fp16"])
    found, _ = wanted(model, SHELLS[shell])
    assert all(one.seen == {torch.float16} and one.stored == {torch.float32} for one in results)
    assert relative(results, found.reference.gradients) <= 2 * rounding(model, layout) <= 0.01


@pytest.mark.parametrize(("name", "shell"), [("llama", "pp"), ("transformer", "pp"), ("llama-tied", "pp tp sp dp")])
def test_stages_talk_in_the_type_of_the_file_whatever_weights_are_in(name: str, shell: str) -> None:
    """Built under a default of bfloat16, or cast when it is built: weights are rounded, and all else is as it was."""
    for options in ((torch.bfloat16,), (torch.float32, torch.bfloat16)):
        for one in check(MODELS[name], SHELLS[shell], NEAR["bf16"], *options):
            assert one.seen == {torch.float32}
            assert one.stored == {torch.bfloat16}
            assert one.sums == {torch.float32}


@pytest.mark.parametrize("shell", ["one", "tp sp", "pp", "dp parts"])
def test_a_count_divided_by_a_scale_keeps_small_gradients(shell: str) -> None:
    """Of a loss a million times smaller most gradients are 0 in float16; the caller divides them by the scale again."""
    model, layout = MODELS["llama"], replace(SHELLS[shell], precision="fp16")
    found, _ = wanted(model, SHELLS[shell])
    off = {
        scale: relative(told(model, layout, found, torch.float32, None, 1e6, scale), found.reference.gradients)
        for scale in (1.0, 2.0**18)
    }
    assert off[2.0**18] <= 2 * rounding(model, layout) <= 0.01 < 0.3 <= off[1.0]


MUTANTS = [
    ("one", "F.embedding(ids, self.weight).to(COMPUTE)", "F.embedding(ids, self.weight)"),
    ("tp", "self.weight.to_local().to(COMPUTE)", "self.weight.to_local()"),
    ("dp", ", mp_policy=policy", ""),
    ("dp", "param_dtype=COMPUTE", "param_dtype=REDUCE"),
    ("pp", "dtype=COMPUTE, requires_grad=True", "requires_grad=True"),
]


@pytest.mark.parametrize(("shell", "old", "new"), MUTANTS)
def test_a_cast_that_is_left_out_is_seen(shell: str, old: str, new: str) -> None:
    layout = replace(SHELLS[shell], precision="bf16")
    found, _ = wanted(MODELS["llama"], SHELLS[shell])
    source = source_of(MODELS["llama"], layout)
    assert old in source
    arguments = (source.replace(old, new), layout, found)
    try:
        answers = run_ranks(world_size(layout), stepped, *arguments) if shell != "one" else [stepped(*arguments)]
    except RuntimeError:
        return
    results = [Told(**answer) for answer in answers]
    assert any(one.seen != {torch.bfloat16} or one.stored | one.sums != {torch.float32} for one in results)
