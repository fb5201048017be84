"""What a layout says by hand of axes: `rules`."""

from __future__ import annotations

from specc.spec.core import Layout, Model
from specc.spec.grammar import listed
from specc.spec.report import Report
from specc.spec.rules import STACKS, branches
from specc.tables import Tables


def axis_rules(model: Model, layout: Layout, report: Report) -> None:
    """Rules speak of axes that the model has, and of mesh axes over which ops can split them."""
    used = dict.fromkeys(model.tables.component(branch.component).key for _, branch in branches(model))
    having = {key: axes_of(model.tables, key) for key in used}
    known = {"vocab": ["embedding", "head"]} if model.vocab else {}
    for key, axes in having.items():
        for axis in axes:
            known.setdefault(axis, []).append(key)
    words = [*known, *(f"{key}.{axis}" for key, axes in having.items() for axis in axes)]
    for word, mesh in layout.rules:
        at = (*layout.at, "rules", word)
        if word not in words:
            message = f"the model has no axis {word} that ranks could split"
            report.add("E451", at, message, report.suggestion(word, words, "axes"), reads=STACKS, key=True)
            continue
        component, _, axis = word.rpartition(".")
        choices = [*_splitting(model.tables, axis), "none"]
        if mesh not in choices:
            of = listed([component] if component else known[axis]).replace(" or ", " and ")
            message = f"no op of {of} has a signature that splits {axis} over {mesh}"
            report.add("E452", at, message, f"{word} can be {listed(choices)}")


def axes_of(tables: Tables, key: str) -> tuple[str, ...]:
    """Names of axes of a component by which ranks split parameters."""
    component = tables.components[key]
    more = (axis for mesh in component.split_by if mesh in tables.axes for axis in tables.axes[mesh].shards)
    return tuple(dict.fromkeys((*component.shards, *more)))


def axis_of(tables: Tables, key: str, word: str, mesh: str) -> str:
    """The axis that a key of a component is the size of, where a mesh axis splits it."""
    axes = tables.components[key].shards if mesh not in tables.axes or mesh == "tp" else tables.axes[mesh].shards
    return word if word in axes or len(axes) != 1 else axes[0]


def _splitting(tables: Tables, axis: str) -> list[str]:
    """Mesh axes that split parameters by it."""
    by_components = {name for component in tables.components.values() for name in component.shards}
    return [
        mesh.name for mesh in tables.axes.values() if axis in mesh.shards or (mesh.features and axis in by_components)
    ]
