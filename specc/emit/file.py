"""A whole generated file: docstring, imports, constants, the model, what trains it, and machinery."""

from __future__ import annotations

import re
from dataclasses import dataclass

from specc.emit.code import Code, docstring, ident, render
from specc.emit.context import Context
from specc.emit.describe import describe
from specc.emit.fingerprint import fingerprints
from specc.emit.guard import guard, names, parse
from specc.emit.model import classes
from specc.emit.params import table
from specc.emit.pasted import imports, pasted
from specc.emit.shell import constants, shell
from specc.ir.graph import Graph
from specc.spec.core import Layout, Model
from specc.spec.names import class_name, module_name


@dataclass(frozen=True)
class Files:
    """What a spec and a layout become. `name` is the stem of the files, `digests` are those of the file's docstring."""

    name: str
    source: str
    params: str
    digests: tuple[tuple[str, str], ...]


def emit_file(model: Model, layout: Layout, unplaced: Graph, graph: Graph, decode: Graph | None = None) -> Files:
    """`unplaced` is the graph as lowered and typed, `graph` the same after all passes, `decode` its second entry.

    Raises Unsafe for a bug.
    """
    made = classes(graph, str(ident(class_name(model.name))), decode)
    of = Context(graph, layout, model, made.stages)
    rest = shell(of)
    kernels = pasted(dict.fromkeys([*rest.kernels, *made.calls]), graph.tables)
    sources = (*map(Code, made.sources), *rest.after)
    values = constants(of, frozenset(re.findall(r"\w+", "\n".join((*sources, kernels)))))
    parts = [part for part in (*sources, kernels, rest.weights) if part]
    digests = fingerprints(unplaced, graph, layout)
    name = module_name(model.name)
    body = parse("\n\n\n".join((values, *parts)), name)
    found = names(body)
    top = {"docstring": docstring(describe(of, digests)), "imports": imports(found, graph.tables), "constants": values}
    source = str(render("file.j2", **top, parts=parts))
    guard(parse('"""{docstring}"""\n{imports}'.format(**top), name), body, found, source, name)
    return Files(name, source, table(graph), digests)
