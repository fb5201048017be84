"""The source of a leaf class, with the options that the file uses."""

from __future__ import annotations

from specc.emit.code import Code
from specc.emit.function import Function, Module, function, lines, listed, shape
from specc.emit.leaf import Held, Leaf, classes, options
from specc.ir.graph import Graph

CAST = ".to(COMPUTE)"


def leaf_class(graph: Graph, name: str) -> Code:
    """The class of that name, which serves all its leaves in the graph."""
    leaves, chosen = classes(graph)[name], options(graph)[name]
    first = leaves[0]
    form = first.form
    held = {
        param: next(leaf for leaf in leaves if leaf.has(param))
        for param in form.params
        if any(leaf.has(param) for leaf in leaves)
    }
    axis = mesh_argument(first.axes)
    taken = [f"{size}: int" for size in form.sizes] + [
        f"{name}: {type(value).__name__}" for name, value in first.values
    ]
    taken += [f"{axis}: DeviceMesh"] * bool(axis) + [f"{option}: bool = False" for option in chosen]
    init = ["super().__init__()", *(f"self.{attr} = {attr}" for attr in form.attrs)]
    init += ["self.grads = [Partial()] if partial_grads else None"] * ("partial_grads" in chosen)
    init += form.init(any(leaf.uneven for leaf in leaves), axis)
    values: dict[str, str] = {}
    for param, leaf in held.items():
        own = dict(leaf.held)[param]
        init.append(
            f"self.{param} = {_made(form.params[param], own, axis)}{f' if {param} else None' * (param in chosen)}"
        )
        if own.read:
            values[param] = (
                local(f"self.{param}", own)
                if "partial_grads" not in chosen
                else f"self.{param}.to_local(grad_placements=self.grads)"
            )
    cast = CAST * first.cast
    methods: list[Function] = []
    if form.inputs:
        if form.lookup:
            body = form.lookup(values["weight"], cast)
        else:
            read_as = {param: f"{value}{cast}" for param, value in values.items()}
            body = form.call(read_as, "bias" in chosen and "bias" in values)
        methods.append(function("forward", ["self", form.inputs], "Tensor", body))
    doc = _doc(leaves)
    return shape(
        "class.j2",
        of=Module(Code(name), (Code(doc),) * bool(doc), listed(["self", *taken]), lines(init), tuple(methods)),
    )


def read(value: str, held: Held) -> str:
    """A parameter as it is used: its local part, in the type in which the file computes."""
    return local(value, held) + CAST * held.cast


def local(value: str, held: Held) -> str:
    """The part of a parameter that this rank holds, with the gradient that the mesh axes call for."""
    if not held.placements:
        return value
    if held.grads == held.placements:
        return f"{value}.to_local()"
    return f"{value}.to_local(grad_placements=[{', '.join(held.grads)}])"


def mesh_argument(axes: tuple[str, ...]) -> str:
    """What a module calls the mesh of these axes."""
    return "_".join(axes)


def _made(shape: tuple[str, ...], held: Held, axis: str) -> str:
    if not held.trained:
        return f"nn.Buffer(torch.empty({', '.join(shape)}))"
    if not axis:
        return f"nn.Parameter(torch.empty({', '.join(shape)}))"
    sizes = f"({', '.join(shape)}{',' * (len(shape) == 1)})"
    if len(held.placements) == 1:
        return f"parameter({sizes}, {held.placements[0]}, {axis})"
    return f"spread({sizes}, ({', '.join(held.placements)}), {axis})"


def _doc(leaves: tuple[Leaf, ...]) -> str:
    first = leaves[0]
    if first.cast and not first.axes:
        return f"{'Rows' if first.form.lookup else 'Parameters'} are cast to COMPUTE where they are used."
    if not first.splits:
        return first.form.doc.format(" and ".join(first.axes))
    said = "; ".join(first.form.splits[size].doc.format(axis) for size, axis in first.splits)
    outside = any(not held.read for leaf in leaves for _, held in leaf.held)
    return f"{said}{first.form.ends if outside else ''}."
