"""How parameters start: by kind and by name, the same in interpreter and file."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from specc.compile import compile_spec
from specc.emit import emit
from specc.interpret import initial_weights
from specc.source import Source
from specc.spec import Spec, load
from specc.verify.run import load_file
from tests.broken import DECODER
from tests.graphs import graph_of

BASE = DECODER.partition("layout:")[0].replace("d_model: 32", "d_model: 64").replace("heads: 4", "heads: 4, bias: true")


def starts(init: str) -> dict[str, Tensor]:
    """First values in the file, which are those of the interpreter."""
    spec = load(Source("s.yaml", f"{BASE}init: {init}\n"))
    assert isinstance(spec, Spec), spec
    files = emit(spec, spec.layout())
    module = load_file(files.source, files.name).build_model(torch.device("cpu"), 5)
    found = {name: p.detach() for name, p in module.named_parameters()}
    wanted = initial_weights(graph_of(spec.model), 5)
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
    return found


DRAWN = {
    "{std: 0.1}": (0.1, 0.1),
    "{kind: xavier}": (0.02, math.sqrt(2 / 128)),
    "{kind: kaiming}": (0.02, math.sqrt(2 / 64)),
    "{kind: uniform, std: 0.3}": (0.3 / math.sqrt(3), 0.3 / math.sqrt(3)),
    "{std: 0.1, truncate: 1}": (0.1 * 0.5396, 0.1 * 0.5396),  # of a normal within one std
    "{kind: xavier, truncate: 2}": (0.02 * 0.8796, math.sqrt(2 / 128) * 0.8796),
    "{std: 0.1, depth_scaled: true}": (0.1, 0.1),
}


@pytest.mark.parametrize("init", DRAWN)
def test_kinds_have_their_spread(init: str) -> None:
    found, (table, weight) = starts(init), DRAWN[init]
    assert found["embedding.weight"].std().item() == pytest.approx(table, rel=0.05)
    assert found["layers.1.attention.q.weight"].std().item() == pytest.approx(weight, rel=0.05)
    assert found["layers.1.attention.o.weight"].std().item() == pytest.approx(
        weight / math.sqrt(8) if "depth" in init else weight, rel=0.05
    )
    assert bool((found["norm.weight"] == 1).all() and (found["layers.1.attention.q.bias"] == 0).all())
    largest = max(found[name].abs().max().item() for name in ("embedding.weight", "layers.0.ffn.up.weight"))
    bounds = {"{kind: uniform, std: 0.3}": 0.3, "{std: 0.1, truncate: 1}": 0.1}
    assert init not in bounds or 0.99 * bounds[init] < largest <= bounds[init]


def test_constants() -> None:
    for kind, value in (("zeros", 0.0), ("ones", 1.0), ("constant, value: 0.3", 0.3)):
        found = starts(f"{{kind: {kind}}}")
        same = torch.tensor(value)
        assert bool((found["embedding.weight"] == same).all() and (found["layers.3.ffn.down.weight"] == same).all())


def test_any_parameter_has_a_start_of_its_own() -> None:
    named = "attention.o: {std: 0.5}, attention.q.bias: {kind: constant, value: 2}, norm: {kind: zeros}, "
    named += "ffn_norm: {kind: uniform, std: 0.1}, head: {kind: kaiming}, embedding: {kind: uniform, std: 0.2, }"
    found = starts(f"{{std: 0.02, parameters: {{{named}}}}}")
    for n in range(4):
        assert found[f"layers.{n}.attention.o.weight"].std().item() == pytest.approx(0.5, rel=0.05)
        assert bool((found[f"layers.{n}.attention.o.bias"] == 0).all())
        assert bool((found[f"layers.{n}.attention.q.bias"] == 2).all())
        assert 0.08 < found[f"layers.{n}.ffn_norm.weight"].abs().max() < 0.1
    assert bool((found["norm.weight"] == 0).all())
    assert found["head.weight"].std().item() == pytest.approx(math.sqrt(2 / 64), rel=0.05)
    assert 0.19 < found["embedding.weight"].abs().max() < 0.2
    assert found["layers.0.attention.k.weight"].std().item() == pytest.approx(0.02, rel=0.05)


def test_a_name_that_no_parameter_has_is_told() -> None:
    rows = {"attention.x: {std: 0.1}": "no parameter is called attention.x", "norm: {kind: xavier}": "norm is a vector"}
    for text, message in rows.items():
        spec = load(Source("s.yaml", f"{BASE}init: {{parameters: {{{text}}}}}\n"))
        assert isinstance(spec, Spec), spec
        (found,) = compile_spec(spec, spec.layout()).findings
        assert found.code == "E241" and message in found.message and found.span is not None
        assert found.span.source.text[found.span.start :].startswith(text.partition(":")[0])
