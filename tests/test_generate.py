"""Generation: a cache and the second entry of a model give what its forward gives of all tokens at once."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from specc.emit import emit
from specc.interpret import init_weights, interpret
from specc.kernels.cache import Cache, next_tokens
from specc.lower import lower
from specc.passes import second
from specc.spec.core import Layout, Model, Spec
from specc.verify import relations
from specc.verify.launch import run_ranks
from specc.verify.run import in_double, load_file
from tests import zoo
from tests.models import SINUSOIDS, VOCAB, gpt2, llama, patterned

ALONE = Layout(generate=True)
SINUSOIDAL = replace(llama(), embed=replace(llama().embed, positions=SINUSOIDS, dropout=0.1))
MODELS = {
    "learned": gpt2(dropout=0.1),
    "rope": llama(),
    "several ropes": patterned(),
    "sinusoidal": SINUSOIDAL,
    "hybrid": zoo.spec("hybrid-tiny").model,
}


def source_of(model: Model, layout: Layout = ALONE) -> str:
    return emit(Spec(model, (layout,)), layout).source


def noisy(file: ModuleType, *mesh: Any) -> Any:
    """The model of a file with weights far from where they start, the same in every layout."""
    module = file.build_model(*mesh, torch.device("cpu"), 0)
    with torch.no_grad():
        for p in module.parameters():
            p.mul_(8.0 if p.ndim > 1 else 1.0)
    return module.eval()


def prompt(model: Model, length: int = 7) -> Tensor:
    return torch.randint(model.vocab, (3, length), generator=torch.Generator().manual_seed(1))


def assert_near(ours: Tensor, theirs: Tensor) -> None:
    assert bool(theirs.isfinite().all()) and bool((theirs != 0).any())
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-11)


@in_double()
@pytest.mark.parametrize("name", MODELS)
def test_what_is_decoded_is_what_the_forward_gives(name: str) -> None:
    """Two parts of a prompt and single tokens behind them."""
    model = MODELS[name]
    file = load_file(source_of(model), "generated")
    module, tokens = noisy(file), prompt(model, 12)
    cache = file.Cache(15)  # with room left
    parts = [module.decode(part, cache) for part in tokens.split([5, 3, 1, 1, 1, 1], 1)]
    assert_near(torch.cat(parts, 1), module(tokens))


@in_double()
@pytest.mark.parametrize("name", MODELS)
def test_both_backends_decode_alike(name: str) -> None:
    model = MODELS[name]
    file = load_file(source_of(model), "generated")
    module, tokens = noisy(file), prompt(model)
    graph = second(lower(model), Layout())
    other = interpret(graph, dtype=torch.float64)
    init_weights(other, graph, 0)
    other.load_state_dict(module.state_dict())
    ours, theirs = file.Cache(9), Cache(9)
    for part in tokens.split([4, 3], 1):
        assert torch.equal(module.decode(part, ours), other.eval()(part, theirs))


@in_double()
def test_the_likeliest_tokens_follow() -> None:
    model = llama()
    file = load_file(source_of(model), "generated")
    module, tokens = noisy(file), prompt(model)
    found = file.generate(module, tokens, 5)
    for _ in range(5):
        tokens = torch.cat((tokens, module(tokens)[:, -1:].argmax(-1)), 1)
    assert torch.equal(found, tokens) and len(found[:, 7:].unique()) > 3
    assert torch.equal(file.generate(module, tokens, 0), tokens)


@in_double()
def test_tokens_are_drawn_by_the_seed() -> None:
    model = gpt2(dropout=0.1)
    file = load_file(source_of(model), "generated")
    module, tokens = noisy(file).train(), prompt(model)
    drawn = [file.generate(module, tokens, 8, temperature=1.5, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert torch.equal(file.generate(module, tokens, 8, 1.5, top_p=1e-6), file.generate(module, tokens, 8))
    assert module.training


def test_tokens_are_drawn_from_the_fewest_that_are_likely_enough() -> None:
    p = torch.tensor([[0.05, 0.4, 0.3, 0.2, 0.05]]).repeat(4000, 1)
    generator = torch.Generator().manual_seed(0)
    found = next_tokens(p.log(), 1.0, 0.75, generator).flatten().bincount(minlength=5) / 4000
    assert torch.allclose(found, torch.tensor([0.0, 4 / 9, 3 / 9, 2 / 9, 0.0]), atol=0.03)
    hot = next_tokens(p.log(), 2.0, 1.0, generator).flatten().bincount(minlength=5) / 4000
    assert torch.allclose(hot, p[0].sqrt() / p[0].sqrt().sum(), atol=0.03)
    assert next_tokens(p.log(), 0.0, 1.0, generator).unique().tolist() == [1]


def generated(model: Model, layout: Layout) -> tuple[Tensor, Tensor]:
    """Logits of a prompt and what follows it, on a rank."""
    torch.set_default_dtype(torch.float64)
    file = load_file(source_of(model, layout), "generated")
    mesh = file.device_mesh("cpu")
    module, tokens = noisy(file, mesh), prompt(model)
    logits = file.whole(module.decode(tokens, file.Cache(7)), model.vocab, mesh["tp"]).detach()
    return logits, file.generate(module, mesh, tokens, 6, 0.7, 0.9)


@in_double()
@pytest.mark.parametrize("vocab", [96, 97])
def test_ranks_of_tp_generate_the_same(vocab: int) -> None:
    model = llama(vocab=vocab)
    file = load_file(source_of(model), "generated")
    module, tokens = noisy(file), prompt(model)
    want = file.generate(module, tokens, 6, 0.7, 0.9)
    for logits, found in run_ranks(2, generated, model, Layout(tp=2, generate=True)):
        assert_near(torch.as_tensor(logits), module(tokens))
        assert torch.equal(torch.as_tensor(found), want)


WRONG = {"": [], "self.end - new.size(2) : self.end": ["decoded"], "logits.argmax": ["follow"]}


@pytest.mark.parametrize("old", WRONG)
def test_verify_generates(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And tells a cache that is written elsewhere, and what is not the likeliest."""
    changes = {"self.end - new.size(2) : self.end": ": new.size(2)", "logits.argmax": "logits.argmin"}

    def spoiled(*args: Any) -> Any:
        files = emit(*args)
        return replace(files, source=files.source.replace(old, changes[old])) if old else files

    monkeypatch.setattr(relations, "emit", spoiled)
    layout = Layout(tp=2, generate=True)
    found = relations.setting(llama(layers=1), layout)
    rows = [*relations.plain_relations(found, layout), *relations.layout_relations(found, layout)]
    assert [row.name for row in rows if row.name.endswith(("in parts", "that follow"))] and len(rows) > 20
    assert [word for row in rows if not row.holds for word in ("decoded", "follow") if word in row.name] == WRONG[old]
    assert all("decoded" in row.name or "follow" in row.name for row in rows if not row.holds)


