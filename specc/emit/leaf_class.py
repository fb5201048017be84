"""The source of a leaf class, with the options that the file uses."""

from __future__ import annotations

from specc.emit.code import Code, part
from specc.emit.leaf import classes, options
from specc.ir.graph import Graph


def leaf_class(graph: Graph, name: str) -> Code:
    """The class of that name, which serves all its leaves in the graph."""
    leaves, chosen = classes(graph)[name], options(graph)[name]
    tp = bool(graph.model_axes)
    placement = "Shard(0)" if name == "Bias" else "Replicate()"
    partial = "partial_grads" in chosen
    read = "self.{}"
    if tp:
        read = "partial_grad(self.{})" if leaves[0].partial_grads else "self.{}.to_local()"
        read = "self.{}.to_local(grad_placements=self.grads)" if partial else read
    return part(
        f"leaves/{name}.j2",
        bias=any(leaf.bias for leaf in leaves),
        bias_option="bias" in chosen,
        partial=partial,
        uneven=any(leaf.uneven for leaf in leaves),
        options=Code("".join(f", {option}: bool = False" for option in chosen)),
        tp=Code(", tp: DeviceMesh" if tp else ""),
        make=Code(f"parameter((dim,), {placement}, tp)" if tp else "nn.Parameter(torch.empty(dim))"),
        weight=Code(read.format("weight")),
        bias_value=Code(read.format("bias")),
    )
