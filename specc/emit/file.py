"""A whole generated file: docstring, imports, kernels, leaf classes, classes of the model, and the training shell."""

from __future__ import annotations

from dataclasses import dataclass

from specc.emit.code import Code, docstring, ident, render
from specc.emit.context import Context
from specc.emit.describe import describe
from specc.emit.fingerprint import fingerprints
from specc.emit.guard import guard, names, parse
from specc.emit.model import classes
from specc.emit.params import table
from specc.emit.pasted import imports, pasted
from specc.emit.shell import shell
from specc.ir.graph import Graph
from specc.ir.stored import total
from specc.spec.core import Layout, Model
from specc.spec.names import class_name, module_name


@dataclass(frozen=True)
class Files:
    """What a spec and a layout become. `name` is the stem of the files."""

    name: str
    source: str
    params: str


def emit_file(model: Model, layout: Layout, unplaced: Graph, graph: Graph) -> Files:
    """`unplaced` is the graph as lowered and typed, `graph` the same after all passes. Raises Unsafe for a bug."""
    made = classes(graph, str(ident(class_name(model.name))))
    rest = shell(Context(graph, layout, model, made.stages))
    kernels = pasted(dict.fromkeys([*rest.kernels, *made.calls]), graph.tables)
    sources = (Code(source) for source in made.sources)
    parts = [part for part in (kernels, rest.leaf_classes, *sources, rest.after) if part]
    text = describe(model, layout, total(graph), fingerprints(unplaced, graph, layout))
    name = module_name(model.name)
    body = parse("\n\n\n".join(parts), name)
    found = names(body)
    top = {"docstring": docstring(text), "imports": imports(found, graph.tables)}
    source = str(render("file.j2", **top, parts=parts))
    guard(parse('"""{docstring}"""\n{imports}'.format(**top), name), body, found, source, name)
    return Files(name, source, table(graph))
