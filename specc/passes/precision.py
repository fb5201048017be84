"""In what type a file computes: that of its parameters, or the layout's."""

from __future__ import annotations

from specc.ir.graph import Graph
from specc.ir.op import Op
from specc.passes.shapes import shapes
from specc.spec.core import Layout


def precision(graph: Graph, layout: Layout) -> Graph:
    """The type is said where it is half precision, and between stages: both ends of a cut must know it.

    Ops that make values of the stream out of whole numbers, or of what the model is fed, get the attribute `dtype`;
    what follows takes theirs. Else all floating point values have the type of the parameters, whatever that is when
    the model is built.
    """
    if layout.precision == "fp32" and layout.pp.stages == 1:
        return graph
    return shapes(
        graph.with_ops(op.having(dtype=layout.dtype) if _starts(graph, op) else op for op in graph.ops), layout
    )


def _starts(graph: Graph, op: Op) -> bool:
    """Whether a value of the stream begins here: a table of weights or of positions, or what is made of a batch."""
    floats = [type for type in op.outs if type.dtype.startswith("float")]
    given = (graph.type(ref).dtype in ("int64", "bool") or graph.op(ref.op).kind == "input" for ref in op.inputs)
    return bool(floats and op.inputs) and all(given)
