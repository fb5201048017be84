"""The .params file."""

from __future__ import annotations

from specc.ir.graph import Graph
from specc.ir.stored import placement, stored


def table(graph: Graph) -> str:
    """A line a parameter, layers folded into ranges: name, full shape, dtype, placement, stages, init."""
    lines = [("# name", "shape", "dtype", "placement", "stage", "init")]
    for row in stored(graph):
        stages = ",".join(map(str, row.stages)) if len(row.stages) < 4 else f"{row.stages[0]}..{row.stages[-1]}"
        shape = f"[{', '.join(map(str, row.shape))}]"
        init = f"{row.param.init}{', a buffer' * (not row.param.trained)}"
        lines.append((row.name, shape, "float32", placement(row, graph), stages, init))
    widths = [max(len(line[n]) for line in lines) for n in range(5)]
    return "".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1]]) + "\n"
        for line in lines
    )
