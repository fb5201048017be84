"""Results that checkpointing keeps by name: `checkpoint(block, x, use_reentrant=False, context_fn=keep)`.

A scope `with kept(name):` holds one op and the collective after it. Their last result is kept, and in the recomputation
neither runs: of what the collective takes only the shape is kept, and should backward need it, it gets NaN. Where torch
computes an op in several steps (attention that no fused kernel fits) the steps before the last run again.
"""

import math
import threading

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only


class Current(threading.local):
    """The tape of the checkpointed call that runs on this thread."""

    tape: "Tape | None" = None


current = Current()


class Tape:
    """What the scopes in one checkpointed call keep: written when it first runs, read whenever it runs again."""

    def __init__(self, scopes: list[list], again: bool):
        self.scopes, self.again = scopes, again

    def __enter__(self) -> None:
        self.outer = current.tape
        self.rest = iter(self.scopes)
        current.tape = self

    def __exit__(self, *error) -> None:
        current.tape = self.outer

    def scope(self) -> list:
        """What the next scope keeps of each step: op, result (None: run it again), tensors with counts of changes."""
        if not self.again:
            self.scopes.append([])
        return next(self.rest)


def keep() -> tuple[Tape, Tape]:
    """Contexts of a checkpointed call and of its recomputation."""
    scopes: list[list] = []
    return Tape(scopes, False), Tape(scopes, True)


def hollow(x: Tensor) -> Tensor:
    """NaN of that shape in the memory of one number."""
    return x.new_full((), math.nan).expand_as(x) if x.is_floating_point() else x.detach()


def tensors(x) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(x) if isinstance(leaf, Tensor)]


def memory(x) -> set[int]:
    return {leaf.untyped_storage()._cdata for leaf in tensors(x)}


class kept(TorchDispatchMode):
    """Around one op and its collective: the last result is kept, so that neither runs again.

    Raises RuntimeError where a tensor was changed in place that must not be, or another op runs than before.
    """

    def __init__(self, name: str):
        super().__init__()
        self.name, self.tape = name, current.tape
        self.steps = self.tape.scope() if self.tape else []
        self.rest = iter(self.steps)
        self.ran: list = []
        self.moved: list = []
        self.reduced = 0  # that many steps lead to a collective

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        aten = torch.ops.aten
        moves = op.is_view or op in (aten._unsafe_view.default, aten.clone.default, aten._to_copy.default)
        if self.tape is None or moves:
            result = op(*args, **(kwargs or {}))
            self.moved += [result] if self.ran else []
            return result
        if self.tape.again:
            step, result, before = next(self.rest, (None, None, []))
            if op is not step or any(x._version != version for x, version in before):
                raise RuntimeError(f"kept {self.name}: {op} was {step} before, or its result was changed in place")
            return op(*args, **(kwargs or {})) if result is None else tree_map_only(Tensor, Tensor.detach, result)
        if op._schema.is_mutable and not memory(args[0]) <= memory(self.ran):
            raise RuntimeError(f"kept {self.name}: {op} changes in place what was made outside")
        result = op(*args, **(kwargs or {}))
        if op.namespace == "_c10d_functional":
            self.reduced = len(self.ran)
        self.ran.append((op, result))
        return result

    def __exit__(self, *error) -> None:
        super().__exit__(*error)
        for n, (op, result) in enumerate(self.ran):
            again, aliases = None, []
            if memory(result) <= memory(self.ran[-1]):
                again = tree_map_only(Tensor, Tensor.detach, result)
                aliases = [x.detach() for x in tensors([result, self.moved]) if memory(x) <= memory(result)]
            elif n < self.reduced:
                again = tree_map_only(Tensor, hollow, result)
            self.steps.append((op, again, [(x, x._version) for x in aliases]))
