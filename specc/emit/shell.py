"""Everything of a generated file but the classes of the model: stages, trainer, loss, leaf classes, weights."""

from __future__ import annotations

from dataclasses import dataclass

from specc.emit.code import Code
from specc.emit.context import Context, of_mesh
from specc.emit.distribute import device_mesh, parallelize
from specc.emit.generate import generate
from specc.emit.leaf import classes
from specc.emit.leaf_class import leaf_class
from specc.emit.loss import loss
from specc.emit.make import build_model, stages
from specc.emit.trainer import trainer
from specc.emit.weights import init_weights
from specc.ir.op import STARTS

KERNELS = (
    *("check_length", "filled", "filled_of", "evaluating", "resharding", "whole"),
    *("part_of_rows", "whole_rows", "chunks_of_rows", "rows_of_chunks"),
    *("Cache", "next_tokens"),
    *(
        "gradient_norm",
        "stages_norm",
        "clip_by_mesh",
        "tied_weights",
        "apart",
        "sum_copies",
        "sum_whole_copies",
        "mirrored",
        "StagesOfRank",
        "MirroredStages",
        "TurningStage",
    ),
)
"""What a trainer and `generate` may call."""


@dataclass(frozen=True)
class Shell:
    """Names of kernels that it calls, and the parts behind the model, around the kernels."""

    kernels: tuple[str, ...]
    after: tuple[Code, ...]
    weights: Code


def shell(of: Context) -> Shell:
    """What surrounds the classes of the model."""
    value = loss(of.graph)
    options = "".join(f", {axis}={of_mesh(axis, of.graph)}" for axis in value.axes)
    leaf_classes = [leaf_class(of.graph, name) for name in classes(of.graph)]
    made = stages(of) if of.pp else build_model(of)
    trains = trainer(of, options)
    writes = generate(of) if of.layout.generate else Code("")
    after = (device_mesh(of), made, parallelize(of), trains, writes, Code(value.source), *leaf_classes)
    weights = init_weights(of.params, of.model.init, of.distributed)
    used = (
        *_kernels(of),
        *(name for name in KERNELS if any(f"{name}(" in part for part in (made, trains, writes))),
        *value.calls,
    )
    used += tuple(name for name in (*STARTS, "uniform", "truncated") if f"{name}(" in weights)
    return Shell(used, tuple(part for part in after if part), weights)


def _kernels(of: Context) -> tuple[str, ...]:
    leaves = [leaf for group in classes(of.graph).values() for leaf in group]
    over = {min(len(leaf.axes), 2) for leaf in leaves}
    return ("parameter",) * (1 in over) + ("spread",) * (2 in over)


def constants(of: Context, words: frozenset[str]) -> Code:
    """What stands on top: what numbers are rounded to, as far as `words` of the file read it, and parts of a batch."""
    lines = [f"COMPUTE = torch.{of.layout.dtype}  # activations, weights in use, what ranks send of them"] * of.casts
    lines += ["REDUCE = torch.float32  # loss, norm, sums over ranks"]
    lines += [f"MICROBATCHES = {of.layout.microbatches}"] * ("MICROBATCHES" in words)
    return Code("\n".join(lines))
