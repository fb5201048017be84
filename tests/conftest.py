"""One thread a process: tests start many, on few cores."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
logging.getLogger("torch.distributed.tensor").setLevel(logging.ERROR)  # on every full_tensor over two axes

settings.register_profile("ci", max_examples=16, deadline=None, derandomize=True)
settings.register_profile("nightly", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(autouse=True)
def _default_dtype() -> Iterator[None]:
    """Whatever a test sets, the next one starts with torch's own default."""
    yield
    torch.set_default_dtype(torch.float32)
