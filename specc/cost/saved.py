"""What the kernel of an op keeps for its backward beside operands and results, and what it takes for a while."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from specc.cost.sizes import Sizes
from specc.ir.op import Op


@dataclass(frozen=True)
class Saved:
    """Bytes on one rank.

    `values` are operands and results that backward needs ("in0", "out0"), "weights" parameters in the dtype of use,
    "weight" the first of them; `extra` the kernel's own tensors, by what they are. `forward` and `backward` are needed
    at most for a while, beside what is kept, results, and gradients. `view`: results are the storage of the first
    operand. `through`: operands whose gradient is the result's own. `kernel`: it is one kernel of torch, which a policy
    can keep with the first `results` of its own tensors; of one that has a label what is made in `between` is, too.
    `own_gradient`: that of the first operand is made in the first of its own tensors, if that is as large.
    """

    values: tuple[str, ...] = ()
    extra: tuple[tuple[str, int], ...] = ()
    forward: int = 0
    backward: int = 0
    view: bool = False
    through: tuple[int, ...] = ()
    kernel: bool = True
    results: int = 0
    own_gradient: bool = False
    between: int = 0

    @property
    def bytes(self) -> int:
        """Of its own tensors."""
        return sum(size for _, size in self.extra)


Row = Callable[[Op, Sizes], Saved]
"""What `Sizes.on` names is whose kernels they are: those of torch on a CPU, or on CUDA."""
