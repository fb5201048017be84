"""Layers that are run again in backward: the methods that their parts are, and how a call of one is written."""

from __future__ import annotations

from dataclasses import dataclass, replace

from specc.emit.names import unique
from specc.ir.graph import Graph, Scope, inside
from specc.ir.op import Layer, Op, Ref
from specc.ir.repeat import Repeat
from specc.ir.segments import Segment, inside_layers, segments, together
from specc.ir.tree import Call, Loop

Entry = Op | Call


@dataclass(frozen=True)
class Part:
    """A method of a layer: its name, what it takes, does and returns, and how it is checkpointed."""

    name: str
    call: Call
    policy: str  # the kernel that says what is kept inside, empty for nothing
    options: str


def parts_of(graph: Graph, call: Call) -> tuple[Part | Entry | Loop, ...]:
    """What the forward of a scope runs, in order: its items, or in a layer of several parts those.

    A part in front of which nothing is made takes what the layer takes.
    """
    if not (call.path and isinstance(call.path[-1], Layer)) or not _several(graph, call):
        return call.items
    taken = [str(item.path[-1]) for item in call.items if isinstance(item, Call)]
    left = [item for item in call.items if not isinstance(item, Loop)]  # which no layer has
    found: list[Part | Entry] = []
    for segment in segments(graph)[call.path]:
        here = {op.id for op in segment.ops}
        items = [item for item in left if _first(graph, item) in here]
        left = [item for item in left if item not in items]
        if not segment.again:
            found += items
            continue
        name = unique([*taken, "_and_".join(_verbs(graph, items)) or "finish"])[-1]
        taken.append(name)
        keep = policy(segment, bool(graph.groups.model))
        found.append(Part(name, _own(graph, call, items), keep, options(segment, keep)))
    return tuple(found)


def policy(segment: Segment, placed: bool = False) -> str:
    """The kernel that says what is kept inside. `placed`: it may be compiled with placed parameters in it."""
    attends = placed and any(op.kind == "attention" for op in segment.ops)
    keep = "named" if segment.labels else "core" if segment.core else "nothing" if attends else ""
    return keep and f"keep_{keep}"


def options(segment: Segment, keep: str) -> str:
    """Of a call of `checkpoint`, behind the operands."""
    state = "" if segment.random else ", preserve_rng_state=False"
    return f", use_reentrant=False{state}{keep and f', context_fn={keep}'}"


def called(graph: Graph, repeat: Repeat) -> Segment | None:
    """What one call of a layer runs again, None where none is, or its parts are."""
    if repeat.op.attr("recompute") is None or inside_layers(graph, repeat):
        return None
    return together(part for path in repeat.blocks for part in segments(graph)[path])


def label(graph: Graph, op: Op) -> str:
    """The name under which an op's result is kept by a label, empty where there is none."""
    if not op.kept:
        return ""
    path = next((op.scope[:n] for n in range(len(op.scope), 0, -1) if isinstance(op.scope[n - 1], Layer)), ())
    return op.kept if any(op.id in part.labels for part in segments(graph).get(path, ())) else ""


def _several(graph: Graph, call: Call) -> bool:
    repeat = graph.repeat_of(call.path)
    return call.path in segments(graph) and repeat is not None and inside_layers(graph, repeat)


def _first(graph: Graph, item: Entry) -> str:
    """The id of an op of an item."""
    if isinstance(item, Op):
        return item.id
    return next(op.id for op in graph.ops if inside(op.scope, item.path))


def _verbs(graph: Graph, items: list[Entry]) -> list[str]:
    scopes: list[Scope] = [item.scope for item in items if isinstance(item, Call)]
    return [scope.verb or f"run_{scope.path[-1]}" for scope in scopes]


def _own(graph: Graph, call: Call, items: list[Entry]) -> Call:
    """The items as a call: it takes the layer's carries first, then what was made before, then the rest."""
    made = {ref for item in items for ref in _results(item)}
    used = dict.fromkeys(ref for item in items for ref in item.inputs if ref not in made)
    repeat = graph.repeat_of(call.path)
    carries = call.inputs[: len(repeat.op.inputs)] if repeat is not None else ()
    first = [ref for ref in carries if ref in used]
    last = [ref for ref in call.inputs if ref in used and ref not in first]
    before = [ref for ref in used if ref not in (*first, *last)]
    others = [item for item in call.items if not isinstance(item, Loop) and item not in items]
    later = {ref for item in others for ref in item.inputs}
    outputs = [ref for ref in made if ref in later or ref in call.outputs]
    order = [ref for item in items for ref in _results(item)]
    outputs = sorted(outputs, key=lambda ref: call.outputs.index(ref) if ref in call.outputs else order.index(ref))
    return replace(call, inputs=(*first, *before, *last), items=tuple(items), outputs=tuple(outputs))


def _results(item: Entry) -> list[Ref]:
    if isinstance(item, Call):
        return list(item.outputs)
    return [Ref(item.id, n) for n in range(len(item.outs))]
