"""Whether results kept by name pay: what checkpointing with such a layout would do in vain, or wrongly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from specc.ir.graph import Graph
from specc.ir.op import Layer, Op, Path, dotted
from specc.ops import definition
from specc.spec.core import Layout


@dataclass(frozen=True)
class SaveWarning:
    """What is wrong with keeping the results of that name. An error gives wrong gradients, a warning wastes memory."""

    name: str
    reason: str
    severity: Literal["error", "warning"] = "warning"


def save_warnings(graph: Graph, layout: Layout) -> tuple[SaveWarning, ...]:
    """All findings, names in the layout's order. `graph` has passed checkpointing."""
    blocks = _blocks(graph)
    found: dict[SaveWarning, None] = {}
    for name in layout.checkpoint.save:
        kept = [(path, n) for path, ops in blocks.items() for n, op in enumerate(ops) if op.kept == name]
        if not kept:
            found[SaveWarning(name, "no layer has an op of that name", "error")] = None
        for path, n in kept:
            for finding in _findings(name, blocks[path], n):
                found[finding] = None
    return tuple(found)


def _blocks(graph: Graph) -> dict[Path, list[Op]]:
    """The ops of each block, in op order."""
    blocks: dict[Path, list[Op]] = {}
    for op in graph.ops:
        depth = next((n for n, part in enumerate(op.scope) if isinstance(part, Layer)), None)
        if depth is not None:
            blocks.setdefault(op.scope[: depth + 1], []).append(op)
    return blocks


def _findings(name: str, ops: list[Op], n: int) -> Iterator[SaveWarning]:
    later = ops[n + 1 :]
    if _random(ops[n]) and (drawing := next((op for op in later if _random(op)), None)) is not None:
        reason = (
            f"it draws random numbers, and so does {_local(drawing)} after it: "
            "run again without it, the layer would draw others than before"
        )
        yield SaveWarning(name, reason, "error")
    # recomputation runs a block up to its last op that saves something for backward
    if not any(definition(op.kind).saves(op) for op in later):
        yield SaveWarning(name, "no later op of the layer saves anything for backward, so it would not be run again")


def _random(op: Op) -> bool:
    return definition(op.kind).random(op)


def _local(op: Op) -> str:
    """The op's name in its layer."""
    layer = next(n for n, part in enumerate(op.scope) if isinstance(part, Layer))
    scope = dotted(op.scope[layer + 1 :])
    last = op.id.rpartition(".")[2]
    return f"{scope}.{last}" if scope else last
