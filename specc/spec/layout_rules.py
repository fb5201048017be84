"""What must hold of a layout for a model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from specc.components.base import choices, divisors
from specc.source import Path, find, plural, span_of
from specc.spec.axis_rules import axis_of, axis_rules
from specc.spec.core import Layout, Model
from specc.spec.document import RANKS
from specc.spec.grammar import listed
from specc.spec.report import Report
from specc.spec.rules import STACKS, branches
from specc.spec.schedules import SCHEDULES, nearest, rounds, takes
from specc.spec.stated import place


def layout_rules(model: Model, layout: Layout, report: Report) -> None:
    """Report all that is wrong with a layout."""
    if not layout.at or not report.sound(layout.at):
        return
    _tensor(model, layout, report)
    axis_rules(model, layout, report)
    _experts(model, layout, report)
    _others(model, layout, report)
    _rows(model, layout, report)
    _spread(model, layout, report)
    _pipeline(model, layout, report)
    _saves(model, layout, report)
    _generate(model, layout, report)


def _tensor(model: Model, layout: Layout, report: Report) -> None:
    at: Path = (*layout.at, "tp")
    whole = layout.keeps_whole("", "vocab")
    empty = model.vocab > 0 and not whole and not _each_has(model.vocab, layout.tp)
    parts = list(_split(model, layout, "tp", report))
    wrong = _indivisible(parts, layout.tp)
    help = f"tp can be {choices(_sizes(model, report, parts, whole))}" if empty or wrong else None
    _tell(wrong, layout, "tp", help, report)
    if empty:
        message = f"a vocabulary of {model.vocab} leaves some of tp = {layout.tp} ranks without a token"
        report.add("E403", at, message, help, reads=[("vocab",)])
    _even(model, layout, report)
    if layout.sequence_parallel and layout.tp == 1:
        message = "sequence_parallel splits activations over tp, but tp = 1"
        report.add("E404", (*layout.at, "sequence_parallel"), message, "give tp, or leave sequence_parallel out")


def _even(model: Model, layout: Layout, report: Report) -> None:
    """Tokens whose number the spec decides; those of other inputs are counted when they are there."""
    others = [name for name, _ in layout.more if {*layout.tables.axes[name].tokens} - {"batch"}]
    for stack in model.stacks:
        tokens, reads = model.embed_of(stack).tokens, [(stack.role, "embedding"), ("embedding",)]
        if tokens is not None and layout.sequence_parallel and tokens % layout.tp:
            more = -tokens % layout.tp
            message = f"{tokens} tokens that a stem makes cannot be cut into equal parts for tp = {layout.tp}"
            help = f"leave sequence_parallel out; {plural(more, 'register')} more would make {tokens + more} tokens"
            report.add("E418", (*layout.at, "sequence_parallel"), message, help, reads)
        for axis in others if tokens is not None else ():
            message = f"ranks of {axis} are fed parts of sequences, and what a stem reads is whole"
            report.add("E418", (*layout.at, axis), message, f"leave {axis} out", reads)


def _rows(model: Model, layout: Layout, report: Report) -> None:
    """Axes whose ranks hold parts of rows, and what is made of a whole one."""
    for axis in (name for name, _ in layout.more if {*layout.tables.axes[name].tokens} - {"batch"}):
        if model.head.pool is not None:
            message = f"the head reads one vector of a row, and {axis} cuts rows into parts"
            report.add("E430", (*layout.at, axis), message, f"leave {axis} out; dp splits rows", reads=[("head",)])
        if any(branch.drop_path for _, branch in branches(model)):
            message = f"drop_path leaves a branch out for a whole row, and ranks of {axis} draw each for their part"
            report.add("E430", (*layout.at, axis), message, f"leave {axis} out, or drop_path", reads=[("drop_path",)])


def _spread(model: Model, layout: Layout, report: Report) -> None:
    """Heads that ranks with parts of rows share out beside tp, while attention computes."""
    if layout.cp == 1 or layout.context.how != "ulysses":
        return
    at, ranks = (*layout.at, "cp"), layout.tp * layout.cp
    parts = list(_split(model, layout, "heads", report))
    for (key, number), places in _indivisible(parts, ranks).items():
        good = divisors(*(number for part in parts for _, number in part.sizes))
        could = [n // layout.tp for n in good if n % layout.tp == 0]
        help = f"cp can be {choices(could)}, or attention: gather" if could else "give attention: gather"
        stated = dict.fromkeys(path for path, _ in places)
        notes = tuple((span_of(report.root, path), f"{key} is set here") for path in stated)
        message = f"{plural(number, key[:-1])} cannot be shared out over tp * cp = {ranks} by ulysses"
        report.add("E402", (*at, "size"), message, help, notes=notes)
    if layout.context.order == "zigzag":
        message = "zigzag is for ranks with all heads of a part of a row; by ulysses they attend to whole rows"
        report.add("E442", (*at, "order"), message, "leave order out")
    if any(getattr(branch.component, "sinks", False) for _, branch in branches(model)):
        message = "sinks are parameters of heads, which every rank of cp has, and ulysses shares heads out"
        report.add("E442", (*at, "attention"), message, "give attention: gather", reads=STACKS)


def _experts(model: Model, layout: Layout, report: Report) -> None:
    """Ranks of dp that hold different experts."""
    at: Path = (*layout.at, "ep")
    if layout.ep == 1:
        return
    parts = list(_split(model, layout, "ep", report))
    if layout.dp % layout.ep:
        good = divisors(layout.dp, *(number for part in parts for _, number in part.sizes))
        message = f"ep = {layout.ep} ranks are some of those of dp = {layout.dp}, and do not divide them"
        report.add("E443", at, message, f"with dp = {layout.dp}, ep can be {choices(good)}", reads=[(*layout.at, "dp")])
    if not any(part.sizes for part in parts) and report.sound(("decoder",)) and report.sound(("encoder",)):
        message = "ep splits experts, and there are none to split"
        report.add("E444", at, message, "leave ep out, or give blocks that have some", reads=STACKS)
    owned = (branch for _, branch in branches(model) if "ep" in model.tables.component(branch.component).split_by)
    for branch in owned:
        biased = getattr(branch.component, "has_bias", None)
        if biased is not None and biased("down"):
            message = "biases of the last linear of experts are added where tokens are, and ep parts experts from these"
            notes = ((span_of(report.root, place(report, branch, ("bias",))), "biases are asked for here"),)
            report.add("E445", at, message, "leave ep out, or the biases", notes=notes)
            break
    again = layout.checkpoint.every is not None or layout.checkpoint.save
    if again and layout.pp.stages > 1 and layout.dp % layout.ep == 0 and layout.ep < layout.dp * layout.cp:
        message = "with stages, experts that several data ranks have alike are gathered inside of what runs again"
        own = f"with ep: {layout.dp} each has its own; or " if layout.cp == 1 else ""
        help = f"{own}leave out checkpoint, which torch cannot do there"
        report.add("E446", at, message, help, reads=[(*layout.at, "pp"), (*layout.at, "checkpoint")])


def _others(model: Model, layout: Layout, report: Report) -> None:
    """Axes beside dp and tp."""
    for axis, size in layout.more:
        parts = list(_split(model, layout, axis, report))
        numbers = [number for part in parts for _, number in part.sizes]
        good = [n for n in divisors(*numbers) if n <= RANKS] if numbers else []
        _tell(_indivisible(parts, size), layout, axis, f"{axis} can be {choices(good)}" if good else None, report)


@dataclass(frozen=True)
class _Parts:
    """Of a component: keys and numbers that ranks must divide, and of which each must only have some; where they stand,
    and what rules call their axes.
    """

    sizes: tuple[tuple[str, int], ...]
    parted: tuple[tuple[str, int], ...]
    paths: dict[str, Path]
    words: dict[str, str]


Wrong = dict[tuple[str, int], list[tuple[Path, str]]]


def _indivisible(parts: list[_Parts], ranks: int) -> Wrong:
    """Keys and numbers that so many ranks do not divide, with place and word; the first of each component."""
    wrong: Wrong = {}
    for part in parts:
        odd = [item for item in part.sizes if item[1] % ranks]
        bad = next(iter((*odd, *(item for item in part.parted if not _each_has(item[1], ranks)))), None)
        if bad is not None:
            wrong.setdefault(bad, []).append((part.paths[bad[0]], part.words[bad[0]]))
    return wrong


def _each_has(number: int, ranks: int) -> bool:
    """Whether torch.chunk leaves something for every rank."""
    return (ranks - 1) * -(-number // ranks) < number


def _tell(wrong: Wrong, layout: Layout, axis: str, help: str | None, report: Report) -> None:
    for (key, number), places in wrong.items():
        number_of = plural(number, key[:-1]) if key.endswith("s") else f"{key} = {number}"
        stated, words = (dict.fromkeys(one) for one in zip(*places, strict=True))
        notes = tuple((span_of(report.root, path), f"{key} is set here") for path in stated)
        message = f"{number_of} cannot be split over {axis} = {layout.size(axis)}"
        whole = f"with rules: {{{', '.join(f'{word}: none' for word in words)}}} every rank has all"
        known = layout.tables.axes[axis]
        if not (known.data and known.shards):  # else it is there for what it splits
            help = f"{help}; or {whole}" if help else whole
        report.add("E402", (*layout.at, axis), message, help, notes=notes)


def _split(model: Model, layout: Layout, axis: str, report: Report) -> Iterator[_Parts]:
    """What an axis, or what shares out heads, must divide in each component, and where it is stated; nothing of what
    rules keep whole."""
    for _, branch in branches(model):
        if all(map(report.sound, (branch.at, *branch.under))):
            component = model.tables.component(branch.component)
            own = {"tp": component.split_by_tp, "heads": component.spread}
            split = own.get(axis) or component.split_by.get(axis)
            sizes = () if split is None else split(branch.component)
            parted = component.parted_by_tp(branch.component) if axis == "tp" else ()
            named = {key: axis_of(model.tables, component.key, key, axis) for key, _ in (*sizes, *parted)}
            sizes, parted = (
                tuple((key, number) for key, number in some if not layout.keeps_whole(component.key, named[key]))
                for some in (sizes, parted)
            )
            paths = {key: place(report, branch, (key,)) for key in named}
            yield _Parts(sizes, parted, paths, {key: f"{component.key}.{axis}" for key, axis in named.items()})


def _sizes(model: Model, report: Report, parts: list[_Parts], whole: bool) -> list[int]:
    """What tp can be for the whole model; `whole`: the vocabulary is not split."""
    numbers = [number for part in parts for _, number in part.sizes]
    known = report.sound(("vocab",)) and model.vocab > 0 and not whole
    parted = [number for part in parts for _, number in part.parted] + [model.vocab] * known
    good = divisors(*numbers) if numbers else list(range(1, min(*parted, RANKS) + 1)) if parted else [1]
    return [n for n in good if n <= RANKS and all(_each_has(number, n) for number in parted)]


def _pipeline(model: Model, layout: Layout, report: Report) -> None:
    at, pp = (*layout.at, "pp"), layout.pp
    count, stacks = sum(stack.layers for stack in model.stacks), (("encoder", "layers"), ("decoder", "layers"))
    if pp.stages > count:
        node = find(report.root, at)
        here = (*at, "stages") if node is not None and isinstance(node.value, dict) else at
        message = f"{plural(count, 'layer')} cannot be cut into {plural(pp.stages, 'stage')}"
        report.add("E405", here, message, f"there can be at most {plural(count, 'stage')}", reads=stacks)
    if pp.stages == 1:
        for key in ("schedule", "per_rank", "starts"):
            if find(report.root, (*at, key)) is not None:
                message = f"{key} is for several pipeline stages, and stages = 1"
                report.add("E401", (*at, key), message, f"give more stages, or leave {key} out", key=True)
        return
    if _shared_out(layout, report):
        _microbatches(layout, report)
    if pp.starts and all(map(report.sound, stacks)):
        _starts(model, layout, report, count)


def _shared_out(layout: Layout, report: Report) -> bool:
    """Whether stages can be shared out over ranks as the schedule has them."""
    at, pp = (*layout.at, "pp"), layout.pp
    good = [n for n in divisors(pp.stages) if n < pp.stages]
    if pp.per_rank not in good:
        message = f"{pp.stages} stages cannot be shared out over two ranks or more, {pp.per_rank} a rank"
        report.add("E431", (*at, "per_rank"), message, f"per_rank can be {choices(good)}")
        return False
    wanted = pp.kind.per_rank
    if wanted in (None, pp.per_rank):
        return True
    message = f"{pp.schedule} has {plural(wanted, 'stage')} a rank, not {pp.per_rank}"
    others = [name for name, kind in SCHEDULES.items() if kind.per_rank in (None, pp.per_rank)]
    fitting = f"per_rank: {wanted}, or " if wanted in good else ""
    help = f"give {fitting}one of {listed(others)}"
    report.add("E432", (*at, "schedule"), message, help, reads=[(*at, "per_rank")])
    return False


def _microbatches(layout: Layout, report: Report) -> None:
    """Those that torch's schedule takes."""
    at, pp, count = (*layout.at, "microbatches"), layout.pp, layout.microbatches
    if takes(pp.kind, pp.ranks, pp.per_rank, count):
        return
    if pp.kind.filled:
        message = f"{pp.schedule} over {pp.stages} stages needs as many microbatches, not {count}"
        report.add("E406", at, message, f"give at least {pp.stages}")
        return
    parts = rounds(pp.ranks, count)
    message = f"{pp.schedule} over {pp.ranks} ranks runs {count} microbatches in {parts} rounds, which must be equal"
    near = nearest(pp.kind, pp.ranks, pp.per_rank, count)
    report.add("E433", at, message, f"give {' or '.join(map(str, near))}")


