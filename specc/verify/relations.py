"""The relations that must hold, each with the largest difference that was found."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from specc.emit import Files, emit
from specc.interpret import init_weights, initial_weights, interpret, interpret_loss
from specc.ir.graph import Graph
from specc.ir.op import Op
from specc.ir.types import Place
from specc.lower import lower
from specc.passes import compile_graph, typed
from specc.passes.mesh import mesh_of
from specc.spec.core import Layout, Model, Spec, Stack
from specc.verify.course import LR, NONE, SEED, Batch, Found, Given, Step, course, expected, one_device
from specc.verify.launch import run_ranks
from specc.verify.run import as_shipped, fill, in_double, load_file, on_this_rank, own, world_size
from specc.verify.shrink import lengths

TOLERANCE = 1e-10  # of sums in another order, relative to values of size 1
CPU = torch.device("cpu")
SHIPPED = {"fp32": 1e-4, "bf16": 5e-2, "fp16": 1e-2}  # of a loss that is computed in that precision, relative


@dataclass(frozen=True)
class Relation:
    """One row: what is compared, the largest difference, what it may be, and where it is."""

    name: str
    difference: float
    bound: float
    where: str = ""

    @property
    def holds(self) -> bool:
        """False for NaN too."""
        return self.difference <= self.bound


@dataclass(frozen=True)
class Setting:
    """A model with noisy weights and batches, the step that the interpreter takes, and what it says of a course."""

    model: Model
    initial: dict[str, Tensor]
    given: Given
    reference: Step
    expected: Found

    @property
    def weights(self) -> dict[str, Tensor]:
        return self.given.weights

    @property
    def batch(self) -> Batch:
        return self.given.first


def largest(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> tuple[float, str]:
    """Largest absolute difference of what both have, and the name it is at; NaN or another shape counts as infinite."""
    worst, where = 0.0, ""
    for name, value in ours.items():
        difference = _difference(torch.as_tensor(value), theirs[name])
        if difference > worst:
            worst, where = difference, name
    return worst, where


def _difference(a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape:
        return math.inf
    return (a.double() - b.double()).abs().max().nan_to_num(nan=math.inf).item()


@in_double()
def setting(model: Model, layout: Layout) -> Setting:
    """Weights: the initial ones and noise, so that zeros and ones hide nothing. A third of the labels is -100."""
    graph = typed(lower(model))
    initial = initial_weights(graph, SEED)
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: value.double() + 0.1 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
        for name, value in initial.items()
    }
    batch, second = _batch(model, layout, generator), _batch(model, layout, generator)
    none = NONE[model.head.numbers]
    second.labels[: len(second.labels) // max(2, _parts(layout))] = none  # a part of which nothing is to be learnt
    module = interpret(graph, dtype=torch.float64)
    init_weights(module, graph, SEED)
    module.load_state_dict(weights)
    value = interpret_loss(graph)
    several = len(graph.outputs) > 1

    def loss(outputs: Any, labels: Tensor, scale: Tensor) -> Tensor:
        return value(*(outputs if several else (outputs,)), labels, scale)

    given = Given(weights, batch, second, frozen=next(iter(weights)), dropout=random(graph))
    want = expected(module.eval(), loss, given)
    module.load_state_dict(weights)
    module.zero_grad()
    return Setting(model, initial, given, one_device(module, loss, batch), want)


def random(graph: Graph) -> bool:
    """Whether training draws random numbers."""
    return any(graph.tables.op(op.kind).random(op) for op in graph.ops)


def one_mask(graph: Graph, layout: Layout) -> bool:
    """Whether all ranks of a placed graph draw what one device draws for a batch."""
    whole = all(place.kind != "S" for op in graph.ops if graph.tables.op(op.kind).random(op) for place in _places(op))
    return random(graph) and whole and not graph.groups.data and layout.pp.stages == layout.microbatches == 1


def _places(op: Op) -> list[Place]:
    return [place for _, place in op.types[0].places]


def not_finite(step: Step) -> str:
    """The first of outputs, loss and gradients that has inf or NaN; empty where none has."""
    outputs = {f"output {n}": value for n, value in enumerate(step.outputs)}
    gradients = {f"the gradient of {name}": value for name, value in step.gradients.items()}
    values = {**outputs, "the loss": _number(step.loss), **gradients}
    return next((name for name, value in values.items() if not value.isfinite().all()), "")


def _parts(layout: Layout) -> int:
    """Parts of a batch that are computed apart: on other ranks, or one after the other."""
    return layout.microbatches * math.prod(a.size for a in mesh_of(layout) if a.data and "batch" in a.tokens)


def _batch(model: Model, layout: Layout, generator: torch.Generator) -> Batch:
    size = 2 * _parts(layout)
    tokens = lengths(layout, len(model.stacks))
    inputs = [_read(model, stack, (size, n), generator) for stack, n in zip(model.stacks, tokens, strict=True)]
    if model.pad is not None:
        inputs[0] = inputs[0].where(inputs[0] != model.pad, model.pad + 1)
        ends = torch.randint(tokens[0] // 2, tokens[0] + 1, (size, 1), generator=generator)
        inputs[0] = inputs[0].masked_fill(torch.arange(tokens[0]) >= ends, model.pad)
    for name in model.inputs:  # documents of three tokens or so; some have the number of another
        if name == "types":
            inputs.append(torch.randint(0, model.embed.types, inputs[0].shape, generator=generator))
        elif name == "prefix":  # some of them in front of what is marked, and behind
            inputs.append((torch.rand(inputs[0].shape, generator=generator) < 0.3).long())
        elif name == "positions":
            inputs.append(torch.randint(0, tokens[0], inputs[0].shape, generator=generator))
        elif name == "mask":  # padding in front of some rows and behind others
            start = torch.randint(0, tokens[0] // 3, (size, 1), generator=generator)
            inputs.append(((torch.arange(tokens[0]) >= start) & (torch.arange(tokens[0]) < tokens[0] - 1)).long())
        else:
            ends = torch.rand(inputs[0].shape, generator=generator) < 0.3
            inputs.append(ends.cumsum(1) % 3)
    return Batch(tuple(inputs), _labels(model, inputs[len(model.stacks) - 1], generator))


def _read(model: Model, stack: Stack, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """What a stack reads: tokens, or numbers."""
    stem = model.embed_of(stack).stem
    if stem is None:
        return torch.randint(0, model.vocab, shape, generator=generator)
    return torch.randn(shape[0], *stem.shape, generator=generator)


def _labels(model: Model, read: Tensor, generator: torch.Generator) -> Tensor:
    """Of each token, or of each row; a third is missing, the last is not."""
    tokens = model.embed_of(model.stacks[-1]).tokens or read.size(1)
    of, shape = model.head, (len(read), tokens)[: 1 if model.head.pool is not None else 2]
    if of.numbers:
        labels = torch.randn(*shape, of.rows or of.dim, generator=generator)
    else:
        labels = torch.randint(0, of.rows or model.vocab, shape, generator=generator)
    hidden = torch.rand(labels.shape, generator=generator) < 0.3
    hidden.view(-1)[-1] = False
    return labels.masked_fill(hidden, NONE[of.numbers])


def plain_relations(found: Setting, layout: Layout) -> list[Relation]:
    """The generated file on one device, with the layout's checkpointing: bit for bit, and a course of its trainer."""
    alone = replace(Layout(checkpoint=layout.checkpoint), precision=layout.precision, generate=layout.generate)
    alone = replace(alone, microbatches=layout.microbatches)
    files = emit(Spec(found.model, (alone,)), alone)
    rows = _as_interpreted(found, files)
    if rows[0].holds:
        rows += _courses(found, files, alone)
    return rows


