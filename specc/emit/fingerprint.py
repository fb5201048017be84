"""Three digests of a compiled model: which parameters it has, what it computes, how it is laid out.

The first lines of a diff tell which of them changed. Canonical JSON under SHA-256; nothing in it depends on where a
spec stands, on the order of its keys, on names of values or classes, or on the run of Python.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields

from specc.ir.graph import Graph
from specc.ir.op import Attr, Layer, Op, Param, Ref, Span, dotted
from specc.ir.parameters import template
from specc.ir.repeat import Repeat
from specc.ir.stored import stored
from specc.ir.types import Axis, Place, Spmd, TensorType
from specc.spec.core import Checkpoint, Context, Layout, Pipeline

Json = object


def fingerprints(unplaced: Graph, graph: Graph, layout: Layout) -> tuple[tuple[str, str], ...]:
    """(name, 12 hex digits) of params, compute and layout; `unplaced` is typed only, `graph` has passed all passes.

    params: global names and shapes. compute: ops, attributes, sizes, wiring, initial values. layout: what the layout
    says, stages and their layers, and how each kind of op is placed, which sizes do not change.
    """
    said = [field.name for field in fields(layout) if field.compare and field.name not in ("at", "name")]
    usual = Layout()  # what a layout does not say is no part of it
    plan = {name: _plain(getattr(layout, name)) for name in said if getattr(layout, name) != getattr(usual, name)}
    return (
        ("params", _digest(_params(unplaced))),
        ("compute", _digest(_compute(unplaced))),
        ("layout", _digest([plan, _stages(graph), sorted({_canonical(_placing(op)) for op in _placed(graph)})])),
    )


def _plain(value: Pipeline | Checkpoint | Context | Json) -> Json:
    if isinstance(value, Pipeline):
        return {key: own for key, own in asdict(value).items() if (key, own) != ("per_rank", 1)}
    return asdict(value) if isinstance(value, (Checkpoint, Context)) else value


def _digest(value: Json) -> str:
    return hashlib.sha256(_canonical(value).encode()).hexdigest()[:12]


def _canonical(value: Json) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _params(graph: Graph) -> Json:
    """Shapes by global name. Layers are told as ranges, whatever runs and periods they come from."""
    found: dict[tuple[str, str], list[range]] = {}
    known: dict[tuple[Axis, ...], str] = {}
    for param in stored(graph):
        axes = param.param.axes
        if axes not in known:
            known[axes] = json.dumps(_axes(axes))
        kind = "" if param.param.trained else "buffer "
        key = (kind + ".".join(template(param.param.path)), known[axes])
        found.setdefault(key, []).extend(() if param.layers is None else (param.layers,))
    return sorted([name, axes, _ranges(spans)] for (name, axes), spans in found.items())


def _ranges(spans: list[range]) -> list[list[int]]:
    """First, last and step of each: the same numbers give the same ranges."""
    if len(spans) < 2:
        return [[span[0], span[-1], span.step if len(span) > 1 else 1] for span in spans]
    numbers = sorted({number for span in spans for number in span})
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][0] == found[-1][1]:
            found[-1][1:] = [number, number - found[-1][0]]
        elif found and number - found[-1][1] == found[-1][2]:
            found[-1][1] = number
        else:
            found.append([number, number, 1])
    return found


def _compute(graph: Graph) -> Json:
    """Ops by their numbers, not by their names."""
    numbers = {op.id: n for n, op in enumerate(graph.ops)}
    ends = [_ref(ref, numbers) for ref in (*graph.outputs, graph.loss)]
    distinct = {id(out): out for op in graph.ops for out in op.outs}  # what is equal is mostly the same object
    types = {key: _type(out) for key, out in distinct.items()}
    return [[_op(op, numbers, types) for op in graph.ops], ends]


def _op(op: Op, numbers: Mapping[str, int], types: Mapping[int, Json]) -> list[Json]:
    attrs = {key: _attr(value) for key, value in op.attrs if key != "whole"}  # which is of the layout
    if op.kind == "end":
        attrs["repeat"] = numbers[op.text("repeat")]
    layers = [[part.offset, part.run] for part in op.scope if isinstance(part, Layer)]
    inputs = [_ref(ref, numbers) for ref in op.inputs]
    return [op.kind, inputs, [_param(p) for p in op.params], attrs, layers, [types[id(out)] for out in op.outs]]


def _ref(ref: Ref, numbers: Mapping[str, int]) -> Json:
    return [numbers[ref.op], ref.out]


def _param(param: Param) -> Json:
    return [dotted(param.path), _axes(param.axes), param.init.kind, param.init.std]


def _axes(axes: tuple[Axis, ...]) -> Json:
    return [[axis.name, axis.size, axis.ragged] for axis in axes]


def _type(type: TensorType) -> Json:
    return [_axes(type.axes), type.dtype, type.grad]


def _attr(value: Attr) -> Json:
    if isinstance(value, Axis):
        return str(value).replace(", whole=True)", ")").replace(", whole=False)", ")")
    if isinstance(value, Place):
        return str(value)
    if isinstance(value, tuple):
        return [_attr(item) for item in value]
    return [value.stage, value.start, value.n] if isinstance(value, Span) else value


def _placed(graph: Graph) -> Iterable[Op]:
    """One of each that are placed alike; what is equal is mostly the same object."""
    found: dict[tuple[object, ...], Op] = {}
    for op in graph.ops:
        found.setdefault((op.kind, tuple(map(id, (*op.types, *op.uses))), op.lowering, op.kept), op)
    return found.values()


def _placing(op: Op) -> Json:
    """How the op is placed, without what it computes."""
    uses = [[_spmd(use.stored), _spmd(use.used)] for use in op.uses]
    return [op.kind, [_spmd(spmd) for spmd in op.types], uses, op.lowering, op.kept]


def _stages(graph: Graph) -> Json:
    """The layers of each stage."""
    if not any(op.kind == "cut" for op in graph.ops):
        return []
    repeats = [(op, Repeat.of(op)) for op in graph.ops if op.kind == "repeat"]
    return [[dotted(op.scope), dotted(r.path), r.start, r.n, [_attr(s) for s in r.spans]] for op, r in repeats]


def _spmd(spmd: Spmd) -> Json:
    return [[[name, str(place)] for name, place in spmd.places], spmd.nesting]
