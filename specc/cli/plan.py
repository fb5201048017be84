"""specc plan"""

from __future__ import annotations

from pathlib import Path

import click

from specc.cli.specs import layout_of, load_all
from specc.cost.counts import blocks, collectives, crossing, stage_costs
from specc.cost.decided import decided
from specc.emit.params import Row, placement, rows, total
from specc.ir.graph import Graph, layer_of
from specc.ir.op import Op
from specc.lower import lower
from specc.passes import compile_graph
from specc.spec import Layout

TOKENS = 4096


@click.command()
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--layout", "name", help="Which of several layouts; the first by default.")
def plan(spec: Path, name: str | None) -> int:
    """Show every decided value and where it comes from, parameters, stages, shards and collectives."""
    loaded = load_all((spec,))
    if loaded.code:
        return loaded.finish("")
    only = loaded.specs[0]
    layout = layout_of(only, name)
    graph = compile_graph(lower(only.model), layout)
    click.echo(f"{only.model.name}{f', layout {layout.name}' if layout.name else ''}\n")
    _table([(row.key, row.value, row.origin) for row in decided(only, layout)], ("value", "is", "from"))
    click.echo(f"\n{total(graph):,} parameters\n")
    _table([_parameter(graph, row) for row in rows(graph)], ("parameter", "shape", "on a rank", "placement", "in all"))
    click.echo("")
    _stages(graph, layout)
    _collectives(graph)
    return 0


def _parameter(graph: Graph, row: Row) -> tuple[str, ...]:
    sizes = {axis.name: axis.size for axis in graph.mesh if not axis.data}
    local = list(row.shape)
    for name, place in row.stored.places:
        if place.kind == "S":
            dim = row.axes.index(place.axis)
            local[dim] = -(-local[dim] // sizes[name])
    return (row.name, str(list(row.shape)), str(local), placement(row, graph), f"{row.count:,}")


def _stages(graph: Graph, layout: Layout) -> None:
    costs = stage_costs(graph, layout.pp.stages, TOKENS)
    whole = sum(cost.flops for cost in costs)
    lines: list[tuple[str, ...]] = []
    for stage, cost in enumerate(costs):
        layers = ", ".join(f"{path}.{first}..{last}" for path, first, last in cost.layers)
        share = f"{100 * cost.flops / whole:.1f} %"
        lines.append((str(stage), layers, f"{cost.parameters:,}", share))
    _table(lines, ("stage", "layers", "parameters", f"flops at {TOKENS} tokens"))
    for cut, values in crossing(graph):
        text = ", ".join(f"{name} {type} {size:,.0f} B a token" for name, type, size in values)
        click.echo(f"{cut}: {text}")
    click.echo("")


def _collectives(graph: Graph) -> None:
    outside = [op for op in graph.ops if layer_of(op.scope) is None]
    lines = [(name, *_counts(ops)) for name, ops in (*blocks(graph), ("outside layers", outside))]
    _table(lines, ("collectives of a layer of", "forward", "backward"))


def _counts(ops: list[Op]) -> tuple[str, str]:
    forward, backward = collectives(ops)
    return _words(forward), _words(backward)


def _words(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "none"


def _table(lines: list[tuple[str, ...]], head: tuple[str, ...]) -> None:
    widths = [max(len(line[n]) for line in (head, *lines)) for n in range(len(head))]
    for line in (head, *lines):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
