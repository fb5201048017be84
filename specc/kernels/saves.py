"""Results that checkpointing keeps by name: `checkpoint(block, x, use_reentrant=False, context_fn=keep)`.

A scope `with kept(name):` holds one op and the collective after it. Their last result is kept, and in the recomputation
nothing of the scope runs. Results inside it must not be needed by backward: they come back as NaN.
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


class kept(TorchDispatchMode):
    """Around one op and its collective: the last result is kept, so that neither runs again."""

    def __init__(self, name: str):
        super().__init__()
        self.tape = current.tape
        self.first = True

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        if self.tape is None or op.is_view:
            return op(*args, **(kwargs or {}))
        if self.tape.again:
            return tree_map_only(Tensor, Tensor.detach, next(self.tape.rest))
        result = op(*args, **(kwargs or {}))
        if not self.first:  # of the result before, the recomputation needs the shape only
            before = self.tape.results.pop()
            self.tape.results.append(before.new_full((), math.nan).expand_as(before))
        self.first = False
        self.tape.results.append(tree_map_only(Tensor, Tensor.detach, result))
        return result
