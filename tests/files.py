"""Generated files as modules."""

from __future__ import annotations

from functools import cache
from types import ModuleType

import torch
from torch import nn

from specc.emit import emit
from specc.spec.core import Layout, Model, Spec
from specc.verify.run import load_file


@cache
def source_of(model: Model, layout: Layout) -> str:
    return emit(Spec(model, (layout,)), layout).source


def file_of(model: Model, layout: Layout = Layout()) -> ModuleType:  # noqa: B008 (frozen)
    return load_file(source_of(model, layout), "file")


def on_meta(file: ModuleType) -> nn.Module:
    """The model of a file without a mesh, in full size: no memory, no values."""
    file.__dict__["init_weights"] = lambda *_: None
    return file.build_model(torch.device("meta"), 0)
