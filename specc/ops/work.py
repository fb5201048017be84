"""What an op makes a device do: operations and bytes, forward and backward, as one rank sees the op."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

from specc.ir.op import Op
from specc.ir.types import TensorType


@dataclass(frozen=True)
class Matmul:
    """`count` products [m, k] x [k, n].

    `layout` says which operand is transposed in memory: `nt` the second, as in a linear, `nn` none, as in the gradient
    of its input, `tn` the first, as in the gradient of its weight.
    """

    m: int
    n: int
    k: int
    layout: str = "nt"
    count: int = 1

    @property
    def flops(self) -> int:
        return 2 * self.m * self.n * self.k * self.count

    @property
    def elements(self) -> int:
        """Read and written."""
        return self.count * (self.m * self.k + self.k * self.n + self.m * self.n)


@dataclass(frozen=True)
class Work:
    """One pass of an op. Products are kernels of their own; what else there is are `kernels`.

    `flops` are what these kernels do beside the products, as torch's FlopCounterMode counts: of attention all pairs.
    `done` is the part of them that is really done where a kernel leaves some out. `bytes` are those that the kernels
    read and write.
    """

    matmuls: tuple[Matmul, ...] = ()
    flops: int = 0
    bytes: int = 0
    kernels: int = 0
    done: float = 1.0


@dataclass(frozen=True)
class Passes:
    """`engine` is what limits the kernels: `memory`, or what multiplies matrices inside of them: `fused`."""

    forward: Work
    backward: Work = Work()
    engine: str = "memory"

    def counted(self, work: Work) -> int:
        """Flops of one of them that are of products, in kernels of their own or not."""
        return sum(product.flops for product in work.matmuls) + work.flops * (self.engine == "fused")


@dataclass(frozen=True)
class Local:
    """An op as one rank sees it: all axes have its own sizes, which are numbers. `element`: bytes of one, by dtype."""

    op: Op
    ins: tuple[TensorType, ...]
    outs: tuple[TensorType, ...]
    element: Mapping[str, int]
    flops: int  # of a forward pass, as its OpDef says
    reads: bool  # whether backward reads operands or results again

    def bytes(self, *types: TensorType) -> int:
        """Of all of these."""
        return sum(type.numel({}) * self.element[type.dtype] for type in types)

    def param(self, n: int) -> int:
        """Elements of a parameter."""
        return prod(axis.length for axis in self.op.params[n].axes)

    @property
    def weights(self) -> int:
        """Bytes of its parameters, in the dtype that they are used in, which is that of what it makes."""
        return self.element[self.outs[0].dtype] * sum(map(self.param, range(len(self.op.params))))

    @property
    def graded(self) -> tuple[TensorType, ...]:
        """Operands that carry gradient."""
        return tuple(type for type in self.ins if type.grad)

    @property
    def trained(self) -> bool:
        """Whether it has parameters with a gradient."""
        return any(param.trained for param in self.op.params)


Worker = Callable[[Local], Passes]
