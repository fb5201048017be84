"""Bytes of tensors that are alive, and what autograd keeps: what `specc.cost` is held against."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Track(TorchDispatchMode):
    """`live` and `peak` of the storages that ops make or take; what C++ kernels take and give back is not seen."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.at = ""
        self.sizes: dict[int, int] = {}
        self.storages: dict[int, weakref.ref[Any]] = {}

    def see(self, tensor: Tensor) -> None:
        """Count its storage, if it is not counted yet."""
        local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        storage = local.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self.sizes:
            self.live += size - self.sizes[key]
        else:
            self.live += size
            self.storages[key] = weakref.ref(storage)
            weakref.finalize(storage, self._freed, key)
        self.sizes[key] = size
        self.peak = max(self.peak, self.live)

    def _freed(self, key: int) -> None:
        self.live -= self.sizes.pop(key)
        del self.storages[key]

    def again(self) -> None:
        """Storages of FSDP change their sizes."""
        for key, known in [*self.storages.items()]:
            storage = known()
            if storage is not None and storage.nbytes() != self.sizes[key]:
                self.live += storage.nbytes() - self.sizes[key]
                self.sizes[key] = storage.nbytes()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented
        self.again()
        result = func(*args, **(kwargs or {}))
        before = self.peak
        for leaf in tree_leaves((result, args)):
            if isinstance(leaf, Tensor) and leaf.device.type != "meta":
                self.see(leaf)
        if self.peak > before:
            self.at = func.name()
        return result


@contextmanager
def kept() -> Iterator[list[Tensor]]:
    """What autograd saves meanwhile, one tensor a storage."""
    found: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        found.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    told: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield told
    told += found.values()
    found.clear()  # hooks live as long as what autograd saved
