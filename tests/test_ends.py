"""Embedding and head are their equations: interpreter and file, logits and every gradient."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

from specc.source import Source
from specc.spec import Spec, load
from tests.test_frame import HEAD, ffn, made, normed

WIDTH, VOCAB, PAD = 16, 32, 3
TAIL = "layers: 1, final_norm: false, block: [{ffn: {hidden: 8, activation: relu}, pre: false}]"


def sinusoids(positions: Tensor, width: int, order: str = "interleaved", endpoint: bool = False) -> Tensor:
    """Vaswani et al. 2017, 3.5, feature by feature, in float32 as tables are."""
    columns: list[Tensor] = [torch.empty(0)] * width
    half = width // 2
    for n in range(half):
        share = torch.tensor(float(n)) / (half - endpoint)
        angle = positions / 10000**share
        places = (n, half + n) if order == "halves" else (2 * n, 2 * n + 1)
        for place, function in zip(places, (torch.sin, torch.cos), strict=True):
            columns[place] = function(angle)
    return torch.stack(columns, dim=-1).double()


def embedded(w: dict[str, Tensor], tokens: Tensor, types: Tensor, keys: dict[str, Any]) -> Tensor:
    """By hand; a norm is a layer norm with both parameters."""
    project = keys.get("project")
    project = {"dim": project} if isinstance(project, int) else project

    def projected(x: Tensor) -> Tensor:
        return F.linear(x, w["embedding_project.weight"], w.get("embedding_project.bias"))

    x = w["embedding.weight"][tokens]
    x = projected(x) if project and project.get("at") == "tokens" else x
    x = x * keys.get("scale", 1)
    x = x + w["type_embedding.weight"][types] if "types" in keys else x
    places = keys.get("positions", "none")
    places = {"kind": places} if isinstance(places, str) else places
    index = torch.arange(tokens.size(1)).expand(tokens.shape)
    if places.get("skip_pad"):
        counted = [[sum(token != PAD for token in row[: n + 1]) for n in range(len(row))] for row in tokens.tolist()]
        index = torch.tensor(counted).where(tokens != PAD, 0) - 1
    index = index + places.get("offset", 0)
    if places["kind"] == "learned":
        x = x + w["position_embedding.weight"][index]
    if places["kind"] == "sinusoidal":
        x = x + sinusoids(index, x.size(-1), places.get("order", "interleaved"), places.get("endpoint", False))
    x = normed(x, w, "embedding_norm", "layer") if keys.get("norm") else x
    return projected(x) if project and project.get("at", "end") == "end" else x


def headed(x: Tensor, w: dict[str, Tensor], keys: dict[str, Any], tied: bool) -> Tensor:
    if "transform" in keys:
        x = F.linear(x, w["head_transform.weight"], w.get("head_transform.bias"))
        x = {"gelu": F.gelu, "tanh": torch.tanh}[keys["transform"].get("activation", "gelu")](x)
        x = normed(x, w, "head_norm", "layer") if keys["transform"].get("norm", True) else x
    elif "head_project.weight" in w:
        x = x @ w["head_project.weight"].T
    x = F.linear(x, w["embedding.weight" if tied else "head.weight"], w.get("head.bias")) * keys.get("scale", 1)
    cap = keys.get("softcap")
    return x if cap is None else cap * torch.tanh(x / cap)


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "scale and cap": ({"scale": 3.0}, {"scale": 0.5, "softcap": 2}),
    "bias": ({"positions": "sinusoidal"}, {"bias": True}),
    "transform": ({"norm": True, "types": 3}, {"transform": {}}),
    "transform of another width": ({}, {"dim": 12, "bias": True, "transform": {"activation": "tanh", "norm": False}}),
    "transform without a bias": ({}, {"dim": 12, "transform": {"bias": False}}),
    "narrow head": ({"positions": "learned"}, {"dim": 12}),
    "narrow tied": ({"project": 12, "tied": True, "positions": "sinusoidal", "norm": True, "types": 2}, {}),
    "narrow, widened first": ({"project": {"dim": 12, "bias": True, "at": "tokens"}, "positions": "learned"}, {}),
    "narrow, wide head": ({"project": 12, "positions": {"kind": "learned", "offset": 3}}, {"dim": 16}),
    "rows": ({"positions": {"kind": "learned", "size": 9, "offset": 2}}, {}),
    "halves": ({"positions": {"kind": "sinusoidal", "order": "halves", "offset": 2}}, {}),
    "endpoint": ({"positions": {"kind": "sinusoidal", "endpoint": True}}, {}),
    "halves to the endpoint": ({"positions": {"kind": "sinusoidal", "order": "halves", "endpoint": True}}, {}),
    "skip pad": ({"positions": {"kind": "learned", "offset": 1, "skip_pad": True}, "types": 2, "norm": True}, {}),
    "skip pad by sinusoids": ({"positions": {"kind": "sinusoidal", "skip_pad": True}}, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_embedding_and_head_are_their_equations(name: str) -> None:
    embedding, head = CASES[name]
    pad = "skip_pad" in str(embedding)
    block = TAIL.replace("]", ", {attention: {heads: 2}, out_scale: 0, pre: false}]") if pad else TAIL
    role = f"pad: {PAD}\nencoder" if pad else "decoder"
    text = yaml.safe_dump({"embedding": embedding, "head": head}) + f"{role}: {{{block}}}\n"
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(VOCAB, (3, 9), generator=generator)
    tokens = tokens.masked_fill(torch.rand(tokens.shape, generator=generator) < 0.3, PAD) if pad else tokens
    types = torch.randint(embedding.get("types", 1), tokens.shape, generator=generator)
    given = (tokens, types) if "types" in embedding else (tokens,)
    for module in made(text):
        w = dict(module.named_parameters())
        x = embedded(w, tokens, types, embedding)
        x = x + ffn(x, {key.removeprefix("layers.0."): value for key, value in w.items()})
        expected, actual = headed(x, w, head, bool(embedding.get("tied"))), module(*given)
        assert (actual - expected).abs().max() <= 1e-12
        probe = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        of = [p for key, p in w.items() if "attention" not in key]
        found = torch.autograd.grad((actual * probe).sum(), of)
        wanted = torch.autograd.grad((expected * probe).sum(), of)
        for a, b in zip(found, wanted, strict=True):
            assert (a - b).abs().max() <= 1e-11 and bool((b != 0).any())


def test_tables_have_rows_for_what_is_in_use() -> None:
    for keys, rows in (
        ("{kind: learned, size: 9, offset: 2}", 11),
        ("{kind: learned, offset: 2}", 18),
        ("learned", 16),
    ):
        ours, _ = made(f"embedding: {{positions: {keys}}}\ndecoder: {{{TAIL}}}\n")
        assert dict(ours.named_parameters())["position_embedding.weight"].shape == (rows, WIDTH)


def test_each_stack_has_norm_and_positions_of_its_own() -> None:
    found = load(
        Source(
            "s.yaml",
            HEAD
            + "embedding: {norm: true, positions: {kind: sinusoidal, order: halves}}\n"
            + f"encoder: {{{TAIL}, embedding: {{norm: false, positions: {{kind: learned, size: 8}}}}}}\n"
            + f"decoder: {{{TAIL.replace(']', ', cross_attention: {heads: 2}]')}}}\n",
        )
    )
    assert isinstance(found, Spec), found
    encoder, decoder = (stack.embed for stack in found.model.stacks)
    assert encoder is not None and encoder.norm is None and encoder.positions is not None
    assert (encoder.positions.kind, encoder.positions.size) == ("learned", 8)
    assert decoder is not None and decoder.norm is not None and decoder.positions is not None
    assert decoder.positions.halves and math.isclose(decoder.norm.eps, 1e-2)


@pytest.mark.parametrize("keys", ["learned, offset: 2, skip_pad: true", "sinusoidal, skip_pad: true"])
def test_rows_of_an_encoder_are_as_if_they_were_alone(keys: str) -> None:
    """Padding behind and in front changes nothing where positions count real tokens."""
    text = f"pad: {PAD}\nembedding: {{norm: true, positions: {{kind: {keys}}}}}\n"
    block = "[{attention: {heads: 2}}, {ffn: {hidden: 8}}]"
    for module in made(f"{text}encoder: {{layers: 2, block: {block}}}\n"):
        tokens = torch.randint(PAD + 1, VOCAB, (3, 9), generator=torch.Generator().manual_seed(0))
        tokens[0, 5:], tokens[1, :3] = PAD, PAD
        rows = [(0, slice(0, 5)), (1, slice(3, 9)), (2, slice(0, 9))]
        logits = module(tokens)
        for row, part in rows:
            alone = module(tokens[row : row + 1, part])
            assert (logits[row, part] - alone[0]).abs().max() <= 1e-12
