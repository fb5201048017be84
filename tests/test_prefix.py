"""Prefixes that all tokens of their document see: the mask written by hand, packed rows, every layout."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from specc.source import Source
from specc.spec import Spec, load
from specc.spec.core import Checkpoint, Layout, Pipeline
from specc.verify.relations import layout_relations, plain_relations, setting
from tests import zoo
from tests.test_frame import HEAD, made

BLOCK = "layers: 1, final_norm: false, block: [{attention: {heads: 2, causal: prefix%s}, pre: false}]"
SEQ, LENGTHS = 9, (4, 5)


def seen(query: int, key: int, prefix: list[int], segments: list[int], window: int = SEQ) -> bool:
    """Whether a query sees a key, of one row."""
    before = key <= query or bool(prefix[key])
    return before and segments[key] == segments[query] and abs(query - key) < window


def attended(w: dict[str, Tensor], tokens: Tensor, mask: Tensor) -> Tensor:
    """Logits of the one layer, by hand; mask [batch, seq, keys]."""
    x = w["embedding.weight"][tokens]
    q, k, v = (
        (x @ w[f"layers.0.attention.{name}.weight"].T).unflatten(-1, (2, 8)).transpose(1, 2) for name in ("q", "k", "v")
    )
    scores = (q @ k.transpose(2, 3) / 8**0.5).masked_fill(~mask[:, None], -torch.inf)
    mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
    return F.linear(x + mixed @ w["layers.0.attention.o.weight"].T, w["head.weight"])


@pytest.mark.parametrize("window", [SEQ, 3])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("stack", ["decoder", "encoder"])
def test_a_mask_written_by_hand(packed: bool, window: int, stack: str) -> None:
    if packed and stack == "encoder":
        return
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(32, (3, SEQ), generator=generator)
    prefix = torch.tensor([[1] * 3 + [0] * 6, [0] * 9, [1, 1, 0, 0, 1, 1, 1, 0, 0]])
    segments = torch.tensor([[0] * 9, [0] * 4 + [1] * 5, [0] * 4 + [1] * 5]) if packed else torch.zeros_like(tokens)
    rows = zip(prefix.tolist(), segments.tolist(), strict=True)
    of = [[[seen(i, j, *row, window=window) for j in range(SEQ)] for i in range(SEQ)] for row in rows]
    text = BLOCK % (f", window: {window}" if window < SEQ else "")
    given = (tokens, segments, prefix) if packed else (tokens, prefix)
    for module in made(f"{'inputs: [segments]' * packed}\n{stack}: {{{text}}}\n"):
        w = dict(module.named_parameters())
        wanted, found = attended(w, tokens, torch.tensor(of)), module(*given)
        assert (found - wanted).abs().max() <= 1e-12
        probe = torch.randn(found.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        theirs = torch.autograd.grad((wanted * probe).sum(), list(w.values()))
        for a, b in zip(torch.autograd.grad((found * probe).sum(), list(w.values())), theirs, strict=True):
            assert (a - b).abs().max() <= 1e-11 and bool((b != 0).any())


def test_documents_of_a_row_are_as_if_alone() -> None:
    block = "[{attention: {heads: 2, causal: prefix, rope: {}}}, {ffn: {hidden: 8}}]"
    tokens = torch.randint(32, (1, SEQ), generator=torch.Generator().manual_seed(0))
    prefix = torch.tensor([[1, 1, 0, 0, 1, 1, 1, 0, 0]])
    segments = torch.tensor([[5] * LENGTHS[0] + [6] * LENGTHS[1]])
    for module in made(f"inputs: [segments]\ndecoder: {{layers: 2, block: {block}}}\n"):
        whole = module(tokens, segments, prefix)
        parts = zip(tokens.split(LENGTHS, 1), prefix.split(LENGTHS, 1), whole.split(LENGTHS, 1), strict=True)
        for ids, mark, found in parts:
            assert (module(ids, torch.zeros_like(ids), mark) - found).abs().max() <= 1e-12


def test_a_prefix_is_told_by_biases_of_distance() -> None:
    """Tokens behind have buckets of their own."""
    block = "[{attention: {heads: 2, causal: prefix, relative_bias: {buckets: 8, max_distance: 8}}}]"
    tokens = torch.randint(32, (1, SEQ), generator=torch.Generator().manual_seed(0))
    for module in made(f"decoder: {{layers: 1, block: {block}}}\n"):
        table = module.get_parameter("relative_bias.weight")
        (gradient,) = torch.autograd.grad(module(tokens, torch.ones_like(tokens)).square().sum(), table)
        assert bool((gradient != 0).any(1).sum() > 5)


def test_every_layout() -> None:
    layout = Layout(tp=2, sequence_parallel=True, pp=Pipeline(2), microbatches=2, checkpoint=Checkpoint(every=1))
    found = setting(zoo.spec("prefix-tiny").model, layout)
    rows = [*plain_relations(found, layout), *layout_relations(found, layout)]
    assert len(rows) > 8 and not [row for row in rows if not row.holds]


def test_of_two_stacks_none_has_a_prefix() -> None:
    block = "[{attention: {heads: 2, causal: prefix}}, {cross_attention: {heads: 2}}]"
    found = load(
        Source(
            "s.yaml",
            f"{HEAD}encoder: {{layers: 1, block: [attention: {{heads: 2}}]}}\ndecoder: {{layers: 1, block: {block}}}\n",
        )
    )
    assert not isinstance(found, Spec) and [item.code for item in found] == ["E234"]
