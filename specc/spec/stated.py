"""Where a value of a component comes from, in blocks that are like others too."""

from __future__ import annotations

from specc.source import Node, Path, find
from specc.spec.core import Branch
from specc.spec.report import Report


def stated(root: Node, branch: Branch, path: Path) -> Path | None:
    """Where the document states the value of the component that stands; None: nowhere, it is a default."""
    for place in (branch.at, *branch.under):
        for n in range(1, len(path) + 1):
            node = find(root, (*place, *path[:n]))
            if node is None:
                break
            if node.value is None:
                return None  # null restores the default
            if n == len(path):
                return (*place, *path)
    return None


def place(report: Report, branch: Branch, path: Path) -> Path:
    """Where a value of a component is stated, or would be."""
    return stated(report.root, branch, path) or (*branch.at, *path)
