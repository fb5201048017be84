"""`specc init`: as many parameters as were asked for, sizes that 8 ranks share, a file that is built."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from specc.cli import cli
from specc.compile import compile_spec
from specc.cost.resize import resized
from specc.cost.shape import shape_of
from specc.emit import emit
from specc.ir.stored import total
from specc.lower import lower
from specc.source import Source
from specc.spec import Layout, Spec, load
from specc.tables import tables
from tests.toy import TOY

ROOT = Path(__file__).parents[1]
ZOO = ROOT / "specs" / "zoo"
SIZES = {"100M": 1e8, "125M": 1.25e8, "350M": 3.5e8, "1B": 1e9, "1.5B": 1.5e9, "3B": 3e9, "7B": 7e9, "8B": 8e9}
SIZES |= {"13B": 1.3e10, "34B": 3.4e10, "70B": 7e10, "180B": 1.8e11, "405B": 4.05e11, "500B": 5e11}


@dataclass(frozen=True)
class Run:
    """What the command did."""

    exit_code: int
    stdout: str
    stderr: str


def init(*arguments: str) -> Run:
    result = CliRunner().invoke(cli, ["init", *arguments], standalone_mode=False)
    if isinstance(result.exception, click.ClickException):
        return Run(2, result.stdout, result.exception.format_message())
    assert result.exception is None, result.exception
    return Run(result.return_value, result.stdout, result.stderr)


def spec_of(text: str) -> Spec:
    found = load(Source("s.yaml", text))
    assert isinstance(found, Spec), found
    return found


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("vocab", [32768, 128256])
def test_a_spec_has_the_parameters_that_were_asked_for(size: str, vocab: int) -> None:
    """Counted from its graph; what the search counted is the same."""
    result = init("--params", size, "--vocab", str(vocab))
    assert result.exit_code == 0, result.stderr
    model = spec_of(result.stdout).model
    count, shape = total(lower(model)), shape_of(SIZES[size], vocab)
    assert count == pytest.approx(SIZES[size], rel=0.05)
    assert shape is not None and shape.parameters == count and model.vocab == vocab
    assert f"# {count:,} parameters" in result.stdout


@pytest.mark.parametrize("size", SIZES)
def test_every_tp_up_to_8_is_legal(size: str) -> None:
    """Also what a node's layout says, which shares the sequence, too."""
    found = spec_of(init("--params", size).stdout)
    assert [layout.tp for layout in found.layouts] == [1, 8]
    for tp in (2, 4, 8):
        for sequence in (False, True):
            text = init("--params", size).stdout.replace(
                "tp: 8, sequence_parallel: true", f"tp: {tp}, sequence_parallel: {str(sequence).lower()}"
            )
            assert not compile_spec(spec_of(text), spec_of(text).layouts[1]).findings
    shape = shape_of(SIZES[size])
    assert shape is not None and not any(n % 8 for n in (shape.heads, shape.kv_heads, shape.hidden))
    assert shape.d_model % (1024 if shape.d_model >= 4096 else 128) == 0


@pytest.mark.parametrize("size", ["100M", "1B", "500B"])
def test_the_file_is_built(size: str) -> None:
    found = spec_of(init("--params", size).stdout)
    for layout in (*found.layouts, replace(found.layouts[1], tp=4, dp=2), Layout()):
        assert "class Attention(nn.Module):" in emit(found, layout).source


def test_every_size_between_has_a_shape() -> None:
    sizes = [1e8 * 1.07**n for n in range(126)]
    assert sizes[-1] > 4.5e11
    for size in sizes:
        shape = shape_of(size)
        assert shape is not None and shape.parameters == pytest.approx(size, rel=0.05)


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    assert init("--params", "1B", "-o", str(path)).exit_code == 0 and "name: decoder-1b" in path.read_text()
    result = init("--params", "3B", "-o", str(path))
    assert result.exit_code == 2 and "--force writes over it" in result.stderr and "decoder-1b" in path.read_text()
    assert init("--params", "3B", "-o", str(path), "--force", "--name", "three").exit_code == 0
    assert "name: three" in path.read_text()


@pytest.mark.parametrize("name", ["A b", "torch", "a: b", "a\nvocab: 7"])
def test_a_name_that_is_none_is_told_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    path = tmp_path / "small.yaml"
    result = init("--params", "1B", "--name", name, "-o", str(path))
    assert result.exit_code == 1 and "error[E206]" in result.stdout and "nothing is written" in result.stderr
    assert not path.exists()


