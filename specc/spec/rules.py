"""Rules across the parts of a spec, on its core form: each finding with its place and what would be right."""

from __future__ import annotations

from collections.abc import Iterator

from specc.components import attention, ffn
from specc.components.attention import Attention, CrossAttention
from specc.source import Diagnostic, Node, Path, find, span_of
from specc.spec.core import Branch, Layout, Model, Spec, Stack
from specc.spec.names import name_problem, text_problem
from specc.spec.shape import suggestion

MAX_PARAMETER = 2**40  # elements of one matrix


def rules(spec: Spec, root: Node) -> list[Diagnostic]:
    """Everything that is wrong with the spec, in document order of the parts."""
    found = [*_model(spec.model, root)]
    for layout in spec.layouts:
        found += _layout(spec.model, layout, root)
    return found


def branches(model: Model) -> Iterator[tuple[Stack, Branch]]:
    """Every distinct branch of every stack."""
    for stack in model.stacks:
        blocks = dict.fromkeys(block for run in stack.runs for block in run.blocks)
        for block in blocks:
            for sublayer in block.sublayers:
                for branch in sublayer.branches:
                    yield stack, branch


def _at(root: Node, code: str, path: Path, message: str, help: str | None = None) -> Diagnostic:
    return Diagnostic(code, message, span_of(root, path), help)


def _model(model: Model, root: Node) -> Iterator[Diagnostic]:
    problem = name_problem(model.name)
    if problem:
        yield _at(root, "E206", ("name",), f"{model.name[:70]!r} cannot be the name of a spec: {problem}")
    if model.description and (problem := text_problem(model.description)):
        yield _at(root, "E207", ("description",), f"this cannot be a description: {problem}")
    roles = [stack.role for stack in model.stacks]
    if model.pad is not None and model.pad >= model.vocab:
        yield _at(root, "E213", ("pad",), f"pad = {model.pad} is not a token: there are {model.vocab}", "below vocab")
    if model.pad is not None and "encoder" not in roles:
        yield _at(root, "E214", ("pad",), "pad masks the keys of an encoder, and there is none", "leave pad out")
    if model.embed.positions == "sinusoidal" and model.d_model % 2:
        message = f"sinusoids come in pairs, but d_model = {model.d_model} is odd"
        yield _at(root, "E215", ("embedding", "positions"), message, "make d_model even")
    yield from _tied(model, root, roles)
    if max(model.vocab, model.max_seq) * model.d_model > MAX_PARAMETER:
        yield _at(root, "E216", ("vocab",), f"{model.vocab} tokens of width {model.d_model} are over 2**40 numbers")
    seen: dict[tuple[str, Path], None] = {}
    for stack, branch in branches(model):
        for item in _branch(model, stack, branch, root):
            if (item.code, branch.at) not in seen:
                yield item
        seen[("", branch.at)] = None


def _tied(model: Model, root: Node, roles: list[str]) -> Iterator[Diagnostic]:
    known = [*roles, "head"]
    for n, part in enumerate(model.embed.tied):
        if part not in known:
            help = suggestion(part, known, "parts")
            yield _at(root, "E217", ("embedding", "tied", n), f"there is no {part} to tie", help)
    if len(set(model.embed.tied)) == 1 or len(set(model.embed.tied)) != len(model.embed.tied):
        yield _at(root, "E217", ("embedding", "tied"), "tying takes two different parts", choices_of(known))


def choices_of(words: list[str]) -> str:
    """`choose from encoder, head`."""
    return f"choose from {', '.join(words)}"


def _branch(model: Model, stack: Stack, branch: Branch, root: Node) -> Iterator[Diagnostic]:
    config = branch.component
    if isinstance(config, (Attention, CrossAttention)):
        for problem in attention.rules(config, model.d_model, stated=find(root, (*branch.at, "head_dim")) is not None):
            yield _at(root, problem.code, (*branch.at, *problem.path), problem.message, problem.help)
        assert config.head_dim is not None
        if config.heads * config.head_dim * model.d_model > MAX_PARAMETER:
            message = f"{config.heads} heads of {config.head_dim} at width {model.d_model} are over 2**40 numbers"
            yield _at(root, "E216", (*branch.at, "heads"), message)
    elif config.hidden * model.d_model > MAX_PARAMETER:
        message = f"hidden = {config.hidden} at width {model.d_model} is over 2**40 numbers"
        yield _at(root, "E216", (*branch.at, "hidden"), message)
    if isinstance(config, CrossAttention) and (stack.role != "decoder" or len(model.stacks) < 2):
        message = "cross_attention reads an encoder's output: it stands in a decoder beside an encoder"
        yield _at(root, "E218", branch.at, message, "add an encoder, or use attention")


