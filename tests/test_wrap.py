"""Lines that are too long are broken as the formatter breaks them."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from specc.emit.wrap import wrapped

VALUE = "Block(attention=Attention(heads=4, head_dim=8, kv_heads=4), ffn=FeedForward(64){})"
LAYERS = "x = nn.ModuleDict({{str(i): {} for i in range(2, 4)}})"


@pytest.mark.parametrize("more", ["", ", a=12345", ", a=1234567890, b=1234567890", ", a=1234567890, b=1234567890" * 2])
def test_a_comprehension_has_no_comma_behind_it(more: str) -> None:
    source = "\n".join(wrapped(LAYERS.format(VALUE.format(more)))) + "\n"
    ast.parse(source)
    ruff = [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length", "120", "-"]
    done = subprocess.run(ruff, input=source, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, source)
