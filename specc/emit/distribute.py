"""The mesh of all ranks, and FSDP2 over the ranks that are fed different tokens."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from specc.emit.code import Code
from specc.emit.context import Context, of_mesh
from specc.emit.function import Lines, shape

POLICY = "MixedPrecisionPolicy(param_dtype=COMPUTE, reduce_dtype=REDUCE, cast_forward_inputs=False)"

SUMS = (
    "for part in module.modules():",
    "    if isinstance(part, FSDPModule):",
    "        part.set_gradient_divide_factor(1.0)  # gradients are sums",
    "        part.set_force_sum_reduction_for_comms(True)",
)


@dataclass(frozen=True)
class Mesh:
    """What mesh.j2 is filled with."""

    names: Code
    quoted: Code
    sizes: Code  # of the axes, -1 for the one that takes what there is
    refused: Lines  # another number of ranks
    joined: tuple[tuple[Code, Code, Code], ...]  # functions that give several axes as one


@dataclass(frozen=True)
class Sharding:
    """What parallelize.j2 is filled with."""

    takes: Code
    gathered: Code
    policy: Lines
    found: Lines
    blocks: Code
    options: Code  # of fully_shard
    summed: Lines  # where gradients are not averaged


def device_mesh(of: Context) -> Code:
    """`device_mesh`, for more than one rank. One axis takes all ranks that there are."""
    if not of.axes:
        return Code("")
    free = of.elastic
    sizes = {"pp": of.layout.pp.ranks} | {axis.name: axis.size for axis in of.graph.mesh}
    view = Mesh(
        names=Code(", ".join(of.axes)),
        quoted=Code(", ".join(f'"{axis}"' for axis in of.axes) + "," * (len(of.axes) == 1)),
        sizes=Code(", ".join("-1" if axis == free else str(sizes[axis]) for axis in of.axes)),
        refused=tuple(map(Code, _refused(of))),
        joined=tuple(
            (Code(name), Code(" and ".join(axes)), Code(of_mesh("_".join(axes), of.graph)))
            for axes, name in of.joined.items()
        ),
    )
    return shape("mesh.j2", of=view)


def ranks_of(of: Context) -> tuple[str, int]:
    """`2 stages x dp x tp 2`, and what their number is, or must be a multiple of."""
    sizes = {axis.name: axis.size for axis in of.graph.mesh}
    pp = of.layout.pp
    words = [f"{pp.stages} stages" if pp.per_rank == 1 else f"pp {pp.ranks}"] * of.pp
    words += [name if name == of.elastic else f"{name} {size}" for name, size in sizes.items()]
    return " x ".join(words), pp.ranks * prod(size for name, size in sizes.items() if name != of.elastic)


def _refused(of: Context) -> list[str]:
    words, number = ranks_of(of)
    if of.elastic is None:
        told = f"this file needs {words} = {number} ranks" if " x " in words else f"this file needs {number} ranks"
        return [f"if world != {number}:", f'    raise ValueError(f"{told}; there are {{world}}")']
    told = f"this file needs {words} ranks, a multiple of {number}"
    return [f"if world % {number}:", f'    raise ValueError(f"{told}; there are {{world}}")'] * (number > 1)


def parallelize(of: Context) -> Code:
    """`parallelize`, where ranks are fed different tokens."""
    if not of.data:
        return Code("")
    stack = _stack(of)
    found = [] if stack else ["stacks = [child for child in module.children() if isinstance(child, nn.ModuleDict)]"]
    options = ", reshard_after_forward=False" * of.pp + ", mp_policy=policy" * of.casts
    meshes = ["dp", *(f"{'_'.join(axes)}_alone" for axes in of.own if axes)]
    view = Sharding(
        takes=Code("".join(f", {name}: DeviceMesh" for name in meshes)),
        gathered=Code("; weights stay gathered between the microbatches of a step" * of.pp),
        policy=(Code(f"policy = {POLICY}"),) * of.casts,
        found=tuple(map(Code, (*_own(of, options), *found))),
        blocks=Code(f"module.{stack}.values()" if stack else "(block for stack in stacks for block in stack.values())"),
        options=Code(options + ", ignored_params=own" * (() in of.own)),
        summed=() if of.graph.groups.averaged else tuple(map(Code, SUMS)),
    )
    return shape("parallelize.j2", of=view)


def _own(of: Context, options: str) -> list[str]:
    """Lines for parts whose gradients are summed over fewer ranks than others."""
    lines: list[str] = []
    for axes, names in of.own.items():
        parts = f"for part in module.modules() if isinstance(part, {' | '.join(names)})"
        if axes:
            lines += [f"for part in [part {parts}]:", f"    fully_shard(part, mesh={'_'.join(axes)}_alone{options})"]
        else:
            lines += ["# of these a rank has the whole gradient", f"own = {{p {parts} for p in part.parameters()}}"]
    return lines


def _stack(of: Context) -> str:
    """The one stack that every stage has, empty where there are several."""
    stacks: dict[tuple[str, ...], None] = {}
    repeats = [op for op in of.graph.ops if op.kind == "repeat"]
    for prefix in dict.fromkeys(op.scope for op in repeats):
        stacks[tuple(dict.fromkeys(op.text("path") for op in repeats if op.scope == prefix))] = None
    same = next(iter(stacks)) if len(stacks) == 1 else ()
    return same[0] if len(same) == 1 else ""
