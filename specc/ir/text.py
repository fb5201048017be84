"""The text form of a graph: nested as it runs, one op a line, every value with its type and how it is placed."""

from __future__ import annotations

from specc.ir.graph import Graph
from specc.ir.op import Attr, Op, Ref, dotted
from specc.ir.tree import Call, Loop, tree


def text(graph: Graph) -> str:
    """Deterministic; names of values are unique within the graph."""
    lines: list[str] = []
    if graph.mesh:
        lines.append(f"mesh {', '.join(f'{axis.name} {axis.size}' for axis in graph.mesh)}")
    writer = _Writer(graph)
    if graph.ops and graph.ops[0].outs:
        writer.call(tree(graph), lines, 0)
    else:  # not typed: no view of calls and loops yet
        lines += [writer.line(op) for op in graph.ops if op.scope[:1] != ("loss",)]
    lines.append(f"return {writer.name(graph.output)}")
    lines += [writer.line(op) for op in graph.ops if op.scope[:1] == ("loss",)]
    return "\n".join(lines) + "\n"


class _Writer:
    def __init__(self, graph: Graph):
        self.graph = graph
        self.names: dict[str, str] = {}
        self.taken: set[str] = set()

    def name(self, ref: Ref) -> str:
        if ref.op not in self.names:
            op = self.graph.op(ref.op)
            base = f"%{op.kind if op.kind in ('repeat', 'end', 'cut') else ref.op.split('.')[-1]}"
            if op.kind == "convert":
                base = self.name(op.inputs[0]).rstrip("'0123456789") + "'"
            number, name = 2, base
            while name in self.taken:
                number, name = number + 1, f"{base}{number}"
            self.taken.add(name)
            self.names[ref.op] = name
        return self.names[ref.op] + (f".{ref.out}" if ref.out else "")

    def call(self, call: Call, lines: list[str], depth: int) -> None:
        indent = "  " * depth
        for item in call.items:
            if isinstance(item, Op):
                lines.append(indent + self.line(item))
            elif isinstance(item, Call):
                lines.append(f"{indent}{item.path[-1]}({self._refs(item.inputs)}):")
                self.call(item, lines, depth + 1)
            else:
                self._loop(item, lines, depth)

    def _loop(self, loop: Loop, lines: list[str], depth: int) -> None:
        indent, start = "  " * depth, loop.start
        lines.append(indent + self.line(loop.repeat))
        for block in loop.blocks:
            period = loop.repeat.number("period")
            which = "" if period == 1 else f" where layer % {period} == {str(block.path[-1]).split('+')[-1]}"
            span = f"{loop.path[-1]}.{start}..{start + loop.n - 1}"
            lines.append(f"{indent}{span}{which}({self._refs(block.inputs)}):")
            self.call(block, lines, depth + 1)
        lines.append(indent + self.line(loop.end))

    def line(self, op: Op) -> str:
        """`%q = linear(%x, q.weight [...]) : type  placed`."""
        operands = [self.name(ref) for ref in op.inputs]
        for n, param in enumerate(op.params):
            axes = ", ".join(f"{axis.name}={axis.size}" for axis in param.axes)
            use = f" {op.uses[n].used}" if op.uses and op.uses[n].used.places else ""
            operands.append(f"{dotted(param.path[-2:])} [{axes}]{use}")
        attrs = [f"{key}={_shown(value)}" for key, value in op.attrs if value is not None]
        outs = ", ".join(
            str(out) + (f" {op.types[n]}" if op.types and op.types[n].places else "") for n, out in enumerate(op.outs)
        )
        kept = f"  kept as {op.kept}" if op.kept else ""
        lowering = "".join(f" {name}={how}" for name, how in op.lowering)
        braces = f" {{{', '.join(attrs)}}}" if attrs else ""
        typed = f" : {outs}" if outs else ""
        return f"{self.name(op.ref)} = {op.kind}({', '.join(operands)}){braces}{lowering}{typed}{kept}"

    def _refs(self, refs: tuple[Ref, ...]) -> str:
        return ", ".join(self.name(ref) for ref in refs)


def _shown(value: Attr) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(_shown(item) for item in value)})"
    return str(value)
