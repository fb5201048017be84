"""What is computed from shapes and tokens: positions, tables of positions, masks."""

from __future__ import annotations

from specc.emit.expr.base import Writer, hole
from specc.emit.leaf_class import CAST
from specc.emit.parts import ATOM, COMPARED, PRODUCT, SUM, Expr, Part, Use
from specc.ir.graph import Graph
from specc.ir.op import Op, Ref
from specc.ops.sources import masked


def _positions(graph: Graph, op: Op) -> Expr:
    """The length is that of the operand's axis; a shard of it is as many times longer as there are ranks."""
    like = op.inputs[0]
    axis = op.outs[0].axes[0]
    dim = [a.name for a in graph.type(like).axes].index(axis.name)
    whole = "".join(f" * self.{name}.size()" for name in graph.spmd(like).shards(axis))
    use = Use(like, ATOM, named=True)
    made: tuple[Part, ...] = ("torch.arange(", use, f".size({dim}){whole}, device=", use, ".device)")
    over = [mesh.name for mesh in graph.mesh if mesh.data and mesh.name in graph.spmd(like).shards(axis)]
    if "order" not in dict(op.attrs):
        return Expr(made)
    return Expr(("zigzag(", *made, f", 0, self.{over[0]})"), calls=("zigzag",))


def _rope_table(graph: Graph, op: Op) -> Expr:
    scaling = op.attr("scaling")
    kind, *numbers = scaling if isinstance(scaling, tuple) else ("",)
    name = f"{kind}_rope_table" if kind else "rope_table"
    rows = len(graph.type(op.inputs[0]).axes) > 1  # then the same for all heads of a row
    parts: list[Part] = [f"{name}(", *((Use(op.inputs[0], ATOM), "[:, None]") if rows else (Use(op.inputs[0]),))]
    for key, value in (("head_dim", op.attr("head_dim")), ("theta", op.attr("theta"))):
        parts += [", ", hole(op, key, value)]
    for n, value in enumerate(numbers):
        parts += [", ", hole(op, f"scaling{n}", value)]
    return Expr((*parts, f"){CAST * ('dtype' in dict(op.attrs))}"), calls=(name,), alone=True, called="rope")


def _temperature(graph: Graph, op: Op) -> Expr:
    rows = len(graph.type(op.inputs[0]).axes) > 1  # then the same for all heads of a row
    parts: list[Part] = ["temperatures(", Use(op.inputs[0], ATOM), "[:, None]" * rows]
    for key in ("floor", "scale", "offset"):
        parts += [", ", hole(op, key, op.attr(key))]
    return Expr((*parts, f"){CAST * ('dtype' in dict(op.attrs))}"), calls=("temperatures",), alone=True)


def _sinusoid(graph: Graph, op: Op) -> Expr:
    like = _latest(graph, op, op.inputs[1])
    size = hole(op, "d_model", op.attr("d_model"))
    name, more = "sinusoid", tuple[Part, ...]()
    if "steps" in dict(op.attrs):
        name = "sinusoid_of"
        more = (", steps=", hole(op, "steps", op.attr("steps")), ", dim=", hole(op, "dim", op.attr("dim")))
    parts = (f"{name}(", Use(op.inputs[0]), ", ", size, *more, ").to(", Use(like, ATOM, named=True), ".dtype)")
    return Expr(parts, calls=(name,))


def _zero(graph: Graph, op: Op) -> Expr:
    return Expr((Use(_latest(graph, op, op.inputs[0]), ATOM), ".new_zeros((), dtype=REDUCE)"))


def _latest(graph: Graph, op: Op, ref: Ref) -> Ref:
    """The value or the last conversion of it before the op: all have one dtype."""
    found = ref
    for other in graph.ops:
        if other.id == op.id:
            break
        if other.kind == "convert" and graph.origin(other.ref) == ref and other.scope == op.scope:
            found = other.ref
    return found