@in_double()
def _as_interpreted(found: Setting, files: Files) -> list[Relation]:
    file = load_file(files.source, files.name)
    module = file.build_model(CPU, SEED)
    made = module.state_dict()
    rows = [Relation("same parameters in the same order", *_bound(unlike(made, found.weights), 0.0))]
    if rows[0].holds:
        rows += _step_relations(module, file.loss, found)
    if rows[0].holds and "Cache" in file.__dict__:
        module.load_state_dict(found.weights)
        rows.append(Relation("logits of tokens decoded in parts", *_bound(_decoded(file, module, found), TOLERANCE)))
    return [replace(row, name=f"file on one device = interpreter: {row.name}") for row in rows]


def _decoded(file: ModuleType, module: Any, found: Setting) -> tuple[float, str]:
    """Of a prompt in two parts and one token behind it."""
    (tokens,) = found.batch.inputs
    cache, half = file.Cache(tokens.size(1)), tokens.size(1) // 2
    with torch.no_grad():
        given = [module.decode(part, cache) for part in tokens.split([half, tokens.size(1) - half - 1, 1], 1)]
        parts = [part[0] if isinstance(part, tuple) else part for part in given]
    return largest({"logits": torch.cat(parts, 1)}, {"logits": found.reference.outputs[0]})


def _courses(found: Setting, files: Files, alone: Layout) -> list[Relation]:
    """A course of the trainer of a file for one device."""
    given = replace(found.given, dropout=found.given.dropout and alone.microbatches == 1)
    with in_double():
        make = load_file(files.source, files.name).Trainer
        done = course(partial(make, CPU, seed=SEED, lr=LR), given, lambda x: x, fill)
    shipped = as_shipped(load_file(files.source, files.name).Trainer(CPU, seed=SEED, lr=LR), given, lambda x: x)
    rows = [*_course_relations(found, [done], alone), *_shipped_relations(found, [shipped], alone)]
    return [replace(row, name=f"one device: {row.name}") for row in rows]


