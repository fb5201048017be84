"""Document -> Spec: patterns cut to depth, defaults filled in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from specc.source import Path
from specc.spec.blocks import Written, written_blocks
from specc.spec.core import Checkpoint, Common, Context, Layout, Loss, Model, MultiToken, Pipeline, Spec, Stack
from specc.spec.document import (
    ContextDoc,
    Document,
    EveryDoc,
    LayoutDoc,
    LikeDoc,
    PipelineDoc,
    StackDoc,
)
from specc.spec.ends import Ends, longest
from specc.spec.formulas import Formulas
from specc.spec.norms import Norms
from specc.spec.report import Report
from specc.spec.stacks import ROLES, Role, Stacks, named, parts
from specc.spec.starts import init
from specc.tables import Tables


def to_spec(document: Document, data: Mapping[str, Any], report: Report, file: str) -> Spec:
    """The core form, as far as there is one; `data` is what the document was made from."""
    written = written_blocks(document, data.get("blocks", {}), report)
    given: dict[Role, StackDoc] = {role: doc for role in ROLES if (doc := getattr(document, role)) is not None}
    if not given:
        roles = (("encoder",), ("decoder",))
        report.add("E230", (), "a model needs a decoder, an encoder, or both", "give decoder", roles)
        for role in roles:
            report.broken(role)  # nothing is concluded from layers that are not there
    max_seq = longest(document)
    known = {"d_model": document.d_model, "vocab": document.vocab, "max_seq": max_seq}
    formulas = Formulas(report, {key: value for key, value in known.items() if value is not None})
    norms = Norms.of(document.norm, document.d_model, report)
    ends = Ends(document, formulas, norms)
    stacks = [Stacks(role, doc, document, ends, written, report).stack(len(given) == 1) for role, doc in given.items()]
    _unused(document, report)
    multi_token = _multi_token(document, ends, written, report)
    model = Model(
        name=document.name,
        description=document.description,
        d_model=document.d_model,
        vocab=document.vocab or 0,
        max_seq=max_seq,
        pad=document.pad,
        embed=ends.embed(tuple(given)),
        head=ends.head(),
        init=init(document, formulas, report),
        stacks=tuple(stacks),
        multi_token=multi_token,
        loss=Loss(document.loss.label_smoothing, document.loss.z_loss),
        inputs=(*document.inputs, *(("types",) if document.embedding.types else ()), *_asked(stacks, report)),
        tables=report.language.tables,
    )
    common = Common(norms.model, norms.placement, document.dropout)
    return Spec(model, _layouts(document, report), common, file, report.root)


def _asked(stacks: Iterable[Stack], report: Report) -> tuple[Literal["prefix"], ...]:
    """Inputs that components are the reason of."""
    blocks = dict.fromkeys(block for stack in stacks for run in stack.runs for block in run.blocks)
    configs = [branch.component for block in blocks for sub in block.sublayers for branch in sub.branches]
    known = report.language.tables
    return tuple(dict.fromkeys(name for config in configs for name in known.component(config).inputs(config)))


def _multi_token(document: Document, ends: Ends, written: dict[str, Written], report: Report) -> MultiToken | None:
    """Of a decoder alone; its blocks are as in a layer behind the last."""
    doc = None if isinstance(document.head, str) else document.head.multi_token
    if doc is None:
        return None
    at: Path = ("head", "multi_token")
    if document.decoder is None or document.encoder is not None:
        message = "multi_token is for a decoder alone, whose tokens follow each other"
        report.add("E247", at, message, "leave it out", reads=[("encoder",), ("decoder",)], key=True)
        return None
    blocks, norm = Stacks("decoder", document.decoder, document, ends, written, report).behind(
        doc.block, (*at, "block")
    )
    return MultiToken(doc.steps, blocks, doc.loss, norm)


def _unused(document: Document, report: Report) -> None:
    """A block that no layer runs would be a text without effect."""
    docs = [doc for doc in (document.encoder, document.decoder) if doc is not None]
    patterns = [pattern for doc in docs for pattern in (doc.pattern, *doc.patterns.values())]
    used = {named(item)[0] for pattern in patterns for part in parts(pattern).values() for item in part}
    if not isinstance(document.head, str) and document.head.multi_token is not None:
        used |= {named(item)[0] for item in document.head.multi_token.block}
    used |= {block.like for block in document.blocks.values() if isinstance(block, LikeDoc)}
    for name in document.blocks:
        if name not in used:
            reads = [*((role, key) for role in ROLES for key in ("pattern", "patterns")), ("blocks",), ("head",)]
            help = "name it in a pattern, or remove it"
            report.add("E225", ("blocks", name), f"no pattern and no like names block {name}", help, reads, key=True)


def _layouts(document: Document, report: Report) -> tuple[Layout, ...]:
    if document.layout is not None and document.layouts is not None:
        report.add("E240", ("layouts",), "layout and layouts cannot both be given", "keep one of them", key=True)
    known = report.language.tables
    found = [] if document.layout is None else [_layout(None, document.layout, ("layout",), known)]
    found += [_layout(name, doc, ("layouts", name), known) for name, doc in (document.layouts or {}).items()]
    return tuple(found) or (Layout(tables=known),)


def _layout(name: str | None, doc: LayoutDoc, at: Path, known: Tables) -> Layout:
    if isinstance(doc.pp, PipelineDoc):
        schedule = doc.pp.schedule or ("1f1b" if doc.pp.per_rank == 1 else "interleaved_1f1b")
        pipeline = Pipeline(doc.pp.stages, schedule, tuple(doc.pp.starts), doc.pp.per_rank)
    else:
        pipeline = Pipeline(stages=doc.pp)
    more = ((axis, getattr(doc, axis)) for axis in known.axes if axis not in LayoutDoc.model_fields)
    return Layout(
        name=name,
        tp=doc.tp,
        sequence_parallel=doc.sequence_parallel,
        generate=doc.generate,
        dp=doc.dp,
        ep=doc.ep,
        cp=doc.cp.size if isinstance(doc.cp, ContextDoc) else doc.cp,
        context=Context(doc.cp.attention, doc.cp.order) if isinstance(doc.cp, ContextDoc) else Context(),
        precision=doc.precision,
        rules=tuple(doc.rules.items()),
        pp=pipeline,
        microbatches=pipeline.stages if doc.microbatches is None else doc.microbatches,
        checkpoint=_checkpoint(doc.checkpoint),
        at=at,
        others=tuple((axis, size) for axis, size in more if size > 1),
        tables=known,
    )


def _checkpoint(doc: str | EveryDoc) -> Checkpoint:
    if isinstance(doc, EveryDoc):
        return Checkpoint(doc.every, tuple(doc.save or ()))
    return Checkpoint(every=1 if doc == "full" else None)
