"""The training shell of generated files: its text, and that it trains on ranks as one device does."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from specc.emit import Files, emit
from specc.emit.code import Code, docstring, environment, finalize, ident, lit
from specc.emit.guard import names
from specc.emit.pasted import imports, pasted
from specc.emit.weights import init_weights
from specc.ir.stored import stored
from specc.lower import lower
from specc.passes import compile_graph
from specc.spec.core import Checkpoint, Init, Layout, Model, Pipeline, Spec
from specc.verify import relations
from specc.verify.course import LR, SEED, adamw
from specc.verify.launch import run_ranks
from specc.verify.relations import Setting, layout_relations, setting
from specc.verify.run import load_file
from tests.models import MODELS, gpt2, llama, transformer

SAVES = Checkpoint(save=("attention.core", "attention.o"))
LAYOUTS = {
    "one": Layout(),
    "tp2": Layout(tp=2),
    "tp2 sp": Layout(tp=2, sequence_parallel=True),
    "dp2": Layout(dp=2),
    "dp2 tp2 sp": Layout(dp=2, tp=2, sequence_parallel=True, checkpoint=Checkpoint(every=2)),
    "pp2": Layout(pp=Pipeline(2, "gpipe"), microbatches=3),
    "pp2 tp2 sp": Layout(tp=2, sequence_parallel=True, pp=Pipeline(2, "1f1b"), microbatches=4, checkpoint=SAVES),
    "pp2 dp2": Layout(dp=2, pp=Pipeline(2, "1f1b"), microbatches=4, checkpoint=Checkpoint(every=1)),
    "pp3 tp2": Layout(tp=2, pp=Pipeline(3, "1f1b"), microbatches=3),
    "pp2 dp2 tp2 sp": Layout(dp=2, tp=2, sequence_parallel=True, pp=Pipeline(2, "1f1b"), microbatches=3),
}
VARIANTS = {
    **MODELS,
    "dropout": gpt2(dropout=0.1),
    "uneven vocab": llama(tied=True, vocab=97),
    "biases": transformer(bias=True, dropout=0.1),
    "untied": transformer(tied=False),
}


def made(model: Model, layout: Layout) -> Files:
    return emit(Spec(model, (layout,)), layout)


# --- text -----------------------------------------------------------------------------------------


def test_files_are_as_the_formatter_and_the_linter_want_them(tmp_path: Path):
    for name, model in VARIANTS.items():
        for layout_name, layout in LAYOUTS.items():
            path = tmp_path / re.sub(r"\W", "_", f"{name} {layout_name}.py")
            path.with_suffix(".py").write_text(made(model, layout).source)
    ruff = [sys.executable, "-m", "ruff"]
    line = ["--line-length", "120", "--isolated", str(tmp_path)]
    formatted = subprocess.run([*ruff, "format", "--diff", *line], capture_output=True, text=True)
    assert formatted.returncode == 0, formatted.stdout[-3000:]
    checked = subprocess.run([*ruff, "check", "--select", "F,I,E,B", *line], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout[-3000:]


def test_a_file_has_only_what_its_layout_needs():
    words = {
        "DeviceMesh(": ("tp", "dp", "pp"),
        "fully_shard": ("dp",),
        "PipelineStage": ("pp",),
        "parameter(": ("tp",),
        "__create_chunk_list__": ("tp", "dp"),
        "dist.": ("tp", "dp", "pp"),
        "filled": ("tp", "dp", "pp"),
        "full_tensor": ("tp",),
        "MICROBATCHES": ("pp",),
        "TIED": (),
        "manual_seed(seed": (),
        "kept(": (),
    }
    for name, layout in LAYOUTS.items():
        source = made(MODELS["llama"], replace(layout, checkpoint=Checkpoint())).source
        for word, axes in words.items():
            assert (word in source) == any(f"{axis}" in name for axis in axes), (name, word)
        assert ("mesh" in source) == (name != "one")
        assert "class Trainer" in source and "\nREDUCE = torch.float32" in source


def test_a_dense_decoder_with_everything_is_short():
    layout = replace(LAYOUTS["pp2 dp2 tp2 sp"], checkpoint=SAVES)
    assert len(made(MODELS["llama-tied"], layout).source.splitlines()) <= 467


def test_tied_weights_name_their_stages():
    layout = Layout(pp=Pipeline(4, "1f1b"), microbatches=4)
    source = made(transformer(layers=2), layout).source
    assert 'TIED = {"embedding.weight": (0, 2, 3)}' in source
    assert "TIED" not in made(transformer(tied=False), layout).source


def test_templates_are_short_and_decide_nothing():
    folder = Path(__file__).parents[1] / "templates"
    for path in sorted(folder.rglob("*.j2")):
        text = path.read_text()
        assert len(text.splitlines()) <= 80, path
        conditions = re.findall(r"{% (?:el)?if (.*?) %}", text)
        assert all(re.fullmatch(r"[\w.]+", condition) for condition in conditions), (path, conditions)


# --- the boundary of the templates ----------------------------------------------------------------


def test_only_code_passes_into_templates():
    def render(text: str, **values: object) -> str:
        return environment().from_string(text).render(**values)

    assert render("{{ a }} {{ b }} {{ c }} {{ d }}", a=Code("x < 'y'"), b=1, c=True, d=None) == "x < 'y' 1 True None"
    for bad in ("text", float("inf"), float("nan"), b"bytes", [1]):
        with pytest.raises(TypeError, match="reached a template"):
            render("{{ a }}", a=bad)
    with pytest.raises(Exception, match="missing"):
        render("{{ missing }}")
    assert finalize(1.5) == "1.5"


def test_names_and_constants_are_checked():
    assert ident("rope_10000") == "rope_10000"
    for bad in ("class", "match", "a;b", "ﬁ", "list", "", "1a", "a b", "x" * 65):
        with pytest.raises(ValueError):
            ident(bad)
    for text in ('say "hi"', "it's", "\\", "both ' and \"", "a\nb"):
        assert ast.literal_eval(lit(text)) == text
    with pytest.raises(ValueError):
        lit(float("inf"))
    for text in ('ends with "', 'has """ inside', "back\\slash", 'three """', "plain"):
        assert ast.literal_eval(f'"""{docstring(text)}\n"""') == f"{text}\n"
    for bad in ("\x00", "\x1b[0m", "\u202e", "a\rb"):
        with pytest.raises(ValueError):
            docstring(bad)


def test_kernels_are_pasted_with_what_they_use():
    text = pasted(["gradient_norm", "all_reduce", "evaluating"])
    tree = ast.parse(text)
    defined = [node.name for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
    assert text.index("def total(") < text.index("class Collective(") < text.index("\nall_reduce = ")
    assert {"gradient_norm", "evaluating"} <= set(defined) and "all_gather" not in text
    assert "REDUCE =" not in text  # a constant of the file
    assert "import contextmanager" in imports(names(tree)) and "distribute_tensor" not in imports(names(tree))
    assert pasted(["all_reduce", "evaluating", "gradient_norm"]) == text
    for bad in ("loss.absent", "absent"):
        with pytest.raises(KeyError):
            pasted([bad])


# --- initial weights ------------------------------------------------------------------------------


def rules(model: Model) -> str:
    layout = Layout()
    graph = compile_graph(lower(model), layout)
    return str(init_weights(stored(graph), model.init, False))


def test_the_rule_of_initial_weights_is_short():
    assert rules(llama()).endswith("dtype=torch.float32) * 0.02")
    depth = 'std = 0.02 / 6**0.5 if name.endswith(("o.weight", "down.weight")) else 0.02'
    assert depth in rules(gpt2())
    glorot = 'std = 32**-0.5 if name.endswith("embedding.weight") else (2 / sum(shape)) ** 0.5'
    assert glorot in rules(transformer())
    assert 'elif name.endswith("scale.weight"):\n            p.fill_(0.5)' in rules(MODELS["patterned"])


def test_stacks_of_different_depth_have_rules_of_their_own():
    deep = replace(transformer(), init=Init("normal", 0.02, 0.02, True))
    encoder, decoder = deep.stacks
    deep = replace(deep, stacks=(encoder, replace(decoder, runs=tuple(replace(r, layers=5) for r in decoder.runs))))
    text = rules(deep)
    encoder_rule = 'if name.startswith("encoder.") and name.endswith(("o.weight", "down.weight")):'
    assert f"{encoder_rule}\n        std = 0.02 / 4**0.5" in text
    assert "0.02 / 15**0.5" in text


def test_every_weight_meets_its_own_rule():
    """The text is run for odd names and values; where no end of a name decides, names are listed."""
    graph = compile_graph(lower(MODELS["patterned"]), Layout())
    odd = [
        replace(p, param=replace(p.param, init=replace(p.param.init, kind="normal", std=0.1 + n % 3)))
        for n, p in enumerate(stored(graph))
    ]
    text = str(init_weights(tuple(odd), Init("normal", 0.02, 0.02, False), False))
    scope: dict[str, object] = {}
    exec(
        "import hashlib\nimport torch\nfrom torch import Tensor, nn\n"
        + text.replace("return torch.randn", "return std  #"),
        scope,
    )
    draw = scope["draw"]
    assert callable(draw)
    wanted = {name: p.param.init.std for p in odd for name in p.names()}
    assert {name: draw(name, 0, torch.Size([4, 4]), 0) for name in wanted} == wanted


# --- on ranks -------------------------------------------------------------------------------------

RUNS = [
    ("llama", "tp2 sp"),
    ("gpt2", "dp2 tp2 sp"),
    ("patterned", "pp2"),
    ("llama-tied", "pp2 tp2 sp"),
    ("gpt2", "pp2 dp2"),
    ("transformer", "pp3 tp2"),
    ("uneven vocab", "tp2"),
    ("uneven vocab", "pp2 dp2 tp2 sp"),
]


@pytest.mark.parametrize(("model", "layout"), RUNS)
def test_a_step_on_ranks_is_that_on_one_device(model: str, layout: str):
    rows = layout_relations(setting(VARIANTS[model], LAYOUTS[layout]), LAYOUTS[layout])
    assert not [row for row in rows if not row.holds]


def test_an_embedding_tied_over_three_of_four_stages():
    layout = Layout(pp=Pipeline(4, "1f1b"), microbatches=5)
    rows = layout_relations(setting(transformer(layers=2), layout), layout)
    assert not [row for row in rows if not row.holds]


MUTANTS = [
    ("pp2", "sum_whole_copies(self.tied)", "", "gradients"),
    ("pp2", "if holders[0] != index", "if holders[0] != 9", "gradient norm"),
    ("pp2", "dist.all_reduce(square)", "", "gradient norm"),
    ("pp2", "1 / count.where(count > 0, 1)", "1 / labels.numel()", "loss"),
    ("pp2 dp2", 'ranks = self.mesh["dp"].size()', "ranks = 1", "gradients"),
    ("pp2 dp2", 'dist.all_reduce(value, group=self.mesh.get_group("dp"))', "", "loss"),
    ("pp2 dp2", 'dist.all_reduce(count, group=self.mesh.get_group("dp"))', "", "loss"),
    ("dp2 tp2 sp", "square().sum() / copies", "square().sum()", "gradient norm"),
    ("tp2 sp", "p.grad = p.grad.redistribute(placements=p.placements)", "", "gradient norm"),
    ("dp2", "p.ndim < 2 or ", "", "AdamW step"),
    ("dp2", 'or name.endswith("embedding.weight")', "", "AdamW step"),
    ("tp2 sp", "self.weight.to_local(grad_placements=[Partial()])", "self.weight.to_local()", "gradients"),
    ("tp2 sp", "[low - 16 * block : high - 16 * block]", "[: high - low]", "initial weights"),
    ("tp2", "rows = ids - self.start", "rows = ids", "loss"),
]


@pytest.mark.parametrize(("layout", "old", "new", "breaks"), MUTANTS)
def test_a_broken_shell_is_seen(layout: str, old: str, new: str, breaks: str, monkeypatch: pytest.MonkeyPatch):
    def broken(spec: Spec, layout: Layout) -> Files:
        files = emit(spec, layout)
        assert old in files.source
        return replace(files, source=files.source.replace(old, new))

    model = llama(layers=2, tied=True, vocab=90)  # 45 rows a rank: not a multiple of 16
    monkeypatch.setattr(relations, "emit", broken)
    rows = layout_relations(setting(model, LAYOUTS[layout]), LAYOUTS[layout], 60.0)
    assert [row for row in rows if not row.holds and row.name.endswith(breaks)]


STEPS = 3


def trained(source: str, layout: Layout, found: Setting) -> list[list[float]]:
    """What `Trainer.step` tells on this rank, from the initial weights of the file."""
    torch.set_default_dtype(torch.float64)
    file = load_file(source, "file")
    mesh = file.device_mesh("cpu")
    data = mesh.get_local_rank("dp") if layout.dp > 1 else 0
    size = len(found.batch.labels) // layout.dp
    own = slice(data * size, (data + 1) * size)
    lengths = [x.size(1) for x in found.batch.inputs]
    trainer = file.Trainer(mesh, torch.device("cpu"), size, *lengths, seed=SEED, lr=LR)
    trainer.module.train(not any("dropout" in line for line in source.splitlines()))
    batch = [x[own] for x in (*found.batch.inputs, found.batch.labels)]
    return [[x.item() for x in trainer.step(*batch)] for _ in range(STEPS)]


@pytest.mark.parametrize(("model", "layout"), [("llama-tied", "pp2 dp2 tp2 sp"), ("llama", "tp2"), ("gpt2", "dp2")])
def test_steps_of_the_trainer_are_those_of_one_device(model: str, layout: str):
    found = setting(VARIANTS[model], LAYOUTS[layout])
    results = run_ranks(
        world(LAYOUTS[layout]), trained, made(VARIANTS[model], LAYOUTS[layout]).source, LAYOUTS[layout], found
    )
    torch.set_default_dtype(torch.float64)
    alone = load_file(made(VARIANTS[model], Layout()).source, "alone").build_model(torch.device("cpu"), SEED)
    optimizer = adamw(alone)
    for step in range(STEPS):
        optimizer.zero_grad()
        value = cross_entropy(alone, found)
        value.backward()
        norm = nn.utils.clip_grad_norm_(alone.parameters(), 1.0)
        optimizer.step()
        for told in results:
            assert told[step] == pytest.approx((value.item(), norm.item()), abs=1e-9)


def cross_entropy(module: nn.Module, found: Setting) -> Tensor:
    logits = module(*found.batch.inputs)
    return F.cross_entropy(logits.flatten(0, 1), found.batch.labels.flatten(), ignore_index=-100)


def world(layout: Layout) -> int:
    return layout.tp * layout.dp * layout.pp.stages


def dropped(source: str, inputs: tuple[Tensor, ...], labels: Tensor) -> tuple[float, float, float]:
    """Loss and norm of a step with dropout, and the next random number."""
    torch.set_default_dtype(torch.float64)
    file = load_file(source, "file")
    trainer = file.Trainer(file.device_mesh("cpu"), torch.device("cpu"), *inputs[0].shape, seed=SEED, lr=LR)
    value, norm = trainer.step(*inputs, labels)
    assert dist.is_initialized()
    return value.item(), norm.item(), torch.rand(()).item()


@pytest.mark.parametrize("sequence_parallel", [False, True])
def test_dropout_keeps_tensor_ranks_in_step(sequence_parallel: bool):
    layout = Layout(tp=2, sequence_parallel=sequence_parallel)
    model = gpt2(dropout=0.3)
    found = setting(model, layout)
    first, second = run_ranks(2, dropped, made(model, layout).source, found.batch.inputs, found.batch.labels)
    assert first == pytest.approx(second, abs=1e-12)
    assert abs(first[0] - found.reference.loss) > 1e-3


def drawn(source: str) -> float:
    """The next random number of this rank, when its trainer is made."""
    file = load_file(source, "file")
    file.Trainer(file.device_mesh("cpu"), torch.device("cpu"), 2, 8, seed=SEED, lr=LR)
    return torch.rand(()).item()


def test_data_ranks_draw_dropout_of_their_own() -> None:
    layout = Layout(dp=2, tp=2)
    first, second, third, fourth = run_ranks(4, drawn, made(gpt2(dropout=0.3), layout).source)
    assert first == second != third == fourth