def _starts(model: Model, layout: Layout, report: Report, count: int) -> None:
    at, pp = (*layout.at, "pp", "starts"), layout.pp
    numbers = [_layer(model, name) for name in pp.starts]
    spans = ", ".join(f"{stack.path}.0 to {stack.path}.{stack.layers - 1}" for stack in model.stacks)
    for n, (name, number) in enumerate(zip(pp.starts, numbers, strict=True)):
        if not number:
            message = f"there is no layer {name}" if number is None else f"stage 0 starts with {name}, no other does"
            report.add("E407", (*at, n), message, f"layers are {spans}")
    known = [number for number in numbers if number is not None]
    if len(known) == len(numbers) and known != sorted(set(known)):
        report.add("E408", at, "starts must be different and in order", "list them as layers run")
    if len(numbers) != pp.stages - 1:
        starts = plural(pp.stages - 1, "start")
        message = f"{pp.stages} stages have {starts}, one for each but the first, not {len(numbers)}"
        report.add("E409", at, message, f"list {pp.stages - 1}, or leave starts out")


def _layer(model: Model, name: str) -> int | None:
    """Number of a layer among all, None where there is no such layer."""
    match = re.fullmatch(r"([a-z]+)\.(0|[1-9][0-9]{0,9})", name)
    before = 0
    for stack in model.stacks:
        if match and match[1] == stack.path and int(match[2]) < stack.layers:
            return before + int(match[2])
        before += stack.layers
    return None


