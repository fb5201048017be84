"""Everything of a generated file but the classes of the model: leaf classes, stages, weights, loss and training."""

from __future__ import annotations

from dataclasses import dataclass

from specc.emit.code import Code
from specc.emit.context import Context, of_mesh
from specc.emit.distribute import device_mesh, parallelize
from specc.emit.leaf import classes
from specc.emit.leaf_class import leaf_class
from specc.emit.loss import loss
from specc.emit.make import build_model, stages
from specc.emit.trainer import trainer
from specc.emit.weights import init_weights


@dataclass(frozen=True)
class Shell:
    """Names of kernels that it calls, leaf classes, and what follows the model."""

    kernels: tuple[str, ...]
    leaf_classes: Code
    after: Code


def shell(of: Context) -> Shell:
    """What surrounds the classes of the model."""
    leaf_classes = [leaf_class(of.graph, name) for name in classes(of.graph)]
    made = stages(of) if of.pp else build_model(of)
    weights = init_weights(of.params, of.model.init, of.distributed)
    value = loss(of.graph)
    options = "".join(f", {axis}={of_mesh(axis, of.graph)}" for axis in value.axes)
    lines = [value.source, device_mesh(of), made, parallelize(of), weights, trainer(of, options)]
    after = [Code(part if isinstance(part, str) else "\n".join(part)) for part in lines if part]
    return Shell((*_kernels(of), *value.calls), Code("\n\n\n").join(leaf_classes), Code("\n\n\n").join(after))


def _kernels(of: Context) -> tuple[str, ...]:
    leaves = [leaf for group in classes(of.graph).values() for leaf in group]
    used = ["parameter"] * any(len(leaf.axes) == 1 for leaf in leaves)
    used += ["partial_grad"] * any(leaf.partial for leaf in leaves)
    return tuple(used)
