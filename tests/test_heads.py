"""Heads of every kind are their equations, in interpreter and file, and equal classifiers of Hugging Face."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from specc.emit import emit
from specc.interpret import interpret, interpret_loss
from specc.kernels.batches import filled_of
from specc.source import Source
from specc.spec import Spec, load
from specc.spec.core import Layout
from specc.verify.run import in_double, load_file
from tests.files import source_of
from tests.graphs import graph_of
from tests.head_families import FAMILIES
from tests.parity import check_against
from tests.test_frame import HEAD, made
from tests.test_parity_file import built

PAD, TOKEN = 3, 5
BODY = "layers: 2, block: [{attention: {heads: 2}}, {ffn: {hidden: 8}}]"
Pooled = Callable[[Tensor, Tensor], Tensor]


def rows(of: Callable[[Tensor], Tensor]) -> Pooled:
    """Of the real tokens of each row by itself."""
    return lambda x, real: torch.stack([of(row[keep]) for row, keep in zip(x, real, strict=True)])


POOLS: dict[str, Pooled] = {
    "first": rows(lambda x: x[0]),
    "last": rows(lambda x: x[-1]),
    "mean": rows(lambda x: x.mean(0)),
    "max": rows(lambda x: x.amax(0)),
}


def tokens() -> Tensor:
    """Rows with padding behind, in front, and without."""
    ids = torch.randint(PAD + 1, 32, (3, 9), generator=torch.Generator().manual_seed(0))
    ids[0, 5:], ids[1, :3], ids[2, 4] = PAD, PAD, TOKEN
    return ids


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
@pytest.mark.parametrize("how", POOLS)
def test_pools_leave_padding_out(how: str, stack: str) -> None:
    """The same model without a head gives what is pooled."""
    ids = tokens()
    real = ids != PAD
    text = f"inputs: [mask]\n{stack}: {{{BODY}}}\n"
    hidden = zip(made(f"{text}head: none\n"), made(f"{text}head: {{kind: vector, pool: {how}}}\n"), strict=True)
    for plain, pooled in hidden:
        pooled.load_state_dict(plain.state_dict())
        x, mask = plain(ids, real.long()), real.long()
        wanted, found = POOLS[how](x, real), pooled(ids, mask)
        assert found.shape == (3, 16) and (found - wanted).abs().max() <= 1e-12
        probe = torch.randn(found.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        theirs = torch.autograd.grad((wanted * probe).sum(), list(plain.parameters()))
        for a, b in zip(torch.autograd.grad((found * probe).sum(), list(pooled.parameters())), theirs, strict=True):
            assert (a - b).abs().max() <= 1e-11 and bool((b != 0).any())


@pytest.mark.parametrize("how", POOLS)
def test_pools_of_whole_rows(how: str) -> None:
    ids = torch.randint(32, (3, 9), generator=torch.Generator().manual_seed(0))
    text = f"decoder: {{{BODY}}}\n"
    for plain, pooled in zip(
        made(f"{text}head: none\n"), made(f"{text}head: {{kind: vector, pool: {how}}}\n"), strict=True
    ):
        pooled.load_state_dict(plain.state_dict())
        assert (pooled(ids) - POOLS[how](plain(ids), torch.ones_like(ids).bool())).abs().max() <= 1e-12


def test_a_row_of_padding_alone_is_finite() -> None:
    ids = torch.full((2, 5), PAD)
    for how in POOLS:
        for module in made(f"pad: {PAD}\nencoder: {{{BODY}}}\nhead: {{kind: vector, pool: {how}}}\n"):
            found = module(ids)
            gradients = torch.autograd.grad(found.sum(), list(module.parameters()), allow_unused=True)
            assert bool(found.isfinite().all()) and all(g is None or bool(g.isfinite().all()) for g in gradients)


def test_the_place_of_a_token() -> None:
    """The first one; a row without it gives its first token."""
    ids = tokens()
    ids[1, 4] = ids[2, 7] = TOKEN
    text = f"decoder: {{{BODY}}}\n"
    head = f"head: {{kind: vector, pool: {{kind: token, token: {TOKEN}}}}}\n"
    for plain, pooled in zip(made(f"{text}head: none\n"), made(text + head), strict=True):
        pooled.load_state_dict(plain.state_dict())
        wanted = plain(ids)[torch.arange(3), torch.tensor([0, 4, 4])]
        assert (pooled(ids) - wanted).abs().max() <= 1e-12


def test_classes_and_vectors() -> None:
    """In order: pool, transform, the linear, scale, softcap, length 1."""
    ids = torch.randint(32, (3, 9), generator=torch.Generator().manual_seed(0))
    text = f"decoder: {{{BODY}}}\n"
    rest = "bias: true, scale: 0.5, softcap: 2, dim: 12, transform: {activation: tanh, norm: false}, pool: mean"
    for head in (f"{{kind: classes, classes: 5, {rest}}}", f"{{kind: vector, size: 7, normalize: true, {rest}}}"):
        for plain, module in zip(made(f"{text}head: none\n"), made(f"{text}head: {head}\n"), strict=True):
            module.load_state_dict(plain.state_dict(), strict=False)
            w = dict(module.named_parameters())
            x = torch.tanh(F.linear(plain(ids).mean(1), w["head_transform.weight"], w["head_transform.bias"]))
            x = 2 * torch.tanh(F.linear(x, w["head.weight"], w["head.bias"]) * 0.5 / 2)
            x = x / x.norm(dim=-1, keepdim=True) if "vector" in head else x
            assert (module(ids) - x).abs().max() <= 1e-12


@pytest.mark.parametrize(("head", "shape"), [("none", (3, 9, 16)), ("{kind: vector, size: 7, pool: last}", (3, 7))])
def test_the_loss_of_vectors(head: str, shape: tuple[int, ...]) -> None:
    """Squared differences; what is no number counts nothing, in gradients too."""
    spec = load(Source("s.yaml", f"{HEAD}decoder: {{{BODY}}}\nhead: {head}\n"))
    assert isinstance(spec, Spec), spec
    with in_double():
        file = load_file(emit(spec, spec.layout()).source, "file")
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    targets = torch.randn(shape, dtype=torch.float64)
    targets[0, 0] = targets[1] = torch.nan
    wanted = sum((a - b) ** 2 for a, b in zip(x.flatten(), targets.flatten(), strict=True) if not b.isnan()) * 0.25
    assert isinstance(wanted, Tensor)
    (theirs,) = torch.autograd.grad(wanted, x)
    for loss in (file.loss, interpret_loss(graph_of(spec.model))):
        found = loss(x, targets, torch.tensor(0.25, dtype=torch.float64))
        (ours,) = torch.autograd.grad(found, x)
        assert (found - wanted).abs() <= 1e-12 and (ours - theirs).abs().max() <= 1e-12
        assert bool((ours[1] == 0).all())


def test_batches_are_filled_up() -> None:
    nan = float("nan")
    ids, labels = torch.tensor([[7, 8], [9, 7]]), torch.tensor([[[0.5], [1.0]], [[2.0], [3.0]]])
    found = filled_of(
        {"tokens": ids, "labels": labels}, {"tokens": (3, 3), "labels": (3, 3, 1)}, ((0, 1), (nan, nan)), 2
    )
    assert found[0].tolist() == [[7, 8, 0], [9, 7, 0], [1, 1, 1]]
    assert torch.equal(found[1][:2, :2], labels) and int(found[1].isnan().sum()) == 5
    rows = filled_of(
        {"tokens": ids, "labels": torch.tensor([1, 2])}, {"tokens": (3, 2), "labels": (3,)}, ((0, 1), (-100, -100)), 1
    )
    assert rows[1].tolist() == [1, 2, -100]
    for wrong in (labels.long(), labels[:1], labels[:, :1], labels.repeat(1, 1, 2), labels[..., 0]):
        with pytest.raises(ValueError, match="are given"):
            filled_of(
                {"tokens": ids, "labels": wrong}, {"tokens": (3, 3), "labels": (3, 3, 1)}, ((0, 1), (nan, nan)), 2
            )
    with pytest.raises(ValueError, match="at most"):
        filled_of({"tokens": ids, "labels": labels}, {"tokens": (1, 3), "labels": (1, 3, 1)}, ((0, 1), (nan, nan)), 2)


@pytest.mark.parametrize("name", FAMILIES)
def test_classifiers_of_others(name: str) -> None:
    case = FAMILIES[name].case
    interpreted = interpret(graph_of(case.model), dtype=torch.float64).eval()
    assert check_against(case.reference().double(), interpreted, case.inputs, case.mapping) <= 1e-9
    made = built(source_of(case.model, Layout()))
    assert check_against(case.reference().double(), made, case.inputs, case.mapping) <= 1e-9


@pytest.mark.parametrize(
    ("old", "new"),
    [("(places * real)", "(places * ~real)"), ("last_real(self.norm(x), mask.ne(0))", "self.norm(x)[:, -1]")],
)
def test_a_wrong_place_is_found(old: str, new: str) -> None:
    case = FAMILIES["llama, a class a row"].case
    source = source_of(case.model, Layout())
    assert old in source
    with pytest.raises(AssertionError):
        check_against(case.reference().double(), built(source.replace(old, new)), case.inputs, case.mapping)
