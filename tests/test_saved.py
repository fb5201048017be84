"""What rows say that kernels keep is what torch keeps: a torch that keeps something else shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from specc.cli.specs import load_all
from specc.compile import compile_spec
from specc.cost.rows import ROWS
from specc.cost.sizes import Sizes
from specc.cost.storage import Live
from specc.cost.trace import Trace
from specc.interpret.table import functions
from specc.ir.graph import Graph
from specc.ir.op import Op
from specc.spec import Layout
from tests.probed import probe

TINY = sorted((Path(__file__).parents[1] / "specs" / "tiny").glob("*.yaml"))
ROWS_OF_BATCH = 3


def _graph(path: Path) -> Graph:
    (spec,) = load_all((path,)).specs
    return compile_spec(spec, Layout()).placed


def _sizes(graph: Graph, seq: int) -> Sizes:
    tokens = ROWS_OF_BATCH * seq
    known = {"batch": ROWS_OF_BATCH, "slots": tokens, "places": tokens}
    return Sizes(graph, {name: known.get(name, seq) for name in graph.symbols})


def _kind(graph: Graph, op: Op) -> tuple[object, ...]:
    return (op.kind, op.attrs, tuple(graph.ins(op)), tuple(param.axes for param in op.params))


@pytest.mark.parametrize("path", TINY, ids=lambda path: path.stem)
def test_what_kernels_keep(path: Path) -> None:
    """Of one chunk of a scan and of several. Experts that have no rows are not drawn: all ids are 0."""
    graph = _graph(path)
    known, seen = functions(graph.tables), set[tuple[object, ...]]()
    for seq in (16, 130):
        sizes = _sizes(graph, seq)
        trace = Trace(sizes, ROWS, Live())
        for op in graph.ops:
            if op.kind not in known or (seq, *_kind(graph, op)) in seen:
                continue
            seen.add((seq, *_kind(graph, op)))
            found, row = probe(graph, op, sizes, known), trace.row(op)
            recorded = any(type.grad for type in graph.ins(op)) or any(param.trained for param in op.params)
            values = sorted(name for name in row.values if name[:6] != "weight") if recorded else []
            assert values == [name for name in found.values if not name.startswith("param")], op
            assert (row.bytes if recorded else 0) == found.own, op
            if op.kind != "merge":  # which takes what a kernel made as it lies
                assert row.view == all(name == "in0" for name in found.views), op


def test_every_kind_has_a_row() -> None:
    """But those of the second entry, which does not train, and what only carries values."""
    graphs = [_graph(path) for path in TINY]
    kinds = {op.kind for graph in graphs for op in graph.ops} - {"repeat", "end", "cut"}
    assert len(kinds) > 60 and not kinds - ROWS.keys()
