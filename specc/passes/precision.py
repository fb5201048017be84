"""In what type a file computes: that of its parameters, or the layout's."""

from __future__ import annotations

from dataclasses import replace

from specc.ir.graph import Graph
from specc.ir.op import Op, Ref
from specc.passes.shapes import shapes
from specc.spec.core import Layout


def precision(graph: Graph, layout: Layout) -> Graph:
    """The type is said where it is half precision, and between stages: both ends of a cut must know it.

    Ops that make values of the stream out of whole numbers, or of what the model is fed, get the attribute `dtype`;
    what follows takes theirs. What a mask adds to scores is made in it once: kernels of attention, which do so in
    every call, would keep as many. Else all floating point values have the type of the parameters, whatever that is
    when the model is built.
    """
    if layout.precision == "fp32" and layout.pp.stages == 1:
        return graph
    ops, moved = list[Op](), dict[Ref, Ref]()
    for op in graph.ops:
        op = op.having(dtype=layout.dtype) if _starts(graph, op) else op
        ops.append(replace(op, inputs=tuple(moved.get(ref, ref) for ref in op.inputs)))
        if _is_mask(graph, op):
            bias = Op(f"{op.id}_bias", "mask_bias", (op.ref,), scope=op.scope, hint=graph.hint(op.ref), at=op.at)
            ops.append(bias.having(dtype=layout.dtype))
            moved[op.ref] = bias.ref
    return shapes(graph.with_ops(ops, moved=moved), layout)


def _is_mask(graph: Graph, op: Op) -> bool:
    """Whether it tells kernels of attention, and nobody else, what is hidden."""
    dense = len(op.outs) == 1 and op.outs[0].dtype == "bool" and op.outs[0].dim("keys") is not None
    users = graph.users(op.ref) if dense else ()
    return bool(users) and all(user.kind == "attention" and op.ref in user.inputs[3:] for user in users)


def _starts(graph: Graph, op: Op) -> bool:
    """Whether a value of the stream begins here: a table of weights or of positions, or what is made of a batch."""
    floats = [type for type in op.outs if type.dtype.startswith("float")]
    given = (graph.type(ref).dtype in ("int64", "bool") or graph.op(ref.op).kind == "input" for ref in op.inputs)
    return bool(floats and op.inputs) and all(given)
