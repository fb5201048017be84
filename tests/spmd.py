"""Generated files under `spmd_types`: nothing in them is annotated, helpers of fixed names are typed from outside.

Local types are R, I, V and P; that a varying value is split along the right axis, our own checker and the runs on real
ranks must say. The loss is rank-dependent Python, which has no local type, so a stand-in takes its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import spmd_types as spmd
import torch
import torch.nn.functional as F
from spmd_types import I, P, R, S, SpmdTypeError, V
from spmd_types.checker import typecheck
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from specc.spec.core import Layout, Model
from tests.comm import fake_group, stages_on_rank, tokens

CPU = torch.device("cpu")


class Functions:
    """torch.nn.functional with two rules more.

    Random numbers differ on shards and agree on whole values; only a row-parallel linear contracts a shard.
    """

    def __init__(self, tp: Any):
        self.tp, self.own, self.rows = tp, False, False

    def __getattr__(self, name: str) -> Any:
        return getattr(F, name)

    @contextmanager
    def own_random(self, _: DeviceMesh) -> Iterator[None]:
        self.own = True
        try:
            yield
        finally:
            self.own = False

    def drawn(self, x: Tensor) -> None:
        if spmd.get_axis_local_type(x, self.tp) not in ((V,) if self.own else (R, I)):
            raise SpmdTypeError("random numbers of this rank on a whole value, or common ones on a shard")

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if spmd.get_axis_local_type(weight, self.tp) is V:
            spmd.assert_type(x, {self.tp: V if self.rows else R})
        return F.linear(x, weight, bias)

    def dropout(self, x: Tensor, rate: float, training: bool) -> Tensor:
        self.drawn(x)
        return F.dropout(x, rate, training)

    def scaled_dot_product_attention(self, q: Tensor, *args: Any, dropout_p: float = 0.0, **kwargs: Any) -> Tensor:
        if dropout_p:
            self.drawn(q)
        return F.scaled_dot_product_attention(q, *args, dropout_p=dropout_p, **kwargs)


@dataclass(frozen=True)
class Typed:
    """A file with its helpers replaced, and the tensor-parallel group."""

    file: ModuleType
    mesh: DeviceMesh
    tp: Any
    stream: Any  # type of the stream at every border


def typed(file: ModuleType, layout: Layout) -> Typed:
    """Type the collectives, and the places where a varying value means a partial sum. Inside a fake group."""
    scope = file.__dict__
    mesh = file.device_mesh("cpu")
    tp = mesh.get_group("tp")
    functions = Functions(tp)

    def partial(name: str) -> None:
        true = scope[name].forward

        def forward(self: nn.Module, x: Tensor) -> Tensor:
            functions.rows = name == "RowLinear"
            try:
                return spmd.reinterpret(true(self, x), tp, src=V, dst=P)
            finally:  # a recomputation ends early, by an exception
                functions.rows = False

        scope[name].forward = forward

    scope |= {
        "all_gather": lambda x, _: spmd.all_gather(x, tp, src=S(0), dst=R),
        "all_gather_whole": lambda x, _: spmd.all_gather(x, tp, src=S(0), dst=I),
        "reduce_scatter": lambda x, _: spmd.reduce_scatter(x, tp, src=P, dst=S(0)),
        "all_reduce": lambda x, _: spmd.all_reduce(x, tp, src=P, dst=I),
        "sum_for_shards": lambda x, _: spmd.all_reduce(x, tp, src=P, dst=R),
        "copy_to_shards": lambda x, _: spmd.convert(x, tp, src=I, dst=R),
        "shard": lambda x, dim, _: spmd.convert(x, tp, src=R, dst=S(dim)),
        "own_random": functions.own_random,
        "F": functions,
        "init_weights": lambda *_: None,
    }
    if "checkpoint" in scope:
        scope["checkpoint"] = _typed_again(scope["checkpoint"], mesh)
    if "VocabEmbedding" in scope:
        partial("VocabEmbedding")
    partial("RowLinear")
    return Typed(file, mesh, tp, S(0) if layout.sequence_parallel else I)


def _typed_again(true: Callable[..., Any], mesh: DeviceMesh) -> Callable[..., Any]:
    """Checkpointing whose recomputation is typed as well: it runs in the backward pass, which is not."""

    def checkpoint(layer: nn.Module, *args: Tensor, **options: Any) -> Any:
        types = [spmd.get_local_type(x) for x in args]

        def run(*args: Tensor) -> Any:
            if spmd.is_type_checking():
                return layer(*args)
            with spmd.set_current_mesh(mesh["tp"]), typecheck():
                for x, type in zip(args, types, strict=True):
                    spmd.assert_type(x, type)
                return layer(*args)

        return true(run, *args, **options)

    return checkpoint


def check(model: Model, layout: Layout, file: ModuleType) -> None:
    """Type every stage of the file: forward in train mode, so with dropout, and recomputation. Raises SpmdTypeError."""
    with fake_group(layout.tp * layout.pp.stages):
        found = typed(file, layout)
        if layout.pp.stages == 1:
            _check(found, file.build_model(found.mesh, CPU, 0).train(), tokens(model), last=True)
            return
        stages = stages_on_rank(model, layout, file)
        for n, stage in enumerate(stages, 1):
            _check(found, stage.module.train(), stage.inputs, last=n == len(stages))


def _check(found: Typed, module: nn.Module, inputs: tuple[Tensor, ...], last: bool) -> None:
    tp = found.tp

    def border(_: nn.Module, args: tuple[Any, ...], result: Tensor) -> None:
        spmd.assert_type(args[0], {tp: found.stream})
        spmd.assert_type(result, {tp: found.stream})

    for part in module.modules():
        for layer in part.values() if isinstance(part, nn.ModuleDict) else ():
            layer.register_forward_hook(border)
    with spmd.set_current_mesh(found.mesh["tp"]), typecheck():
        for x in inputs:
            spmd.assert_type(x, {tp: found.stream if x.requires_grad else R})
        outputs = module(*inputs)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        total = 0.0
        for x in outputs:
            made = S(2) if x.dim() > 2 else I  # classes of a row are not split
            spmd.assert_type(x, {tp: made if last else found.stream if x.is_floating_point() else R})
            if x.requires_grad:
                kind = spmd.get_axis_local_type(x, tp)
                whole = x.sum()
                if kind is V:
                    whole = spmd.all_reduce(spmd.reinterpret(whole, tp, src=V, dst=P), tp, src=P, dst=I)
                total = total + whole
    total.backward()
    for name, p in module.named_parameters():
        if p.placements[0].is_shard() and p.grad.placements != p.placements:
            raise SpmdTypeError(f"the gradient of a shard of {name} is {p.grad.placements}")
