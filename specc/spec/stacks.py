"""The layers of a stack: its block, or blocks that patterns name, in their order."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import accumulate, chain, islice, pairwise, repeat
from math import lcm
from typing import Literal

from specc.components.norm import Norm
from specc.source import Path, plural
from specc.spec.blocks import Written, no_block
from specc.spec.core import Block, Run, Stack
from specc.spec.document import LAYERS, PERIOD, SUBLAYERS, Document, PatternDoc, StackDoc
from specc.spec.ends import Ends
from specc.spec.kept import fitted
from specc.spec.report import Report
from specc.spec.sublayers import Frame, expand

Role = Literal["encoder", "decoder"]
ROLES: tuple[Role, ...] = ("encoder", "decoder")
Section = tuple[tuple[str, ...], int]
"""Names of blocks in turn, and how many layers run them."""
NAME = 64
"""Characters of the name of a block, at most."""


def parts(pattern: list[str] | PatternDoc | None) -> dict[str, list[str]]:
    """What it names, by the part of the stack."""
    if isinstance(pattern, PatternDoc):
        return {"head": pattern.head, "cycle": pattern.cycle, "tail": pattern.tail}
    return {} if pattern is None else {"cycle": pattern}


def named(item: str) -> tuple[str, int]:
    """`local*5` is five times local; what is no number is no time."""
    name, star, count = item.partition("*")
    return (name.rstrip(), int(count) if re.fullmatch(r"\s*[0-9]{1,9}", count) else 0) if star else (item, 1)


class Stacks:
    """The layers of one stack."""

    def __init__(
        self,
        role: Role,
        doc: StackDoc,
        document: Document,
        ends: Ends,
        named: dict[str, Written],
        report: Report,
    ):
        self.role: Role = role
        self.doc, self.document, self.named, self.report = doc, document, named, report
        self.width = document.d_model if doc.d_model is None else doc.d_model
        norms = ends.norms.of_width(self.width).changed(doc.norm, (role, "norm"))
        names = {**ends.formulas.names, "d_model": self.width, "layers": doc.layers}
        self.frame = Frame(document, role, norms, names)
        self.ends = ends
        self.same: dict[str, Block] = {}  # blocks that are so in every layer
        self.joined: dict[tuple[str, ...], str] = {}  # names of blocks of several patterns

    def stack(self, alone: bool) -> Stack:
        """With its module path, which is plain where there is one stack."""
        doc, at, norms = self.doc, (self.role,), self.frame.norms
        given = [key for key in ("block", "pattern", "patterns") if getattr(doc, key)]
        if len(given) != 1:
            what = f"cannot have {' and '.join(f'a {key}' for key in given)}"
            what = what.replace("a patterns", "patterns") if given else "needs a block or a pattern of blocks"
            self.report.add("E231", at, f"the {self.role} {what}", "give one of them", key=True)
            self.report.broken(at)
            runs: tuple[Run, ...] = ()
        elif doc.block is not None:
            self.named = {"block": Written("block", doc.block, (*at, "block"))}
            runs = self._sections([(("block",), doc.layers)], at)
        elif doc.pattern is not None:
            runs = self._sections(self._read(doc.pattern, (*at, "pattern")), (*at, "pattern"))
        else:
            runs = self._sections(self._zipped(), (*at, "patterns"))
        runs = fitted(runs, self.width, self.report)
        shared = self._shared(runs)
        usual = norms.placement != "post"
        final = norms.norm(usual if doc.final_norm is None else doc.final_norm, (*at, "final_norm"))
        embed = self.ends.of_stack(self.role, doc, self.frame.formulas(self.report), norms)
        path, other = "layers" if alone else self.role, None if self.width == self.document.d_model else self.width
        return Stack(self.role, path, runs, final, at, embed, shared, other)

    def _shared(self, runs: tuple[Run, ...]) -> tuple[str, ...]:
        """Names of the blocks whose layers have one set of parameters."""
        names = tuple(dict.fromkeys(block.name for run in runs for block in run.blocks))
        at: Path = (self.role, "shared")
        if isinstance(self.doc.shared, bool):
            wanted = dict.fromkeys(names, at) if self.doc.shared else {}
        else:
            wanted = {name: (*at, n) for n, name in enumerate(self.doc.shared)}
        parts = {name for row in self.joined for name in row if len(row) > 1}
        for name, place in wanted.items() if names else ():
            if name in names and name not in self.same:
                message = f"arithmetic on layer makes {name} another block in each layer, so layers cannot share it"
                self.report.add("E269", place, message, "leave layer out of its numbers")
            elif name not in names and name in parts:
                message = f"layers of this stack run {name} and another block as one, and share both or none"
                self.report.add("E269", place, message, "shared: true shares all, one pattern names single blocks")
            elif name not in names:
                help = self.report.suggestion(name, names, "blocks")
                self.report.add("E225", place, f"no layer of the {self.role} runs a block {name}", help)
        return tuple(name for name in names if name in wanted)

    def behind(self, names: list[str], at: Path) -> tuple[tuple[Block, ...], Norm]:
        """Blocks of these names as in a layer behind the last, and the norm of the stack."""
        found = [self._repeated(item, (*at, n)) for n, item in enumerate(names)]
        if not self.report.sound(at):
            return (), self.frame.norms.model
        every = [name for name, count in found for _ in range(count)]
        return tuple(self._block(name, self.doc.layers) for name in every), self.frame.norms.model

    def _sections(self, sections: list[Section], at: Path) -> tuple[Run, ...]:
        """Runs of named blocks; what a formula makes another in each layer is not repeated."""
        longest = max((min(len(period), layers) for period, layers in sections), default=0)
        if longest > PERIOD:
            message = f"a pattern repeats after at most {PERIOD} layers, not {longest}"
            self.report.add("E233", at, message, "use fewer different layers")
            self.report.broken((self.role, "layers"))
            return ()
        starts = [0, *accumulate(layers for _, layers in sections)]
        alone: list[int] = []  # the first and last layer of each place in turn whose block is so in one layer alone
        for start, (period, layers) in zip(starts, sections, strict=False):
            for n, name in enumerate(period[:layers]):
                self._block(name, start + n)
                if name not in self.same:
                    alone += [start + n, start + n + (layers - 1 - n) // len(period) * len(period)]
        first, last = min(alone, default=0), max(alone, default=-1)
        if last - first >= PERIOD:
            message = f"arithmetic on layer makes {last - first + 1} layers different; at most {PERIOD} can be"
            self.report.add("E233", at, message, "use fewer layers, or no layer")
            self.report.broken((self.role, "layers"))
            return ()
        before = [self._part(section, start, start, first) for start, section in zip(starts, sections, strict=False)]
        after = [self._part(section, start, last + 1, None) for start, section in zip(starts, sections, strict=False)]
        if last < first:
            return tuple(run for run in after if run is not None)
        between = tuple(
            self._block(period[(n - start) % len(period)], n)
            for start, (period, layers) in zip(starts, sections, strict=False)
            for n in range(max(start, first), min(start + layers, last + 1))
        )
        runs = (*before, Run(between, len(between)), *after)
        return tuple(run for run in runs if run is not None)

    def _part(self, section: Section, start: int, first: int, end: int | None) -> Run | None:
        """Layers `first` .. `end` - 1 of a section that begins at `start`, whose blocks are so in every layer."""
        period, layers = section
        first, end = max(start, first), min(start + layers, start + layers if end is None else end)
        if first >= end:
            return None
        names = (period[(n - start) % len(period)] for n in range(first, min(end, first + len(period))))
        return Run(tuple(self.same[name] for name in names), end - first)

    def _block(self, name: str, layer: int) -> Block:
        if name in self.same:
            return self.same[name]
        found = expand(self.named[name], self.frame, layer, self.report)
        if not found.by_layer:
            self.same[name] = found.block
        return found.block

    def _read(self, pattern: list[str] | PatternDoc, at: Path) -> list[Section]:
        """What each part of a pattern says of the layers; nothing where it says no sound thing."""
        layers = (self.role, "layers")
        found: dict[str, list[tuple[str, int]]] = {}
        for part, items in parts(pattern).items():
            place = (*at, part) if isinstance(pattern, PatternDoc) else at
            found[part] = [self._repeated(item, (*place, n)) for n, item in enumerate(items)]
        first, last = (sum(count for _, count in found.get(part, [])) for part in ("head", "tail"))
        rest = self.doc.layers - first - last
        if rest < 0 or (rest > 0 and not found.get("cycle")):
            message = (
                f"{plural(self.doc.layers, 'layer')}, but the pattern has {first} in its head and {last} in its tail"
            )
            help = "give a cycle for those between" if rest > 0 else f"layers must be at least {first + last}"
            self.report.add("E232", layers, message, help, reads=[at])
            self.report.broken(layers)
        if not self.report.sound(at):
            self.report.broken(layers)
        if not self.report.sound(layers):
            return []
        lengths = {"head": first, "cycle": rest, "tail": last}
        return [(_period(found[part], n), n) for part, n in lengths.items() if n]

    def _zipped(self) -> list[Section]:
        """Blocks that join those of all patterns; a part ends where one of any pattern does."""
        at: Path = (self.role, "patterns")
        if len(self.doc.patterns) == 1:
            self.report.add("E268", at, "patterns of one name are one pattern", "write it as pattern", key=True)
        axes = [self._read(pattern, (*at, name)) for name, pattern in self.doc.patterns.items()]
        if not all(axes):
            return []
        starts = [[0, *accumulate(n for _, n in axis)] for axis in axes]
        found: list[Section] = []
        for start, end in pairwise(sorted({border for borders in starts for border in borders})):
            turns: list[tuple[tuple[str, ...], int]] = []  # of each pattern, the names in turn and where they begin
            for axis, borders in zip(axes, starts, strict=True):
                here = max(n for n, border in enumerate(borders) if border <= start)
                turns.append((axis[here][0], borders[here]))
            length = min(end - start, lcm(*(len(names) for names, _ in turns)))
            layers = range(start, start + length)
            rows = [tuple(names[(n - first) % len(names)] for names, first in turns) for n in layers]
            found.append((tuple(self._joined(row) for row in rows), end - start))
        return found

    def _joined(self, names: tuple[str, ...]) -> str:
        """The block of all of them in turn, by a name that no other has."""
        if names in self.joined:
            return self.joined[names]
        blocks = [self.named[name] for name in names]
        taken = {name.replace("_", "") for name in (*self.document.blocks, *self.joined.values())}
        base = "_".join(names)[: NAME - 4].rstrip("_")
        name = next(one for one in (base, *(f"{base}{n}" for n in range(2, 1000))) if one.replace("_", "") not in taken)
        count = sum(len(block.sublayers) for block in blocks)
        if count > SUBLAYERS:
            at: Path = (self.role, "patterns")
            message = f"{' and '.join(names)} must have at most {SUBLAYERS} sublayers together, not {count}"
            self.report.add("E204", at, message, key=True)
            self.report.broken(at)
        self.joined[names] = name
        self.named = {**self.named, name: replace(blocks[0], name=name, parts=tuple(blocks))}
        return name

    def _repeated(self, item: str, at: Path) -> tuple[str, int]:
        """The block and how often an item of a pattern stands for it."""
        name, count = named(item)
        if name not in self.document.blocks:
            no_block(name if count else item, self.document.blocks, at, self.report)
            self.report.broken(at)
        elif not 1 <= count <= LAYERS:
            self.report.add("E204", at, f"{item} must repeat a block at least 1 and at most {LAYERS} times")
            self.report.broken(at)
        elif name not in self.named:
            self.report.broken(at)
        return name, count


def _period(found: list[tuple[str, int]], layers: int) -> tuple[str, ...]:
    """The shortest list that, repeated and cut to that many layers, is `found` repeated and cut."""
    whole = chain.from_iterable(repeat(name, count) for name, count in found)
    names = list(islice(whole, layers))
    borders = [0] * len(names)  # of each beginning: how long a part of it is both its start and its end
    for n in range(1, len(names)):
        border = borders[n - 1]
        while border and names[n] != names[border]:
            border = borders[border - 1]
        borders[n] = border + (names[n] == names[border])
    period = len(names) - borders[-1]
    return tuple(names[:period] if layers <= len(names) or len(names) % period == 0 else names)
