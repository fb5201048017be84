"""The language: a source becomes a Spec, or a list of everything that keeps it from being one."""

from __future__ import annotations

from pydantic import ValidationError

from specc.source import Diagnostic, Source, parse, plain
from specc.spec.core import Layout, Model, Spec
from specc.spec.document import Document
from specc.spec.expand import to_spec
from specc.spec.rules import rules
from specc.spec.shape import diagnostics


def load(source: Source) -> Spec | list[Diagnostic]:
    """All findings of the deepest stage that could be reached: text, shape, or meaning."""
    root = parse(source)
    if isinstance(root, list):
        return root
    try:
        document = Document.model_validate(plain(root))
    except ValidationError as error:
        return diagnostics(error, root, Document)
    spec = to_spec(document, root, source.name)
    if isinstance(spec, list):
        return spec
    return rules(spec, root) or spec


__all__ = ["Diagnostic", "Layout", "Model", "Source", "Spec", "load"]
