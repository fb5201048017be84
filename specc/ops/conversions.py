"""What generated code can do to go from one placement on a mesh axis to another, and what that costs.

The checker's table is its own, and larger: it has every sound conversion.
"""

from __future__ import annotations

from dataclasses import dataclass

from specc.ir.types import Place


@dataclass(frozen=True)
class Conversion:
    """Kinds of the placements, and the kernel that does it.

    `moved`: elements for each element of the full value, forward and backward. `forward` and `backward` are the
    collectives that ranks run, empty for none.
    """

    source: str
    target: str
    kernel: str
    moved: int
    forward: str = ""
    backward: str = ""


CONVERSIONS = (
    Conversion("P", "I", "all_reduce", 2, "all-reduce"),
    Conversion("P", "R", "sum_for_shards", 4, "all-reduce", "all-reduce"),
    Conversion("P", "S", "reduce_scatter", 2, "reduce-scatter", "all-gather"),
    Conversion("I", "R", "copy_to_shards", 2, "", "all-reduce"),
    Conversion("S", "R", "all_gather", 2, "all-gather", "reduce-scatter"),
    Conversion("S", "I", "all_gather_whole", 2, "all-gather"),
    Conversion("R", "S", "shard", 0),
    Conversion("S", "S", "swap_shards", 1, "all-to-all", "all-to-all"),
)
_BY_KINDS = {(item.source, item.target): item for item in CONVERSIONS}


def conversion(source: Place, target: Place) -> Conversion | None:
    """None where there is none."""
    return _BY_KINDS.get((source.kind, target.kind))
