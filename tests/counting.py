"""What a run does: ops by name, and bytes that are alive."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Counting(TorchDispatchMode):
    """While it is on: how often each op ran, views aside, and the bytes of living storages that ops gave.

    `peak`: the most of them after an op. Single numbers do not count as bytes, nor do storages that are `known`.
    """

    def __init__(self, known: Iterable[int] = ()) -> None:
        super().__init__()
        self.ops: Counter[str] = Counter()
        self.bytes = self.peak = 0
        self._known = set(known)

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = op(*args, **(kwargs or {}))
        name = op.name().split("::")[1].split(".")[0]
        if not op.is_view and name != "_unsafe_view":
            self.ops[name] += 1
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._see(leaf)
        self.peak = max(self.peak, self.bytes)
        return result

    def _see(self, x: Tensor) -> None:
        storage = x.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known or size <= x.element_size():
            return
        self._known.add(key)
        self.bytes += size
        weakref.finalize(storage, self._freed, key, size)

    def _freed(self, key: int, size: int) -> None:
        self._known.remove(key)
        self.bytes -= size
