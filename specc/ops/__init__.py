"""What ops declare, a module a family."""

from specc.ops.base import Facts, OpDef, Signature, Traffic
from specc.ops.work import Local, Matmul, Passes, Work

__all__ = ["Facts", "Local", "Matmul", "OpDef", "Passes", "Signature", "Traffic", "Work"]
