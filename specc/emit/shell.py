"""Everything of a generated file but the classes of the model: leaf classes, stages, weights, loss and training."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from specc.emit.code import Code, ident, part
from specc.emit.cuts import Cuts, cuts
from specc.emit.leaf import classes
from specc.emit.leaf_class import leaf_class
from specc.emit.model import StageClass
from specc.emit.weights import init_weights
from specc.emit.wrap import wrapped
from specc.ir.graph import Graph
from specc.ir.stored import stored
from specc.ops import definition
from specc.spec.core import Layout, Model

SCHEDULES = {"1f1b": "Schedule1F1B", "gpipe": "ScheduleGPipe"}


@dataclass(frozen=True)
class Shell:
    """Names of kernels to paste (those of the model's own lines apart), leaf classes, and what follows the model."""

    kernels: tuple[str, ...]
    leaf_classes: Code
    after: Code


def shell(graph: Graph, layout: Layout, model: Model, stages: tuple[StageClass, ...]) -> Shell:
    """`stages` in order; one, the whole model, for a layout without pipeline."""
    leaf_classes = [leaf_class(graph, name) for name in classes(graph)]
    made = _Maker(graph, layout, model, stages)
    parts = [made.mesh(), *(made.stages() if made.pp else made.model()), *made.parallelize(), made.weights()]
    after = [*parts, *made.trainer()]
    return Shell(made.kernels(), Code("\n\n\n").join(leaf_classes), Code("\n\n\n").join(part for part in after if part))


def _lines(line: str, indent: int = 0) -> tuple[Code, ...]:
    """The line broken where it is too long at that indentation."""
    return tuple(Code(row[indent:]) for row in wrapped(f"{' ' * indent}{line}"))


class _Maker:
    """The parts of one file, each as text; () or an empty text where the layout needs none."""

    def __init__(self, graph: Graph, layout: Layout, model: Model, stages: tuple[StageClass, ...]):
        self.graph, self.layout, self.spec, self.all = graph, layout, model, stages
        self.pp, self.dp, self.tp = len(stages) > 1, layout.dp > 1, layout.tp > 1
        self.axes = [name for name, on in (("pp", self.pp), ("dp", self.dp), ("tp", self.tp)) if on]
        self.params = stored(graph)
        self.tied = [param for param in self.params if param.tied]
        ops = [op for op in graph.ops if op.kind == "input" and op.scope[:1] != ("loss",)]
        self.inputs = [str(ident(op.hint)) for op in ops]
        self.lengths = ", ".join(axis.name for op in ops for axis in op.outs[0].axes[1:])
        if len({stage.meshes for stage in stages}) > 1:
            raise ValueError("the stages take different meshes")

    def kernels(self) -> tuple[str, ...]:
        used = ["parallel_loss.loss" if self._split_vocab() else "loss.loss"]
        leaves = [leaf for group in classes(self.graph).values() for leaf in group]
        if self.tp:
            used.append("parameter")
        if any(leaf.partial_grads for leaf in leaves):
            used.append("partial_grad")
        return tuple(used)

    def mesh(self) -> Code:
        if not self.axes:
            return Code("")
        sizes = {"pp": len(self.all), "dp": -1, "tp": self.layout.tp}  # dp takes all ranks that there are
        names = [f'"{axis}"' for axis in self.axes]
        comma = "," if len(names) == 1 else ""
        return part(
            "mesh.j2",
            words=Code(", ".join(self.axes)),
            sizes=Code(", ".join(str(sizes[axis]) for axis in self.axes)),
            names=Code(f"({', '.join(names)}{comma})"),
        )

    def model(self) -> list[Code]:
        only = self.all[0]
        make = f"{only.name}({', '.join((*only.arguments, *map(_of_mesh, only.meshes)))})"
        return [part("model.j2", name=ident(only.name), make=Code(make), mesh=bool(self.axes), dp=self.dp)]

    def stages(self) -> list[Code]:
        arguments = any(stage.arguments for stage in self.all)
        rows = [f"({', '.join((s.name, *s.arguments))}{'' if s.arguments else ','})" for s in self.all]
        table = f"STAGES = ({', '.join(rows if arguments else [s.name for s in self.all])})"
        meshes = ", ".join(map(_of_mesh, self.all[0].meshes))
        made = f"stage({', '.join(['*arguments', meshes] if meshes else ['*arguments'])})"
        signature = "def build_stage(index: int, mesh: DeviceMesh, device: torch.device, batch: int, "
        signature += f"{self._ints()}, seed: int) -> PipelineStage:"
        travel: Cuts = cuts(self.graph, self.all)
        tied = [f'"{param.name}": {param.stages!r}' for param in self.tied]
        made_stages = part(
            "stages.j2",
            table=_lines(table),
            microbatches=self.layout.pp.microbatches,
            tied=_lines(f"TIED = {{{', '.join(tied)}}}  # weights that several stages hold") if tied else (),
            signature=_lines(signature),
            lengths=Code(self.lengths),
            arguments=arguments,
            make=Code(made if arguments else f"STAGES[index]({meshes})"),
            values=tuple(row for name, source in travel.values for row in _lines(f"{name} = {source}", 8)),
            cuts=_lines(f"cuts = ({', '.join(_repeated(travel.rows))})", 8),
            dp=self.dp,
        )
        return [made_stages]

    def parallelize(self) -> list[Code]:
        if not self.dp:
            return []
        stacks: dict[tuple[str, ...], None] = {}
        for prefix in dict.fromkeys(op.scope for op in self.graph.ops if op.kind == "repeat"):
            loops = [op.text("path") for op in self.graph.ops if op.kind == "repeat" and op.scope == prefix]
            stacks[tuple(dict.fromkeys(loops))] = None
        same = next(iter(stacks)) if len(stacks) == 1 else ()
        stack = same[0] if len(same) == 1 else ""
        options = ", reshard_after_forward=False" if self.pp else ""
        return [part("parallelize.j2", pp=self.pp, stack=Code(stack), options=Code(options))]

    def weights(self) -> Code:
        return init_weights(self.params, self.spec.init, self.tp or self.dp)

    def trainer(self) -> list[Code]:
        if not self.axes:
            return []
        vocab = f', vocab={self.spec.vocab}, tp=mesh["tp"]' if self._split_vocab() else ""
        signature = "def __init__(self, mesh: DeviceMesh, device: torch.device, batch: int, "
        signature += f"{self._ints()}, seed: int, lr: float):"
        scheduled = f"self.schedule = {SCHEDULES[self.layout.pp.schedule]}(stage, MICROBATCHES, "
        scheduled += f"{f'partial(loss{vocab})' if vocab else 'loss'}, scale_grads=False)"
        shapes = [f"(batch, {length})" for length in (*self.lengths.split(", "), self.lengths.split(", ")[-1])]
        trainer = part(
            "trainer_pp.j2" if self.pp else "trainer.j2",
            inputs=Code(": Tensor, ".join(self.inputs)),
            names=Code(", ".join(self.inputs)),
            single=len(self.inputs) == 1,
            lengths=Code(self.lengths),
            signature=_lines(signature, 4),
            schedule=_lines(scheduled, 8),
            shapes=Code(", ".join(shapes)),
            loss_options=Code(vocab.replace("mesh[", "self.mesh[")),
            tied=bool(self.tied),
            dp=self.dp,
            local=Code(".to_local()" if self.tp or self.dp else ""),
            full=Code(".full_tensor()" if self.tp or self.dp else ""),
            random=Code(self._seed()),
        )
        return [trainer]

    def _ints(self) -> str:
        return ", ".join(f"{length}: int" for length in self.lengths.split(", "))

    def _seed(self) -> str:
        """Random numbers are in step on the ranks of tp, which are neighbours, and differ elsewhere."""
        if not any(definition(op.kind).random(op) for op in self.graph.ops):
            return ""
        if not self.tp:
            return "torch.manual_seed(seed + dist.get_rank())"
        return f"torch.manual_seed(seed + dist.get_rank() // {self.layout.tp})  # the ranks of tp draw the same numbers"

    def _split_vocab(self) -> bool:
        return any(lowering == "vocab_parallel" for _, lowering in self.graph.op(self.graph.loss.op).lowering)


def _repeated(rows: tuple[str, ...]) -> list[str]:
    """Three or more equal neighbours as a product: `*[(hidden,)] * 15`."""
    found: list[str] = []
    for row, group in groupby(rows):
        count = len(list(group))
        found += [f"*[{row}] * {count}"] if count > 2 else [row] * count
    return found


def _of_mesh(axis: str) -> str:
    return f'mesh["{axis}"]'
