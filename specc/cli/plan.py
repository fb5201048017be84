"""specc plan"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import click

from specc.cli.memory import tell_memory, tell_starts, tight
from specc.cli.search import searched, tell_search
from specc.cli.seconds import tell_seconds
from specc.cli.specs import layout_of, load_all
from specc.cli.table import Lines, table
from specc.compile import compile_spec
from specc.cost.counts import StageCost, active, again, blocks, collectives, copied, crossing, local_shape, stage_costs
from specc.cost.decided import decided
from specc.cost.device import device, devices
from specc.cost.fed import fed
from specc.cost.memory import Kind, Memory, fits, memories, undeclared
from specc.cost.search import Wish
from specc.cost.seconds import step
from specc.ir.graph import Graph
from specc.ir.op import Op
from specc.ir.repeat import layer_of
from specc.ir.shape import shape
from specc.ir.stored import placement, stored, total
from specc.source import Diagnostic
from specc.spec import Layout, Model, Spec
from specc.spec.layout_rules import save_names


@click.command()
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--layout", "name", help="Which of several layouts; the first by default.")
@click.option("--device", "device_name", metavar="NAME or FILE", help=f"One of {', '.join(devices())}, or a YAML file.")
@click.option("--batch", type=click.IntRange(1, 2**40), help="Sequences of a step, on all ranks: show what it takes.")
@click.option("--seq", type=click.IntRange(1, 2**40), help="Tokens of each; as many as the model takes by default.")
@click.option("--json", "as_json", is_flag=True, help="What a step takes as JSON, without rounding.")
@click.option("--search", "wanted", is_flag=True, help="Find the fastest layouts of --gpus devices that fit.")
@click.option("--gpus", type=click.IntRange(1, 2**20), help="Devices that --search shares out.")
@click.option("--fits", "must_fit", is_flag=True, help="Exit with 1 if a stage does not fit the device.")
def plan(
    spec: Path,
    name: str | None,
    device_name: str | None,
    batch: int | None,
    seq: int | None,
    as_json: bool,
    must_fit: bool,
    wanted: bool,
    gpus: int | None,
) -> int:
    """Show every decided value and where it comes from, parameters, stages, shards and collectives.

    With a batch the bytes of a step on each stage, too; with a device whether they fit, and how long a step takes.
    """
    if batch is None and (device_name is not None or seq is not None or as_json):
        raise click.UsageError("what a step takes needs --batch")
    if must_fit and device_name is None:
        raise click.UsageError("--fits needs --batch and --device")
    if wanted != (gpus is not None) or (wanted and device_name is None):
        raise click.UsageError("--search needs --gpus, --device and --batch")
    loaded = load_all((spec,))
    if loaded.code:
        return loaded.finish("")
    only = loaded.specs[0]
    layout = layout_of(only, name)
    if gpus is not None and device_name is not None and batch is not None:
        on = device(device_name)
        if isinstance(on, list):
            loaded.tell(on)
            return loaded.finish("")
        keep = tuple(name for name in save_names(only.model) if name.endswith((".core", ".o")))
        wish = Wish(on, gpus, batch, keep, only.model.max_seq if seq is None else seq)
        best = searched(spec, only, layout, wish, seq)
        if isinstance(best, Diagnostic):
            loaded.tell([best])
            return loaded.finish("")
        tell_search(best, wish, as_json)
        return 0
    compiled = compile_spec(only, layout)
    loaded.tell(compiled.findings)
    if loaded.code:
        return loaded.finish("")
    graph = compiled.placed
    on, taken, held, batch_fed = None, None, list[Memory](), None
    if batch is not None:
        on = None if device_name is None else device(device_name)
        given = fed(only, layout, graph, batch, seq)
        loaded.tell(on if isinstance(on, list) else [given] if isinstance(given, Diagnostic) else [])
        if isinstance(on, list) or isinstance(given, Diagnostic):
            return loaded.finish("")
        taken = None if on is None else step(graph, layout, on, given)
        kind = Kind("cpu" if on is not None and on.name == "cpu" else "cuda")
        held, batch_fed = memories(graph, layout, given, kind), (given, kind)
    code = int(must_fit and on is not None and not fits(max(stage.peak for stage in held), on))
    if as_json:
        told = {"memory": [asdict(stage) for stage in held]}
        click.echo(json.dumps(told if taken is None else asdict(taken) | told, indent=2))
        return code
    costs = stage_costs(graph, layout.pp.stages)
    click.echo(f"{only.model.name}{f', layout {layout.name}' if layout.name else ''}\n")
    _values(only, layout, costs)
    every, met = total(graph), active(graph)
    click.echo(f"\n{every:,} parameters{f', of which a token meets at most {met:,}' if met < every else ''}\n")
    _parameters(graph, layout)
    if layout.pp.stages > 1:
        _stages(graph, layout, costs)
    if any(op.kind == "convert" or op.lowering for op in graph.ops):
        _collectives(graph, layout, only.model)
    if held:
        tell_memory(held, layout, on, undeclared(graph))
        if on is not None and batch_fed is not None and layout.pp.stages > 1 and tight(held, on):
            tell_starts(only, layout, starts_of(costs), batch_fed, held)
    if taken is not None and on is not None and batch is not None:
        tell_seconds(taken, on, batch)
    return code


def starts_of(costs: list[StageCost]) -> tuple[str, ...]:
    """The first layer of each stage but the first."""
    return tuple(f"{path}.{first}" for path, first, _ in (cost.layers[0] for cost in costs[1:]))


def _values(spec: Spec, layout: Layout, costs: list[StageCost]) -> None:
    values = [(row.key, row.value, row.origin) for row in decided(spec, layout, starts_of(costs))]
    table([("value", "is", "from"), *values], widest=45)


def _parameters(graph: Graph, layout: Layout) -> None:
    """With one rank there is nothing to say of placement, with one stage nothing of stages."""
    lines: Lines = [("parameter", "shape", "on a rank", "placement", "stages", "in all")]
    for row in stored(graph):
        local = local_shape(row.param, row.spmd, graph)
        stages = ", ".join(map(str, row.stages))
        stages = stages if len(row.stages) < 4 else f"{row.stages[0]}..{row.stages[-1]}"
        shapes = (str(list(row.shape)), str(list(local)))
        lines.append((row.name, *shapes, placement(row, graph), stages, f"{row.count:,}"))
    keep = [n for n in range(6) if (n not in (2, 3) or graph.mesh) and (n != 4 or layout.pp.stages > 1)]
    table([tuple(line[n] for n in keep) for line in lines], right=(len(keep) - 1,))


def _stages(graph: Graph, layout: Layout, costs: list[StageCost]) -> None:
    flops, held = sum(cost.flops for cost in costs), sum(cost.parameters for cost in costs)
    lines: Lines = [("stage", "layers", "parameters", "on a rank", f"flops at {graph.tokens} tokens")]
    for stage, cost in enumerate(costs):
        layers = ", ".join(f"{path}.{first}" + f"..{last}" * (last > first) for path, first, last in cost.layers)
        counts = (f"{cost.parameters:,}", f"{cost.local:,}", f"{100 * cost.flops / flops:.1f} %")
        lines.append((str(stage), layers, *counts))
    click.echo("")
    table(lines, right=(2, 3, 4))
    tied = [row.name for row in stored(graph) if row.tied]
    if tied:
        click.echo(f"{held:,} in all: several stages hold a copy of {', '.join(tied)}")
    click.echo("")
    crossings: Lines = [("from", "to", "what crosses", "", f"bytes a token on a rank, in {layout.precision}")]
    for stage, values in enumerate(crossing(graph, layout.pp.stages), 1):
        for n, value in enumerate(values):
            between = (str(stage - 1), str(stage)) if n == 0 else ("", "")
            crossings.append((*between, value.name, shape(graph, value.ref, ()), f"{value.bytes:,.0f}"))
    table(crossings)


def _collectives(graph: Graph, layout: Layout, model: Model) -> None:
    """Of one run of each block. The last column is there where layers are recomputed."""
    outside = [op for op in graph.ops if layer_of(op.scope) is None and op.scope[:1] != ("loss",)]
    loss = [op for op in graph.ops if op.scope[:1] == ("loss",)]
    every = [*blocks(graph, model), ("outside of layers", outside), ("loss", loss)]
    rows = [(name, *_both(graph, ops), _words(again(graph, ops))) for name, ops in every]
    talk = {name for op in graph.ops for name in ([op.text("mesh")] if op.kind == "convert" else dict(op.lowering))}
    over = [axis.name for axis in graph.mesh if axis.name in talk]
    saved = layout.checkpoint
    which = f", every {saved.every}. layer" if saved.every not in (None, 1) and not saved.save else ""
    heading = (f"collectives over {', '.join(over)} of a layer", "forward", "backward", f"again in backward{which}")
    columns = 4 if saved.every or saved.save else 3
    click.echo("")
    table([line[:columns] for line in (heading, *rows)])


def _both(graph: Graph, ops: Iterable[Op]) -> list[str]:
    """Forward and backward, with those around which torch copies."""
    ops = tuple(ops)
    pairs = zip(collectives(graph, ops), copied(graph, ops), strict=True)
    return [_words(counts, of) for counts, of in pairs]


def _words(counts: dict[str, int], copied: dict[str, int] | None = None) -> str:
    some = {kind: f" ({count} copied)" for kind, count in (copied or {}).items()}
    return ", ".join(f"{count} {kind}{some.get(kind, '')}" for kind, count in sorted(counts.items())) or "none"
