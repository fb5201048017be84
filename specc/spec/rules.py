"""Rules across the parts of a spec, on its core form: each finding with its place and what would be right."""

from __future__ import annotations

from collections.abc import Iterator

from specc.source import Path, find, shown
from specc.spec.core import Branch, Model, Spec, Stack
from specc.spec.end_rules import end_rules
from specc.spec.grammar import listed
from specc.spec.names import name_problem, part_problem, text_problem
from specc.spec.report import Report
from specc.spec.stated import place, stated
from specc.spec.stem_rules import needs_vocab

STACKS: tuple[Path, ...] = (("blocks",), ("encoder",), ("decoder",))


def model_rules(spec: Spec, report: Report) -> None:
    """Report all that is wrong with the model, layouts apart."""
    model = spec.model
    _names(spec, report)
    needs_vocab(model, report)
    roles = [stack.role for stack in model.stacks]
    if model.pad is not None and 0 < model.vocab <= model.pad:
        message = f"pad = {model.pad} is not a token: there are {model.vocab}"
        report.add("E213", ("pad",), message, f"tokens are 0 to {model.vocab - 1}", reads=[("vocab",)])
    if model.pad is not None and not any(_reads_encoder(model, stack, branch) for stack, branch in branches(model)):
        message = "pad masks keys of an encoder's tokens, and nothing attends to them"
        report.add("E214", ("pad",), message, "leave pad out", reads=STACKS)
    for stack in model.stacks:
        if stack.d_model is not None and (stack.role == "decoder" or len(roles) == 1):
            message = "d_model of a stack is an encoder's beside a decoder, which has the model's"
            report.add("E259", (stack.role, "d_model"), message, "give it at the top", STACKS, key=True)
    _inputs(model, roles, report)
    reading = [item.key for item in model.tables.components.values() if "memory" in item.reads]
    read = {model.tables.component(branch.component).key for _, branch in branches(model)}
    if len(roles) > 1 and not read & set(reading):
        message = f"nothing reads the encoder's output: the decoder has no {listed(reading)}"
        report.add("E228", ("encoder",), message, "give the decoder one, or leave the encoder out", STACKS, key=True)
    end_rules(spec, report)
    for stack, branch in branches(model):
        _branch(model, stack, branch, report)


def _inputs(model: Model, roles: list[str], report: Report) -> None:
    """Beside tokens; `types` are told with the embedding."""
    at: Path = ("inputs",)
    if "prefix" in model.inputs and len(roles) > 1:
        message = "prefix marks tokens of one stack, and this model has two"
        first = next(b for _, b in branches(model) if model.tables.component(b.component).inputs(b.component))
        report.add("E234", place(report, first, ("causal",)), message, "give true or false", reads=STACKS)
    given = [name for name in model.inputs if name not in ("types", "prefix")]
    if "segments" in given and roles != ["decoder"]:
        message = "segments are documents in the rows of a decoder alone, and this model has an encoder"
        report.add("E234", at, message, "leave segments out", reads=STACKS)
    elif given and len(roles) > 1:
        message = f"{listed(given)} would be of the tokens of one stack, and this model has two"
        report.add("E234", at, message, "leave inputs out", reads=STACKS)
    if "mask" in given and model.pad is not None:
        report.add("E234", at, "pad and mask both say which tokens are real", "give one of them", reads=[("pad",)])
    for name in dict.fromkeys(given):
        if given.count(name) > 1:
            report.add("E227", at, f"inputs lists {name} twice", "list it once")


def branches(model: Model) -> Iterator[tuple[Stack, Branch]]:
    """Every distinct branch of every stack."""
    for stack in model.stacks:
        blocks = dict.fromkeys(block for run in stack.runs for block in run.blocks)
        for block in blocks:
            for sublayer in block.sublayers:
                for branch in sublayer.branches:
                    yield stack, branch
    for block in () if model.multi_token is None else dict.fromkeys(model.multi_token.blocks):
        for branch in (branch for sublayer in block.sublayers for branch in sublayer.branches):
            yield model.stacks[-1], branch


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


def _branch(model: Model, stack: Stack, branch: Branch, report: Report) -> None:
    component, config = model.tables.component(branch.component), branch.component
    for problem in component.rules(
        config, model.width(stack), lambda key: stated(report.root, branch, (key,)) is not None
    ):
        reads = [("d_model",), (stack.role, "d_model"), branch.at, *branch.under]
        report.add(problem.code, place(report, branch, problem.path), problem.message, problem.help, reads)
    padded = stack.role == "encoder" and model.pad is not None
    apart = [name for name in model.inputs if name not in ("types", "prefix")]
    if (at := component.by_length(config)) and (apart or padded):
        what = "several documents" if "segments" in apart else "padding"
        message = f"this scaling follows the length of a row, in which there may be {what}"
        reads = [("inputs",), ("pad",), branch.at, *branch.under]
        report.add("E274", place(report, branch, at), message, "use linear, llama3, yarn or proportional", reads)
    alone = stack.role != "decoder" or (len(model.stacks) < 2 and report.there(("encoder",)))
    if "memory" in component.reads and alone:
        message = f"{component.key} reads an encoder's output: it stands in a decoder beside an encoder"
        others = listed([other.key for other in model.tables.components.values() if "own_mask" in other.reads])
        at = branch.under[-1] if branch.under else branch.at
        report.add("E218", at, message, f"add an encoder, or use {others}", key=True)
