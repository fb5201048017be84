"""The classes of a generated file: one for each distinct scope, the model or its pipeline stages last."""

from __future__ import annotations

from dataclasses import dataclass, replace

from specc.emit.body import Body, Entry, body
from specc.emit.classes import Class, group, make_class, name_groups
from specc.emit.leaf import leaves
from specc.emit.leaf_class import mesh_argument
from specc.emit.names import entered
from specc.ir.graph import Graph
from specc.ir.op import Op, Path, Ref, Stage
from specc.ir.repeat import Repeat
from specc.ir.tree import Call, Loop, tree


@dataclass(frozen=True)
class StageClass:
    """A pipeline stage, or the whole model: its class, the arguments but the mesh, what enters and what leaves."""

    name: str
    arguments: tuple[str, ...]
    meshes: tuple[str, ...]
    inputs: tuple[Ref, ...]
    outputs: tuple[Ref, ...]


@dataclass(frozen=True)
class Classes:
    """Sources of all classes in an order in which each stands before its users, stages in order, kernels they call."""

    sources: tuple[str, ...]
    stages: tuple[StageClass, ...]
    calls: tuple[str, ...]


def classes(graph: Graph, model_name: str, decode: Graph | None = None) -> Classes:
    """`model_name` names the class of a model that is not cut into stages; `decode`: the graph of its second entry."""
    root = tree(graph)
    roots = _roots(graph, root, model_name)
    others = {} if decode is None else _entries(decode, model_name)
    constructors: dict[Path, str] = {}
    taken: dict[str, None] = {model_name: None} if len(roots) == 1 else {}
    made: list[Class] = []
    every: list[Body] = []
    levels = _levels([call for call, _, _ in roots])
    for calls in levels[:-1]:
        bodies = [
            body(graph, call, call.inputs, call.outputs, constructors, root=False, other=others.get(call.path))
            for call in calls
        ]
        every += bodies
        made += _level(graph, bodies, taken, constructors)
    bodies = [
        body(graph, call, inputs, outputs, constructors, root=True, other=others.get(call.path))
        for call, inputs, outputs in roots
    ]
    taken.pop(model_name, None)
    final = _level(graph, bodies, taken, constructors)
    stages: list[StageClass] = []
    axes = mesh_names(graph)
    for call, inputs, outputs in roots:
        owner = next(item for item in final if call.path in item.constructors)
        arguments = owner.constructors[call.path]
        meshes = tuple(arg for arg in arguments if arg in axes)
        stages.append(StageClass(owner.name, tuple(a for a in arguments if a not in axes), meshes, inputs, outputs))
    calls = dict.fromkeys(call for item in (*every, *bodies) for call in item.calls)
    return Classes(tuple(item.source for item in [*made, *final]), tuple(stages), tuple(calls))


def _entries(graph: Graph, model_name: str) -> dict[Path, Entry]:
    """Of the scopes that are handed a cache, and of the model."""
    (root,) = _roots(graph, tree(graph), model_name)
    calls = [call for level in _levels([root[0]])[:-1] for call in level if entered(graph, call)]
    every = [root, *((call, call.inputs, call.outputs) for call in calls)]
    return {call.path: Entry("decode", graph, call, takes, gives) for call, takes, gives in every}


def mesh_names(graph: Graph) -> list[str]:
    """Names under which modules may ask for a part of the mesh: its axes, and those over which one leaf is placed."""
    several = dict.fromkeys(leaf.axes for leaf in leaves(graph).values() if len(leaf.axes) > 1)
    return [*(axis.name for axis in graph.mesh), *map(mesh_argument, several)]


def _roots(graph: Graph, root: Call, model_name: str) -> list[tuple[Call, tuple[Ref, ...], tuple[Ref, ...]]]:
    """The whole model, or the stages: with what they take and return in order."""
    cuts = [item for item in root.items if isinstance(item, Op) and item.kind == "cut"]
    if not cuts:
        scope = type(root.scope)((), (), (model_name,))
        inputs = tuple(op.ref for op in graph.inputs)
        return [(Call(scope, (), root.items, root.outputs), inputs, graph.outputs)]
    passed = [op.hint for op in graph.passed]
    found: list[tuple[Call, tuple[Ref, ...], tuple[Ref, ...]]] = []
    stages = [item for item in root.items if isinstance(item, Call)]
    for n, call in enumerate(stages):
        fed = {item.hint: item.ref for item in call.items if isinstance(item, Op) and item.kind == "input"}
        own = tuple(Ref(cuts[n - 1].id, out) for out in range(len(cuts[n - 1].outs))) if n else ()
        own += tuple(ref for name, ref in fed.items() if name not in passed)
        taken = (*own, *(fed[name] for name in passed))
        given = cuts[n].inputs if n < len(cuts) else graph.outputs
        found += [(stage, taken, given) for stage in _unmerged(call)]
    return found


def _unmerged(call: Call) -> list[Call]:
    """The stages that a scope stands for: one, or several equal up to their layers."""
    loops = [item for item in call.items if isinstance(item, Loop)]
    spans = Repeat.of(loops[0].repeat).spans
    found: list[Call] = []
    for span in spans:
        loop = replace(loops[0], repeat=loops[0].repeat.having(start=span.start, n=span.n, spans=()))
        items = tuple(loop if isinstance(item, Loop) else item for item in call.items)
        names = (call.scope.names[0], f"Stage{span.stage}")
        found.append(replace(call, scope=replace(call.scope, path=(Stage(span.stage),), names=names), items=items))
    return found or [call]


def _levels(roots: list[Call]) -> list[list[Call]]:
    """Calls by height, innermost first; the roots are the last level."""
    levels: list[list[Call]] = []
    tops = {call.path for call in roots}

    def visit(call: Call) -> int:
        heights = [0]
        for item in call.items:
            inner = item.blocks if isinstance(item, Loop) else (item,) if isinstance(item, Call) else ()
            heights += [visit(child) + 1 for child in inner]
        height = max(heights)
        levels.extend([] for _ in range(height + 1 - len(levels)))
        if call.path not in tops:
            levels[height].append(call)
        return height

    for call in roots:
        visit(call)
    return [level for level in levels if level] + [roots]


def _level(graph: Graph, bodies: list[Body], taken: dict[str, None], constructors: dict[Path, str]) -> list[Class]:
    groups = group(bodies)
    made: list[Class] = []
    for name, members in zip(name_groups(groups, taken), groups, strict=True):
        made.append(make_class(name, members, mesh_names(graph)))
        constructors.update({path: made[-1].call(path) for path in made[-1].constructors})
    return made
