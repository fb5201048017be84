"""Prove that interpreter, generated file and layout compute the same. Imports torch."""

from __future__ import annotations

import sys

from specc.emit import emit
from specc.spec.core import Layout, Spec
from specc.verify.launch import RankDied
from specc.verify.relations import Relation, describe, layout_relations, not_finite, plain_relations, setting
from specc.verify.run import world_size
from specc.verify.shrink import least_ranks, shrink


def verify_layout(spec: Spec, layout: Layout, ranks: int) -> int:
    """Print one row a relation; 0 if all hold, 1 otherwise. Sizes and, where needed, the mesh shrink first.

    The file of the real size is written out, too: its digests say which one the proof stands for.
    """
    model, small = shrink(spec.model, layout, ranks)
    which = f", layout {layout.name}" if layout.name else ""
    note = "" if describe(small) == describe(layout) else f" in the place of {describe(layout)}: at most {ranks} ranks"
    layers = " + ".join(str(stack.layers) for stack in model.stacks)
    noun = "layer" if layers == "1" else "layers"
    digests = ", ".join(f"{name} {digits}" for name, digits in emit(spec, layout).digests)
    print(f"{spec.model.name}{which}: the file with {digests}")
    print(f"in small: {layers} {noun} of width {model.d_model}, fp64, dropout off")
    print(f"{describe(small)}{note}")
    found = setting(model, small)
    if bad := not_finite(found.reference):
        print(f"the model itself, as interpreted, is not finite at {bad}: there is nothing to compare with")
        return 1
    rows = plain_relations(found, small)
    if world_size(small) > 1:
        rows += layout_relations(found, small)
    return _print(rows)


def _print(rows: list[Relation]) -> int:
    width = max(len(row.name) for row in rows)
    print(f"{'relation':<{width}}  difference     bound")
    for row in rows:
        verdict = "ok" if row.holds else f"DIFFERS at {row.where}" if row.where else "DIFFERS"
        print(f"{row.name:<{width}}  {row.difference:10.2e}  {row.bound:8.0e}  {verdict}")
    bad = sum(not row.holds for row in rows)
    sys.stdout.flush()
    return 1 if bad else 0


__all__ = ["RankDied", "least_ranks", "verify_layout"]
