"""A model of a family of Hugging Face against the interpreter, by the mapping alone."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedConfig

from specc.interop import weights
from specc.interop.importing import Imported, import_config
from specc.interop.library import known
from specc.interop.move import to_own
from specc.interop.names import wildcard
from specc.interop.plan import Part, Plan, parameters, plan
from specc.interpret import interpret
from specc.kernels.positions import sinusoid_of
from specc.lower import lower
from specc.passes import typed
from specc.source import Source
from specc.spec import Model, Spec, load
from specc.verify.run import in_double
from tests.families import Row


class Double(TorchFunctionMode):
    """What a model computes in float32 whatever its type is computed in float64, but for the angles of a rope.

    So are means of whole numbers, but for factors that are made of positions.
    """

    def __init__(self) -> None:
        super().__init__()
        self.off = 0
        self.placed = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.polar:  # it rounds cosines of float32 otherwise than cos does
            return torch.complex(args[0] * args[1].cos(), args[0] * args[1].sin())
        if not (self.off or self.placed) and func is Tensor.float and args[0].dtype == torch.int64:
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

    def within(module: nn.Module, name: str) -> None:
        hooks.append(module.register_forward_pre_hook(lambda *_: setattr(mode, name, getattr(mode, name) + 1)))
        hooks.append(module.register_forward_hook(lambda *_: setattr(mode, name, getattr(mode, name) - 1)))

    for module in model.modules():
        if "Rotary" in type(module).__name__:
            within(module, "off")
        elif hasattr(module, "floor_scale"):  # a temperature
            within(module, "placed")
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
        made = [wildcard(text) for text in known(config.model_type).drop]  # constants, of which no parameter is made
        named = [(name, x) for name, x in model.named_buffers() if not any(text.fullmatch(name) for text in made)]
        buffers = [x for name, x in named if name != "final_logits_bias" and _kept(model, x)]
        tables = {id(table) for _, table in sinusoids(model)}
        for parameter in (*(p for p in model.parameters() if id(p) not in tables), *buffers):  # that bias must be zero
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.2)
    return model


def built(config: PreTrainedConfig) -> nn.Module:
    """A model of the class that the family's mapping is of."""
    return getattr(transformers, known(config.model_type).architecture)._from_config(config)


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Its parameters, without tables that are never trained."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def sinusoids(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Tables of positions that are made, not trained."""
    return [(name, p) for name, p in model.named_parameters() if "embed_positions" in name and not p.requires_grad]


def left_out(plan: Plan, name: str) -> bool:
    """Whether a tensor of others is no parameter of ours."""
    return plan.dropped(name) or plan.zero(name)


def same_sinusoids(model: Model, theirs: nn.Module) -> None:
    """Tables of others are rounded otherwise: they are compared, and from there on they are ours."""
    for name, table in sinusoids(theirs):
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
    if (stem := model.embed_of(model.stacks[0]).stem) is not None:
        images = torch.randn(3, *stem.shape, generator=generator, dtype=torch.float64)
        if len(model.stacks) > 1:
            target = torch.randint(3, 96, (3, 9), generator=generator)
            fed = {"input_features": images, "decoder_input_ids": target}
            return (images, target), fed, torch.ones_like(target)
        rows = (3,) if model.head.pool is not None else (3, model.max_seq)
        return (images,), {"pixel_values": images}, torch.ones(rows)
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


def collects(model: Any) -> bool:
    """Whether its class collects what its routers make."""
    return "router_logits" in (getattr(model, "_can_record_outputs", None) or {})


def as_saved(wanted: Plan, theirs: Any, own: dict[str, Tensor], folder: Path) -> None:
    """What its class saves is read as the same parameters, and they are written as it saves them, bit by bit."""
    if theirs is None:
        assert wanted.hub is not None and weights.to_hf(wanted.hub, folder / "ours", folder / "saved") == []
    else:
        theirs.save_pretrained(folder / "saved")
    assert weights.to_specc(wanted, folder / "saved", folder / "read") == []
    read = load_file(folder / "read" / "model.safetensors")
    assert read.keys() == own.keys() and all(torch.equal(read[name], own[name]) for name in own)
    assert weights.to_hf(wanted.hub or wanted, folder / "read", folder / "written") == []
    saved, written = (load_file(folder / name / "model.safetensors") for name in ("saved", "written"))
    assert written.keys() <= saved.keys() and all(left_out(wanted, name) for name in saved.keys() - written.keys())
    assert all(torch.equal(written[name], saved[name]) for name in written)


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
    as_saved(wanted, theirs if row.saved else None, own, folder)
    own_inputs, their_inputs, told = inputs(model)
    given = ours(*own_inputs)
    actual, *own_terms = given if isinstance(given, tuple) else (given,)
    routed: list[Tensor] = []
    for name, module in theirs.named_modules():
        if name.endswith(".router") and not collects(theirs):
            module.register_forward_hook(lambda _, __, made: routed.append(made[-1]))
    with double(theirs), in_double() if row.double else nullcontext():
        found = theirs(**their_inputs, **({"output_router_logits": True} if own_terms else {}))
        rows = len(own_inputs[0])
        logits = tuple(routed) or getattr(found, "router_logits", None)
        expected = found.logits if hasattr(found, "logits") else found.last_hidden_state
        their_terms = [terms(theirs, logits, rows) for _ in own_terms]
    probe = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    probe = probe * told.unsqueeze(-1)
    torch.stack([(expected * probe).sum(), *their_terms]).sum().backward()
    torch.stack([(actual * probe).sum(), *own_terms]).sum().backward()
    pairs = {"logits": (actual, expected)}
    pairs |= dict(zip(("terms",), zip(own_terms, their_terms, strict=True), strict=False))
    gradients = {name: p.grad for name, p in trained(theirs).items() if p.requires_grad}
    assert all(gradients[name] is None for name in gradients if left_out(wanted, name))
    gradients = {name: gradient for name, gradient in gradients.items() if not left_out(wanted, name)}
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
