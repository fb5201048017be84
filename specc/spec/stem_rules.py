"""Rules on what a stack reads in place of tokens, and what that rules out."""

from __future__ import annotations

from specc.source import Path, find, plural
from specc.spec.core import Embed, Frames, Model, Patches, Stack
from specc.spec.grammar import listed
from specc.spec.report import Report

STACKS: tuple[Path, ...] = (("encoder", "embedding"), ("decoder", "embedding"))


def needs_vocab(model: Model, report: Report) -> None:
    """E202 where tokens are read or predicted, and their number is not given; all else is then told without it."""
    reads = [stack.role for stack in model.stacks if model.embed_of(stack).stem is None]
    if not model.vocab and (reads or model.head.kind == "lm"):
        help = f"the {reads[0]} reads tokens" if reads else "the head predicts tokens; or give it another kind"
        decide = [*STACKS, ("embedding",), ("head",)]  # what is wrong in these may be what would make it needless
        report.add("E202", ("vocab",), "the key vocab is missing", help, decide)
        report.broken(("vocab",))


def stem_rules(model: Model, report: Report) -> None:
    """Report all that is wrong with stems."""
    for stack in model.stacks:
        embed = model.embed_of(stack)
        if embed.stem is not None:
            _stem(model, stack, embed, report)
        else:
            for key in ("class_token", "registers"):
                if getattr(embed, key):
                    message = f"{key} stands in front of what a stem makes, and the {stack.role} reads tokens"
                    reads = [("embedding", "stem"), (stack.role, "embedding")]
                    report.add("E252", _at(stack, key, report), message, f"leave {key} out", reads)
    if len(model.stacks) == 1 and model.embed_of(model.stacks[0]).stem is not None:
        _alone(model, report)


def _at(stack: Stack, key: str, report: Report) -> Path:
    """Where the stack's own embedding has a key, or the model's."""
    own: Path = (stack.role, "embedding", key)
    return own if find(report.root, own) is not None else ("embedding", key)


def _stem(model: Model, stack: Stack, embed: Embed, report: Report) -> None:
    stem, at = embed.stem, _at(stack, "stem", report)
    assert stem is not None and embed.tokens is not None
    for n, conv in enumerate(stem.convs if isinstance(stem, Frames) else ()):
        if conv.width % 2 == 0:
            message = f"a convolution of width = {conv.width} has no middle"
            report.add("E253", (*at, "convs", n, "width"), message, f"{conv.width - 1} and {conv.width + 1} have one")
    if isinstance(stem, Patches) and stem.image % stem.patch:
        sizes = [n for n in range(1, stem.image + 1) if stem.image % n == 0]
        near = min(sizes, key=lambda n: abs(n - stem.patch))
        message = f"image = {stem.image} is no whole number of patches of {stem.patch}"
        report.add("E253", (*at, "patch"), message, f"{near} divides {stem.image}")
    if stack.role == "decoder" and len(model.stacks) > 1:
        message = "the stem of the model is read by both stacks, and a decoder beside an encoder reads tokens"
        report.add("E251", at, message, "give it to the encoder: encoder: {embedding: {stem: ...}}", key=True)
    if stack.role == "encoder" and model.pad is not None:
        message = f"pad is a token that fills up what an encoder reads, and this one reads {_read(stem)}"
        report.add("E251", ("pad",), message, "leave pad out", [*STACKS, ("embedding",)])
    positions = embed.positions
    if positions is not None and positions.kind == "learned" and positions.size != embed.places:
        message = f"the table has {positions.size} rows, and the stem makes {embed.places} tokens with positions"
        report.add("E252", (*_at(stack, "positions", report), "size"), message, "leave size out", reads=STACKS)


def _read(stem: Patches | Frames) -> str:
    return "images" if isinstance(stem, Patches) else "frames"


def _alone(model: Model, report: Report) -> None:
    """What speaks of tokens that nobody reads."""
    (stack,) = model.stacks
    embed, reads = model.embed_of(stack), [*STACKS, ("embedding",)]
    assert embed.stem is not None
    read = f"the {stack.role} reads {_read(embed.stem)}"
    given = [name for name in model.inputs if name not in ("types", "prefix")]
    if model.vocab and model.head.kind != "lm":
        message = f"nothing reads or predicts tokens: {read}, and the head is of another kind than lm"
        report.add("E251", ("vocab",), message, "leave vocab out", [*reads, ("head",)], key=True)
    if model.embed.types:
        report.add("E251", ("embedding", "types"), f"types are of tokens, and {read}", "leave types out", STACKS)
    if given:
        message = f"{listed(given)} would be of tokens, and {read}, all of one length"
        report.add("E251", ("inputs",), message, "leave inputs out", reads)
    if "prefix" in model.inputs:
        message = f"prefix marks tokens of a batch, and {read}"
        report.add("E251", (stack.role,), message, "give causal true or false", reads, key=True)
    if model.multi_token is not None:
        message = f"a step of multi_token reads the next token, and {read}"
        report.add("E251", ("head", "multi_token"), message, "leave multi_token out", reads, key=True)
    if model.head.pool is not None and model.head.pool.token is not None:
        message = f"a pool at a token looks for it, and {read}"
        report.add("E251", ("head", "pool", "token"), message, "pool: first, last, mean or max", reads)
    node = find(report.root, ("max_seq",))
    if node is not None and node.value is not None and model.max_seq != embed.tokens:
        message = f"max_seq = {model.max_seq}, and the stem makes {plural(embed.tokens or 0, 'token')} of what it reads"
        report.add("E252", ("max_seq",), message, "leave max_seq out", reads)
