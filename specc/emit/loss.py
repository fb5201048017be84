"""The loss of a file: a function of what the model returns and of what training is fed."""

from __future__ import annotations

import re
from dataclasses import dataclass

from specc.emit.body import CLOSE, OPEN, body
from specc.emit.code import Code
from specc.emit.function import function, shape
from specc.ir.graph import Graph
from specc.ir.op import Ref
from specc.ir.tree import loss_tree
from specc.ir.types import TensorType


@dataclass(frozen=True)
class Loss:
    """Its source, the mesh axes that it takes last, and kernels that it calls."""

    source: Code
    axes: tuple[str, ...]
    calls: tuple[str, ...]


def loss(graph: Graph) -> Loss:
    """`def loss`: several outputs come as one tuple, as pipeline schedules give them."""
    call = loss_tree(graph)
    made = body(graph, call, call.inputs, call.outputs, {}, root=True)
    values = {
        n: f"{hole.before}{hole.value}{hole.after}" if hole.value != hole.default else ""
        for n, hole in enumerate(made.holes)
    }
    lines = [re.sub(f"{OPEN}(\\d+){CLOSE}", lambda match: values[int(match[1])], line) for line in made.forward.lines]
    axes = tuple(axis.name for axis in graph.mesh if re.search(rf"\bself\.{axis.name}\b", "\n".join(lines)))
    count = len(graph.outputs)
    given, fed = made.forward.formals[:count], zip(made.forward.formals[count:], call.inputs[count:], strict=True)
    takes = [f"{given[0]}: Tensor" if count == 1 else f"outputs: tuple[{', '.join(['Tensor'] * count)}]"]
    takes += [f"{name}: {_annotation(graph.type(ref))}" for name, ref in fed]
    lines = [f"{', '.join(given)} = outputs"] * (count > 1) + [line.replace("self.", "") for line in lines]
    view = function("loss", [*takes, *(f"{axis}: DeviceMesh" for axis in axes)], "Tensor", lines)
    return Loss(shape("function.j2", of=view, doc=Code(_doc(graph, call.inputs[count:]))), axes, made.calls)


def _annotation(type: TensorType) -> str:
    return "Tensor" if type.axes else "Tensor | float"


def _doc(graph: Graph, fed: tuple[Ref, ...]) -> str:
    tokens = next(graph.type(ref).axes for ref in fed if graph.type(ref).axes)
    return f"What training makes small: a sum over [{', '.join(axis.name for axis in tokens)}], times scale."
