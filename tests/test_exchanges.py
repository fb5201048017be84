"""What is owned goes where its owners are and comes back; parts of a sequence take from those before them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from specc.cost.counts import collectives
from specc.emit import emit
from specc.extension import Extension, LayoutAxis
from specc.interpret import interpret
from specc.interpret.experts import TABLE
from specc.ir.op import OpError
from specc.ir.repeat import layer_of
from specc.ir.types import Axis, TensorType
from specc.kernels import experts
from specc.kernels.convolution import halo
from specc.lower import lower
from specc.ops.base import Owned
from specc.ops.experts import DISPATCH
from specc.passes import compile_graph
from specc.passes.legalise import legalise
from specc.spec.core import Layout
from specc.tables import tables
from specc.verify.launch import run_ranks
from specc.verify.relations import setting
from specc.verify.run import fill, load_file, own
from tests.comm import Recorder
from tests.graphs import graph_of
from tests.test_ports import TEXT, layout, spec

D, EXPERTS, RANKS = 5, 6, 3
IDS = torch.tensor(
    [
        [[[0, 1], [0, 3]], [[1, 0], [3, 1]]],
        [[[3, 0], [3, 1]], [[3, 1], [3, 0]]],
        [[[1, 2], [2, 1]], [[0, 1], [3, 0]]],
    ]
)
"""Choices [rank, batch, seq, top_k]: of rank 0 none is of expert 2, and nobody's of experts 4 and 5, all of rank 2."""


