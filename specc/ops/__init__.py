"""The table of ops."""

from specc.ops import attention, control, matmul, norm, pointwise, sources
from specc.ops.base import Facts, OpDef, Signature

OPS: tuple[OpDef, ...] = (
    *sources.OPS,
    *matmul.OPS,
    *norm.OPS,
    *attention.OPS,
    *pointwise.OPS,
    *control.OPS,
)

_BY_KIND = {definition.kind: definition for definition in OPS}


def definition(kind: str) -> OpDef:
    """The declaration of a kind of op. Raises KeyError."""
    return _BY_KIND[kind]


__all__ = ["OPS", "Facts", "OpDef", "Signature", "definition"]
