"""What kernels of torch keep and take, by kind of op: held against torch itself by tests/test_saved.py."""

from __future__ import annotations

from collections.abc import Mapping

from specc.cost.rows import attention, dense, ends, experts, recurrent
from specc.cost.saved import Row

ROWS: Mapping[str, Row] = {**dense.ROWS, **attention.ROWS, **experts.ROWS, **ends.ROWS, **recurrent.ROWS}
