"""What ops declare, a module a family."""

from specc.ops.base import Facts, OpDef, Signature, Traffic

__all__ = ["Facts", "OpDef", "Signature", "Traffic"]