def _layout(model: Model, layout: Layout, root: Node) -> Iterator[Diagnostic]:
    at = layout.at
    seen: dict[tuple[Path, str], None] = {}
    for _, branch in branches(model):
        config = branch.component
        problems = (
            ffn.tp_rules(config, layout.tp) if isinstance(config, ffn.Ffn) else attention.tp_rules(config, layout.tp)
        )
        for problem in problems:
            if (branch.at, problem.message) not in seen:
                note = ((span_of(root, (*branch.at, *problem.path)), f"{problem.path[0]} is set here"),)
                yield Diagnostic(problem.code, problem.message, span_of(root, (*at, "tp")), problem.help, note)
            seen[branch.at, problem.message] = None
    rows = -(-model.vocab // layout.tp)
    if (layout.tp - 1) * rows >= model.vocab:
        message = f"a vocabulary of {model.vocab} leaves some of tp = {layout.tp} ranks without a token"
        yield _at(root, "E403", (*at, "tp"), message, f"tp can be at most {_most(model.vocab, layout.tp)}")
    if layout.sequence_parallel and layout.tp == 1:
        message = "sequence_parallel splits activations over tp, but tp = 1"
        yield _at(root, "E404", (*at, "sequence_parallel"), message, "give tp, or leave sequence_parallel out")
    if layout.dp > 1 and layout.tp > 1 and model.vocab % layout.tp:
        message = f"FSDP2 cannot shard a vocabulary of {model.vocab} that tp = {layout.tp} splits unevenly"
        yield _at(root, "E410", (*at, "dp"), message, f"round vocab up to {rows * layout.tp}, or use dp = 1")
    yield from _pipeline(model, layout, root)
    yield from _saves(model, layout, root)


def _most(vocab: int, tp: int) -> int:
    return next(n for n in range(tp - 1, 0, -1) if (n - 1) * -(-vocab // n) < vocab)


def _pipeline(model: Model, layout: Layout, root: Node) -> Iterator[Diagnostic]:
    at, pp = (*layout.at, "pp"), layout.pp
    layers = [f"{stack.path}.{n}" for stack in model.stacks for n in range(stack.layers)]
    if pp.stages > len(layers):
        message = f"{len(layers)} layers cannot be cut into {pp.stages} stages"
        yield _at(root, "E405", (*at, "stages"), message, f"there can be at most {len(layers)} stages")
    if pp.schedule == "1f1b" and pp.microbatches < pp.stages:
        message = f"1f1b over {pp.stages} stages needs as many microbatches, not {pp.microbatches}"
        yield _at(root, "E406", (*at, "microbatches"), message, f"give at least {pp.stages}")
    if not pp.starts:
        return
    order = {name: n for n, name in enumerate(layers)}
    for n, name in enumerate(pp.starts):
        if name not in order or order[name] == 0:
            spans = ", ".join(f"{s.path}.0 to {s.path}.{s.layers - 1}" for s in model.stacks)
            message = f"no stage can start with {name}" if name in order else f"there is no layer {name}"
            yield _at(root, "E407", (*at, "starts", n), message, f"layers are {spans}; the first begins stage 0")
    numbers = [order.get(name, -1) for name in pp.starts]
    if -1 not in numbers and numbers != sorted(set(numbers)):
        yield _at(root, "E408", (*at, "starts"), "starts must be in order and different", "list them as they run")
    if len(pp.starts) != pp.stages - 1:
        message = f"{pp.stages} stages have {pp.stages - 1} starts after the first, not {len(pp.starts)}"
        yield _at(root, "E409", (*at, "starts"), message)


def _saves(model: Model, layout: Layout, root: Node) -> Iterator[Diagnostic]:
    at, saved = (*layout.at, "checkpoint"), layout.checkpoint
    if saved.every is not None and saved.save:
        yield _at(root, "E411", at, "every and save cannot both be given", "save recomputes every layer but for these")
    names = save_names(model)
    for n, name in enumerate(saved.save):
        if name not in names:
            help = suggestion(name, names, "results")
            yield _at(root, "E412", (*at, "save", n), f"no layer has a result {name}", help)
        if name in saved.save[:n]:
            yield _at(root, "E412", (*at, "save", n), f"{name} is listed twice", "list it once")


def save_names(model: Model) -> list[str]:
    """Results that checkpointing can keep."""
    names: dict[str, None] = {}
    for _, branch in branches(model):
        config = branch.component
        if isinstance(config, ffn.Ffn):
            ops = ("gate", "act", "up", "down") if config.kind == "gated" else ("up", "act", "down")
        else:
            ops = ("q", "k", "v", "core", "o")
        names |= dict.fromkeys(f"{branch.name}.{op}" for op in ops)
    return list(names)
