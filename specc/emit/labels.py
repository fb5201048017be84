"""Labels in the words of a file: of what shape they are, which of them count, and what fills them up."""

from __future__ import annotations

from dataclasses import dataclass

from specc.emit.code import Code, ident
from specc.emit.context import Context
from specc.ir.op import Op
from specc.ir.types import TOKEN_AXES


@dataclass(frozen=True)
class Labels:
    """Of classes, -100 where there is none, or numbers, NaN where there is none."""

    counted: Code  # which count, in words
    real: Code  # how many do
    none: Code  # of the shape of a batch's, none that counts
    size: Code  # those of a batch, as a tuple
    blank: Code  # what fills them up
    shown: Code  # what is predicted, in words
    rows: Code  # the part of predictions that is not filled up
    filled: Code  # the kernel that fills a batch up
    more: Code  # what that is told of labels


def labels(of: Context) -> Labels:
    """Those of the model's head."""
    op = next(op for op in of.graph.ops if op.kind == "input" and op.hint == "labels" and op.scope[:1] == ("loss",))
    axes, last = op.outs[0].axes, str(ident(of.graph.inputs[-1].hint))
    numbers, by_token = op.outs[0].dtype != "int64", any(axis.name in TOKEN_AXES for axis in axes)
    made = of.graph.type(of.graph.outputs[0]).axes
    words = ", ".join("seq" if axis.name in TOKEN_AXES else axis.name for axis in made)
    size = ", ".join(str(axis.size) for axis in axes)
    plain = by_token and not numbers
    return Labels(
        counted=Code("that are numbers" if numbers else "other than -100"),
        real=Code("(~labels.isnan()).sum()" if numbers else "labels.ne(-100).sum()"),
        none=Code(_none(op, last)),
        size=Code(f"({size}{',' * (len(axes) == 1)})"),
        blank=Code('float("nan")' if numbers else "-100"),
        shown=Code(f"{'Vectors' if numbers else 'Logits'} [{words}]"),
        rows=Code("[: shape[0], : shape[1]]" if by_token else "[: shape[0]]"),
        filled=Code("filled" if plain else "filled_of"),
        more=Code("" if plain else f", {1 + by_token}"),
    )


def _none(op: Op, last: str) -> str:
    """`last`: the input of whose rows and tokens the labels are."""
    axes, numbers = op.outs[0].axes, op.outs[0].dtype != "int64"
    by_token = any(axis.name in TOKEN_AXES for axis in axes)
    if by_token and not numbers:
        return f"torch.full_like({last}, -100)"
    known = (str(axis.size) for axis in axes if isinstance(axis.size, int))
    shape = [f"*{last}.shape" if by_token else f"len({last})", *known]
    size = f"{', '.join(shape)}{',' * (len(shape) == 1)}"
    return f"{last}.new_full(({size}), {'torch.nan, dtype=REDUCE' if numbers else '-100'})"
