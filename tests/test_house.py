"""The rules of the house, on its own source: sizes, imports, names, and no key of the language without a reader."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
import types
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from specc.emit import emit
from specc.interop.library import families
from specc.source import Source
from specc.spec import Spec, load
from specc.spec.language import language
from specc.tables import tables
from tests.broken import BOTH, DECODER, FFN, OWNED, PARTED, PATTERN
from tests.component_keys import KEYS
from tests.frame_keys import FRAME

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "specc").rglob("*.py"))
TESTS = sorted((ROOT / "tests").glob("*.py"))
TEMPLATES = sorted((ROOT / "templates").rglob("*.j2"))
WITH_TORCH = ("kernels", "interpret", "interop", "verify", "measure")  # which times kernels of torch


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imported(path: Path, typing_too: bool = True) -> Iterator[str]:
    """Every module that is imported, in functions too; without those under TYPE_CHECKING if so asked."""
    skipped: set[int] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not typing_too:
            skipped |= {id(inner) for inner in ast.walk(node)}
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name_of(path)}: imports are absolute"
            yield node.module or ""
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield ast.unparse(node.args[0])


def words(path: Path) -> Iterator[str]:
    """Names and texts of code: no docstrings, no comments."""
    told = {id(node.value) for node in ast.walk(tree(path)) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            yield node.value
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg


def test_sizes() -> None:
    long = [name_of(path) for path in (*MODULES, *TESTS) if len(path.read_text().splitlines()) > 400]
    long += [name_of(path) for path in TEMPLATES if len(path.read_text().splitlines()) > 80]
    assert MODULES and TESTS and TEMPLATES and not long


def test_source_and_what_is_generated_is_ascii() -> None:
    paths = [*MODULES, *TEMPLATES, *(ROOT / "specs").rglob("*.yaml"), *(ROOT / "generated").iterdir()]
    assert not [name_of(path) for path in paths if not path.read_text(encoding="utf-8").isascii()]


def test_torch_is_imported_where_it_may_be() -> None:
    used = {path for path in MODULES if any(name.split(".")[0] in ("torch", "numpy") for name in imported(path, False))}
    assert used and {path.relative_to(ROOT / "specc").parts[0] for path in used} <= set(WITH_TORCH)


MAY_IMPORT = {
    "source": (),
    "ir": ("tables", "ops"),
    "ops": ("ir",),
    "kernels": (),
    "components": ("source", "ir", "lower"),
    "spec": ("extension", "source", "components", "tables"),
    "lower": ("spec", "components", "ir", "tables"),
    "passes": ("source", "spec", "components", "ir", "ops", "extension"),
    "interpret": ("ir", "ops", "kernels", "extension", "tables"),
    "emit": ("compile", "source", "spec", "components", "ir", "ops", "tables"),
    "cost": ("source", "spec", "components", "ir", "ops", "tables"),
    "measure": ("cost",),
    "verify": ("compile", "ir", "spec", "components", "lower", "passes", "emit", "interpret"),
    "interop": ("source", "spec", "components", "ir", "lower"),
    "cli": (
        "compile",
        "source",
        "spec",
        "ir",
        "lower",
        "cost",
        "emit",
        "verify",
        "interop",
        "extension",
        "tables",
        "measure",
    ),
}


def test_packages_import_what_stands_before_them() -> None:
    """In functions too."""
    packages = {path.relative_to(ROOT / "specc").parts[0] for path in MODULES if path.parent != ROOT / "specc"}
    assert set(MAY_IMPORT) == packages
    for path in MODULES:
        package = path.relative_to(ROOT / "specc").parts[0]
        parts = [name.split(".") for name in imported(path)]
        used = {part[1] for part in parts if part[0] == "specc" and len(part) > 1}
        assert package not in MAY_IMPORT or used <= {package, *MAY_IMPORT[package]}, name_of(path)


def test_who_needs_torch_is_imported_late() -> None:
    """Modules that import torch are imported in functions only, outside their own packages."""
    for path in MODULES:
        if path.relative_to(ROOT / "specc").parts[0] in WITH_TORCH:
            continue
        top = {
            name for node in tree(path).body if isinstance(node, (ast.Import, ast.ImportFrom)) for name in _names(node)
        }
        assert not [name for name in top if name.startswith(tuple(f"specc.{part}" for part in WITH_TORCH))], path


def _names(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [f"{node.module}.{alias.name}" for alias in node.names]


def test_what_is_imported_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def declared(lines: list[str]) -> set[str]:
        names = {re.split(r"[\[=<>~ ]", line)[0] for line in lines}
        return {{"pyyaml": "yaml"}.get(name, name) for name in names}

    core = declared(project["dependencies"])
    with_torch = core | declared(project["optional-dependencies"]["torch"])
    tests = with_torch | declared(project["optional-dependencies"]["test"])
    own = {"specc", "tests", "benchmarks", *sys.stdlib_module_names}
    for path in (*MODULES, *TESTS):
        allowed = core
        if path in TESTS:
            allowed = tests
        elif path.relative_to(ROOT / "specc").parts[0] in WITH_TORCH:
            allowed = with_torch
        found = {
            name.split(".")[0]
            for name in imported(path, False)
            if "(" not in name and not name.startswith(("f'", "module"))
        }
        found -= {"markupsafe", "pydantic_core"}  # parts of jinja2 and of pydantic: marked texts, and errors
        assert found - own <= allowed, f"{name_of(path)}: {found - own - allowed}"


FAMILIES = (
    *("gpt", "llama", "bert", "transformer", "mistral", "mixtral", "qwen", "gemma", "falcon", "bloom", "deepseek"),
    *("olmo", "roberta", "bart", "pythia", "granite", "nemotron", "jamba", "cohere", "glm"),
    *("neox", "gptj", "stablelm", "starcoder", "smollm", "minicpm", "electra", "whisper", "marian"),
)


def test_no_model_family_is_named_in_code() -> None:
    """But for the published name of a rope scaling. Families that have a mapping are named in it alone."""
    known = set(families()) - set(tables().components)  # a mixer's own name is no family's
    for path in (*MODULES, *TEMPLATES):
        found = words(path) if path in MODULES else re.findall(r"\w+", path.read_text())
        for word in found:
            rest = word.lower().replace("llama3", "")
            assert not any(family in rest for family in FAMILIES), f"{name_of(path)}: {word[:80]}"
            assert not known & set(re.findall(r"\w+", word)), f"{name_of(path)}: {word[:80]}"


def test_nothing_is_run_or_caught_blindly() -> None:
    runs_its_file = ("specc/verify/run.py", "exec")
    for path in MODULES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                bad = node.func.id in ("eval", "exec", "__import__", "input", "breakpoint")
                assert not bad or (name_of(path), node.func.id) == runs_its_file, f"{name_of(path)}:{node.lineno}"
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, f"{name_of(path)}:{node.lineno}"
                silent = all(isinstance(inner, ast.Pass) for inner in node.body)
                assert not silent, f"{name_of(path)}:{node.lineno}"


def test_public_functions_and_classes_say_what_they_are() -> None:
    for path in MODULES:
        if path.relative_to(ROOT / "specc").parts[0] == "kernels" or not path.read_text():
            continue  # kernels are pasted: the classes of autograd in them explain themselves
        assert ast.get_docstring(tree(path)), name_of(path)
        for node in tree(path).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{name_of(path)}: {node.name}"


def models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Every spec model that can stand in a document."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from models(field.annotation)
    elif get_origin(annotation) in (Annotated, Union, types.UnionType, list, dict):
        for inner in get_args(annotation):
            yield from models(inner)


STARTS = DECODER.replace("vocab", "init: {parameters: {embedding: {std: 0.1}}}\nvocab")
VALUED = "init: {kind: constant, value: 0.1, parameters: {head: {kind: constant, value: 3}}}"
VALUED = DECODER.replace("norm:", f"{VALUED}\nnorm:")
LEARNED = DECODER.replace("norm:", "embedding: {positions: learned}\nnorm:")
PLACED = DECODER.replace("norm:", "embedding: {positions: {kind: sinusoidal, offset: 2}}\nnorm:")
ROWS = DECODER.replace("norm:", "embedding: {positions: {kind: learned, size: 60}}\nnorm:")
PADDED = BOTH.replace("  layers: 2", "  embedding: {positions: {kind: learned, offset: 2}}\n  layers: 2")
PROJECTED = DECODER.replace("norm:", "embedding: {project: {dim: 16}}\nnorm:")
HEADED = DECODER.replace("norm:", "head: {transform: {norm: true}}\nnorm:")
SEEN = DECODER.replace("vocab: 97\nmax_seq: 64\n", "head: {kind: vector, pool: mean}\n").replace(
    "norm:", "embedding: {positions: learned, stem: {kind: patches, image: 8, patch: 4}}\nnorm:"
)
OWN_SEEN = SEEN.replace("{positions: learned, ", "{").replace("{stem: {kind: patches, image: 8, patch: 4}}", "{}")
OWN_SEEN = OWN_SEEN.replace("layers: 4", "layers: 4\n  embedding: {stem: {kind: patches, image: 8, patch: 4}}")
PATCHES, FRAMES = "kind: patches, image: 8, patch: 4", "kind: frames, channels: 3, convs: [{width: 3}]"
HEARD = SEEN.replace(PATCHES, FRAMES)
VECTOR = DECODER.replace("norm:", "head: {kind: vector, size: 3, pool: {kind: token, token: 5}}\nnorm:")
PLAIN = PATTERN.replace("tp: 2", "tp: 1")
STEPS = PLAIN.replace("vocab", "head: {multi_token: {block: [joined]}}\nvocab")
READ: dict[str, tuple[str, str, str]] = {
    **FRAME,
    "Document.name": (DECODER, "name: small", "name: other"),
    "Document.description": (DECODER, "vocab", "description: What it is.\nvocab"),
    "Document.d_model": (DECODER, "d_model: 32", "d_model: 64"),
    "Document.vocab": (DECODER, "vocab: 97", "vocab: 98"),
    "Document.max_seq": (LEARNED, "max_seq: 64", "max_seq: 65"),
    "Document.pad": (BOTH, "pad: 0", "pad: 1"),
    "Document.inputs": (DECODER, "vocab", "inputs: [segments]\nvocab"),
    "Document.norm": (DECODER, "{kind: rms, eps: 1e-5}", "{}\ndropout: 0.1"),
    "Document.dropout": (BOTH, "pad: 0", "pad: 0\ndropout: 0.1"),
    "Document.drop_path": (DECODER, "vocab", "drop_path: 0.1\nvocab"),
    "Document.embedding": (BOTH, "embedding: {positions: sinusoidal, tied: [encoder, decoder, head]}", ""),
    "Document.head": (DECODER, "vocab", "head: {bias: true}\nvocab"),
    "Document.init": (DECODER, "vocab", "init: {kind: xavier}\nvocab"),
    "Document.blocks": (PATTERN, "theta: 100}", "theta: 101}"),
    "Document.encoder": (BOTH, "layers: 2", "layers: 3"),
    "Document.decoder": (BOTH, "layers: 3", "layers: 4"),
    "Document.layout": (DECODER, "layout: ", "layouts:\n  only: "),
    "Document.layouts": (BOTH, "  one: {}\n", ""),
    "EmbeddingDoc.scale": (BOTH, "{positions", "{scale: 2, positions"),
    "EmbeddingDoc.types": (DECODER, "vocab", "embedding: {types: 2}\nvocab"),
    **{
        f"PatchesDoc.{key}": (SEEN, "image: 8, patch: 4", change)
        for key, change in {
            "image": "image: 12, patch: 4",
            "patch": "image: 8, patch: 2",
            "channels": "image: 8, patch: 4, channels: 1",
            "bias": "image: 8, patch: 4, bias: false",
        }.items()
    },
    "PatchesDoc.kind": (SEEN, PATCHES, FRAMES),
    "FramesDoc.kind": (HEARD, FRAMES, PATCHES),
    "FramesDoc.channels": (HEARD, "channels: 3", "channels: 4"),
    "FramesDoc.convs": (HEARD, "[{width: 3}]", "[{width: 3}, {width: 3}]"),
    "FramesDoc.activation": (HEARD, "[{width: 3}]", "[{width: 3}], activation: relu"),
    "FramesDoc.bias": (HEARD, "[{width: 3}]", "[{width: 3}], bias: false"),
    "ConvDoc.width": (HEARD, "width: 3", "width: 5"),
    "ConvDoc.stride": (HEARD, "width: 3", "width: 3, stride: 2"),
    "EmbeddingDoc.stem": (SEEN, ", stem: {kind: patches, image: 8, patch: 4}}", "}\nvocab: 97"),
    "EmbeddingDoc.class_token": (SEEN, "{positions", "{class_token: true, positions"),
    "EmbeddingDoc.registers": (SEEN, "{positions", "{registers: 2, positions"),
    "StackEmbeddingDoc.stem": (OWN_SEEN, "image: 8", "image: 12"),
    "StackEmbeddingDoc.class_token": (OWN_SEEN, "{stem", "{class_token: true, stem"),
    "StackEmbeddingDoc.registers": (OWN_SEEN, "{stem", "{registers: 2, stem"),
    "EmbeddingDoc.norm": (BOTH, "{positions", "{norm: true, positions"),
    "EmbeddingDoc.project": (DECODER, "vocab", "embedding: {project: 16}\nvocab"),
    "PositionsDoc.kind": (PLACED, "kind: sinusoidal", "kind: learned"),
    "PositionsDoc.size": (ROWS, "size: 60", "size: 61"),
    "PositionsDoc.offset": (PLACED, "offset: 2", "offset: 3"),
    "PositionsDoc.order": (PLACED, "offset: 2", "offset: 2, order: halves"),
    "PositionsDoc.endpoint": (PLACED, "offset: 2", "offset: 2, endpoint: true"),
    "PositionsDoc.skip_pad": (PADDED, "offset: 2", "offset: 2, skip_pad: true"),
    "ProjectionDoc.dim": (PROJECTED, "dim: 16", "dim: 24"),
    "ProjectionDoc.bias": (PROJECTED, "dim: 16", "dim: 16, bias: true"),
    "ProjectionDoc.at": (PROJECTED, "dim: 16", "dim: 16, at: tokens"),
    "HeadDoc.scale": (DECODER, "vocab", "head: {scale: 1 / sqrt(d_model)}\nvocab"),
    "HeadDoc.softcap": (DECODER, "vocab", "head: {softcap: 30}\nvocab"),
    "HeadDoc.kind": (VECTOR, "kind: vector, size: 3", "kind: classes, classes: 3"),
    "HeadDoc.classes": (DECODER, "vocab", "head: {kind: classes, classes: 5}\nvocab"),
    "HeadDoc.size": (VECTOR, "size: 3", "size: 5"),
    "HeadDoc.pool": (VECTOR, "pool: {kind: token, token: 5}", "pool: last"),
    "HeadDoc.dropout": (VECTOR, "size: 3", "size: 3, dropout: 0.1"),
    "HeadDoc.normalize": (VECTOR, "size: 3", "size: 3, normalize: true"),
    "HeadDoc.multi_token": (STEPS, "head: {multi_token: {block: [joined]}}", "head: {}"),
    "MultiTokenDoc.steps": (STEPS, "block: [joined]", "block: [joined], steps: 2"),
    "MultiTokenDoc.block": (STEPS, "block: [joined]", "block: [local]"),
    "MultiTokenDoc.loss": (STEPS, "block: [joined]", "block: [joined], loss: 0.5"),
    "PoolDoc.kind": (VECTOR, "{kind: token, token: 5}", "first"),
    "PoolDoc.token": (VECTOR, "token: 5", "token: 6"),
    "HeadDoc.dim": (DECODER, "vocab", "head: {dim: 16}\nvocab"),
    "HeadDoc.transform": (DECODER, "vocab", "head: {transform: {}}\nvocab"),
    "TransformDoc.activation": (HEADED, "transform: {", "transform: {activation: tanh, "),
    "TransformDoc.norm": (HEADED, "norm: true", "norm: false"),
    "TransformDoc.bias": (HEADED, "norm: true", "norm: true, bias: false"),
    "EmbeddingDoc.positions": (BOTH, "positions: sinusoidal", "positions: learned"),
    "EmbeddingDoc.tied": (BOTH, "[encoder, decoder, head]", "[encoder, decoder]"),
    "EmbeddingDoc.dropout": (BOTH, "{positions", "{dropout: 0.1, positions"),
    "HeadDoc.bias": (DECODER, "vocab", "head: {bias: true}\nvocab"),
    "Document.loss": (DECODER, "vocab", "loss: {z_loss: 1e-4}\nvocab"),
    "LossDoc.label_smoothing": (DECODER, "vocab", "loss: {label_smoothing: 0.1}\nvocab"),
    "LossDoc.z_loss": (DECODER, "vocab", "loss: {z_loss: 1e-4}\nvocab"),
    "InitDoc.kind": (DECODER, "vocab", "init: {kind: xavier}\nvocab"),
    "InitDoc.std": (DECODER, "vocab", "init: {std: 0.1}\nvocab"),
    "InitDoc.parameters": (DECODER, "vocab", "init: {parameters: {embedding: {std: 0.1}}}\nvocab"),
    "InitDoc.truncate": (DECODER, "vocab", "init: {truncate: 2}\nvocab"),
    "InitDoc.value": (VALUED, "value: 0.1", "value: 0.2"),
    "StartDoc.std": (STARTS, "std: 0.1", "std: 0.2"),
    "StartDoc.kind": (STARTS, "std: 0.1", "kind: uniform, std: 0.1"),
    "StartDoc.truncate": (STARTS, "std: 0.1", "std: 0.1, truncate: 2"),
    "StartDoc.value": (VALUED, "value: 3", "value: 4"),
    "InitDoc.depth_scaled": (DECODER, "vocab", "init: {depth_scaled: true}\nvocab"),
    "StackDoc.shared": (DECODER, "layers: 4", "layers: 4\n  shared: true"),
    "StackDoc.layers": (DECODER, "layers: 4", "layers: 5"),
    "StackDoc.block": (DECODER, f"    {FFN}\n", ""),
    "StackDoc.pattern": (PLAIN, "local*2", "local*3"),
    "StackDoc.final_norm": (DECODER, "layers: 4", "layers: 4\n  final_norm: false"),
    "PatternDoc.head": (PLAIN, "head: [joined]", "head: [local]"),
    "PatternDoc.cycle": (PLAIN, "local*2, global", "global, local*2"),
    "PatternDoc.tail": (PLAIN, "tail: [joined]", "tail: [local]"),
    "LikeDoc.like": (PLAIN, "like: local, with: {attention: {kv_heads: null, rope: {theta: 1000}}}", "like: joined"),
    "LikeDoc.with": (PLAIN, "theta: 1000", "theta: 1001"),
    **KEYS,
    "LayoutDoc.tp": (DECODER, "tp: 2", "tp: 4"),
    "LayoutDoc.sequence_parallel": (DECODER, "tp: 2", "tp: 2, sequence_parallel: true"),
    "LayoutDoc.rules": (DECODER, "tp: 2", "tp: 2, rules: {vocab: none}"),
    "LayoutDoc.generate": (PATTERN, "layout: {tp: 2}", "layout: {tp: 2, generate: true}"),
    "LayoutDoc.dp": (BOTH, "one: {}", "one: {dp: 2}"),
    "LayoutDoc.cp": (BOTH, "one: {}", "one: {cp: 2}"),
    "LayoutDoc.ep": (OWNED.replace("pp: {stages: 2}, ", ""), "ep: 4,", "ep: 2,"),
    "ContextDoc.size": (BOTH, "one: {}", "one: {cp: {size: 2}}"),
    "ContextDoc.attention": (PARTED, "cp: 2,", "cp: {size: 2, attention: ulysses},"),
    "ContextDoc.order": (PARTED, "cp: 2,", "cp: {size: 2, order: contiguous},"),
    "LayoutDoc.pp": (BOTH, "one: {}", "one: {pp: 2}"),
    "LayoutDoc.precision": (BOTH, "one: {}", "one: {precision: bf16}"),
    "LayoutDoc.checkpoint": (BOTH, "one: {}", "one: {checkpoint: full}"),
    "PipelineDoc.stages": (DECODER, "stages: 2", "stages: 3"),
    "PipelineDoc.per_rank": (DECODER, "stages: 2", "stages: 4, per_rank: 2"),
    "PipelineDoc.schedule": (DECODER, "stages: 2", "stages: 2, schedule: gpipe"),
    "LayoutDoc.microbatches": (DECODER, "microbatches: 4", "microbatches: 8"),
    "PipelineDoc.starts": (DECODER, "stages: 2", "stages: 2, starts: [layers.1]"),
    "EveryDoc.every": (DECODER, "save: [attention.core]", "every: 2"),
    "EveryDoc.save": (DECODER, "save: [attention.core]", "save: [attention.core, attention.o]"),
}


@cache
def built(text: str) -> tuple[str, str]:
    found = load(Source("s.yaml", text))
    assert isinstance(found, Spec), found
    made = emit(found, found.layout())
    return made.source, made.params


def test_every_key_of_the_language_is_in_the_table() -> None:
    keys = {
        f"{model.__name__}.{field.alias or name}"
        for model in models(language(tables()).document)
        for name, field in model.model_fields.items()
    }
    elsewhere = {"Document.specc", "Document.components"}  # it has one value; tests/test_own.py
    assert set(READ) == keys - elsewhere


@pytest.mark.parametrize("key", READ)
def test_no_key_is_read_by_nobody(key: str) -> None:
    """Another value makes another file."""
    base, old, new = READ[key]
    assert old in base
    assert built(base.replace(old, new, 1)) != built(base)
