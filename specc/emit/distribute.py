"""The mesh of all ranks, and FSDP2 over the ranks that are fed different tokens."""

from __future__ import annotations

from specc.emit.context import Context, of_mesh
from specc.emit.function import Lines, function
from specc.ir.groups import flat


def device_mesh(of: Context) -> Lines:
    """`device_mesh`, for more than one rank. One axis takes all ranks that there are."""
    if not of.axes:
        return []
    free = next((axis.name for axis in of.graph.mesh if axis.data and not axis.shards), None)
    sizes = {"pp": len(of.stages)} | {a.name: -1 if a.name == free else a.size for a in of.graph.mesh}
    names = ", ".join(f'"{axis}"' for axis in of.axes) + "," * (len(of.axes) == 1)
    made = f"DeviceMesh(device_type, ranks, mesh_dim_names=({names}))"
    groups = of.graph.groups
    wanted = dict.fromkeys([groups.data, *(groups.summing(param.spmd) for param in of.params)])
    several = {flat(axes, groups.data): axes for axes in wanted if len(axes) > 1}
    body = [f"ranks = torch.arange(dist.get_world_size()).view({', '.join(str(sizes[axis]) for axis in of.axes)})"]
    body += [f"mesh = {made}"] if several else [f"return {made}"]
    for name, axes in several.items():
        body.append(f'{of_mesh("_".join(axes), of.graph)}._flatten("{name}")')
    body += ["return mesh"] * bool(several)
    doc = f"All ranks, as a mesh of {', '.join(of.axes)}; after dist.init_process_group()."
    return function("device_mesh", ["device_type: str"], "DeviceMesh", doc, body)


def parallelize(of: Context) -> Lines:
    """`parallelize`, where ranks are fed different tokens."""
    if not of.data:
        return []
    call = f"fully_shard({{}}, mesh=dp{', reshard_after_forward=False' if of.pp else ''})"
    loops = f"module.{_stack(of)}.values()" if _stack(of) else "[block for stack in stacks for block in stack.values()]"
    body = [] if _stack(of) else ["stacks = [child for child in module.children() if isinstance(child, nn.ModuleDict)]"]
    body += [f"for block in {loops}:", f"    {call.format('block')}", call.format("module")]
    doc = "Shard every block over dp, then the rest"
    doc += "; weights stay gathered between the microbatches of a step." if of.pp else "."
    return function("parallelize", ["module: nn.Module", "dp: DeviceMesh"], "None", doc, body)


def _stack(of: Context) -> str:
    """The one stack that every stage has, empty where there are several."""
    stacks: dict[tuple[str, ...], None] = {}
    repeats = [op for op in of.graph.ops if op.kind == "repeat"]
    for prefix in dict.fromkeys(op.scope for op in repeats):
        stacks[tuple(dict.fromkeys(op.text("path") for op in repeats if op.scope == prefix))] = None
    same = next(iter(stacks)) if len(stacks) == 1 else ()
    return same[0] if len(same) == 1 else ""
