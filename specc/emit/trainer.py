"""The trainer of a file: a step, gradients of the mean loss over all ranks, their norm, evaluation, logits."""

from __future__ import annotations

from dataclasses import dataclass
from math import lcm, prod
from textwrap import wrap

from specc.emit.code import Code, lit, part
from specc.emit.context import Context, of_mesh
from specc.emit.function import Lines, lines, listed, shape
from specc.emit.labels import Labels, labels
from specc.emit.make import DEVICE, MESH, SEED
from specc.emit.names import keyword
from specc.emit.weights import condition
from specc.emit.wrap import WIDTH, wrapped
from specc.ir.types import MeshAxis


@dataclass(frozen=True)
class Common:
    """What all templates of a trainer are filled with."""

    takes: Code  # parameters of the constructor
    checks: Lines  # its first lines
    inputs: Code  # names
    given: Code  # the same with types
    names: Code  # inputs and labels
    tensors: Code  # the same with types
    counted: Code
    count: Code  # the number of labels
    everywhere: Code  # where sums go over
    reading: Code  # contexts of evaluation
    norm: Code
    clip: Code  # the function that scales gradients down to a norm
    full: Lines
    training: Code  # the schedule's methods
    evaluating: Code
    schedule: Code
    labels: Labels


@dataclass(frozen=True)
class Run:
    """How the loss comes about."""

    parts: str  # a template: of a whole batch, or of its parts
    loop: Code
    last: Lines  # what differs for the last part
    options: Code  # of the loss
    first: Code  # which output are the logits
    ranks: Lines
    times: Code  # what the scale is multiplied by
    mean: Code  # what undoes that
    returned: Lines


@dataclass(frozen=True)
class Ranks:
    """What several ranks need."""

    holds: Code
    fed: Lines
    counted: tuple[Lines, ...]  # groups of ranks over which labels are counted
    kept: Lines  # the mesh and the sizes
    exact: Lines  # lengths that must be those that the trainer is built for
    filled: Lines
    full: Code  # what that gives, in words
    joined: Lines  # parts of rows
    last: Code  # input, of whose shape the labels are
    own: Code
    whole: Code


@dataclass(frozen=True)
class Stages:
    """What a pipeline needs."""

    inputs: Code  # of the first stage alone
    passed: Code  # of every stage, by keyword
    made: Lines  # the stages of a rank
    schedule: Code
    scheduled: Code  # what it is given of them
    loss: Code
    tied: Lines
    reading: Code  # contexts of evaluation in which gradients stay as they are
    run: Lines  # a call of the schedule in its contexts
    outputs: Code  # types of what the last stage gives


def trainer(of: Context, options: str) -> Code:
    """`Trainer` and `adamw`. `options`: what the loss takes beside outputs, labels and scale."""
    common, run = _common(of), _run(of, options)
    if not of.axes:
        made = shape("trainer/one.j2", of=common, run=run)
    elif not of.pp:
        made = shape("trainer/mesh.j2", of=common, run=run, ranks=_ranks(of))
    else:
        name = "stages" if len(of.graph.outputs) == 1 else "stages_terms"
        made = shape(f"trainer/{name}.j2", of=common, run=run, ranks=_ranks(of), stages=_stages(of, options, run.times))
    return Code("\n\n\n").join((made, _adamw(of)))


def _adamw(of: Context) -> Code:
    roles = {param.name: param.param.role for param in of.params}
    embedded = [name for name, role in roles.items() if role in ("embedding", "own_tokens")]
    rule = condition(embedded, [name for name in roles if name not in embedded])
    return part("adamw_meshes.j2" if of.own else "adamw.j2", embedding=Code(rule))


