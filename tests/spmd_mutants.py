"""A generated file with one thing wrong in its tensor parallelism."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

COLLECTIVES = ("all_gather", "reduce_scatter", "all_reduce", "copy_to_shards", "shard")
WITH_DIM = ("shard",)
IMPORT = "\nfrom torch.distributed.tensor import Partial\n"  # where the file has no use for it, mutants have


@dataclass(frozen=True)
class Mutant:
    label: str  # "Attention: all_gather(x, 1, self.tp) -> x"
    source: str


def mutants(source: str) -> Iterator[Mutant]:
    """Collectives dropped or changed, parameters read with the other kind of gradient, common masks on shards."""
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    for name, call in _calls(ast.parse(source)):
        assert call.end_lineno is not None and call.end_col_offset is not None
        first = starts[call.lineno - 1] + call.col_offset
        last = starts[call.end_lineno - 1] + call.end_col_offset
        for text in _wrong(call):
            label = f"{name}: {source[first:last]} -> {text}"
            yield Mutant(label, f"{source[:first]}{text}{source[last:]}{IMPORT}")


def _calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    """Calls in the methods of each module, with its class."""
    for found in tree.body:
        for function in found.body if isinstance(found, ast.ClassDef) else ():
            if (
                isinstance(function, ast.FunctionDef)
                and function.name != "__init__"
                and function.args.args[0].arg == "self"
            ):
                yield from ((found.name, node) for node in ast.walk(function) if isinstance(node, ast.Call))


def _wrong(call: ast.Call) -> Iterator[str]:
    args = [ast.unparse(arg) for arg in call.args]
    called = ast.unparse(call.func)
    if called in COLLECTIVES:
        x, dim, axis = args[0], (*args[1:-1], "0")[0], args[-1]
        yield x
        for other in COLLECTIVES:
            if other != called:
                yield f"{other}({x}, {dim}, {axis})" if other in WITH_DIM else f"{other}({x}, {axis})"
    elif called == "shard_dropout":
        yield f"F.dropout({', '.join(args[:-1])})"
    elif called.endswith((".weight.to_local", ".bias.to_local")):
        yield f"{called}()" if call.keywords else f"{called}(grad_placements=[Partial()])"
