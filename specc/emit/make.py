"""How a rank makes its part of the model: the whole of it, or a pipeline stage."""

from __future__ import annotations

from itertools import groupby

from specc.emit.code import ident
from specc.emit.context import Context, of_mesh
from specc.emit.function import Lines, function
from specc.emit.wrap import wrapped

DEVICE, MESH, SEED = "device: torch.device", "mesh: DeviceMesh", "seed: int"


def build_model(of: Context) -> Lines:
    """`build_model`."""
    (only,) = of.stages
    arguments = (*only.arguments, *(of_mesh(name, of.graph) for name in only.meshes))
    body = ['with torch.device("meta"):', f"    model = {only.name}({', '.join(arguments)})", *_placed(of, "model")]
    takes = [*([MESH] if of.axes else []), DEVICE, SEED]
    return function(
        "build_model", takes, str(ident(only.name)), "The model with initialised weights.", [*body, "return model"]
    )


def stages(of: Context) -> Lines:
    """Constants and `build_stage`."""
    arguments = any(stage.arguments for stage in of.stages)
    rows = [f"({', '.join((s.name, *s.arguments))}{'' if s.arguments else ','})" for s in of.stages]
    lines = wrapped(f"STAGES = ({', '.join(rows if arguments else [s.name for s in of.stages])})")
    lines.append(f"MICROBATCHES = {of.layout.pp.microbatches}")
    tied = [f'"{param.name}": {param.stages!r}' for param in of.tied]
    lines += wrapped(f"TIED = {{{', '.join(tied)}}}  # weights that several stages hold") if tied else []
    meshes = [of_mesh(name, of.graph) for name in of.stages[0].meshes]
    made = f"stage({', '.join(['*arguments', *meshes])})" if arguments else f"STAGES[index]({', '.join(meshes)})"
    body = ["stage, *arguments = STAGES[index]"] * arguments
    body += ['with torch.device("meta"):', f"    module = {made}"]
    body += [f"    {name} = {source}" for name, source in of.cuts.values]
    body += [f"    cuts = ({', '.join(_repeated(of.cuts.rows))})", *_placed(of, "module")]
    shapes = "cuts[index], cuts[index + 1]"
    body.append(f'return PipelineStage(module, index, len(STAGES), device, {shapes}, group=mesh.get_group("pp"))')
    takes = ["index: int", MESH, DEVICE, "batch: int", *(f"{length}: int" for length in of.lengths), SEED]
    doc = f"Stage `index` with initialised weights, for microbatches of [batch, {', '.join(of.lengths)}]."
    return [*lines, "", "", *function("build_stage", takes, "PipelineStage", doc, body)]


def _placed(of: Context, module: str) -> Lines:
    shard = [f'parallelize({module}, mesh["{of.data}"])'] * bool(of.data)
    return [*shard, f"{module}.to_empty(device=device)", f"init_weights({module}, seed)"]


def _repeated(rows: tuple[str, ...]) -> list[str]:
    """Three or more equal neighbours as a product: `*[(hidden,)] * 15`."""
    found: list[str] = []
    for row, group in groupby(rows):
        count = len(list(group))
        found += [f"*[{row}] * {count}"] if count > 2 else [row] * count
    return found
