"""Routers of others, in float64: logits and every gradient, with noise on every parameter and buffer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig

from specc.interop.move import to_own
from specc.interop.plan import Part, Plan, parameters, plan
from specc.interop.schema import Mapping
from specc.interpret import interpret
from specc.lower import lower
from specc.passes import typed
from specc.source import Source
from specc.spec import Spec, load
from tests.family_parity import double
from tests.parity_routers import CASES, HEAD, Case


def theirs_of(case: Case) -> nn.Module:
    sizes = dict(case.sizes)
    config = AutoConfig.for_model(sizes.pop("model"), **sizes)
    config._attn_implementation, config._experts_implementation = case.attention, "eager"
    torch.manual_seed(0)
    model = getattr(transformers, case.architecture)._from_config(config).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in dict.fromkeys(model.state_dict(keep_vars=True).values()):
            tensor.add_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64) * 0.2)
    return model.train(case.training)


def used(case: Case, name: str, tensor: Tensor) -> Tensor:
    """Without rows that nothing reads, whose gradients are zero."""
    rows = next((rows for part, rows in case.fewer.items() if part in name), len(tensor))
    return tensor[:rows]


@pytest.mark.parametrize("name", CASES)
def test_routers_are_those_of_others(name: str) -> None:
    case = CASES[name]
    theirs = theirs_of(case)
    head = HEAD.replace("d_model: 32", f"d_model: {case.sizes['hidden_size']}")
    spec = load(Source("small.yaml", head + case.spec))
    assert isinstance(spec, Spec), spec
    graph = typed(lower(spec.model))
    fields: dict[str, Any] = {"map": 1, "family": name, "class": case.architecture, "spec": {}, "weights": case.weights}
    wanted = plan(Mapping(**fields), parameters(graph))
    assert isinstance(wanted, Plan), wanted
    state = theirs.state_dict(keep_vars=True)
    own = {
        part.name: to_own(used(case, tensor.name, state[tensor.name].detach()), Part(part.name, part.view))
        for tensor in wanted.tensors
        for part in tensor.parts
    }
    ours = interpret(graph, dtype=torch.float64).train(case.training)
    ours.load_state_dict(own, strict=True)
    ids = torch.randint(3, 96, (3, 23), generator=torch.Generator().manual_seed(1))
    torch.manual_seed(5)
    actual = ours(ids)
    torch.manual_seed(5)
    with double(theirs):
        expected = theirs(input_ids=ids).logits
    probe = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for logits in (actual, expected):
        (logits * probe).sum().backward()
    mine, pairs = dict(ours.named_parameters()), {"logits": (actual, expected)}
    for tensor in wanted.tensors:
        gradient = state[tensor.name].grad
        if gradient is None:
            assert not isinstance(state[tensor.name], nn.Parameter) or not state[tensor.name].requires_grad, tensor.name
            continue
        for part in tensor.parts:
            given = used(case, tensor.name, gradient)
            pairs[part.name] = (mine[part.name].grad, to_own(given, Part(part.name, part.view)))
    told = {tensor.name for tensor in wanted.tensors}
    assert {name for name, p in theirs.named_parameters() if p.requires_grad} <= told
    for name, (a, b) in pairs.items():
        assert a is not None and a.shape == b.shape and bool((b != 0).any()), f"{name}: the reference shows nothing"
        difference = (a - b).abs().max().item() / max(1.0, b.abs().max().item())
        assert difference <= 1e-9, f"{name}: difference {difference:.3g}"  # false for NaN
