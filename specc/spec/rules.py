"""Rules across the parts of a spec, on its core form: each finding with its place and what would be right."""

from __future__ import annotations

from collections.abc import Iterator

from specc.components.base import too_large
from specc.source import Path, find, shown
from specc.spec.core import Branch, Model, Spec, Stack
from specc.spec.grammar import listed
from specc.spec.names import name_problem, part_problem, text_problem
from specc.spec.report import Report
from specc.spec.stated import place, stated

STACKS: tuple[Path, ...] = (("blocks",), ("encoder",), ("decoder",))


def model_rules(spec: Spec, report: Report) -> None:
    """Report all that is wrong with the model, layouts apart."""
    model = spec.model
    _names(spec, report)
    roles = [stack.role for stack in model.stacks]
    if model.pad is not None and model.pad >= model.vocab:
        message = f"pad = {model.pad} is not a token: there are {model.vocab}"
        report.add("E213", ("pad",), message, f"tokens are 0 to {model.vocab - 1}", reads=[("vocab",)])
    if model.pad is not None and not any(_reads_encoder(model, stack, branch) for stack, branch in branches(model)):
        message = "pad masks keys of an encoder's tokens, and nothing attends to them"
        report.add("E214", ("pad",), message, "leave pad out", reads=STACKS)
    if model.inputs and roles != ["decoder"]:
        message = "segments are documents in the rows of a decoder alone, and this model has an encoder"
        report.add("E234", ("inputs",), message, "leave inputs out", reads=STACKS)
    if len(set(model.inputs)) < len(model.inputs):
        report.add("E227", ("inputs",), "inputs lists segments twice", "list it once")
    reading = [item.key for item in model.tables.components.values() if "memory" in item.reads]
    read = {model.tables.component(branch.component).key for _, branch in branches(model)}
    if len(roles) > 1 and not read & set(reading):
        message = f"nothing reads the encoder's output: the decoder has no {listed(reading)}"
        report.add("E228", ("encoder",), message, "give the decoder one, or leave the encoder out", STACKS, key=True)
    places: dict[Path, str] = {}
    for stack in model.stacks:
        at: Path = (stack.role, "embedding", "positions")
        at = at if find(report.root, at) is not None else ("embedding", "positions")
        places[at] = (stack.embed or model.embed).positions
    for at, positions in places.items():
        if positions == "sinusoidal" and model.d_model % 2:
            message = f"sinusoids come in pairs, but d_model = {model.d_model} is odd"
            report.add("E215", at, message, "make d_model even", reads=[("d_model",)])
    if roles:
        _tied(model, report, [*roles, "head"])
    rows = {"vocab": model.vocab} | ({"max_seq": model.max_seq} if "learned" in places.values() else {})
    for key, count in rows.items():
        for problem in too_large((key,), f"{key} = {count}", count, model.d_model):
            report.add(problem.code, (key,), problem.message, problem.help, reads=[("d_model",), ("embedding",)])
    for stack, branch in branches(model):
        _branch(model, stack, branch, report)


def branches(model: Model) -> Iterator[tuple[Stack, Branch]]:
    """Every distinct branch of every stack."""
    for stack in model.stacks:
        blocks = dict.fromkeys(block for run in stack.runs for block in run.blocks)
        for block in blocks:
            for sublayer in block.sublayers:
                for branch in sublayer.branches:
                    yield stack, branch


def _reads_encoder(model: Model, stack: Stack, branch: Branch) -> bool:
    """Whether a branch leaves the encoder's padding out."""
    reads = model.tables.component(branch.component).reads
    return "memory_mask" in reads or (stack.role == "encoder" and bool({"own_mask", "documents"} & {*reads}))


def _names(spec: Spec, report: Report) -> None:
    model = spec.model
    if problem := name_problem(model.name):
        report.add("E206", ("name",), f"{shown(model.name)!r} cannot be the name of a spec: {problem}")
    if model.description and (problem := text_problem(model.description)):
        report.add("E207", ("description",), f"this cannot be a description: {problem}", "use plain English letters")
    blocks = find(report.root, ("blocks",))
    named = list(blocks.keys) if blocks is not None else []
    for key, names in (
        ("block", named),
        ("layout", [layout.name for layout in spec.layouts if layout.name is not None]),
    ):
        for name in names:
            if problem := part_problem(name):
                message = f"{shown(name)!r} cannot be the name of a {key}: {problem}"
                report.add("E208", (f"{key}s", name), message, key=True)
    plain: dict[str, str] = {}
    for name in named:
        one = plain.setdefault(name.replace("_", ""), name)
        if one != name:
            message = f"blocks {one} and {name} would have classes of one name"
            report.add("E208", ("blocks", name), message, "tell them apart by more than underscores", key=True)


def _tied(model: Model, report: Report, known: list[str]) -> None:
    at: Path = ("embedding", "tied")
    tied = model.embed.tied
    for n, part in enumerate(tied):
        if part not in known and report.there((part,)):
            report.add("E217", (*at, n), f"there is no {part} to tie", _choose(known))
    if len(set(tied)) == 1 or len(set(tied)) != len(tied):
        report.add("E217", at, "tying takes two or more different parts", _choose(known))


def _choose(words: list[str]) -> str:
    return f"choose from {', '.join(words)}"


def _branch(model: Model, stack: Stack, branch: Branch, report: Report) -> None:
    component, config = model.tables.component(branch.component), branch.component
    for problem in component.rules(config, model.d_model, lambda key: stated(report.root, branch, (key,)) is not None):
        reads = [("d_model",), branch.at, *branch.under]
        report.add(problem.code, place(report, branch, problem.path), problem.message, problem.help, reads)
    padded = stack.role == "encoder" and model.pad is not None
    if (at := component.by_length(config)) and (model.inputs or padded):
        what = "several documents" if model.inputs else "padding"
        message = f"this scaling follows the length of a row, in which there may be {what}"
        reads = [("inputs",), ("pad",), branch.at, *branch.under]
        report.add("E274", place(report, branch, at), message, "use linear, llama3, yarn or proportional", reads)
    alone = stack.role != "decoder" or (len(model.stacks) < 2 and report.there(("encoder",)))
    if "memory" in component.reads and alone:
        message = f"{component.key} reads an encoder's output: it stands in a decoder beside an encoder"
        others = listed([other.key for other in model.tables.components.values() if "own_mask" in other.reads])
        at = branch.under[-1] if branch.under else branch.at
        report.add("E218", at, message, f"add an encoder, or use {others}", key=True)
