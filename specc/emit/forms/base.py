"""What a module looks like that holds the parameters of one kind of op."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Values = Mapping[str, str]
"""Parameters as the module reads them, by name; those that no leaf has are not there."""


@dataclass(frozen=True)
class Split:
    """How a class is called and described if a mesh axis splits a size: `{}` stands for the axis."""

    prefix: str
    doc: str


@dataclass(frozen=True)
class Form:
    """A module of one role, and of one lowering if `when` says so.

    `params` gives each parameter's shape by names of sizes; all but the first are optional. `sizes` are the arguments
    of the constructor, `attrs` those that are attributes of the op. `call` writes the lines of forward; `optional` are
    parameters that may be None. `lookup` does so of a table, given the table and how rows of it are cast: so gradients
    of the table are summed in its own type. A form without `inputs` has no forward: what surrounds it reads the
    parameters.
    """

    role: str
    name: str
    doc: str
    params: Mapping[str, tuple[str, ...]]
    sizes: tuple[str, ...]
    inputs: str = ""
    call: Callable[[Values, bool], list[str]] = lambda values, optional: []
    attrs: tuple[str, ...] = ()
    splits: Mapping[str, Split] = field(default_factory=dict[str, Split])
    when: str = ""
    torch: tuple[str, ...] = ()  # parameters that torch's class of that name has
    ends: str = ""  # of the description, if surrounding code adds the bias
    init: Callable[[bool, str], list[str]] = lambda uneven, axis: []
    lookup: Callable[[str, str], list[str]] | None = None
