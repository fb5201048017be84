"""The page of the language, from the models of a document: `python -m specc.spec.reference docs/language.md`.

What stands in the page above the mark is written by hand and kept.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import types
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic.fields import FieldInfo

from specc.components.base import Config
from specc.components.norm import Norm
from specc.spec import around, core, document
from specc.spec.grammar import listed, number
from specc.spec.language import language
from specc.tables import tables

LANGUAGE = language(tables())
OWN = LANGUAGE.models

MARK = "<!-- What follows is written by `python -m specc.spec.reference docs/language.md`. -->\n"


def _parts(annotation: Any) -> Iterator[type[Config]]:
    """Models that may stand in a value, each before those in it."""
    if isinstance(annotation, type) and issubclass(annotation, Config):
        yield annotation
        for field in annotation.model_fields.values():
            yield from _parts(field.annotation)
    else:
        for inner in get_args(annotation):
            yield from _parts(inner)


def _components() -> Iterator[tuple[str, type[Config]]]:
    """Of all components, then the mappings in them."""
    own = {component.config: component.key.replace("_", " ") for component in LANGUAGE.tables.components.values()}
    models = dict.fromkeys((*own, *(model for config in own for model in _parts(config))))
    for model in models:
        yield own.get(model, re.sub(r"(?<=\w)(?=[A-Z])", " ", model.__name__).lower()), model


SECTIONS: tuple[tuple[str, type[Config]], ...] = (
    ("document", OWN["Document"]),
    ("embedding", around.EmbeddingDoc),
    ("patches", around.PatchesDoc),
    ("frames", around.FramesDoc),
    ("conv", around.ConvDoc),
    ("positions", around.PositionsDoc),
    ("projection", around.ProjectionDoc),
    ("head", around.HeadDoc),
    ("pool", around.PoolDoc),
    ("transform", around.TransformDoc),
    ("multi token", around.MultiTokenDoc),
    ("loss", around.LossDoc),
    ("model norm", document.ModelNorm),
    ("norm", Norm),
    ("residual", document.ResidualDoc),
    ("stack", OWN["StackDoc"]),
    ("pattern", document.PatternDoc),
    ("stack embedding", around.StackEmbeddingDoc),
    ("like", document.LikeDoc),
    ("sublayer", OWN["SublayerDoc"]),
    ("branch", OWN["BranchDoc"]),
    *_components(),
    ("init", around.InitDoc),
    ("start", around.StartDoc),
    ("layout", OWN["LayoutDoc"]),
    ("context", document.ContextDoc),
    ("pipeline", document.PipelineDoc),
    ("checkpoint", document.EveryDoc),
)
"""Every model that may stand in a document, in the order of the page."""
LIMITS = ("ge", "gt", "le", "lt", "min_length", "max_length")
TITLES = {model: title for title, model in SECTIONS}
WORDS = {bool: ("`true`", "`false`"), int: ("whole number",), float: ("number",), str: ("text",)}


def page(text: str) -> str:
    """The page with what follows its mark made anew. Raises ValueError where there is no mark."""
    hand, mark, _ = text.partition(MARK)
    if not mark:
        raise ValueError(f"the page has no line {MARK!r}")
    contents = ", ".join(map(_link, TITLES))
    return f"{hand}{mark}\nSections: {contents}.\n{''.join(_section(title, model) for title, model in SECTIONS)}"


def _link(model: type[Config]) -> str:
    return f"[{TITLES[model]}](#{TITLES[model].replace(' ', '-')})"


def _section(title: str, model: type[Config]) -> str:
    lines = [f"\n## {title[0].upper()}{title[1:]}\n", _formatted(model.__doc__ or "")]
    if model is OWN["SublayerDoc"]:
        formula = dedent((core.__doc__ or "").split("\n\n", 2)[2]).strip()
        lines.append(f"\n```text\n{formula}\n```")
    lines += ["\n| key | value | default | meaning |", "| --- | --- | --- | --- |"]
    hints, told = get_type_hints(model, include_extras=True), _docstrings(model)
    for name, field in model.model_fields.items():
        meaning, _, default = told.get(name, "").partition("Default: ")
        cells = (
            f"`{field.alias or name}`",
            listed(_values(hints[name])),
            _default(field, default),
            meaning or _linked(field),
        )
        lines.append(f"| {' | '.join(_formatted(cell) for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _default(field: FieldInfo, told: str) -> str:
    if told:
        return told.strip().rstrip(".")
    if field.is_required():
        return "required"
    value: Any = field.get_default(call_default_factory=True)
    if isinstance(value, Config):
        return "`{}`"
    if isinstance(value, (bool, float)):
        value = str(value).lower() if isinstance(value, bool) else number(value)
    return "none" if value is None else f"`{value}`"


def _linked(field: FieldInfo) -> str:
    """What the only mapping that may stand there is."""
    return next(
        (model.__doc__ or "" for model in get_args(field.annotation) or (field.annotation,) if model in TITLES), ""
    )


def _values(annotation: Any, limits: str = "") -> list[str]:
    """What may stand there, in words; `limits` of a number or a length stand behind it."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _values(inner[0], _limits(inner[1:]) or limits)
    if origin in (Union, types.UnionType):
        return [word for option in inner if option is not type(None) for word in _values(option)]
    if origin is Literal:
        return [f"`{word}`" for word in inner]
    if origin is dict and inner[-1] is Any:
        return [f"mapping{limits}"]
    if origin in (list, dict):
        items = listed(_values(inner[-1]))
        return [f"{'list of' if origin is list else 'mapping of names to'} {items}{limits}"]
    if annotation in TITLES:
        return [_link(annotation)]
    first, *rest = WORDS.get(annotation, ("any value",))
    return [f"{first}{limits}", *rest]


def _limits(annotated: tuple[Any, ...]) -> str:
    """` (1 to 16,777,216)` or ` (at least 0, below 1)`."""
    found = [item for extra in annotated if isinstance(extra, FieldInfo) for item in extra.metadata]
    of = {name: getattr(item, name) for item in found for name in LIMITS if getattr(item, name, None) is not None}
    low, high = of.get("ge", of.get("min_length")), of.get("le", of.get("max_length"))
    if low is not None and high is not None:
        return f" ({number(low, ',')} to {number(high, ',')})" if low != high else f" ({number(low, ',')})"
    named = (("at least", low), ("above", of.get("gt")), ("at most", high), ("below", of.get("lt")))
    words = ", ".join(f"{word} {number(value, ',')}" for word, value in named if value is not None)
    return f" ({words})" if words else ""


@cache
def _docstrings(model: type) -> dict[str, str]:
    """The text under each field, inherited ones too; read from the source, which no build has time for."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if not issubclass(base, Config):
            continue
        (tree,) = ast.parse(dedent(inspect.getsource(base))).body
        body = tree.body if isinstance(tree, ast.ClassDef) else []
        for field, text in pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(field.target, ast.Name):
                found[field.target.id] = inspect.cleandoc(ast.literal_eval(text.value))
    return found


def _formatted(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


if __name__ == "__main__":
    for name in sys.argv[1:]:
        Path(name).write_text(page(Path(name).read_text(encoding="utf-8")), encoding="utf-8")
