"""Positions and masks as inputs: each row as if its real tokens were alone, positions as they are told."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.test_frame import made

VOCAB = 32
BLOCK = "block: [{attention: {heads: 2, rope: {}}}, {ffn: {hidden: 8}}]"
ROWS = ((0, slice(3, 9)), (1, slice(0, 5)), (2, slice(0, 9)))  # padding in front, behind, none
SKIPPED = "embedding: {positions: {kind: learned, offset: 1, skip_pad: true}}\n"


def tokens() -> Tensor:
    return torch.randint(VOCAB, (3, 9), generator=torch.Generator().manual_seed(0))


def mask() -> Tensor:
    found = torch.zeros(3, 9, dtype=torch.int64)
    for row, part in ROWS:
        found[row, part] = 1
    return found


def gradients(module: nn.Module, logits: list[Tensor]) -> dict[str, Tensor]:
    """Of a random linear function of logits of real tokens, row by row."""
    module.zero_grad()
    generator = torch.Generator().manual_seed(1)
    probes = [torch.randn(one.shape, generator=generator, dtype=torch.float64) for one in logits]
    torch.stack([(one * probe).sum() for one, probe in zip(logits, probes, strict=True)]).sum().backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("role", ["decoder", "encoder"])
@pytest.mark.parametrize("embedding", ["", SKIPPED])
@pytest.mark.parametrize("window", ["", ", window: 3"])
def test_padding_of_a_mask_changes_nothing(role: str, embedding: str, window: str) -> None:
    block = BLOCK.replace("heads: 2, rope: {}", f"heads: 2{window}" if embedding else f"heads: 2, rope: {{}}{window}")
    close = 1e-12 if embedding else 1e-5  # angles are of single precision
    for module in made(f"inputs: [mask]\n{embedding}{role}: {{layers: 2, {block}}}\n"):
        whole = module(tokens(), mask())
        assert bool(whole.isfinite().all())
        found = [whole[row, part] for row, part in ROWS]
        alone = [module(tokens()[row : row + 1, part], mask()[row : row + 1, part])[0] for row, part in ROWS]
        for a, b in zip(found, alone, strict=True):
            assert (a - b).abs().max() <= close
        one, other = gradients(module, found), gradients(module, alone)
        assert one.keys() == other.keys() and all((one[name] - other[name]).abs().max() <= 10 * close for name in one)


def test_a_mask_keeps_documents_apart_too() -> None:
    segments = (torch.arange(9) > 4).long().expand(3, 9)
    block = BLOCK.replace(", rope: {}", "")
    for module in made(f"inputs: [segments, mask]\ndecoder: {{layers: 2, {block}}}\n"):
        whole = module(tokens(), segments, mask())
        for row, part in ((0, slice(3, 5)), (0, slice(5, 9)), (1, slice(0, 5)), (2, slice(0, 5)), (2, slice(5, 9))):
            ones = torch.ones_like(tokens()[:1, part])
            alone = module(tokens()[row : row + 1, part], ones, ones)
            assert (whole[row, part] - alone[0]).abs().max() <= 1e-12


@pytest.mark.parametrize("kind", ["learned", "sinusoidal"])
def test_positions_are_those_that_are_given(kind: str) -> None:
    text = f"embedding: {{positions: {kind}}}\ndecoder: {{layers: 2, {BLOCK}}}\n"
    for own, told in zip(made(text), made(f"inputs: [positions]\n{text}"), strict=True):
        told.load_state_dict(own.state_dict())
        usual = torch.arange(9).expand(3, 9)
        assert (told(tokens(), usual) - own(tokens())).abs().max() <= 1e-12


def test_a_rope_turns_by_positions_that_are_given() -> None:
    """Only their differences count."""
    for module in made(f"inputs: [positions]\ndecoder: {{layers: 2, {BLOCK}}}\n"):
        usual = torch.arange(9).expand(3, 9)
        logits = module(tokens(), usual)
        assert (module(tokens(), usual + 7) - logits).abs().max() <= 1e-5  # angles are of single precision
        assert (module(tokens(), 2 * usual) - logits).abs().max() > 1e-3


def test_given_positions_are_rows_of_the_table() -> None:
    """Without a rope, tokens in another order with their positions are the same tokens, where all see all."""
    block = BLOCK.replace(", rope: {}", ", causal: false")
    for module in made(f"inputs: [positions]\nembedding: {{positions: learned}}\ndecoder: {{layers: 2, {block}}}\n"):
        order = torch.randperm(9, generator=torch.Generator().manual_seed(2))
        logits = module(tokens(), torch.arange(9).expand(3, 9))
        other = module(tokens()[:, order], order.expand(3, 9))
        assert (other - logits[:, order]).abs().max() <= 1e-12