def _common(of: Context) -> Common:
    fed, given = (*of.inputs, "labels"), labels(of)
    takes = [f"{MESH}, {DEVICE}, batch: int", *(f"{x}: int" for x in of.lengths)] if of.axes else [DEVICE]
    return Common(
        takes=listed([*takes, SEED, "lr: float"]),
        checks=lines([*_checks(of), *_seed(of)]),
        inputs=listed(of.inputs),
        given=listed(f"{name}: Tensor" for name in of.inputs),
        names=listed(fed),
        tensors=listed(f"{name}: Tensor" for name in fed),
        counted=Code("all ranks' number of them" if of.data else "their number if not given"),
        count=Code("self.count(labels)") if of.data else given.real,
        everywhere=Code(", over all ranks" * bool(of.axes)),
        reading=listed([*_reading(of), *["resharding(self.module)"] * (bool(of.data) and not of.pp)]),
        norm=Code(_norm(of)),
        clip=Code("clip_by_mesh" if of.own else "nn.utils.clip_grads_with_norm_"),
        full=lines([f"{', '.join(fed)} = self.full({', '.join(fed)})"]) if of.axes else (),
        training=Code("self.schedule.step, " * of.pp),
        evaluating=Code("self.schedule.eval, " * of.pp),
        schedule=Code("schedule: Callable[..., object], " * of.pp),
        labels=given,
    )


def _part(of: Context, length: str) -> str:
    """The length of a rank's part of a row."""
    parts = prod(axis.size for axis in of.parted if length in axis.tokens)
    return f"{length} // {parts}" if parts > 1 else length


def _reading(of: Context) -> list[str]:
    return ["torch.no_grad()", *["evaluating(self.module)"] * of.random]


def _checks(of: Context) -> list[str]:
    """What a batch must be to be cut."""
    found: list[str] = []
    if of.axes and of.layout.microbatches > 1:
        found += ["if batch % MICROBATCHES:"]
        found += ['    raise ValueError(f"a batch of {batch} cannot be cut into {MICROBATCHES} equal microbatches")']
    axes = [axis for axis in of.graph.mesh if set(axis.tokens) & set(of.lengths)]
    lengths = list(dict.fromkeys(length for axis in axes for length in of.lengths if length in axis.tokens))
    inner = prod(axis.size for axis in axes if axis not in of.parted)
    parts = prod(axis.size for axis in of.parted) * (lcm(2, inner) if of.graph.zigzag else inner)
    if len(lengths) == 1:
        found += [f"if {lengths[0]} % {parts}:", f"    {_uneven(lengths[0], axes, of.graph.zigzag)}"]
    elif lengths:
        found += [f"for length in ({', '.join(lengths)}):", f"    if length % {parts}:"]
        found += [f"        {_uneven('length', axes, of.graph.zigzag)}"]
    return found


def _uneven(length: str, axes: list[MeshAxis], zigzag: bool) -> str:
    words = " and ".join(f"{axis.name} = {axis.size}" for axis in axes) + ", zigzag" * zigzag
    return f'raise ValueError(f"sequences of {{{length}}} tokens cannot be cut into equal parts for {words}")'


def _seed(of: Context) -> list[str]:
    """Random numbers are in step on the ranks that are fed the same tokens, which are neighbours."""
    groups = of.graph.groups
    if not of.random:
        return []
    if not of.axes:
        return ["torch.manual_seed(seed)  # of dropout"]
    if not groups.model:
        return ["torch.manual_seed(seed + dist.get_rank())"]
    same = f"the ranks of {' and '.join(groups.model)} draw the same numbers"
    return [f"torch.manual_seed(seed + dist.get_rank() // {groups.size(groups.model)})  # {same}"]


def _norm(of: Context) -> str:
    if not of.axes:
        return "nn.utils.get_total_norm(p.grad for p in parameters)"
    once = "[p for p in parameters if p not in self.copies]" if of.shared else "parameters"
    return f"{'gradient_norm' if of.distributed else 'stages_norm'}({once}, self.mesh.device_type)"


def _run(of: Context, options: str) -> Run:
    parts, averaged = of.layout.microbatches > 1, bool(of.data) and of.graph.groups.averaged
    fed = ", ".join((*of.inputs, "labels"))
    synced = bool(of.data) and parts
    mesh = of.ranks(of.data, "self.mesh") if averaged else ""
    return Run(
        parts="trainer/parts.j2" if parts else "trainer/whole.j2",
        loop=Code(f"n, ({fed}) in enumerate(parts, 1)" if synced else f"{fed} in parts"),
        last=lines(["self.module.set_requires_gradient_sync(n == MICROBATCHES)"]) if synced else (),
        options=Code(options.replace("mesh[", "self.mesh[")),
        first=Code("[0]" * (len(of.graph.outputs) > 1)),
        ranks=lines([f"ranks = {mesh}.size()  # FSDP takes the mean of gradients over them"]) if averaged else (),
        times=Code(" * ranks" * averaged),
        mean=Code(" / ranks" * averaged),
        returned=_returned(of, parts or of.pp, averaged and not of.pp),
    )


