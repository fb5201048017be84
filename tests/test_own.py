"""Components of one's own, in a file beside a spec: run where that is allowed, and then like any other."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers import DiffLlamaConfig, DiffLlamaForCausalLM

import specc
from specc.interpret import interpret
from specc.source import Diagnostic, Source, read
from specc.spec import Spec, load
from specc.spec.core import Layout
from specc.verify.relations import layout_relations, plain_relations, setting
from specc.verify.run import world_size
from tests.family_parity import double

FOLDER = Path(__file__).parents[1] / "examples" / "components"
BARE = """specc: 1
name: own
d_model: 32
vocab: 97
components: [{}]
decoder: {{layers: 1, block: [ffn: {{hidden: 8}}]}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A copy of the example, forgotten afterwards."""
    before, paths = set(sys.modules), list(sys.path)
    yield Path(shutil.copytree(FOLDER, tmp_path / "own"))
    sys.path[:] = paths
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "").is_relative_to(tmp_path):
            del sys.modules[name]


def found(path: Path, allowed: bool = True) -> list[Diagnostic]:
    source = read(path)
    assert isinstance(source, Source)
    made = load(source, own=allowed)
    return [] if isinstance(made, Spec) else made


def tiny(folder: Path) -> Spec:
    source = read(folder / "tiny.yaml")
    made = load(source, own=True) if isinstance(source, Source) else source
    assert isinstance(made, Spec), made
    return made


def holds(spec: Spec, layout: Layout) -> None:
    found = setting(spec.model, layout)
    rows = plain_relations(found, layout)
    if world_size(layout) > 1:
        rows += layout_relations(found, layout)
    assert len(rows) > 5
    assert not [row for row in rows if not row.holds]


def test_a_file_is_run_only_where_that_is_allowed(folder: Path) -> None:
    (folder / "differential.py").write_text("raise SystemExit('it was run')")
    (told,) = found(folder / "tiny.yaml", allowed=False)
    assert (told.code, told.message) == ("E298", "differential.py is code, which specc would run")
    assert told.help == "if you trust it, give --allow-components"
    with pytest.raises(specc.SpecError, match="E298"):
        specc.load(folder / "tiny.yaml")


def test_every_layout_computes_the_same(folder: Path) -> None:
    """tp 2 with sequence parallelism, pp 2, one result saved: all relations of `specc verify`."""
    spec = tiny(folder)
    (layout,) = spec.layouts
    assert (layout.tp, layout.sequence_parallel, layout.pp.stages) == (2, True, 2)
    holds(spec, layout)


def test_it_generates(folder: Path) -> None:
    """The two attentions of a layer have caches of their own."""
    holds(tiny(folder), Layout(generate=True))
    holds(tiny(folder), Layout(generate=True, tp=2))


def test_it_is_what_others_compute(folder: Path) -> None:
    """Logits and gradients of transformers' DiffLlama: heads 0 .. n-1 are its first queries, the others its second."""
    config: Any = DiffLlamaConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        rms_norm_eps=1e-5,
    )
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    theirs: Any = DiffLlamaForCausalLM(config).double().eval()
    ours = interpret(specc.load(folder / "tiny.yaml", allow_components=True).graph, dtype=torch.float64)
    values = {name: value + 0.1 * torch.randn_like(value) for name, value in theirs.state_dict().items()}
    theirs.load_state_dict(values)
    views = {name: of(dict(values)) for name, of in mapping().items()}
    ours.load_state_dict({name: views[name] for name in ours.state_dict()})
    tokens = torch.randint(97, (2, 11))
    with double(theirs), Sums():
        expected = theirs(tokens).logits
    made = ours(tokens)
    assert (made - expected).abs().max() < 1e-9
    weights = torch.randn_like(expected)
    (expected * weights).sum().backward()
    (made * weights).sum().backward()
    gradients = {name: value.grad for name, value in theirs.named_parameters() if value.grad is not None}
    for name, value in ours.named_parameters():
        grad = mapping()[name](gradients)
        assert value.grad is not None
        assert (value.grad - grad).abs().max() < 1e-9, name