def weights_of(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def through_experts(x: Tensor, ids: Tensor, weight: Tensor, ep: Any = None) -> Tensor:
    """Tokens to their experts, on ranks with parts of these where there are any."""
    rows, owner, order = experts.dispatch(x, ids)
    if ep is None:
        rows = experts.grouped_linear(rows, owner, weight)
    else:
        rows, mine, origin = experts.to_experts(rows, owner, EXPERTS, ep)
        assert bool((mine.diff() >= 0).all()) and len(mine) == len(rows) == len(origin)
        rows = experts.from_experts(experts.grouped_linear(rows, mine, weight), origin, owner, EXPERTS, ep)
    return experts.combine(rows, weights_of((*ids.shape[:2], 2), seed=2), order)


def learnt(x: Tensor) -> Tensor:
    return x.detach().clone().requires_grad_()


def on_ranks(work: Callable[[int, Any], Any]) -> list[Any]:
    """Of `work`, given its rank and the mesh, on each of the ranks."""
    return run_ranks(RANKS, lambda: work(dist.get_rank(), init_device_mesh("cpu", (RANKS,))))


def same(a: Any, b: Tensor) -> None:
    assert a.shape == b.shape and torch.allclose(torch.as_tensor(a), b, rtol=0, atol=1e-12)


def test_tokens_go_to_experts_on_other_ranks_and_back() -> None:
    """Uneven numbers: a rank that sends nothing to another, an expert without a token, a rank without any."""
    x, weight = weights_of((RANKS, *IDS.shape[1:3], D)), weights_of((EXPERTS, D, D), seed=1)
    counts = torch.bincount(IDS.flatten(), minlength=EXPERTS)
    assert counts[4:].sum() == 0 and bool((IDS[0] != 2).all()) and len(set(counts.tolist())) > 3

    def work(rank: int, ep: Any) -> tuple[Tensor, ...]:
        mine, part = learnt(x[rank]), learnt(weight.chunk(RANKS)[rank])
        out = through_experts(mine, IDS[rank], part, ep)
        (out * weights_of(out.shape, seed=rank)).sum().backward()
        assert mine.grad is not None and part.grad is not None
        return out.detach(), mine.grad, part.grad

    all_x, all_weight = learnt(x), learnt(weight)
    wanted = [through_experts(all_x[rank], IDS[rank], all_weight) for rank in range(RANKS)]
    values = [(out * weights_of(out.shape, seed=rank)).sum() for rank, out in enumerate(wanted)]
    gradients = torch.autograd.grad(torch.stack(values).sum(), (all_x, all_weight))
    for rank, (out, of_x, of_weight) in enumerate(on_ranks(work)):
        same(out, wanted[rank].detach())
        same(of_x, gradients[0][rank])
        same(of_weight, gradients[1].chunk(RANKS)[rank])


@pytest.mark.parametrize(("length", "rows"), [(2, 3), (1, 3), (4, 3), (3, 0)])
def test_a_part_of_a_sequence_gets_what_stands_in_front_of_it(length: int, rows: int) -> None:
    """From several ranks where a part is shorter than that; gradients go back to each."""
    x = weights_of((2, RANKS * length, D))

    def work(rank: int, cp: Any) -> tuple[Tensor, Tensor]:
        mine = learnt(x.chunk(RANKS, 1)[rank])
        front = halo(mine, rows, cp)
        (front * weights_of(front.shape, seed=rank)).sum().backward()
        assert mine.grad is not None
        return front.detach(), mine.grad

    all_x = learnt(x)
    padded = torch.nn.functional.pad(all_x, (0, 0, rows, 0))
    wanted = [padded[:, rank * length : rank * length + rows] for rank in range(RANKS)]
    values = [(front * weights_of(front.shape, seed=rank)).sum() for rank, front in enumerate(wanted)]
    (gradient,) = torch.autograd.grad(torch.stack(values).sum(), all_x)
    for rank, (front, of_x) in enumerate(on_ranks(work)):
        same(front, wanted[rank].detach())
        same(of_x, gradient.chunk(RANKS, 1)[rank])


# where the compiler puts them

EP = layout(ep=2, dp=2)


def test_legalise_sends_what_is_owned_to_its_owners_and_back() -> None:
    graph = graph_of(spec().model, legalise, layout=EP)
    (dispatch,) = (op for op in graph.ops if op.kind == "dispatch")
    (there,) = graph.users(dispatch.ref)
    (back,) = (op for op in graph.ops if op.kind == "from_experts")
    assert (there.kind, there.scope, there.attrs) == ("to_experts", dispatch.scope, (("experts", 4),))
    assert [str(ref) for ref in there.inputs] == [f"%{dispatch.id}", f"%{dispatch.id}:1"]
    grouped = [op for op in graph.ops if op.kind == "grouped_linear"]
    assert all(op.inputs[1] == (there.id, 1) for op in grouped)
    assert back.inputs == (grouped[-1].ref, (there.id, 2), (dispatch.id, 1))
    (combine,) = graph.users(back.ref)
    assert combine.kind == "combine" and combine.inputs[0] == back.ref
    assert str(graph.type(grouped[0].ref)) == "float[experts=4, slots, ffn=16]"
    assert str(graph.type(back.ref)) == "float[slots, d_model=32]"


def test_nothing_goes_where_no_rank_has_other_owners() -> None:
    """Of a data axis that splits no experts, of a model axis, and where ranks cannot share them out evenly."""
    split = LayoutAxis("xp", "Ranks.", "experts over xp = {}", shards=("experts",))
    known = tables((Extension("experts of a model axis", axes=(split,)),))
    model = spec(TEXT, known).model
    layouts = (
        Layout(dp=2, tp=2, tables=known),
        Layout(others=(("xp", 2),), tables=known),
        replace(EP, dp=3, ep=3),
    )
    for given in layouts:
        graph = graph_of(model, legalise, layout=given)
        assert not [op for op in graph.ops if op.kind in ("to_experts", "from_experts")]


def test_owners_whose_parameters_nobody_has_are_told() -> None:
    lonely = replace(DISPATCH, owned=Owned("slots", "teams", "to_experts", "from_experts"))
    known = tables()
    known = replace(known, ops={**known.ops, "dispatch": lonely})
    with pytest.raises(OpError, match=r"dispatch: gives what belongs to teams, of which no op has parameters"):
        graph_of(spec(TEXT, known).model, legalise, layout=replace(EP, tables=known))


def test_one_device_computes_the_same_with_them() -> None:
    model = spec().model
    whole, sent = (graph_of(model, *passes, layout=EP) for passes in ((), (legalise,)))
    tokens = torch.arange(24).view(2, 12) * 7 % model.vocab
    state = interpret(whole, dtype=torch.float64).state_dict()
    state = {name: weights_of(tuple(value.shape)) for name, value in state.items()}
    found: list[Tensor] = []
    for graph in (whole, sent):
        module = interpret(graph, dtype=torch.float64)
        module.load_state_dict(state)
        found.append(module(tokens)[0])
    assert torch.equal(*found) and bool(found[0].isfinite().all())


def test_a_ragged_axis_and_the_one_before_it_are_one_dim() -> None:
    kept, slots, features = Axis("experts", 4), Axis("slots", "slots", ragged=True), Axis("ffn", 6)
    packed = TensorType((kept, slots, features))
    assert packed.dims == ((kept, slots), (features,))
    assert [packed.dim(name) for name in ("experts", "slots", "ffn", "heads")] == [0, 0, 1, None]
    assert packed.numel({"slots": 10}) == 60
    assert TensorType((slots._replace(factors=(("topk", 3),)), features)).numel({"slots": 10}) == 180
    assert TensorType((slots, features)).dims == ((slots,), (features,))


def test_a_module_that_is_gathered_apart_must_read_its_weights() -> None:
    """FSDP2 gathers in front of a forward; without one, a rank would compute with its own rows of the weight."""
    known = tables()
    bare = {key: replace(form, inputs="") for key, form in known.forms.items() if key[0] == "grouped_linear"}
    known = replace(known, forms={**known.forms, **bare})
    with pytest.raises(ValueError, match=r"gate\.weight is gathered by its own OwnExperts, which has no forward"):
        emit(spec(TEXT, known), replace(EP, tables=known))
    assert "ignored_params" in emit(spec(TEXT, known), layout(ep=2, tables=known)).source  # FSDP2 does not touch them


def test_rows_are_counted_for_each_choice_of_a_token() -> None:
    graph = graph_of(spec().model, legalise, layout=EP)
    grouped = [op for op in graph.ops if op.kind == "grouped_linear"]
    assert graph.symbols["slots"] == graph.tokens == 2048
    for op in grouped:
        ins = tuple(map(graph.type, op.inputs))
        assert graph.definition(op).flops(op, ins, graph.symbols) == 2 * (2 * 2048) * 32 * 16


# a model

FEW = TEXT.replace("experts: 4, top_k: 2", "experts: 16, top_k: 1").replace("balance_loss: 0.3", "balance_loss: 0.5")


def routed(source: str, given: Layout, weights: dict[str, Tensor], tensors: tuple[Tensor, ...]) -> Any:
    """Choices of experts on a rank, layer by layer, and the exchanges of forward and backward."""
    torch.set_default_dtype(torch.float64)
    file = load_file(source, "file")
    mesh = file.device_mesh("cpu")
    module = file.build_model(mesh, torch.device("cpu"), 0)
    for name, p in module.named_parameters():
        fill(p, weights[name])
    chosen: list[Tensor] = []
    dispatch = file.dispatch

    def noted(x: Tensor, ids: Tensor) -> tuple[Tensor, ...]:
        chosen.append(ids)
        return dispatch(x, ids)

    file.__dict__["dispatch"] = noted
    tokens, labels = (own(x, given, mesh) for x in tensors)
    with Recorder() as forward:
        outputs = module(tokens)
    value = file.loss(outputs, labels, 1.0)
    with Recorder() as backward:
        value.backward()
    return chosen, forward.counts()["all-to-all"], backward.counts()["all-to-all"]


def test_ranks_route_as_one_device_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Experts that get no token at all, others that get many; and as many exchanges as the plan says."""
    found, given = spec(FEW), layout(ep=2)
    wanted: list[Tensor] = []

    def noted(x: Tensor, ids: Tensor) -> tuple[Tensor, ...]:
        wanted.append(ids)
        return experts.dispatch(x, ids)

    monkeypatch.setitem(TABLE, "dispatch", noted)
    case = setting(found.model, given)
    layers = wanted[:3]  # of the first batch
    counts = [torch.bincount(ids.flatten(), minlength=16) for ids in layers]
    assert all(0 in used and used.max() > 4 for used in counts)
    placed = compile_graph(lower(found.model), given)
    told = collectives(placed, (op for op in placed.ops if layer_of(op.scope) is not None))
    results = run_ranks(2, routed, emit(found, given).source, given, case.weights, case.batch.tensors)
    for rank, (chosen, forward, backward) in enumerate(results):
        for ids, of_all in zip(chosen, layers, strict=True):
            assert torch.as_tensor(ids).equal(of_all.chunk(2)[rank])
        assert (forward, backward) == tuple(3 * counts["all-to-all"] for counts in told) == (9, 6)
