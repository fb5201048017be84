"""Results that checkpointing keeps by name: `checkpoint(block, x, use_reentrant=False, context_fn=keep)`.

A scope `with kept(name):` holds one op and the collective after it. Their last result is kept, and in the recomputation
nothing of the scope runs. What the collective reduces must not be needed by backward: it comes back as NaN.
"""

import math
import threading

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only


class Current(threading.local):
    """The tape of the checkpointed call that runs on this thread."""

    tape: "Tape | None" = None


current = Current()


class Tape:
    """Results kept in one checkpointed call: written when it first runs, read whenever it runs again."""

    def __init__(self, results: list, again: bool):
        self.results, self.again = results, again

    def __enter__(self) -> None:
        self.outer = current.tape
        self.rest = iter(self.results)
        current.tape = self

    def __exit__(self, *error) -> None:
        current.tape = self.outer


def keep() -> tuple[Tape, Tape]:
    """Contexts of a checkpointed call and of its recomputation."""
    results: list = []
    return Tape(results, False), Tape(results, True)


def hollow(x: Tensor) -> Tensor:
    """NaN of that shape in the memory of one number."""
    return x.new_full((), math.nan).expand_as(x)


class kept(TorchDispatchMode):
    """Around one op and its collective: the last result is kept, so that neither runs again."""

    def __init__(self, name: str):
        super().__init__()
        self.tape = current.tape
        self.start = len(self.tape.results) if self.tape else 0

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        if self.tape is None or op.is_view:
            return op(*args, **(kwargs or {}))
        if self.tape.again:
            return tree_map_only(Tensor, Tensor.detach, next(self.tape.rest))
        result = op(*args, **(kwargs or {}))
        if op.namespace == "_c10d_functional":  # of what it takes, the recomputation needs the shape only
            self.tape.results[self.start :] = tree_map_only(Tensor, hollow, self.tape.results[self.start :])
        self.tape.results.append(tree_map_only(Tensor, Tensor.detach, result))
        return result
