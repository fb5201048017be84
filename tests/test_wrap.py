"""Lines that are too long are broken as the formatter breaks them."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from specc.emit import emit
from specc.emit.wrap import wrapped
from specc.source import Source
from specc.spec import Spec, load

VALUE = "Block(attention=Attention(heads=4, head_dim=8, kv_heads=4), ffn=FeedForward(64){})"
LAYERS = "x = nn.ModuleDict({{str(i): {} for i in range(2, 4)}})"


@pytest.mark.parametrize("more", ["", ", a=12345", ", a=1234567890, b=1234567890", ", a=1234567890, b=1234567890" * 2])
def test_a_comprehension_has_no_comma_behind_it(more: str) -> None:
    source = "\n".join(wrapped(LAYERS.format(VALUE.format(more)))) + "\n"
    ast.parse(source)
    ruff = [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length", "120", "-"]
    done = subprocess.run(ruff, input=source, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, source)


def test_a_signature_opens_its_parameters_not_what_it_returns() -> None:
    takes = ", ".join(f"table{n}: Tensor" for n in range(6))
    rows = wrapped(f"    def attend(self, x: Tensor, {takes}) -> tuple[Tensor, Tensor]:")
    assert rows == ["    def attend(", f"        self, x: Tensor, {takes}", "    ) -> tuple[Tensor, Tensor]:"]


TERM = "positions[:, None] // 3 == positions // 3"


@pytest.mark.parametrize("count", [3, 4])
@pytest.mark.parametrize("head", ["hunk = ", "return "])
def test_a_chain_of_operators_stands_in_brackets(head: str, count: int) -> None:
    value = " & ".join([f"({TERM})"] * count + ["real[:, None, None]"])
    body = wrapped(f"    {head}{value}")
    source = "\n".join(["def made(positions, real):", *body]) + "\n"
    ruff = [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length", "120", "-"]
    done = subprocess.run(ruff, input=source, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, source)


MANY_TABLES = (
    "specc: 1\nname: m\nd_model: 512\nvocab: 32000\nblocks:\n{}decoder: {{layers: 36, pattern: [{}]}}\nlayout: {}\n"
)


@pytest.mark.parametrize("layout", ["{}", "{tp: 2, pp: 2, checkpoint: full}", "{pp: 2, checkpoint: {every: 2}}"])
def test_layers_that_read_many_tables_fit_the_line(layout: str) -> None:
    """One call with a choice for each operand where that fits, else a call for each block."""
    for count in (2, 4, 12):
        blocks = "".join(
            f"  b{n}: [attention: {{heads: 8, rope: {{theta: {1000 + n}}}}}, ffn: {{hidden: 512}}]\n"
            for n in range(count)
        )
        text = MANY_TABLES.format(blocks, ", ".join(f"b{n}" for n in range(count)), layout)
        spec = load(Source("s.yaml", text))
        assert isinstance(spec, Spec), spec
        source = emit(spec, spec.layout()).source
        assert max(map(len, source.splitlines())) <= 120
        ruff = [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length", "120", "-"]
        assert subprocess.run(ruff, input=source, capture_output=True, text=True).stdout == source
