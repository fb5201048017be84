"""The text form of a graph: nested as it runs, one op a line, every value with its type and how it is placed.

    %x = embedding(%tokens, embedding.weight [vocab=96, d_model=32] normal(0.02) tp:S(vocab)) : float[...] tp:P
    %x2 = reduce_scatter(%x, tp: P -> S(seq)) : float[batch, seq, d_model=32] tp:S(seq)
    %x3 = repeat layers 0..31 (%x2) : float[batch, seq, d_model=32] tp:S(seq)
      %x4 = layers 0..31: Block(%x = %x3, %rope = %rope):

Of a repeat each block stands once, told by the layers that run it, in the order in which they first run. Names of
values and parameters are local to a scope, so a change in one block does not rename values of another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from specc.ir.graph import Graph, inside
from specc.ir.op import Attr, Layer, Op, Param, Ref, Use, in_model
from specc.ir.repeat import Repeat, layer_of
from specc.ir.tree import Call, Loop, tree
from specc.ir.types import Axis, Spmd

LINKS = {
    "PI": "all_reduce",
    "PR": "all_reduce",
    "PS": "reduce_scatter",
    "SR": "all_gather",
    "SI": "all_gather",
    "SS": "all_to_all",
    "RS": "slice",
    "IS": "slice",
    "IR": "copy",
}
"""What a conversion does in the forward pass."""


def text(graph: Graph) -> str:
    """Deterministic, every line ended. Raises ValueError where the ops of a scope are not contiguous."""
    lines = [f"mesh {', '.join(f'{axis.name}={axis.size}' for axis in graph.mesh)}"] if graph.mesh else []
    names = _Names()
    root = tree(graph)
    lines += _body(graph, root, names, 0)
    lines.append(f"output {', '.join(map(names.of, graph.outputs))}")
    lines.append("loss:")
    lines += [f"  {_op(graph, op, names)}" for op in graph.ops if op.scope[:1] == ("loss",)]
    return "\n".join(lines) + "\n"


@dataclass
class _Names:
    """Names of the values of one scope, in order of appearance."""

    known: dict[Ref, str] = field(default_factory=dict[Ref, str])
    taken: set[str] = field(default_factory=set[str])

    def of(self, ref: Ref) -> str:
        return self.known.get(ref, str(ref))

    def give(self, ref: Ref, hint: str) -> str:
        number, name = 2, f"%{hint}"
        while name in self.taken:
            number, name = number + 1, f"%{hint}{number}"
        self.taken.add(name)
        self.known[ref] = name
        return name


def _body(graph: Graph, call: Call, names: _Names, depth: int) -> Iterator[str]:
    indent = "  " * depth
    for item in call.items:
        if isinstance(item, Op):
            yield indent + _op(graph, item, names)
        elif isinstance(item, Call):
            yield from _call(graph, item, names, depth, str(item.path[-1]))
        else:
            yield from _loop(graph, item, names, depth)


def _call(graph: Graph, call: Call, outer: _Names, depth: int, label: str) -> Iterator[str]:
    """`%x2 = attention Attention(%x = %norm, %rope = %rope):`, its ops, and what it returns."""
    inner = _Names()
    inputs = [f"{inner.give(ref, graph.hint(ref))} = {outer.of(ref)}" for ref in call.inputs]
    body = list(_body(graph, call, inner, depth + 1))
    results = ", ".join(outer.give(ref, graph.hint(ref)) for ref in call.outputs)
    indent, kind = "  " * depth, " ".join((label, *call.scope.names[:1]))
    yield f"{indent}{results}{' = ' if results else ''}{kind}({', '.join(inputs)}):"
    yield from body
    yield f"{indent}  return {', '.join(inner.of(ref) for ref in call.outputs)}"


def _loop(graph: Graph, loop: Loop, names: _Names, depth: int) -> Iterator[str]:
    """Blocks stand in the order in which they first run; each is given what the one before it gave."""
    yield "  " * depth + _op(graph, loop.repeat, names)
    repeat, count = Repeat.of(loop.repeat), loop.carries
    carried = [names.of(Ref(loop.repeat.id, n)) for n in range(count)]
    layers = [repeat.layers(layer.offset) for block in loop.blocks if (layer := layer_of(block.path)) is not None]
    for numbers, block in zip(layers, loop.blocks, strict=True):
        names.known.update(zip(block.scope.inputs, carried, strict=False))
        yield from _call(graph, block, names, depth + 1, f"{repeat.path[-1]} {_numbers(numbers)}:")
        carried = [names.of(ref) for ref in block.scope.outputs[:count]]
    names.known.update(zip(loop.end.inputs, carried, strict=False))
    yield "  " * depth + _op(graph, loop.end, names)


def _numbers(layers: range) -> str:
    """`3`, `0..31`, `1, 4, 7` or `1..31 by 3`."""
    if len(layers) > 1 and layers.step == 1:
        return f"{layers[0]}..{layers[-1]}"
    return f"{layers[0]}..{layers[-1]} by {layers.step}" if len(layers) > 3 else ", ".join(map(str, layers))


def _op(graph: Graph, op: Op, names: _Names) -> str:
    """One line. Where the op comes from in the document is left out."""
    operands = [names.of(ref) for ref in op.inputs]
    uses: tuple[Use | None, ...] = op.uses or (None,) * len(op.params)
    operands += [_param(op, param, use) for param, use in zip(op.params, uses, strict=True)]
    attrs = dict(op.attrs)
    head, shown = op.kind, ""
    if op.kind == "repeat":
        attrs, repeat = {}, Repeat.of(op)
        head = f"repeat {repeat.path[-1]} {_numbers(range(repeat.start, repeat.start + repeat.n))} "
        shown = _held(op, repeat)
    elif op.kind == "end":
        head = f"end {graph.op(str(attrs.pop('repeat'))).text('path')} "
    elif op.kind == "convert":
        src, dst = attrs.pop("src"), attrs.pop("dst")
        head = LINKS.get(str(src)[0] + str(dst)[0], "convert")
        operands.append(f"{attrs.pop('mesh')}: {src} -> {dst}")
    refs = [Ref(op.id, n) for n in range(max(1, len(op.outs)))]
    results = ", ".join(names.give(ref, graph.hint(ref)) for ref in refs)
    line = f"{results} = {head}({', '.join(operands)})"
    shown = shown or ", ".join(f"{key}={_attr(value)}" for key, value in attrs.items() if value is not None)
    line += f" {{{shown}}}" if shown else ""
    line += "".join(f" {mesh}={lowering}" for mesh, lowering in op.lowering)
    types: tuple[Spmd, ...] = op.types or (Spmd(),) * len(op.outs)
    outs = [" ".join(filter(None, (str(out), _spmd(spmd)))) for out, spmd in zip(op.outs, types, strict=True)]
    line += f" : {', '.join(outs)}" if outs else ""
    return line + (f" kept as {op.kept}" if op.kept else "")


def _held(op: Op, repeat: Repeat) -> str:
    """`recompute every=2; stages 1: 9..16, 2: 17..25`"""
    every = dict(op.attrs).get("recompute")
    words = [] if every is None else [f"recompute every={_attr(every)}"]
    spans = [f"{span.stage}: {_numbers(range(span.start, span.start + span.n))}" for span in repeat.spans]
    return "; ".join([*words, *([f"stages {', '.join(spans)}"] if spans else [])])


def _param(op: Op, param: Param, use: Use | None) -> str:
    """Named within the scope of the op. Storage is shown where it is not as used."""
    axes = ", ".join(f"{axis.name}={axis.size}" for axis in param.axes)
    shown = f"{_name(op, param)} [{axes}] {param.init}"
    if use is None or not use.used.places:
        return shown
    stored = "" if use.stored == use.used else f" stored {_spmd(use.stored)}"
    return f"{shown} {_spmd(use.used)}{stored}"


def _name(op: Op, param: Param) -> str:
    inner = in_model(op.scope) if inside(param.path, in_model(op.scope)) else ()
    return ".".join("*" if isinstance(part, Layer) else str(part) for part in param.path[len(inner) :])


def _spmd(spmd: Spmd) -> str:
    nested = [f"{axis}:({', '.join(names)})" for axis, names in spmd.nesting if len(names) > 1]
    return " ".join((str(spmd), *nested))


def _attr(value: Attr) -> str:
    if isinstance(value, Axis):
        return value.name
    return f"({', '.join(map(_attr, value))})" if isinstance(value, tuple) else str(value)
