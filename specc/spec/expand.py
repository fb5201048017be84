"""Document -> Spec: patterns cut to depth, defaults filled in."""

from __future__ import annotations

import re

from specc.components.norm import Norm
from specc.source import Diagnostic, Node, Path, span_of
from specc.spec.blocks import Written, expand, written_blocks
from specc.spec.core import Block, Checkpoint, Embed, Init, Layout, Model, Pipeline, Run, Spec, Stack
from specc.spec.document import Document, EveryDoc, LayoutDoc, PatternDoc, PipelineDoc, StackDoc
from specc.spec.shape import suggestion


def to_spec(document: Document, root: Node, file: str) -> Spec | list[Diagnostic]:
    """The core form, or all that keeps the document from having one."""
    found: list[Diagnostic] = []
    named = written_blocks(document, root, found)
    given = {role: doc for role in ("encoder", "decoder") if (doc := getattr(document, role)) is not None}
    if not given:
        found.append(Diagnostic("E230", "a model needs a decoder, an encoder, or both", span_of(root, ())))
    stacks = [_stack(role, doc, document, named, root, found, len(given) == 1) for role, doc in given.items()]
    layouts = _layouts(document, root, found)
    if found:
        return found
    model = Model(
        name=document.name,
        description=document.description,
        d_model=document.d_model,
        vocab=document.vocab,
        max_seq=document.max_seq,
        pad=document.pad,
        embed=_embed(document, tuple(given)),
        head_bias=document.head.bias,
        init=_init(document),
        stacks=tuple(stacks),
    )
    return Spec(model, layouts, file, root)


def _embed(document: Document, roles: tuple[str, ...]) -> Embed:
    doc = document.embedding
    scale = document.d_model**0.5 if doc.scale == "sqrt_d_model" else float(doc.scale)
    tied = ((*roles, "head") if doc.tied else ()) if isinstance(doc.tied, bool) else tuple(doc.tied)
    return Embed(scale, doc.positions, document.dropout if doc.dropout is None else doc.dropout, tied)


def _init(document: Document) -> Init:
    doc = document.init
    return Init(doc.kind, doc.std, doc.std if doc.embedding_std is None else doc.embedding_std, doc.depth_scaled)


def _stack(
    role: str,
    doc: StackDoc,
    document: Document,
    named: dict[str, Written],
    root: Node,
    found: list[Diagnostic],
    alone: bool,
) -> Stack:
    at: Path = (role,)
    runs: tuple[Run, ...] = ()
    if (doc.block is None) == (doc.pattern is None):
        message = f"the {role} needs either a block or a pattern of blocks"
        found.append(Diagnostic("E231", message, span_of(root, at, key=True)))
    elif doc.block is not None:
        written = Written("block", doc.block, (*at, "block"), {})
        runs = (Run((expand(written, document, role, root, found),), doc.layers),)
    else:
        runs = _pattern(role, doc, document, named, root, found)
    norm = Norm(**document.norm.model_dump(exclude={"placement"})).resolved()
    final = document.norm.placement == "pre" if doc.final_norm is None else doc.final_norm
    assert role in ("encoder", "decoder")
    return Stack(
        "encoder" if role == "encoder" else "decoder", "layers" if alone else role, runs, norm if final else None, at
    )


def _pattern(
    role: str, doc: StackDoc, document: Document, named: dict[str, Written], root: Node, found: list[Diagnostic]
) -> tuple[Run, ...]:
    pattern = doc.pattern if isinstance(doc.pattern, PatternDoc) else None
    parts = (
        {"cycle": doc.pattern} if isinstance(doc.pattern, list) else pattern.model_dump() if pattern is not None else {}
    )
    base: Path = (role, "pattern")
    names: dict[str, list[str]] = {}
    for part, items in parts.items():
        at = base if isinstance(doc.pattern, list) else (*base, part)
        names[part] = [
            name for n, item in enumerate(items) for name in _repeated(item, (*at, n), document, root, found)
        ]
    head, cycle, tail = (names.get(part, []) for part in ("head", "cycle", "tail"))
    rest = doc.layers - len(head) - len(tail)
    span = span_of(root, (role, "layers"))
    if rest < 0 or (rest > 0 and not cycle):
        message = f"{doc.layers} layers, but the pattern has {len(head)} in its head and {len(tail)} in its tail"
        help = "give a cycle for those between" if rest > 0 else f"layers must be at least {len(head) + len(tail)}"
        found.append(Diagnostic("E232", message, span, help))
        return ()
    made: dict[str, Block] = {
        name: expand(named[name], document, role, root, found)
        for name in dict.fromkeys((*head, *cycle, *tail))
        if name in named
    }
    sections = ((head, len(head)), (cycle, rest), (tail, len(tail)))
    return tuple(
        Run(tuple(made[name] for name in section if name in made), layers) for section, layers in sections if layers
    )


def _repeated(item: str, at: Path, document: Document, root: Node, found: list[Diagnostic]) -> list[str]:
    """`local*5` is five times local."""
    match = re.fullmatch(r"([^*]+?)\s*(?:\*\s*([0-9]{1,6}))?", item)
    name, count = (match[1], int(match[2] or 1)) if match else (item, 1)
    if name not in document.blocks:
        help = suggestion(name, document.blocks, "blocks")
        found.append(Diagnostic("E220", f"there is no block {name}", span_of(root, at), help))
        return []
    if not 1 <= count <= 100_000:
        found.append(Diagnostic("E204", f"{item} is out of bounds: at least 1, at most 100000", span_of(root, at)))
        return []
    return [name] * count


def _layouts(document: Document, root: Node, found: list[Diagnostic]) -> tuple[Layout, ...]:
    if document.layout is not None and document.layouts is not None:
        span = span_of(root, ("layouts",), key=True)
        found.append(Diagnostic("E240", "layout and layouts cannot both be given", span, "keep one of them"))
        return ()
    if document.layouts is not None:
        return tuple(_layout(name, doc, ("layouts", name)) for name, doc in document.layouts.items())
    return (_layout(None, document.layout, ("layout",)),) if document.layout is not None else (Layout(),)


def _layout(name: str | None, doc: LayoutDoc, at: Path) -> Layout:
    if isinstance(doc.pp, PipelineDoc):
        microbatches = doc.pp.stages if doc.pp.microbatches is None else doc.pp.microbatches
        pipeline = Pipeline(doc.pp.stages, doc.pp.schedule, microbatches, tuple(doc.pp.starts))
    else:
        pipeline = Pipeline(stages=doc.pp, microbatches=doc.pp)
    return Layout(name, doc.tp, doc.sequence_parallel, doc.dp, pipeline, _checkpoint(doc.checkpoint), at)


def _checkpoint(doc: str | EveryDoc) -> Checkpoint:
    if isinstance(doc, EveryDoc):
        return Checkpoint(doc.every, tuple(doc.save or ()))
    return Checkpoint(every=1 if doc == "full" else None)
