"""A residual update is its equation: norms of every kind, kept outputs, factors; in interpreter and file."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specc.emit import emit
from specc.interpret import interpret
from specc.source import Source
from specc.spec import Spec, load
from specc.verify.run import load_file
from tests.graphs import graph_of

HEAD = "specc: 1\nname: small\nd_model: 16\nvocab: 32\nmax_seq: 16\nnorm: {kind: layer, eps: 1e-2}\n"


def made(text: str) -> tuple[nn.Module, nn.Module]:
    """Interpreter and file in float64, with the same noisy parameters."""
    spec = load(Source("s.yaml", HEAD + text))
    assert isinstance(spec, Spec), spec
    files = emit(spec, spec.layout())
    ours = interpret(graph_of(spec.model), dtype=torch.float64)
    file = load_file(files.source, files.name).build_model(torch.device("cpu"), 0).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in file.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3)
    ours.load_state_dict(file.state_dict())
    return ours, file


def compare(block: nn.Module, x: Tensor, expected: Tensor) -> None:
    """The block's result, and gradients of its parameters and of x."""
    actual, probe = block(x), torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.allclose(actual, expected, rtol=0, atol=1e-12) and bool(actual.isfinite().all())
    of = [x, *block.parameters()]
    found = torch.autograd.grad((actual * probe).sum(), of)
    wanted = torch.autograd.grad((expected * probe).sum(), of)
    for a, b in zip(found, wanted, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-11) and bool((b != 0).any())


def normed(x: Tensor, w: dict[str, Tensor], name: str, kind: str, offset: float = 0, groups: int = 1) -> Tensor:
    """By hand: of each group the mean of a layer norm, the mean square, then weight and bias as far as given."""
    parts = x.unflatten(-1, (groups, -1))
    parts = parts - parts.mean(-1, keepdim=True) if kind == "layer" else parts
    x = (parts / (parts.pow(2).mean(-1, keepdim=True) + 1e-2).sqrt()).flatten(-2)
    x = x * (offset + w[f"{name}.weight"]) if f"{name}.weight" in w else x
    return x + w[f"{name}.bias"] if f"{name}.bias" in w else x


def ffn(x: Tensor, w: dict[str, Tensor], name: str = "ffn") -> Tensor:
    return F.relu(x @ w[f"{name}.up.weight"].T) @ w[f"{name}.down.weight"].T


FFN = "ffn: {hidden: 8, activation: relu}"
NORMS = [
    {"kind": kind, "weight": weight, "bias": bias, "weight_offset": offset, "groups": groups}
    for kind, weight, bias, offset, groups in product(("rms", "layer"), (True, False), (True, False), (0, 0.5), (1, 4))
    if weight or not (bias or offset)
]


@pytest.mark.parametrize("norm", NORMS, ids=lambda norm: " ".join(map(str, norm.values())))
def test_a_norm_is_its_equation(norm: dict[str, Any]) -> None:
    keys = ", ".join(f"{key}: {str(value).lower()}" for key, value in norm.items())
    for module in made(f"decoder:\n  layers: 1\n  block:\n    - {{{FFN}, pre: {{{keys}, eps: 1e-2}}}}\n"):
        block = module.get_submodule("layers.0")
        w = dict(block.named_parameters())
        assert ("ffn_norm.weight" in w, "ffn_norm.bias" in w) == (norm["weight"], norm["bias"])
        x = torch.randn(2, 5, 16, dtype=torch.float64, requires_grad=True)
        compare(block, x, x + ffn(normed(x, w, "ffn_norm", norm["kind"], norm["weight_offset"], norm["groups"]), w))


def test_norms_start_at_one() -> None:
    text = HEAD.replace("kind: layer", "weight_offset: 0.25") + f"decoder: {{layers: 1, block: [{FFN}]}}"
    spec = load(Source("s.yaml", text))
    assert isinstance(spec, Spec)
    files = emit(spec, spec.layout())
    module = load_file(files.source, files.name).build_model(torch.device("cpu"), 0)
    assert bool((module.norm.weight == 0.75).all())


KEPT = f"""\
residual: {{alpha: 0.9}}
decoder:
  layers: 1
  block:
    - {FFN}
      into: a
    - parallel:
        - {FFN}
          in_scale: 0.5
        - {FFN}
          pre: {{bias: false}}
          post: true
          into: b
        - {FFN}
          out_scale: 1 / (layer + 2)
      post: {{kind: rms, eps: 1e-2}}
      after: true
      after_scale: 0.7
      beta: 1.5
    - {FFN}
      placement: output
      add: [b, a, b]
      base: normed
      norm: true
      layerscale: 0.3
"""


def test_kept_outputs_join_where_they_are_added() -> None:
    for module in made(KEPT):
        block = module.get_submodule("layers.0")
        w = dict(block.named_parameters())
        x = torch.randn(2, 5, 16, dtype=torch.float64, requires_grad=True)
        a = ffn(normed(x, w, "ffn_norm", "layer"), w)
        y = 0.9 * x
        shared = normed(y, w, "norm2", "layer")
        b = normed(ffn(normed(y, w, "ffn3_norm", "layer"), w, "ffn3"), w, "ffn3_post_norm", "layer")
        total = ffn(0.5 * shared, w, "ffn2") + 0.5 * ffn(shared, w, "ffn4")
        y = 0.9 * y + 1.5 * normed(total, w, "parallel_post_norm", "rms")
        y = normed(y, w, "ffn2_after_norm", "layer") * w["ffn2_after_scale.weight"]
        shared = normed(y, w, "ffn5_norm", "layer")
        out = normed(ffn(shared, w, "ffn5"), w, "ffn5_post_norm", "layer") * w["ffn5_scale.weight"]
        compare(block, x, 0.9 * shared + out + b + a + b)
        assert w["ffn2_after_scale.weight"].shape == (1,)


def test_what_is_kept_is_told() -> None:
    rows = {
        "[{FFN, add: [a]}, {FFN, into: a}, {FFN, add: [a]}]": "nothing before this is kept as a",
        "[{FFN, into: a}, {FFN, into: a}, {FFN, add: [a]}]": "a is kept twice",
        "[{FFN, into: a}, FFN]": "a is kept and never added",
        "[{FFN, into: a, add: [a]}]": "nothing before this is kept as a",
    }
    for block, message in rows.items():
        found = load(Source("s.yaml", f"{HEAD}decoder: {{layers: 1, block: {block.replace('FFN', FFN)}}}"))
        assert not isinstance(found, Spec) and [(item.code, item.message) for item in found] == [("E267", message)]
