"""How a rank makes its part of the model: the whole of it, or a pipeline stage."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from specc.emit.code import Code, ident
from specc.emit.context import Context, of_mesh
from specc.emit.function import Lines, shape
from specc.emit.wrap import wrapped

DEVICE, MESH, SEED = "device: torch.device", "mesh: DeviceMesh", "seed: int"


@dataclass(frozen=True)
class Whole:
    """What model.j2 is filled with."""

    takes: Code
    cls: Code
    made: Code  # the expression that makes the module
    placed: Lines


@dataclass(frozen=True)
class Stages:
    """What stages.j2 is filled with."""

    constants: Code
    takes: Code
    cls: Code  # of what a pipeline calls a stage
    lengths: Code
    made: Code
    values: tuple[tuple[Code, Code], ...]  # meta tensors by name
    rows: Code  # those before and behind each stage
    placed: Lines


def build_model(of: Context) -> Code:
    """`build_model`."""
    (only,) = of.stages
    arguments = (*only.arguments, *(of_mesh(name, of.graph) for name in only.meshes))
    takes = [*([MESH] if of.axes else []), DEVICE, SEED]
    made = Code(f"{only.name}({', '.join(arguments)})")
    return shape("model.j2", of=Whole(Code(", ".join(takes)), ident(only.name), made, _placed(of)))


def stages(of: Context) -> Code:
    """Constants and `build_stage`."""
    rows = [f"partial({', '.join((s.name, *s.arguments))})" if s.arguments else s.name for s in of.stages]
    lines = [f"STAGES = ({', '.join(rows)})"]
    tied, who = [f'"{name}": {ranks!r}' for name, ranks in of.shared.items()], of.layout.pp.held_by
    lines += [f"TIED = {{{', '.join(tied)}}}  # weights that several {who} hold"] if tied else []
    meshes = [of_mesh(name, of.graph) for name in of.stages[0].meshes]
    takes = ["index: int", MESH, DEVICE, "batch: int", *(f"{length}: int" for length in of.lengths), SEED]
    view = Stages(
        constants=Code("\n".join(row for line in lines for row in wrapped(line))),
        takes=Code(", ".join(takes)),
        cls=Code("TurningStage" if of.layout.pp.kind.v else "PipelineStage"),
        lengths=Code(", ".join(("batch", *of.lengths))),
        made=Code(f"STAGES[index]({', '.join(meshes)})"),
        values=tuple((Code(name), Code(source)) for name, source in of.cuts.values),
        rows=Code(", ".join(_repeated(of.cuts.rows))),
        placed=_placed(of),
    )
    return shape("stages.j2", of=view)


def _placed(of: Context) -> Lines:
    meshes = ", ".join(of.ranks(axes) for axes in (of.data, *of.own) if axes)
    return (Code(f"parallelize(module, {meshes})"),) if of.data else ()


def _repeated(rows: tuple[str, ...]) -> list[str]:
    """Three or more equal neighbours as a product: `*[(hidden,)] * 15`."""
    found: list[str] = []
    for row, group in groupby(rows):
        count = len(list(group))
        found += [f"*[{row}] * {count}"] if count > 2 else [row] * count
    return found