def _saves(model: Model, layout: Layout, report: Report) -> None:
    at, saved = (*layout.at, "checkpoint"), layout.checkpoint
    node = find(report.root, at)
    if node is not None and isinstance(node.value, dict) and (saved.every is None) == (not saved.save):
        what = "every and save cannot both be given" if saved.save else "checkpoint needs every or save"
        report.add("E411", at, what, "every: 2 recomputes each second layer, save every layer but for these results")
    names = save_names(model)
    for n, name in enumerate(saved.save):
        if name not in names:
            help = report.suggestion(name, names, "results")
            report.add("E412", (*at, "save", n), f"no layer has a result {name}", help, reads=STACKS)
        elif name in saved.save[:n]:
            report.add("E412", (*at, "save", n), f"{name} is listed twice", "list it once")


def _generate(model: Model, layout: Layout, report: Report) -> None:
    if not layout.generate:
        return
    at: Path = (*layout.at, "generate")
    given = {axis: size > 1 for axis, size in (("dp", layout.dp), *layout.more)}
    given |= {"sequence_parallel": layout.sequence_parallel, "pp": layout.pp.stages > 1}
    given["multi_token"] = model.multi_token is not None
    if used := [key for key, on in given.items() if on]:
        message = f"generate does not go with {listed(used)}"
        report.add("E414", at, message, "give it a layout of its own, with tp alone")
    whole = [stack.role for stack in model.stacks if model.embed_of(stack).stem is None] == ["decoder"]
    whole &= len(model.stacks) == 1 and not model.inputs and model.head.kind == "lm"
    if not whole or not all(getattr(branch.component, "causal", True) for _, branch in branches(model)):
        message = (
            "generate is for a decoder of one row each, with a head of tokens, in which a token sees none behind it"
        )
        report.add("E415", at, message, "leave generate out", reads=[*STACKS, ("inputs",), ("head",)])
    if any(stack.shared for stack in model.stacks):
        message = "layers that share their parameters have one place for keys and values in the cache"
        report.add("E417", at, message, "leave generate out, or shared", reads=STACKS)
    if any(model.tables.component(branch.component).by_length(branch.component) for _, branch in branches(model)):
        message = "a rope that is scaled by the length of a row turns earlier keys anew with each token"
        report.add("E416", at, message, "use another scaling, or leave generate out", reads=STACKS)


def save_names(model: Model) -> list[str]:
    """Results that checkpointing can keep."""
    names: dict[str, None] = {}
    for _, branch in branches(model):
        results = model.tables.component(branch.component).results(branch.component)
        names |= dict.fromkeys(f"{branch.name}.{result}" for result in results)
    return list(names)
