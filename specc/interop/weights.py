"""Folders of weights, from one naming to the other; everything is checked before a tensor is read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from specc.interop.files import SHARD, Coming, Entry, Folder, open_folder, write_folder
from specc.interop.move import Inexact, joined, to_file
from specc.interop.packed import mxfp4
from specc.interop.plan import Part, Plan, Tensor
from specc.source import Diagnostic, plural

UNPACKED = {"mxfp4": mxfp4}
"""By the kind of a mapping's `packed`."""


def to_specc(plan: Plan, source: Path, place: Path, shard: int = SHARD) -> list[Diagnostic]:
    """A folder of the family's tensors, in the class's form or the hub's -> one of parameters.

    What is wrong, if anything, and then nothing is written.

    Raises OSError where it cannot be written.
    """
    with ExitStack() as stack:
        folder = open_folder(source, stack)
        if not isinstance(folder, Folder):
            return folder
        plan = _form(plan, folder.entries)
        stripped = _stripped(plan, folder.entries)
        stored = {name: shape for tensor in stripped for name, shape in tensor.stored.items()}
        found = _differ(stored, folder.entries, _extra(plan, stripped, folder.entries))
        found = found or [*_no_bytes(stripped, folder.entries), *_same(plan, stripped, folder)]
        if found:
            return found
        held: dict[str, list[tuple[Part, Tensor]]] = {}
        for tensor in stripped:
            for part in tensor.parts:
                held.setdefault(part.name, []).append((part, tensor))
        coming: list[Coming] = []
        for name, shape in plan.shapes.items():
            types = {"BF16" if one.packed else folder.entries[one.name].dtype for _, one in held[name]}
            if len(types) > 1:
                names = listed([tensor.name for _, tensor in held[name]])
                message = f"{name} is made of {names}, which are of the types {', '.join(sorted(types))}"
                found.append(Diagnostic("E646", message, None))
            make = lambda name=name: joined([(part, _read(one, folder)) for part, one in held[name]])  # noqa: E731
            coming.append(Coming(name, shape, types.pop(), make))
        return found or _written(place, coming, shard)


def to_hf(
    plan: Plan, source: Path, place: Path, shard: int = SHARD, texts: Iterable[tuple[str, str]] = ()
) -> list[Diagnostic]:
    """A folder of parameters -> one of the plan's tensors, with `texts` beside them. As `to_specc`."""
    with ExitStack() as stack:
        folder = open_folder(source, stack)
        if not isinstance(folder, Folder):
            return folder
        extra = [name for name in folder.entries if name not in plan.shapes]
        found = _differ(plan.shapes, folder.entries, extra)
        for tensor in plan.tensors if not found else ():
            types = {folder.entries[part.name].dtype for part in tensor.parts}
            if len(types) > 1:
                names = ", ".join(part.name for part in tensor.parts)
                message = f"{tensor.name} is made of {names}, which are of the types {', '.join(sorted(types))}"
                found.append(Diagnostic("E646", message, None))
        if found:
            return found
        coming = [
            Coming(t.name, t.shape, folder.entries[t.parts[0].name].dtype, partial(to_file, t, folder.get))
            for t in plan.tensors
        ]
        return _written(place, coming, shard, texts)


def _written(place: Path, coming: list[Coming], shard: int, texts: Iterable[tuple[str, str]] = ()) -> list[Diagnostic]:
    try:
        write_folder(place, coming, shard, texts)
    except Inexact as error:
        return [Diagnostic("E648", str(error), None)]
    return []


def _form(plan: Plan, entries: Mapping[str, Entry]) -> Plan:
    """The plan in whose form these files are: that of which more tensors are there."""
    forms = [form for form in (plan, plan.hub, plan.packed) if form is not None]
    return max(forms, key=lambda form: sum(any(n in entries for n in t.stored) for t in _stripped(form, entries)))


def _stripped(plan: Plan, entries: Mapping[str, Entry]) -> list[Tensor]:
    """The tensors under the names of these files, which may leave out the class's prefix."""
    if not plan.prefix or any(name.startswith(plan.prefix) for name in entries):
        return list(plan.tensors)
    return [
        replace(t, name=_bare(t.name, plan.prefix), copies=tuple(_bare(c, plan.prefix) for c in t.copies))
        for t in plan.tensors
    ]


