"""Layers that read what earlier ones gave: what follows from it, in the order in which layers run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from specc.components.base import Config, Problem
from specc.spec.core import Block, Branch, Run
from specc.spec.report import Report
from specc.spec.stated import place


def fitted(runs: tuple[Run, ...], d_model: int, report: Report) -> tuple[Run, ...]:
    """Runs whose components are filled in by what gave them the values that they take; what does not fit is told."""
    known = report.language.tables
    parts = [part for run in runs for block in run.blocks for part in block.sublayers]
    configs = [branch.component for part in parts for branch in part.branches]
    if not any(known.component(config).takes(config) for config in configs):
        return runs
    work = _Fitting(d_model, report)
    for run in runs:
        for layer in range(run.layers):
            work.block(run.blocks[layer % len(run.blocks)])
    return tuple(replace(run, blocks=tuple(work.made.get(id(block), block) for block in run.blocks)) for run in runs)


@dataclass
class _Fitting:
    """`kept`: which component gave the latest value of each name; `made`: blocks by what they were."""

    d_model: int
    report: Report
    kept: dict[str, Config] = field(default_factory=dict[str, Config])
    made: dict[int, Block] = field(default_factory=dict[int, Block])

    def block(self, block: Block) -> None:
        """As the next layer runs it."""
        parts = [
            replace(part, branches=tuple(self._branch(branch) for branch in part.branches)) for part in block.sublayers
        ]
        new = replace(block, sublayers=tuple(parts))
        first = self.made.setdefault(id(block), new)
        if first != new:
            self._differ(first, new)

    def _branch(self, branch: Branch) -> Branch:
        known = self.report.language.tables.component(branch.component)
        made: Config
        made, problem = known.fitted(branch.component, self.kept, self.d_model)
        if problem is not None:
            self._tell(branch, problem)
        self.kept.update(dict.fromkeys(known.gives(made), made))
        return branch if made is branch.component else replace(branch, component=made)

    def _differ(self, first: Block, new: Block) -> None:
        """One block that reads values of several sizes."""
        pairs = zip(first.sublayers, new.sublayers, strict=True)
        for one, other in ((a, b) for x, y in pairs for a, b in zip(x.branches, y.branches, strict=True)):
            if one != other:
                message = f"{new.name} reads values of other sizes in one layer than in another"
                self._tell(other, Problem("E283", (), message, "give the layers blocks of their own"))

    def _tell(self, branch: Branch, problem: Problem) -> None:
        at = place(self.report, branch, problem.path)
        self.report.add(problem.code, at, problem.message, problem.help)
        self.report.broken(branch.at)