def _returned(of: Context, detached: bool, averaged: bool) -> Lines:
    """Lines that sum `value` over ranks."""
    value = "value" if detached else "value.detach()"
    groups = [*['self.mesh.get_group("pp")'] * of.pp, *_data_group(of)]
    if not groups:
        return lines([f"return {value}"])
    rows = [f"value = {value}{' / ranks' * averaged}"] * (averaged or not detached)
    rows += [f"dist.all_reduce(value, group={group})" for group in groups]
    return lines([*rows, "return value"])


def _data_group(of: Context) -> list[str]:
    """All ranks that are fed different tokens, if there are several."""
    if len(of.data) > 1:
        return [f"{of.ranks(of.data, 'self.mesh')}.get_group()"]
    return [f'self.mesh.get_group("{axis}")' for axis in of.data]


def _kept(sizes: str) -> list[str]:
    """Lines that keep the mesh and the sizes, together where they fit."""
    line = f"        self.mesh, self.sizes = mesh, {sizes}"
    return [line] if len(line) <= WIDTH else ["        self.mesh = mesh", *wrapped(f"        self.sizes = {sizes}")]


def _ranks(of: Context) -> Ranks:
    fed, data, given = (*of.inputs, "labels"), of.graph.groups.data, labels(of)
    sizes = [f'"{name}": ({", ".join(size)})' for name, size in zip(of.inputs, of.sizes, strict=True)]
    sizes += [f'"labels": {given.size}']
    row = int(of.model.pad == 0)  # no padding: something must be seen
    rows = {name: given.blank if name == "labels" else 0.0 if name in of.numbers else row for name in fed}
    ends = {**dict(zip(of.inputs, of.ends, strict=True)), "labels": given.end}
    mapping = f"{{{', '.join(f'{lit(name)}: {name}' for name in fed)}}}"
    whole = {name: None for name, end in ends.items() if end is None and name in (*of.numbers, "labels")}
    exact = (name for name, end in ends.items() if end is None and name not in whole)
    behind = {name: 0 if end is None else end for name, end in ends.items()} | whole  # None: of one shape alone
    blanks = f"({', '.join(f'({behind[name]}, {rows[name]})' for name in fed)})"
    filled = f"{given.filled}({mapping}, self.sizes, {blanks}{given.more})"
    several = of.layout.pp.per_rank > 1
    what = "stages of this rank, their schedule" if several else "stage of this rank, its schedule"
    return Ranks(
        holds=Code(
            f"The {what if of.pp else 'model on this rank'} and {'its' if of.pp and not several else 'an'} optimizer; "
            "every rank calls every method."
        ),
        fed=lines(wrap(_fed(of), 116)),
        counted=(lines(_data_group(of)),) if data else (),
        kept=lines(row[8:] for row in _kept(f"{{{', '.join(sizes)}}}")),
        exact=lines(f'check_length("{x}", {x}, self.sizes["{x}"])' for x in exact),
        filled=lines(row[8:] for line in _filled(of, filled) for row in wrapped(f"        {line}")),
        full=Code(
            "This rank's part, filled up to the whole size"
            if of.parted
            else "Filled up to the size the trainer is built for"
        ),
        joined=_joined(of),
        last=Code(of.inputs[-1]),
        own=Code(" of this rank's samples" * of.apart),
        whole=Code(_whole(of)),
    )


def _filled(of: Context, filled: str) -> list[str]:
    """Lines that return what is filled up, or the part of it that this rank holds."""
    if not of.parted:
        return [f"return {filled}"]
    part, kernel = "x", "chunks_of_rows" if of.graph.zigzag else "part_of_rows"
    for axis in of.parted:
        part = f'{kernel}({part}, self.mesh["{axis.name}"])'
    return [f"rows = {filled}", f"return [{part} for x in rows]"]


def _joined(of: Context) -> Lines:
    """Lines that make whole rows of logits."""
    kernel = "rows_of_chunks" if of.graph.zigzag else "whole_rows"
    return lines(f'logits = {kernel}(logits, self.mesh["{axis.name}"])' for axis in reversed(of.parted))