def _bare(name: str, prefix: str) -> str:
    return name.removeprefix(prefix)


def _extra(plan: Plan, tensors: list[Tensor], entries: Mapping[str, Entry]) -> list[str]:
    """Tensors that nothing names."""
    named = {name for tensor in tensors for name in (*tensor.stored, *tensor.copies)}
    return [
        name
        for name in entries
        if name not in named
        and not any(leaves(full) for full in (name, plan.prefix + name) for leaves in (plan.dropped, plan.zero))
    ]


def _differ(wanted: Mapping[str, tuple[int, ...]], entries: Mapping[str, Entry], extra: list[str]) -> list[Diagnostic]:
    """Missing, of another shape, or not wanted."""
    found: list[Diagnostic] = []
    missing = [name for name in wanted if name not in entries]
    if missing:
        found.append(Diagnostic("E644", f"{plural(len(missing), 'tensor')} missing: {listed(missing)}", None))
    if extra:
        message = f"{plural(len(extra), 'tensor')} that the model does not have: {listed(extra)}"
        found.append(Diagnostic("E644", message, None))
    unlike: dict[tuple[tuple[int, ...], tuple[int, ...]], list[str]] = {}
    for name, shape in wanted.items():
        if name in entries and entries[name].shape != tuple(shape):
            unlike.setdefault((entries[name].shape, tuple(shape)), []).append(name)
    for (theirs, ours), names in unlike.items():
        message = f"{listed(names)}: {list(theirs)} in the files, {list(ours)} in the model"
        found.append(Diagnostic("E645", message, None))
    return found


def listed(names: list[str]) -> str:
    """Names, with those that differ in one number alone as one: `layers.{0..3}.norm.weight`; of experts, too."""
    rows = [tuple(re.split(r"(?<=\.)([0-9]+)(?=\.)", name)) for name in names]
    for place in range(max(map(len, rows), default=0) - 2, 0, -2):
        alike: dict[tuple[str, ...], list[str]] = {}
        for row in rows:
            alike.setdefault((*row[:place], "", *row[place + 1 :]), []).append("".join(row[place : place + 1]))
        rows = [
            row if len(row) <= place + 1 else (*row[:place], _range(list(map(int, found))), *row[place + 1 :])
            for row, found in alike.items()
        ]
    return ", ".join(map("".join, rows))


def _range(found: list[int]) -> str:
    whole = len(found) > 1 and sorted(found) == list(range(min(found), max(found) + 1))
    return f"{{{min(found)}..{max(found)}}}" if whole else ",".join(map(str, found))


def _read(tensor: Tensor, folder: Folder) -> torch.Tensor:
    return UNPACKED[tensor.packed.kind](*map(folder.get, tensor.stored)) if tensor.packed else folder.get(tensor.name)


def _no_bytes(tensors: list[Tensor], entries: Mapping[str, Entry]) -> list[Diagnostic]:
    """Tensors that should be packed and are not."""
    types = {name: entries[name].dtype for tensor in tensors if tensor.packed for name in tensor.stored}
    return [
        Diagnostic("E646", f"{name} is of the type {dtype}; what is packed is U8", None)
        for name, dtype in types.items()
        if dtype != "U8"
    ]


def _same(plan: Plan, tensors: list[Tensor], folder: Folder) -> list[Diagnostic]:
    """What may be there twice is the same, and what has no place is zero."""
    own = {tensor.name for tensor in tensors}
    found: list[Diagnostic] = []
    for tensor in tensors:
        for copy in tensor.copies:
            if copy in folder.entries and copy not in own and not _equal(folder.get(copy), folder.get(tensor.name)):
                message = f"{copy} is not {tensor.name}, which the spec says is the same"
                found.append(Diagnostic("E647", message, None))
    for name in folder.entries:
        full = (name, plan.prefix + name)
        if name not in own and any(map(plan.zero, full)) and bool(folder.get(name).to(torch.float64).any()):
            found.append(Diagnostic("E647", f"{name} is not zero, and the model has no place for it", None))
    return found


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Bit by bit."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))