def _real(graph: Graph, op: Op) -> Expr:
    return Expr((Use(op.inputs[0], ATOM), ".ne(", hole(op, "pad", op.attr("pad")), ")"))


def _token_is(graph: Graph, op: Op) -> Expr:
    return Expr((Use(op.inputs[0], ATOM), ".eq(", hole(op, "token", op.attr("token")), ")"))


def _kernel(graph: Graph, op: Op) -> Expr:
    """A function of its operands that is called as the op is."""
    more = tuple(part for ref in op.inputs[1:] for part in (", ", Use(ref)))
    return Expr((f"{op.kind}(", Use(op.inputs[0]), *more, ")"), calls=(op.kind,))


def _mask(graph: Graph, op: Op) -> Expr:
    """What must hold, each as [seq, keys] or [batch, 1, seq, keys]."""
    at = {name: op.inputs[n] for name, n in masked(op).items()}
    terms: list[tuple[int, list[Part]]] = []
    if "documents" in at:
        own, others = Use(at["documents"], ATOM), Use(at["documents of keys"], ATOM)
        terms.append((COMPARED, [own, "[:, None, :, None] == ", others, "[:, None, None]"]))
    if "chunks" in at:
        own, others = Use(at["chunks"], ATOM), Use(at["chunks of keys"], ATOM)
        rows = len(graph.type(at["chunks"]).axes) > 1
        ends = ("[:, None, :, None]", "[:, None, None]") if rows else ("[:, None]", "")
        size = hole(op, "chunk", op.attr("chunk"))
        terms.append((COMPARED, [own, f"{ends[0]} // ", size, " == ", others, f"{ends[1]} // ", size]))
    if "queries" in at:
        before: list[Part] = [Use(at["keys"], SUM), " <= ", Use(at["queries"], ATOM), "[:, None]"]
        if "marked" in at:
            before = ["(", *before, ") | ", Use(at["marked"], ATOM), "[:, None, None]"]
        terms.append((COMPARED, before))
    if "near" in at:
        apart = [Use(at["near"], ATOM), "[:, None] - ", Use(at["near of keys"], PRODUCT)]
        apart = apart if "queries" in at and "marked" not in at else ["(", *apart, ").abs()"]
        terms.append((COMPARED, [*apart, " < ", hole(op, "window", op.attr("window"))]))
    if "real" in at:
        terms.append((ATOM, [Use(at["real"], ATOM), "[:, None, None]"]))
    if len(terms) == 1:
        return Expr(tuple(terms[0][1]), terms[0][0], called="mask")
    parts: list[Part] = []
    for level, term in terms:
        parts += [" & "] * bool(parts) + (["(", *term, ")"] if level < ATOM else term)
    return Expr(tuple(parts), COMPARED, called="mask")


def _mask_bias(graph: Graph, op: Op) -> Expr:
    return Expr(("torch.where(", Use(op.inputs[0], named=True), f", 0.0, -torch.inf){CAST}"), alone=True, called="mask")


def _causal_bias(graph: Graph, op: Op) -> Expr:
    """Of this rank's queries."""
    (over,) = graph.spmd(op.inputs[0]).shards(op.outs[0].axes[0])
    name = "causal_chunks" if op.number("chunks") > 1 else "causal_part"
    return Expr((f"{name}(", Use(op.inputs[0]), f", self.{over})"), calls=(name,), alone=True)


TABLE: dict[str, Writer] = {
    "positions": _positions,
    "rope_table": _rope_table,
    "temperature": _temperature,
    "sinusoid": _sinusoid,
    "real": _real,
    "token_is": _token_is,
    "tokens_ahead": _kernel,
    "labels_ahead": _kernel,
    "document_starts": _kernel,
    "real_positions": _kernel,
    "mask": _mask,
    "mask_bias": _mask_bias,
    "causal_bias": _causal_bias,
    "zero": _zero,
}
