"""The second entry of a decoder: the tokens that come next, behind those of which a cache keeps what layers need.

Not one of `PASSES`: it makes another graph over the same modules.
"""

from __future__ import annotations

from dataclasses import replace

from specc.ir.graph import Graph, Scope, inside
from specc.ir.op import Op, Path, Ref
from specc.ops.cache import CACHE
from specc.passes.shapes import shapes
from specc.spec.core import Layout

STATE = Ref("cache")
ATTENDS = ("attention", "plain_attention")
OF_KEYS = ("keys", "near of keys", "chunks of keys")
"""Operands, of a mask or of what else says what they are, that speak of keys, of one row."""


def decode(graph: Graph, layout: Layout) -> Graph:
    """Of a graph with all its masks: positions go on where the cache ends, and keys are those that it has room for.

    Nothing is dropped.
    """
    (tokens,) = graph.inputs
    cached = [op.scope for op in graph.ops if op.kind in ATTENDS or graph.definition(op).later]
    ops: list[Op] = []
    moved: dict[Ref, Ref] = {}
    attending: dict[Path, int] = {}  # how many ops of a scope had their keys cached
    for op in graph.ops:
        op = replace(op, inputs=tuple(moved.get(ref, ref) for ref in op.inputs))
        if op.kind in ("dropout", "drop_path", "jitter"):
            moved[op.ref] = op.inputs[0]
            continue
        later = graph.definition(op).later
        ops += [replace(op, kind=later, inputs=(*op.inputs, STATE))] if later else _written(op, tokens.ref, attending)
        if op.id == tokens.id:
            fed = replace(op, id=STATE.op, hint="cache", outs=(CACHE,), attrs=(("axes", ()), ("dtype", "cache")))
            ops.append(fed)
    scopes = [_scope(scope.moved(moved), cached) for scope in graph.scopes]
    return shapes(graph.with_ops(ops, scopes, moved), layout)


def _written(op: Op, tokens: Ref, attending: dict[Path, int]) -> list[Op]:
    if op.kind == "positions":
        return [replace(op, kind="advance", inputs=(tokens, STATE), attrs=())]
    if "of" in dict(op.attrs):
        of = op.attr("of")
        assert isinstance(of, tuple) and "keys" in of
        slots = replace(op, id=f"{op.id}_slots", kind="slots", inputs=(tokens, STATE), hint="slots", attrs=())
        inputs = zip(of, op.inputs, strict=True)
        return [slots, replace(op, inputs=tuple(slots.ref if str(name) in OF_KEYS else ref for name, ref in inputs))]
    if op.kind in ATTENDS:
        q, k, v, *mask = op.inputs
        number = attending[op.scope] = attending.get(op.scope, 0) + 1
        whole = Op(f"{op.id}_cache", "appended", (k, v, STATE), scope=op.scope, hints=("k", "v"), at=op.at)
        whole = whole if number == 1 else whole.having(number=number)
        op = replace(op, inputs=(q, Ref(whole.id, 0), Ref(whole.id, 1), *mask))
        return [whole, op.having(dropout=0.0)]
    return [op]


def _scope(scope: Scope, cached: list[Path]) -> Scope:
    """With the cache where something in it is cached."""
    holds = any(inside(path, scope.path) for path in cached)
    return replace(scope, inputs=(*scope.inputs, STATE)) if holds else scope
