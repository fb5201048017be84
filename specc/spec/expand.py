"""Document -> Spec: patterns cut to depth, defaults filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import chain, islice, repeat
from typing import Any, Literal

from specc.source import Path, plural
from specc.spec.blocks import Written, no_block, written_blocks
from specc.spec.core import Block, Checkpoint, Common, Embed, Init, Layout, Model, Pipeline, Run, Spec, Stack
from specc.spec.document import (
    LAYERS,
    PERIOD,
    Document,
    EveryDoc,
    LayoutDoc,
    LikeDoc,
    PatternDoc,
    PipelineDoc,
    StackDoc,
)
from specc.spec.formulas import Formulas
from specc.spec.norms import Norms
from specc.spec.report import Report
from specc.spec.sublayers import Frame, expand
from specc.tables import Tables

Role = Literal["encoder", "decoder"]
ROLES: tuple[Role, ...] = ("encoder", "decoder")


def to_spec(document: Document, data: Mapping[str, Any], report: Report, file: str) -> Spec:
    """The core form, as far as there is one; `data` is what the document was made from."""
    named = written_blocks(document, data.get("blocks", {}), report)
    given: dict[Role, StackDoc] = {role: doc for role in ROLES if (doc := getattr(document, role)) is not None}
    if not given:
        roles = (("encoder",), ("decoder",))
        report.add("E230", (), "a model needs a decoder, an encoder, or both", "give decoder", roles)
        for role in roles:
            report.broken(role)  # nothing is concluded from layers that are not there
    formulas = Formulas(report, {key: getattr(document, key) for key in ("d_model", "vocab", "max_seq")})
    norms = Norms.of(document.norm, document.d_model, report)
    stacks = [
        _Stacks(role, doc, document, norms, named, formulas, report).stack(len(given) == 1)
        for role, doc in given.items()
    ]
    _unused(document, report)
    model = Model(
        name=document.name,
        description=document.description,
        d_model=document.d_model,
        vocab=document.vocab,
        max_seq=document.max_seq,
        pad=document.pad,
        embed=_embed(document, tuple(given), formulas),
        head_bias=document.head.bias,
        init=_init(document, formulas, report),
        stacks=tuple(stacks),
        inputs=tuple(document.inputs),
        tables=report.language.tables,
    )
    common = Common(norms.model, norms.placement, document.dropout)
    return Spec(model, _layouts(document, report), common, file, report.root)


def _embed(document: Document, roles: tuple[str, ...], formulas: Formulas) -> Embed:
    doc = document.embedding
    scale = formulas.number(doc, "scale", ("embedding",))
    tied = ((*roles, "head") if doc.tied else ()) if isinstance(doc.tied, bool) else tuple(doc.tied)
    return Embed(scale, doc.positions, document.dropout if doc.dropout is None else doc.dropout, tied)


def _init(document: Document, formulas: Formulas, report: Report) -> Init:
    doc, at = document.init, ("init",)
    if doc.kind == "xavier" and "std" in doc.model_fields_set:
        help = "leave std out; parameters: {embedding: {std: ...}} is that of embeddings"
        report.add("E226", (*at, "std"), "xavier takes no std: it has one for each shape", help)
    std = formulas.number(doc, "std", at)
    own = doc.parameters.get("embedding")
    embedding = std if own is None else formulas.number(own, "std", (*at, "parameters", "embedding"))
    return Init(doc.kind, std, embedding, doc.depth_scaled)


def _unused(document: Document, report: Report) -> None:
    """A block that no layer runs would be a text without effect."""
    patterns = (doc.pattern for doc in (document.encoder, document.decoder) if doc is not None)
    items = [item for pattern in patterns for part in _parts(pattern).values() for item in part]
    used = {_named(item)[0] for item in items}
    used |= {block.like for block in document.blocks.values() if isinstance(block, LikeDoc)}
    for name in document.blocks:
        if name not in used:
            reads = [("encoder", "pattern"), ("decoder", "pattern"), ("blocks",)]
            help = "name it in a pattern, or remove it"
            report.add("E225", ("blocks", name), f"no pattern and no like names block {name}", help, reads, key=True)


def _parts(pattern: list[str] | PatternDoc | None) -> dict[str, list[str]]:
    if isinstance(pattern, PatternDoc):
        return {"head": pattern.head, "cycle": pattern.cycle, "tail": pattern.tail}
    return {} if pattern is None else {"cycle": pattern}


def _named(item: str) -> tuple[str, int]:
    """`local*5` is five times local; what is no number is no time."""
    name, star, count = item.partition("*")
    return (name.rstrip(), int(count) if re.fullmatch(r"\s*[0-9]{1,9}", count) else 0) if star else (item, 1)


class _Stacks:
    """The layers of one stack."""

    def __init__(
        self,
        role: Role,
        doc: StackDoc,
        document: Document,
        norms: Norms,
        named: dict[str, Written],
        formulas: Formulas,
        report: Report,
    ):
        self.role: Role = role
        self.doc, self.document, self.named, self.report = doc, document, named, report
        self.frame = Frame(document, role, norms, {**formulas.names, "layers": doc.layers})
        self.same: dict[str, Block] = {}  # blocks that are so in every layer

    def stack(self, alone: bool) -> Stack:
        """With its module path, which is plain where there is one stack."""
        doc, at, norms = self.doc, (self.role,), self.frame.norms
        if (doc.block is None) == (doc.pattern is None):
            what = "needs a block or a pattern of blocks" if doc.block is None else "cannot have a block and a pattern"
            self.report.add("E231", at, f"the {self.role} {what}", "give one of the two", key=True)
            self.report.broken(at)
            runs: tuple[Run, ...] = ()
        elif doc.block is not None:
            self.named = {"block": Written("block", doc.block, (*at, "block"))}
            runs = self._sections([(("block",), doc.layers)], at)
        else:
            runs = self._runs(_parts(doc.pattern))
        usual = norms.placement != "post"
        final = norms.norm(usual if doc.final_norm is None else doc.final_norm, (*at, "final_norm"))
        return Stack(self.role, "layers" if alone else self.role, runs, final, at)

    def _sections(self, sections: list[tuple[tuple[str, ...], int]], at: Path) -> tuple[Run, ...]:
        """Runs of named blocks; what a formula makes another in each layer is not repeated."""
        runs: list[Run] = []
        first = 0
        for period, layers in sections:
            made = [self._block(name, first + n) for n, name in enumerate(period[:layers])]
            if any(name not in self.same for name in period[:layers]):
                if layers > PERIOD:
                    message = f"arithmetic on layer makes {layers} layers different; at most {PERIOD} can be"
                    self.report.add("E233", at, message, "use fewer layers, or no layer")
                    self.report.broken((self.role, "layers"))
                    return ()
                made = [self._block(period[n % len(period)], first + n) for n in range(layers)]
            runs.append(Run(tuple(made), layers))
            first += layers
        return tuple(runs)

    def _block(self, name: str, layer: int) -> Block:
        if name in self.same:
            return self.same[name]
        found = expand(self.named[name], self.frame, layer, self.report)
        if not found.by_layer:
            self.same[name] = found.block
        return found.block

    def _runs(self, parts: dict[str, list[str]]) -> tuple[Run, ...]:
        at, layers = (self.role, "pattern"), (self.role, "layers")
        named: dict[str, list[tuple[str, int]]] = {}
        for part, items in parts.items():
            place = (*at, part) if isinstance(self.doc.pattern, PatternDoc) else at
            named[part] = [self._repeated(item, (*place, n)) for n, item in enumerate(items)]
        first, last = (sum(count for _, count in named.get(part, [])) for part in ("head", "tail"))
        rest = self.doc.layers - first - last
        if rest < 0 or (rest > 0 and not named.get("cycle")):
            message = (
                f"{plural(self.doc.layers, 'layer')}, but the pattern has {first} in its head and {last} in its tail"
            )
            help = "give a cycle for those between" if rest > 0 else f"layers must be at least {first + last}"
            self.report.add("E232", layers, message, help, reads=[at])
            self.report.broken(layers)
        if not self.report.sound(at):
            self.report.broken(layers)
        if not self.report.sound(layers):
            return ()
        lengths = {"head": first, "cycle": rest, "tail": last}
        sections = [(_period(named[part], n), n) for part, n in lengths.items() if n]
        longest = max(len(period) for period, _ in sections)
        if longest > PERIOD:
            message = f"a pattern repeats after at most {PERIOD} layers, not {longest}"
            self.report.add("E233", at, message, "use fewer different layers")
            self.report.broken(layers)
            return ()
        return self._sections(sections, at)

    def _repeated(self, item: str, at: Path) -> tuple[str, int]:
        """The block and how often an item of a pattern stands for it."""
        name, count = _named(item)
        if name not in self.document.blocks:
            no_block(name if count else item, self.document.blocks, at, self.report)
            self.report.broken(at)
        elif not 1 <= count <= LAYERS:
            self.report.add("E204", at, f"{item} must repeat a block at least 1 and at most {LAYERS} times")
            self.report.broken(at)
        elif name not in self.named:
            self.report.broken(at)
        return name, count


def _period(named: list[tuple[str, int]], layers: int) -> tuple[str, ...]:
    """The shortest list that, repeated and cut to that many layers, is `named` repeated and cut."""
    whole = chain.from_iterable(repeat(name, count) for name, count in named)
    names = list(islice(whole, layers))
    borders = [0] * len(names)  # of each beginning: how long a part of it is both its start and its end
    for n in range(1, len(names)):
        border = borders[n - 1]
        while border and names[n] != names[border]:
            border = borders[border - 1]
        borders[n] = border + (names[n] == names[border])
    period = len(names) - borders[-1]
    return tuple(names[:period] if layers <= len(names) or len(names) % period == 0 else names)


def _layouts(document: Document, report: Report) -> tuple[Layout, ...]:
    if document.layout is not None and document.layouts is not None:
        report.add("E240", ("layouts",), "layout and layouts cannot both be given", "keep one of them", key=True)
    known = report.language.tables
    found = [] if document.layout is None else [_layout(None, document.layout, ("layout",), known)]
    found += [_layout(name, doc, ("layouts", name), known) for name, doc in (document.layouts or {}).items()]
    return tuple(found) or (Layout(tables=known),)


def _layout(name: str | None, doc: LayoutDoc, at: Path, known: Tables) -> Layout:
    if isinstance(doc.pp, PipelineDoc):
        pipeline = Pipeline(doc.pp.stages, doc.pp.schedule, tuple(doc.pp.starts))
    else:
        pipeline = Pipeline(stages=doc.pp)
    more = ((axis, getattr(doc, axis)) for axis in known.axes if axis not in LayoutDoc.model_fields)
    return Layout(
        name=name,
        tp=doc.tp,
        sequence_parallel=doc.sequence_parallel,
        generate=doc.generate,
        dp=doc.dp,
        precision=doc.precision,
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
