"""How parameters start, of a document."""

from __future__ import annotations

from specc.source import Path
from specc.spec.around import InitDoc, StartDoc
from specc.spec.core import Init, Start
from specc.spec.document import Document
from specc.spec.formulas import Formulas
from specc.spec.report import Report

TABLES = "embedding"
"""Stands for all tables of embeddings."""
OWN_STD = ("xavier", "kaiming")
"""Kinds with one std for each shape."""
DRAWN = ("normal", *OWN_STD)


def init(document: Document, formulas: Formulas, report: Report) -> Init:
    """Of a whole model."""
    doc, at = document.init, ("init",)
    _check(doc, at, report)
    std = formulas.number(doc, "std", at)
    given = {name: (*at, "parameters", name) for name in doc.parameters}
    starts = {name: _start(doc.parameters[name], std, formulas, place, report) for name, place in given.items()}
    tables = starts.get(TABLES)
    plain = tables is not None and tables == Start("normal", tables.std)
    others = tuple((name, start) for name, start in starts.items() if not (name == TABLES and plain))
    embedding = std if tables is None or not plain else tables.std
    return Init(doc.kind, std, embedding, doc.depth_scaled, doc.truncate, doc.value or 0.0, others)


def _start(doc: StartDoc, usual: float, formulas: Formulas, at: Path, report: Report) -> Start:
    _check(doc, at, report)
    std = usual if doc.std is None else formulas.number(doc, "std", at)
    return Start(doc.kind, std, doc.truncate, doc.value or 0.0)


def _check(doc: InitDoc | StartDoc, at: Path, report: Report) -> None:
    """Keys that a kind has not, and the one that it needs."""
    if "std" in doc.model_fields_set and doc.kind in OWN_STD:
        help = "leave std out; parameters: {embedding: {std: ...}} is that of embeddings"
        report.add("E226", (*at, "std"), f"{doc.kind} takes no std: it has one for each shape", help)
    elif "std" in doc.model_fields_set and doc.kind not in ("normal", "uniform") and isinstance(doc, StartDoc):
        report.add("E226", (*at, "std"), f"{doc.kind} takes no std: nothing is drawn", "leave it out")
    if doc.truncate is not None and doc.kind not in DRAWN:
        report.add("E239", (*at, "truncate"), f"truncate is for normals, not for {doc.kind}", "leave it out")
    if (doc.value is None) == (doc.kind == "constant"):
        what = "constant needs a value" if doc.value is None else f"{doc.kind} has no value"
        report.add("E239", at if doc.value is None else (*at, "value"), what, "kind: constant has one")