def unlike(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> tuple[float, str]:
    """1 and the first name at which names, their order or shapes differ; 0 where none do."""
    for mine, other in zip_longest(ours, theirs):
        if mine != other:
            return 1.0, mine or other
        if ours[mine].shape != theirs[mine].shape:
            return 1.0, mine
    return 0.0, ""


def _step_relations(module: nn.Module, loss: Callable[..., Tensor], found: Setting) -> list[Relation]:
    rows = [Relation("initial weights", *_bound(largest(module.state_dict(), found.initial), 0.0))]
    module.load_state_dict(found.weights)
    step = one_device(module.eval(), loss, found.batch)
    names = [f"output {n}" for n in range(len(step.outputs))]
    outputs = largest(
        dict(zip(names, step.outputs, strict=True)), dict(zip(names, found.reference.outputs, strict=True))
    )
    rows.append(Relation("outputs", *_bound(outputs, 0.0)))
    losses = largest({"loss": _number(step.loss)}, {"loss": _number(found.reference.loss)})
    rows.append(Relation("loss", *_bound(losses, 0.0)))
    rows.append(Relation("gradients", *_bound(largest(step.gradients, found.reference.gradients), 0.0)))
    return rows


def _bound(worst: tuple[float, str], bound: float) -> tuple[float, float, str]:
    return worst[0], bound, worst[1]


def layout_relations(found: Setting, layout: Layout, timeout: float = 300.0) -> list[Relation]:
    """A course of the trainer on every rank of the layout, over gloo, against the interpreter on one device."""
    files, placed = emit(Spec(found.model, (layout,)), layout), compile_graph(lower(found.model), layout)
    given = replace(found.given, dropout=one_mask(placed, layout))
    arguments = (files.source, files.name, layout, found.initial, given)
    results = [r for r in run_ranks(world_size(layout), on_this_rank, *arguments, timeout=timeout) if r is not None]
    return [replace(row, name=f"{describe(layout)}: {row.name}") for row in _rank_relations(found, layout, results)]


def _rank_relations(found: Setting, layout: Layout, results: list[dict[str, Any]]) -> list[Relation]:
    parameters = "every parameter on some stage"
    if strange := results[0].get("strange"):
        return [Relation(parameters, 1.0, 0.0, ", ".join(strange[:3]))]
    courses: list[Found] = [r["found"] for r in results]
    unequal = [name for r in results for name in r["init"]]
    seen = {name for done in courses for name in done["weights after an AdamW step"]}
    missing = sorted(set(found.weights) - seen)
    return [
        Relation(parameters, float(bool(missing)), 0.0, ", ".join(missing[:3])),
        Relation("initial weights", float(bool(unequal)), 0.0, ", ".join(unequal[:3])),
        *_course_relations(found, courses, layout),
        *_shipped_relations(found, [r["shipped"] for r in results], layout),
        *(_following(found, result) for result in results if layout.generate),
    ]


def _following(found: Setting, result: dict[str, Any]) -> Relation:
    """Tokens that a rank says follow the batch without its last ones: the likeliest."""
    unlike = torch.as_tensor(result["next"]) != found.reference.outputs[0][:, -2:-1].argmax(-1)
    return Relation("tokens that follow", float(unlike.sum()), 0.0)


def _course_relations(found: Setting, courses: list[Found], layout: Layout) -> list[Relation]:
    """Every relation of a course, over the ranks that report; each has what the first has."""
    rows: list[Relation] = []
    for name in courses[0]:
        want = found.expected[name]
        if name == "predict":  # ranks that report are the first along each data axis, and so are their samples
            want = {key: own(x, layout) for key, x in want.items()}
        compared = (largest(done[name], want) for done in courses)
        worst, where = max(compared, key=lambda pair: pair[0])
        some = any(done[name] for done in courses)
        rows.append(Relation(name, worst if some else math.inf, TOLERANCE, where))
    return rows


def _shipped_relations(found: Setting, results: list[dict[str, Any]], layout: Layout) -> list[Relation]:
    others = [name for result in results for name in result["others"]]
    losses = [abs(result["loss"] / found.reference.loss - 1) for result in results if result["finite"]]
    worst = max(losses) if len(losses) == len(results) else math.inf
    return [
        Relation(f"loss of a step in {layout.precision}", worst, SHIPPED[layout.precision]),
        Relation("parameters and gradients in float32", float(bool(others)), 0.0, ", ".join(others[:3])),
    ]


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def describe(layout: Layout) -> str:
    """`tp 2 sp, pp 4 1f1b, dp 2, checkpoint every 2`."""
    words = [f"tp {layout.tp}{' sp' * layout.sequence_parallel}"] if layout.tp > 1 else []
    pp = layout.pp
    words += [f"pp {pp.stages}{f'/{pp.per_rank}' * (pp.per_rank > 1)} {pp.schedule}"] if pp.stages > 1 else []
    words += [f"dp {layout.dp}"] if layout.dp > 1 else []
    words += [f"{axis} {size}" for axis, size in layout.more]
    words += [layout.precision] if layout.precision != "fp32" else []
    if layout.checkpoint.save:
        words.append(f"save {' '.join(layout.checkpoint.save)}")
    elif layout.checkpoint.every is not None:
        words.append(f"checkpoint every {layout.checkpoint.every}")
    return ", ".join(words) or "one device"
