"""`generate` of a file."""

from __future__ import annotations

from dataclasses import dataclass

from specc.emit.code import Code
from specc.emit.context import Context, of_mesh
from specc.emit.function import shape
from specc.emit.make import MESH


@dataclass(frozen=True)
class Generate:
    """What generate.j2 is filled with."""

    takes: Code
    checks: tuple[Code, ...]
    reading: Code
    logits: Code


def generate(of: Context) -> Code:
    """Tokens behind those that are given, one after the other."""
    (model,) = of.stages
    takes = [f"module: {model.name}", *([MESH] if of.axes else []), "tokens: Tensor", "new: int"]
    takes += ["temperature: float = 0.0", "top_p: float = 1.0", "seed: int = 0"]
    reading = ["torch.no_grad()"] + ["evaluating(module)"] * of.random
    embeds = [stack.embed or of.model.embed for stack in of.model.stacks]
    learned = [embed.positions.size for embed in embeds if embed.positions and embed.positions.kind == "learned"]
    most = min(learned, default=0)
    checks = (
        Code(f"if tokens.size(1) + new > {most}:"),
        Code(f'    raise ValueError(f"{{tokens.size(1) + new}} tokens, and the model has positions for {most}")'),
    )
    return shape(
        "generate.j2",
        of=Generate(Code(", ".join(takes)), checks * bool(learned), Code(", ".join(reading)), _logits(of)),
    )


def _logits(of: Context) -> Code:
    """Of the last token, whole on every rank."""
    ref, first = of.graph.outputs[0], "[0]" * (len(of.graph.outputs) > 1)
    last = f"module.decode(last, cache){first}[:, -1:]"
    for axis in of.graph.type(ref).axes if of.graph.mesh else ():
        if over := of.graph.spmd(ref).shards(axis):
            return Code(f"whole({last}.contiguous(), {axis.size}, {of_mesh(over[0], of.graph)})")
    return Code(last)
