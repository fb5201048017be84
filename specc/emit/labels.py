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
    end: Code | None  # what fills up those of a row; None where all have as many
    shown: Code  # what is predicted, in words
    rows: Code  # the part of predictions that is not filled up
    filled: Code  # the kernel that fills a batch up
    more: Code  # what that is told of labels


def labels(of: Context) -> Labels:
    """Those of the model's head."""
    op = next(op for op in of.graph.ops if op.kind == "input" and op.hint == "labels" and op.scope[:1] == ("loss",))
    axes, last = op.outs[0].axes, str(ident(of.graph.inputs[-1].hint))
    numbers, by_token = op.outs[0].dtype != "int64", _by_token(op)
    made = of.graph.type(of.graph.outputs[0]).axes
    words = ", ".join("seq" if axis.name in TOKEN_AXES else axis.name for axis in made)
    size = ", ".join(str(axis.size) for axis in axes)
    plain, blank = by_token and not (numbers or of.numbers), Code('float("nan")' if numbers else "-100")
    return Labels(
        counted=Code("that are numbers" if numbers else "other than -100"),
        real=Code("(~labels.isnan()).sum()" if numbers else "labels.ne(-100).sum()"),
        none=Code(_none(op, last, last in of.numbers)),
        size=Code(f"({size}{',' * (len(axes) == 1)})"),
        blank=blank,
        end=blank if by_token or len(axes) == 1 else None,
        shown=Code(f"{'Vectors' if numbers else 'Logits'} [{words}]"),
        rows=Code("[: shape[0], : shape[1]]" if by_token else "[: shape[0]]"),
        filled=Code("filled" if plain else "filled_of"),
        more=Code("" if plain else f", {1 + by_token}"),
    )


def _by_token(op: Op) -> bool:
    """Whether there are as many as tokens in the batch."""
    return any(axis.name in TOKEN_AXES and isinstance(axis.size, str) for axis in op.outs[0].axes)


def _none(op: Op, last: str, of_numbers: bool) -> str:
    """`last`: the input of whose rows and tokens the labels are; `of_numbers`: it is no whole numbers."""
    axes, numbers, by_token = op.outs[0].axes, op.outs[0].dtype != "int64", _by_token(op)
    if by_token and not numbers:
        return f"torch.full_like({last}, -100)"
    known = (str(axis.size) for axis in axes if isinstance(axis.size, int))
    shape = [f"*{last}.shape" if by_token else f"len({last})", *known]
    size = f"{', '.join(shape)}{',' * (len(shape) == 1)}"
    dtype = ", dtype=torch.int64" * of_numbers
    return f"{last}.new_full(({size}), {'torch.nan, dtype=REDUCE' if numbers else f'-100{dtype}'})"
