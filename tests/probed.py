"""What a kernel of torch keeps for backward, and whether results are views: of the interpreter's functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from specc.cost.sizes import Sizes
from specc.interpret.build import _attributes
from specc.ir.graph import Graph
from specc.ir.op import Op, Ref
from tests.track import kept


@dataclass(frozen=True)
class Probed:
    """Names of operands, parameters and results that are kept, bytes of what else is, and results that are operands."""

    values: tuple[str, ...]
    own: int
    views: tuple[str, ...]


def probe(graph: Graph, op: Op, sizes: Sizes, functions: Mapping[str, Callable[..., Any]]) -> Probed:
    """Run an op, in training, on values of the right sizes."""
    ins = [_value(graph, ref, sizes) for ref in op.inputs]
    params = [torch.rand([axis.length for axis in p.axes], requires_grad=p.trained) for p in op.params]
    attrs = _attributes(graph, op) | ({"training": True} if graph.definition(op).random(op) else {})
    with kept() as saved:
        result = functions[op.kind](*ins, *params, **attrs)
    results = result if isinstance(result, tuple) else (result,)
    names: dict[int, str] = {}
    for kind, tensors in (("in", ins), ("param", params)):
        names |= {_key(x): f"{kind}{n}" for n, x in enumerate(tensors)}
    views = tuple(names.get(_key(x), "") for x in results)
    for n, x in enumerate(results):
        names.setdefault(_key(x), f"out{n}")
    values = sorted(names[_key(x)] for x in saved if _key(x) in names)
    return Probed(tuple(values), sum(_bytes(x) for x in saved if _key(x) not in names), views)


def _value(graph: Graph, ref: Ref, sizes: Sizes) -> Tensor:
    type, dims = graph.type(ref), sizes.dims(ref)
    if type.dtype == "int64":
        return torch.zeros(dims, dtype=torch.int64)
    if type.dtype == "bool":
        return torch.ones(dims, dtype=torch.bool)
    if graph.op(graph.origin(ref).op).kind == "part" and len(dims) == 4:  # cut off of what is split into heads
        batch, heads, seq, width = dims
        return (torch.rand(batch, seq, heads, width + 1, requires_grad=True) + 0).transpose(1, 2)[..., :width]
    return torch.rand(dims, requires_grad=True) + 0 if type.grad else torch.rand(dims)


def _key(x: Tensor) -> int:
    return x.untyped_storage()._cdata


def _bytes(x: Tensor) -> int:
    return x.untyped_storage().nbytes()