def _fed(of: Context) -> str:
    rows = "at most `batch` rows"
    rows += f" of at most {' and '.join(f'`{x}`' for x in of.lengths)} tokens" * bool(of.lengths)
    parted = "".join(f", whole rows of which a rank of {axis.name} takes its part" for axis in of.parted)
    if not of.apart:
        return f"All pass the same batch: {rows}{parted}."
    same = "; the ranks of one pass the same" * bool(of.pp or of.graph.groups.model or of.parted)
    return f"Data ranks pass samples of their own, {rows}{same}{parted}."


def _whole(of: Context) -> str:
    """The logits of all ranks that split their features."""
    ref = of.graph.outputs[0]
    for dim, axis in enumerate(of.graph.type(ref).axes if of.graph.mesh else ()):
        over = [name for name in of.graph.spmd(ref).shards(axis) if name in of.graph.groups.model]
        if over:
            mesh = of_mesh(over[0], of.graph, "self.mesh")
            if isinstance(axis.size, int) and axis.size % of.graph.groups.size((over[0],)) == 0:
                return f"DTensor.from_local(logits, {mesh}, [Shard({dim})]).full_tensor()"
            return f"whole(logits, {axis.size}, {mesh})"
    return "logits"


def _stages(of: Context, options: str, times: str) -> Stages:
    summed = "sum_copies" if of.distributed else "sum_whole_copies"
    own = [name for name in of.inputs if name not in of.passed]
    outputs = of.graph.outputs
    pp = of.layout.pp
    passed = "".join(f", {keyword(name)}={name}" for name in of.passed)
    scale = f'loss_kwargs={{"scale": scale{times}}}'
    call = f"schedule(*inputs{passed}, target=labels, losses=losses, {scale}, return_outputs=False)"
    # pipelines drop gradients of FSDP as they turn to evaluation or back; they let go of gathered weights themselves
    apart = "apart(self.module.parameters())" if of.data else "apart(p for p, _ in self.tied)"
    mirrored = ["mirrored(self.module.copies)"] * of.mirrored
    run = [*_nested(mirrored, [call]), *[f"{summed}(self.tied)"] * bool(of.shared)]
    held = 'tied_weights(self.module, TIED, self.index, mesh.get_group("pp"))'
    return Stages(
        inputs=Code(f"({', '.join(own)}{',' * (len(own) == 1)})"),
        passed=Code(passed),
        made=lines(_held(of)),
        schedule=Code(pp.kind.cls),
        scheduled=Code("stage" if pp.kind.single else "[stage]" if pp.per_rank == 1 else "stages"),
        loss=Code("self.loss" if len(outputs) > 1 else f"partial(loss{options})" if options else "loss"),
        tied=lines([f"self.tied, self.copies = {held}"]) if of.shared else (),
        reading=listed([*_reading(of), *mirrored, *["apart(self.module.parameters())"] * bool(of.data)]),
        run=lines(_nested([apart] * bool(of.shared or of.data), run)),
        outputs=listed("Tensor" for _ in outputs),
    )


def _nested(contexts: list[str], rows: list[str]) -> list[str]:
    """Lines under `with` and those contexts, if there are any."""
    return [f"with {', '.join(contexts)}:", *(f"    {row}" for row in rows)] if contexts else rows


def _held(of: Context) -> list[str]:
    """Lines that make the stages of this rank, and say what it has of the model."""
    pp, sizes = of.layout.pp, listed(["batch // MICROBATCHES", *(_part(of, length) for length in of.lengths)])
    if pp.per_rank == 1:
        stage = f'stage = build_stage(mesh.get_local_rank("pp"), mesh, device, {sizes}, seed)'
        return [stage, "self.index, self.module = stage.stage_index, stage.submod"]
    numbers = (
        "(self.index, len(STAGES) - 1 - self.index)" if pp.kind.v else f"range(self.index, len(STAGES), {pp.ranks})"
    )
    return [
        'self.index = mesh.get_local_rank("pp")',
        f"stages = [build_stage(n, mesh, device, {sizes}, seed) for n in {numbers}]",
        f"self.module = {'MirroredStages' if of.mirrored else 'StagesOfRank'}(stage.submod for stage in stages)",
    ]