def test_half_precision_generates() -> None:
    model = llama()
    file = load_file(source_of(model, replace(ALONE, precision="bf16")), "generated")
    module, tokens = noisy(file), prompt(model)
    cache = file.Cache(7)
    logits = module.decode(tokens, cache)
    assert logits.dtype == torch.bfloat16 and {k.dtype for k, _ in cache.layers.values()} == {torch.bfloat16}
    assert file.generate(module, tokens, 4).shape == (3, 11)


def test_what_has_no_room_is_told() -> None:
    model = gpt2()
    file = load_file(source_of(model), "generated")
    module: nn.Module = noisy(file)
    with pytest.raises(ValueError, match="66 tokens, and the model has positions for 64"):
        file.generate(module, prompt(model, 60), 6)
    with pytest.raises(ValueError, match="a cache of 5 tokens has no room for 7"):
        module.decode(prompt(model), file.Cache(5))  # type: ignore[operator]


def test_a_file_without_it_has_none_of_it() -> None:
    assert "cache" not in source_of(llama(), Layout()).lower() and VOCAB == 96
    plain, other = source_of(llama(), Layout()), source_of(llama())
    lines = [line for line in plain.splitlines() if not line.startswith("params ")]
    assert [line for line in lines if line not in other.splitlines()] == []
