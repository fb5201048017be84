"""Rules on embedding and head, on the core form."""

from __future__ import annotations

from specc.components.base import too_large
from specc.source import Path, find
from specc.spec.core import Embed, Frames, Model, Positions, Spec, Stack
from specc.spec.report import Report
from specc.spec.stem_rules import stem_rules


def end_rules(spec: Spec, report: Report) -> None:
    """Report all that is wrong with what stands around the stacks."""
    model = spec.model
    stem_rules(model, report)
    for stack in model.stacks:
        embed = model.embed_of(stack)
        own: Path = (stack.role, "embedding", "positions")
        at = own if find(report.root, own) is not None else ("embedding", "positions")
        if embed.positions is not None:
            _positions(model, stack, embed, embed.positions, at, report)
    if model.embed.types and len(model.stacks) > 1:
        message = "types tell texts of one stack apart, and this model has two"
        report.add("E235", ("embedding", "types"), message, "leave types out", reads=[("encoder",), ("decoder",)])
    roles = [stack.role for stack in model.stacks if model.embed_of(stack).stem is None]
    if model.stacks:
        _tied(model, report, [*roles, "head"] if model.head.kind == "lm" else [*roles])
    _head(model, report)
    _rows(model, report)


def _positions(model: Model, stack: Stack, embed: Embed, of: Positions, at: Path, report: Report) -> None:
    width, reads = embed.width(model.width(stack)), [("d_model",), (stack.role, "d_model"), ("embedding",)]
    learned = of.kind == "learned"
    if not learned and width % 2:
        what = "d_model" if width == model.width(stack) else "embedding.project"
        message = f"sinusoids come in pairs, but {what} = {width} is odd"
        report.add("E215", at, message, f"make {what} even", reads=reads)
    if of.endpoint and width == 2:
        report.add("E236", (*at, "endpoint"), "one wavelength has no first and last one", "leave it out", reads=reads)
    counted = isinstance(embed.stem, Frames)  # by size, whatever positions are
    for key in ("order", "endpoint") if learned else ("size",) * (not counted):
        node = find(report.root, (*at, key))
        if node is not None and node.value is not None:
            what = "sinusoids" if learned else "a table that is trained"
            report.add("E236", (*at, key), f"{key} is for {what}", "leave it out, or choose the other kind", key=True)
    padded = "mask" in model.inputs or (stack.role == "encoder" and model.pad is not None)
    if of.skip_pad and "positions" in model.inputs:
        message = "skip_pad counts tokens, and positions are given as an input"
        report.add("E237", (*at, "skip_pad"), message, "leave one of them out", [("inputs",)])
    elif of.skip_pad and not padded:
        message = f"skip_pad counts tokens that are no padding, and the {stack.role} has no padding"
        help = "give pad to an encoder or inputs: [mask], or leave skip_pad out"
        report.add("E237", (*at, "skip_pad"), message, help, [("pad",), ("inputs",)])
    elif of.skip_pad and learned and not of.offset:
        message = "padding has the row before the first in use, and with offset = 0 there is none"
        report.add("E237", (*at, "skip_pad"), message, "give an offset of 1 or more")


KEYS = (
    {"classes": ("classes",), "size": ("vector",), "normalize": ("vector",)}
    | dict.fromkeys(("pool", "dropout"), ("classes", "vector"))
    | {"multi_token": ("lm",)}
)
"""Kinds of heads that a key is for, where it is not for all."""


def _head(model: Model, report: Report) -> None:
    of = model.head
    for n, block in enumerate(() if model.multi_token is None else model.multi_token.blocks):
        configs = [branch.component for sublayer in block.sublayers for branch in sublayer.branches]
        known = model.tables.component
        if any(known(config).takes(config) or known(config).gives(config) for config in configs):
            message = f"block {block.name} shares values with other layers, and a step is none of them"
            at: Path = ("head", "multi_token", "block", n)
            report.add("E248", at, message, "name another block", reads=[("blocks",), ("decoder",)])
    for key, kinds in KEYS.items():
        node = find(report.root, ("head", key))
        if node is not None and node.value not in (None, False) and of.kind not in kinds:
            help = f"leave {key} out, or give kind: {' or '.join(kinds)}"
            report.add("E242", ("head", key), f"{key} is not for a head of kind {of.kind}", help, key=True)
    if of.kind == "classes" and not of.rows:
        report.add("E243", ("head", "kind"), "there is no number of classes", "give classes")
    if of.kind == "vector" and not of.rows and of.bias:
        message = "without a size no linear makes the vector, so nothing has this bias"
        report.add("E242", ("head", "bias"), message, "give size, or leave bias out", key=True)
    if of.pool is not None and "segments" in model.inputs:
        message = "pool makes one vector a row, and a row has several documents"
        report.add("E244", ("head", "pool"), message, "leave segments or pool out", reads=[("inputs",)])
    if of.pool is not None and of.pool.token is not None and of.pool.token >= model.vocab:
        message = f"token = {of.pool.token} is none: there are {model.vocab}"
        report.add("E246", ("head", "pool", "token"), message, f"tokens are 0 to {model.vocab - 1}", reads=[("vocab",)])
    for key in ("label_smoothing", "z_loss") if of.numbers else ():
        if getattr(model.loss, key):
            message = f"{key} changes a cross entropy, and the labels of this head are numbers"
            report.add("E245", ("loss", key), message, f"leave {key} out", reads=[("head",)], key=True)


def _rows(model: Model, report: Report) -> None:
    """Tables that no machine holds."""
    rows: dict[Path, tuple[str, int]] = {("vocab",): ("vocab", model.vocab)}
    for stack in model.stacks:
        positions = model.embed_of(stack).positions
        if positions is not None and positions.kind == "learned":
            keys: list[Path] = [(stack.role, "embedding", "positions", "size"), ("embedding", "positions", "size")]
            own = next((at for at in keys if find(report.root, at) is not None), ("max_seq",))
            rows[own] = (str(own[-1]), positions.size + positions.offset)
    for at, (key, count) in rows.items():
        for problem in too_large(at, f"{key} = {count}", count, model.d_model):
            report.add(problem.code, at, problem.message, problem.help, reads=[("d_model",), ("embedding",)])


def _tied(model: Model, report: Report, known: list[str]) -> None:
    at: Path = ("embedding", "tied")
    tied = model.embed.tied
    for n, part in enumerate(tied):
        if part not in known and report.there((part,)):
            report.add("E217", (*at, n), f"there is no {part} to tie", _choose(known))
    if len(set(tied)) == 1 or len(set(tied)) != len(tied):
        report.add("E217", at, "tying takes two or more different parts", _choose(known))
    others = [stack for stack in model.stacks[:-1] if stack.d_model is not None and stack.role in tied]
    if others and model.embed.project is None and len({*tied}) > 1:
        other = others[0]
        message = (
            f"the {other.role} is of width {other.d_model}, and shares no embedding with what is of {model.d_model}"
        )
        report.add("E238", at, message, "tie what is of one width", reads=[(other.role, "d_model"), ("d_model",)])
    project = model.embed.project
    embedded = model.d_model if project is None else project.dim
    if {"head"} & {*tied} & {*known} and model.head.dim != embedded:
        message = f"the head reads {model.head.dim} features, and the embedding has {embedded}"
        report.add("E238", at, message, f"head.dim must be {embedded}, or untied", reads=[("head",), ("embedding",)])


def _choose(words: list[str]) -> str:
    return f"choose from {', '.join(words)}"