class Sums(TorchFunctionMode):
    """What they sum up in float32 is summed up as it is."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **{**(kwargs or {}), **({"dtype": None} if func is torch.sum else {})})


View = Callable[[Mapping[str, Tensor]], Tensor]


def mapping() -> dict[str, View]:
    """Our parameters as views of theirs."""

    def part(name: str, n: int) -> View:
        return lambda tensors: tensors[name].chunk(2)[n]

    def values(name: str) -> View:  # ours has the features of both halves of a head beside each other
        return lambda tensors: torch.cat([half.view(2, 8, -1) for half in tensors[name].chunk(2)], 1).flatten(0, 1)

    def whole(name: str) -> View:
        return lambda tensors: tensors[name]

    found = {
        "embedding.weight": whole("model.embed_tokens.weight"),
        "norm.weight": whole("model.norm.weight"),
        "head.weight": whole("lm_head.weight"),
    }
    for n in range(4):
        ours, theirs = f"layers.{n}", f"model.layers.{n}"
        for name, hub in {"differential_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}.items():
            found[f"{ours}.{name}.weight"] = whole(f"{theirs}.{hub}.weight")
        for name in ("gate", "up", "down"):
            found[f"{ours}.ffn.{name}.weight"] = whole(f"{theirs}.mlp.{name}_proj.weight")
        for name in ("q", "k"):
            for half in (0, 1):
                found[f"{ours}.differential.{name}{half + 1}.weight"] = part(
                    f"{theirs}.self_attn.{name}_proj.weight", half
                )
        found[f"{ours}.differential.v.weight"] = values(f"{theirs}.self_attn.v_proj.weight")
        found[f"{ours}.differential.o.weight"] = whole(f"{theirs}.self_attn.o_proj.weight")
        for name in ("q1", "k1", "q2", "k2"):
            found[f"{ours}.differential.difference.{name}"] = whole(f"{theirs}.self_attn.lambda_{name}")
    return found


WRONG = {
    "x = 1 +": "SyntaxError: invalid syntax (mine.py, line 1)",
    "import nothing_of_that_name": "line 1: ModuleNotFoundError: No module named 'nothing_of_that_name'",
    "EXTENSION = 1": "mine.py has no EXTENSION that is an Extension",
    "": "mine.py has no EXTENSION that is an Extension",
    "from specc.builtin import EXTENSIONS\nEXTENSION = EXTENSIONS[1]": "the component attention is of the extensions",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_file_that_cannot_be_used_is_told_at_its_name(folder: Path, text: str) -> None:
    (folder / "mine.py").write_text(text)
    (folder / "s.yaml").write_text(BARE.format("mine.py"))
    (told,) = found(folder / "s.yaml")
    assert told.code == "E299"
    assert WRONG[text] in told.message
    assert told.span is not None and told.span.place == (5, 14)


def test_names_of_files(folder: Path) -> None:
    """A file that is not there, one that is no Python, one with the name of a module that is loaded already."""
    (folder / "torch.py").write_text("")
    for name, words in {
        "none.py": "is no Python file",
        "tiny.yaml": "is no Python file",
        "torch.py": "has the name of another module, torch: rename it",
    }.items():
        (folder / "s.yaml").write_text(BARE.format(name))
        (told,) = found(folder / "s.yaml")
        assert (told.code, words in told.message) == ("E299", True)


def test_all_that_is_wrong_is_told_at_once(folder: Path) -> None:
    (folder / "s.yaml").write_text(BARE.format("a.py, b.py"))
    assert [told.code for told in found(folder / "s.yaml", allowed=False)] == ["E298", "E298"]
    assert [told.code for told in found(folder / "s.yaml")] == ["E299", "E299"]


def test_a_constant_never_has_the_name_of_a_module(folder: Path) -> None:
    """The factor of a `scale` that differs from layer to layer beside a module called factor."""
    path = folder / "differential.py"
    path.write_text(path.read_text().replace('"difference", name, vector', '"factor", name, vector'))
    spec = tiny(folder)
    holds(spec, Layout())
