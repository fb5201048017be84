"""The order of the axes of the stream: tokens before samples where ranks hold parts of sequences."""

from __future__ import annotations

from dataclasses import replace

from specc.ir.graph import Graph
from specc.ir.op import Op, Ref
from specc.ir.types import TOKEN_AXES, TensorType
from specc.passes.mesh import mesh_of
from specc.passes.shapes import shapes
from specc.spec.core import Layout


def order(graph: Graph, layout: Layout) -> Graph:
    """[seq, batch, d_model] under sequence parallelism, so that gathering and scattering tokens copies nothing.

    What is embedded is transposed before, what leaves the stream after, and so is what an op takes that mixes tokens,
    as the balance of experts does; inputs, heads and outputs are as they are.
    """
    if not any(mesh.tokens and not mesh.data for mesh in mesh_of(layout)):
        return graph
    ops: list[Op] = []
    last, left = {_last(graph, ref) for ref in graph.outputs if graph.type(ref).axes}, dict[Ref, Ref]()
    for op in graph.ops:
        made = _ordered(graph, op, last) if op.scope[:1] != ("loss",) else []
        moved = left | {new.inputs[0]: new.ref for new in made}
        if moved and (made or op.scope[:1] == ("loss",)):
            op = op.changed(inputs=tuple(moved.get(ref, ref) for ref in op.inputs))
        ops += [*made, op.having(first="tokens") if op.kind in ("split", "merge", "patches", "time_last") else op]
        if "" in last and op.id == graph.outputs[0].op and _by_row(graph.type(graph.outputs[0])):
            back = Op(f"{op.id}_transpose", "transpose", (graph.outputs[0],), hint=graph.hint(op.ref), at=op.at)
            ops.append(back.having(mixed=True))
            left[back.inputs[0]] = back.ref
    return shapes(graph.with_ops(ops, moved=left), layout)


def _last(graph: Graph, ref: Ref) -> str:
    """The linear that logits come from: what follows it is done to each of them. Empty where there is none."""
    op = graph.op(ref.op)
    while op.kind != "linear":
        if op.kind == "end" or op.scope:
            return ""
        op = graph.op(op.inputs[0].op)
    return op.id


def _ordered(graph: Graph, op: Op, last: set[str]) -> list[Op]:
    """Ops that give the operands of this one in the order that it needs."""
    types = graph.ins(op)
    if not graph.definition(op).any_order and any(index in TOKEN_AXES for index in graph.facts(op).mix):
        streams = [n for n, type in enumerate(types) if _by_row(type) and _streams(graph, op.inputs[n])]
        return [
            replace(_made(graph, op, n, "transpose"), id=f"{op.id}_transpose{n}", attrs=(("mixed", True),))
            for n in streams
        ]
    if op.kind in ("embedding", "sinusoid") and _by_row(types[0]):
        return [_made(graph, op, 0, "transpose")]
    if op.id in last and _by_row(types[0]):
        made = _made(graph, op, 0, "transpose")
        split = op.params[0].axes[0].name == "vocab" and not op.params[0].axes[0].whole
        return [made if split else made.having(mixed=True)]
    if op.kind == "add" and len({len(type.axes) for type in types}) > 1:
        return [_made(graph, op, n, "unsqueeze") for n, type in enumerate(types) if type.axes[0].name in TOKEN_AXES]
    return []


def _streams(graph: Graph, ref: Ref) -> bool:
    """Whether a value comes from what is embedded: inputs and what is made of them alone keep their order."""
    op = graph.op(ref.op)
    return graph.type(ref).grad or (op.kind != "input" and any(_streams(graph, given) for given in op.inputs))


def _by_row(type: TensorType) -> bool:
    return len(type.axes) > 1 and type.axes[0].name == "batch" and type.axes[1].name in TOKEN_AXES


def _made(graph: Graph, op: Op, operand: int, kind: str) -> Op:
    ref: Ref = op.inputs[operand]
    return Op(f"{op.id}_{kind}", kind, (ref,), scope=op.scope, hint=graph.hint(ref), at=op.at)
