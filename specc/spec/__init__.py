"""The language: a source becomes a Spec, or a list of everything that keeps it from being one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from specc.source import Diagnostic, Source, parse, plain
from specc.spec.core import Layout, Model, Spec
from specc.spec.document import Document
from specc.spec.expand import to_spec
from specc.spec.language import language
from specc.spec.layout_rules import layout_rules
from specc.spec.own import with_own
from specc.spec.repair import repaired
from specc.spec.report import Report
from specc.spec.rules import model_rules
from specc.spec.runs import shortest
from specc.spec.shape import tell
from specc.tables import Tables, tables


def load(source: Source, known: Tables | None = None, own: bool = False) -> Spec | list[Diagnostic]:
    """The spec, or all findings in the order of the text.

    `known` are specc's own tables unless given; `own` allows it to run the Python files that the spec names.
    """
    parsed = parse(source)
    if parsed.root is None:
        return parsed.found
    every = with_own(parsed.root, source.name, known or tables(), own)
    if isinstance(every, list):
        return [*parsed.found, *every]  # the rest is not known without them
    report = Report(parsed.root, language(every), parsed.found)
    for path in parsed.damaged:
        report.broken(path)
    made = _document(report)
    if made is not None:
        spec = to_spec(*made, report, source.name)
        model_rules(spec, report)
        for layout in spec.layouts if spec.model.stacks else ():
            layout_rules(spec.model, layout, report)
        if not report.found:
            return replace(spec, model=shortest(spec.model))
    return report.findings()


def _document(report: Report) -> tuple[Document, Mapping[str, Any]] | None:
    """The document, without the parts of it that have the wrong shape, which are reported."""
    data, document = plain(report.root), report.language.document
    try:
        return document.model_validate(data), data
    except ValidationError as error:
        data, parts = repaired(data, tell(error, report, document), report.language)
    for part in parts:
        report.broken(part)
    try:
        return None if data is None else (document.model_validate(data), data)
    except ValidationError:
        return None  # more than one error in one place: one was told


__all__ = ["Diagnostic", "Layout", "Model", "Source", "Spec", "load"]
