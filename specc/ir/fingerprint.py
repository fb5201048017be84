"""Three digests of a compiled model: which parameters it has, what it computes, how it is laid out.

The first lines of a diff tell which of them changed. Canonical JSON under SHA-256; nothing in it depends
on where a spec stands, in which order its keys come, or on the run of Python.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

from specc.ir.graph import Graph
from specc.ir.op import Attr, Op, Param, dotted
from specc.ir.types import Axis, Place
from specc.spec.core import Layout

Json = object


def fingerprints(unplaced: Graph, graph: Graph, layout: Layout) -> tuple[tuple[str, str], ...]:
    """(name, 12 hex digits) of params, compute and layout; `unplaced` is typed only, `graph` has passed all passes."""
    repeats = [_attrs(op) for op in unplaced.ops if op.kind == "repeat"]
    params = {dotted(p.path): _shape(p) for op in unplaced.ops for p in op.params}
    compute = [_op(op) for op in unplaced.ops]
    plan = asdict(layout)
    del plan["at"], plan["name"]
    placed = [_placed(op) for op in graph.ops]
    return (
        ("params", _digest([sorted(params.items()), repeats])),
        ("compute", _digest(compute)),
        ("layout", _digest([plan, placed])),
    )


def _digest(value: Json) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _shape(param: Param) -> list[Json]:
    return [[axis.name, axis.size] for axis in param.axes]


def _op(op: Op) -> list[Json]:
    params = [[dotted(p.path), _shape(p), str(p.init)] for p in op.params]
    return [op.id, op.kind, [str(ref) for ref in op.inputs], params, _attrs(op), dotted(op.scope)]


def _placed(op: Op) -> list[Json]:
    uses = [f"{use.stored}/{use.used}" for use in op.uses]
    return [op.id, [str(type) for type in op.types], uses, op.kept, _attrs(op) if op.kind == "repeat" else []]


def _attrs(op: Op) -> list[Json]:
    return [[key, _json(value)] for key, value in sorted(op.attrs)]


def _json(value: Attr) -> Json:
    if isinstance(value, tuple):
        return [_json(item) for item in value]
    return str(value) if isinstance(value, (Axis, Place)) else value
