"""Findings about results kept by name: exactly where keeping saves no work, and where gradients would be wrong."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from specc import SpecError, load
from specc.cli import cli
from specc.components.attention import Attention
from specc.components.ffn import Ffn
from specc.components.heads import resolved
from specc.components.norm import Norm
from specc.lower import lower
from specc.passes import compile_graph
from specc.passes.saves import save_findings
from specc.source import Diagnostic
from specc.spec.core import Block, Branch, Checkpoint, Embed, Layout, Model, Pipeline, Sublayer
from specc.spec.layout_rules import save_names
from tests import zoo
from tests.comm import fake_group, tokens
from tests.counting import Counting
from tests.files import file_of
from tests.models import D_MODEL, decoder_only, gpt2, llama, llama_block, sublayer, transformer

MODES = {"one": Layout(), "tp": Layout(tp=2), "sp": Layout(tp=2, sequence_parallel=True)}
NAMES = ("llama-tiny", "gpt2-tiny", "transformer-tiny", "hybrid-tiny")


def ops_of_a_step(model: Model, layout: Layout) -> Counter[str]:
    """All ops that a rank runs in forward and backward of a file in train mode, hollow stand-ins aside."""
    with fake_group(layout.tp) if layout.tp > 1 else nullcontext():
        file = file_of(model, layout)
        mesh = [file.device_mesh("cpu")] if layout.tp > 1 else []
        module = file.build_model(*mesh, torch.device("cpu"), 0).train()
        with Counting() as count:
            module(*tokens(model)).sum().backward()
    return Counter({name: n for name, n in count.ops.items() if name != "new_full"})


@pytest.mark.parametrize(("name", "mode"), zoo.spread(NAMES, MODES, 3))
def test_keeping_is_vain_exactly_where_it_is_said(name: str, mode: str) -> None:
    model, layout = zoo.still(zoo.spec(name).model), MODES[mode]
    full = ops_of_a_step(model, replace(layout, checkpoint=Checkpoint(every=1)))
    vain, said = [], []
    for result in save_names(model):
        saving = replace(layout, checkpoint=Checkpoint(save=(result,)))
        ops = ops_of_a_step(model, saving)
        assert not ops - full
        vain += [result] * (ops == full)
        said += [result for item in findings(model, saving) if item.code == "W501"]
    assert said == vain
    assert vain == (["ffn.down"] if name == "llama-tiny" else [])  # others have a norm behind some ffn.down


def findings(model: Model, layout: Layout) -> list[Diagnostic]:
    return save_findings(compile_graph(lower(model), layout), layout)


def codes(model: Model, *names: str, layout: Layout = MODES["sp"]) -> list[tuple[str, str]]:
    found = findings(model, replace(layout, checkpoint=Checkpoint(save=names)))
    return [(item.code, next(name for name in names if name in item.message)) for item in found]


def test_the_last_op_of_a_block_saves_nothing() -> None:
    assert codes(llama(), "attention.core", "ffn.down", "attention.o", "ffn.up") == [("W501", "ffn.down")]
    assert codes(llama(), "ffn.down", layout=replace(MODES["sp"], pp=Pipeline(3))) == [("W501", "ffn.down")]
    assert codes(transformer(), "ffn.down") == []  # a norm comes after it


def test_what_runs_before_another_branch_pays() -> None:
    """Recomputation goes through a block in order, so what stands before something needed runs, needed there or not."""
    norm = Norm().resolved()
    branches = tuple(Branch(name, Ffn(hidden=8), ()) for name in ("one", "two"))
    block = Block("block", (Sublayer(branches, norm=norm),), ())
    model = decoder_only("parallel", (block,), 2, Embed(1.0, None, 0.0, ()), norm)
    assert codes(model, "one.down", "two.down") == [("W501", "two.down")]


def test_a_name_pays_where_some_block_runs_less_again() -> None:
    norm = Norm(kind="rms", eps=1e-2).resolved()
    after = Block("after", (sublayer("ffn", Ffn(hidden=8), norm, post=True),), ("decoder", "after"))
    for blocks in ((llama_block("before"), after), (after, llama_block("before"))):
        model = decoder_only("mixed", blocks, 4, Embed(1.0, None, 0.0, ()), norm)
        assert codes(model, "ffn.down", "attention.core") == []
        assert codes(decoder_only("one", blocks[:1], 2, Embed(1.0, None, 0.0, ()), norm), "ffn.down") == (
            [("W501", "ffn.down")] if blocks[0].name == "before" else []
        )


def test_what_draws_is_not_kept_before_what_draws() -> None:
    assert codes(gpt2(dropout=0.1), "attention.q", "ffn.up", "attention.core") == [("E413", "attention.core")]
    assert codes(transformer(dropout=0.1), "cross_attention.core") == [("E413", "cross_attention.core")]
    assert codes(gpt2(), "attention.core") == []
    (finding,) = findings(gpt2(dropout=0.1), Layout(checkpoint=Checkpoint(save=("attention.core",))))
    assert finding.severity == "error" and "and so does dropout after it" in finding.message
    dropping = resolved(Attention(heads=4, dropout=0.1), D_MODEL)
    norm = Norm(kind="rms", eps=1e-2).resolved()
    quiet = Block("quiet", (sublayer("attention", dropping, norm), sublayer("ffn", Ffn(hidden=8), norm)), ())
    loud = Block("loud", (*quiet.sublayers, sublayer("ffn2", Ffn(hidden=8), norm, dropout=0.1)), ())
    embed = Embed(1.0, None, 0.1, ())  # outside of layers draws what is not run again
    assert codes(decoder_only("last", (quiet,), 2, embed, norm), "attention.core") == []
    for blocks in ((quiet, loud), (loud, quiet)):
        assert codes(decoder_only("some", blocks, 2, embed, norm), "attention.core") == [("E413", "attention.core")]


def test_a_name_that_no_layer_has_is_a_bug() -> None:
    with pytest.raises(ValueError, match=r"no layer has a result attention\.cor$"):
        codes(llama(), "attention.cor")


SPEC = """\
specc: 1
name: told
d_model: 16
vocab: 32
max_seq: 16
norm: {kind: rms}
decoder:
  layers: 2
  block:
    - attention: {heads: 2, dropout: DROP}
    - ffn: {kind: gated, hidden: 32}
    - ffn: {kind: gated, hidden: 32, dropout: DROP}
layouts:
  one: {}
  saving:
    checkpoint:
      save: [attention.core, ffn2.down]
"""


@pytest.mark.parametrize("command", ["check", "build", "plan", "verify"])
def test_users_are_told_with_the_place(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "told.yaml"

    def run(drop: str, folder: str) -> tuple[int, str, bool]:
        path.write_text(SPEC.replace("DROP", drop))
        options = [] if command == "check" else ["--layout", "saving"]
        options += ["-o", str(tmp_path / folder)] if command == "build" else []
        code = cli.main([command, str(path), *options], standalone_mode=False)
        return code, capsys.readouterr().out, (tmp_path / folder).exists()

    code, out, written = run("0.0", "vain")
    assert (code, written) == (0, command == "build")
    assert "warning[W501]: keeping ffn2.down saves nothing" in out and out.count("warning[") == 1
    assert f"{path}:17:30" in out
    code, out, written = run("0.1", "wrong")
    assert (code, written) == (1, False)
    assert "error[E413]: attention.core draws random numbers" in out and f"{path}:17:14" in out
    with pytest.raises(SpecError, match="draws random numbers"):
        load(path)