LIKE = ("llama", "gemma3-text", "deepseek-v3", "kimi-linear", "nemotron-h", "t5gemma", "falcon-7b", "vit-base")


@pytest.mark.parametrize("name", LIKE)
def test_another_spec_is_scaled(name: str) -> None:
    """Loading the text checks its layout of tp = 8."""
    result = init("--params", "2B", "--like", name)
    assert result.exit_code == 0, result.stderr
    found, old = spec_of(result.stdout), spec_of((ZOO / f"{name}.yaml").read_text())
    count = total(lower(found.model))
    assert count == pytest.approx(2e9, rel=0.05) and f"# {count:,} parameters: {name} with" in result.stdout
    assert found.layouts[1].tp == 8 and not compile_spec(found, found.layouts[1]).findings
    assert found.model.name == f"{name.removesuffix('-7b')}-2b" and found.model.vocab == old.model.vocab

    def structure(spec: Spec) -> list[list[str]]:
        blocks = [block for stack in spec.model.stacks for run in stack.runs for block in run.blocks]
        components = [[type(b.component).__name__ for s in block.sublayers for b in s.branches] for block in blocks]
        return [each for n, each in enumerate(components) if each not in components[:n]]

    assert all(each in structure(old) for each in structure(found))
    ratio = [stack.layers / spec.model.d_model for spec in (found, old) for stack in spec.model.stacks[-1:]]
    assert 0.4 < ratio[0] / ratio[1] < 2.5


def test_layers_that_share_their_parameters_stay_as_many() -> None:
    """What is counted grows with d_model alone."""
    result = init("--params", "1B", "--like", "albert-base")
    assert result.exit_code == 0 and total(lower(spec_of(result.stdout).model)) == pytest.approx(1e9, rel=0.05)


def test_what_is_scaled_is_built_and_keeps_comments(tmp_path: Path) -> None:
    text = (ZOO / "llama.yaml").read_text().replace("d_model: 4096", "d_model: 4096  # wide")
    (tmp_path / "mine.yaml").write_text(f"# of old\n{text}layout: {{tp: 2}}\n")
    result = init("--params", "350M", "--like", str(tmp_path / "mine.yaml"), "--vocab", "1000", "--name", "other")
    found = spec_of(result.stdout)
    assert "# wide" in result.stdout and "# of old" not in result.stdout and "node" not in result.stdout
    assert (found.model.name, found.model.vocab, [layout.tp for layout in found.layouts]) == ("other", 1000, [2])
    assert "class Attention(nn.Module):" in emit(found, found.layouts[0]).source


def test_a_component_of_one_size_is_told_at_its_place() -> None:
    text = (ROOT / "specs" / "tiny" / "llama-tiny.yaml").read_text()
    source = Source("s.yaml", text.replace("- ffn:", "- bottleneck: {}\n    - ffn:", 1))
    found = load(source, tables((TOY,)))
    assert isinstance(found, Spec), found
    made = resized(found, source, 1e9, lambda model: total(lower(model)), "other")
    assert isinstance(made, list) and [item.code for item in made] == ["E711"]
    assert made[0].span is not None and source.text[made[0].span.start : made[0].span.end] == "bottleneck"


def test_a_count_that_no_size_has_is_told() -> None:
    """A pattern of which the head alone is longer than a model of so many parameters is deep."""
    result = init("--params", "1B", "--like", "lfm2-8b-a1b")
    assert result.exit_code == 1 and "error[E712]" in result.stdout and "d_model: 2048" in result.stdout
    assert "help: the nearest has 12 layers, but the pattern has 19 in its head" in result.stdout
    assert init("--params", "8B", "--like", "lfm2-8b-a1b").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--like", "lama"], "there is no spec lama, and a file ends in .yaml; did you mean llama?"),
        (["--like", "nothing"], "there are albert-base, apertus"),
        (["--like", "vit-base", "--vocab", "7"], "vit-base has no vocab: leave --vocab out"),
    ],
)
def test_what_cannot_be_scaled_is_two(arguments: list[str], said: str) -> None:
    result = init("--params", "1B", *arguments)
    assert result.exit_code == 2 and said in result.stderr


def test_what_has_no_shape_says_so() -> None:
    result = init("--params", "3M")
    assert result.exit_code == 2 and "give it more, or a smaller --vocab" in result.stderr
    assert init("--params", "3M", "--vocab", "1024").exit_code == 0
