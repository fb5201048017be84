"""The language with the components of given tables: its models, and what others call its words."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic_core import PydanticUndefined

from specc.components.base import Config
from specc.spec import document
from specc.spec.document import Document, SublayerDoc
from specc.spec.synonyms import synonyms
from specc.tables import Tables

HOLDERS = (
    document.BranchDoc,
    document.SublayerDoc,
    document.StackDoc,
    document.Document,
)
"""Models in which a component may stand somewhere, each behind those that stand in it."""


@dataclass(frozen=True, eq=False)
class Language:
    """`models` by name, `document` and `sublayer` among them; `synonyms` by word."""

    tables: Tables
    models: Mapping[str, type[Config]]
    synonyms: Mapping[str, tuple[str, ...]]

    @property
    def document(self) -> type[Document]:
        made = self.models["Document"]
        assert issubclass(made, Document)
        return made

    @property
    def sublayer(self) -> type[SublayerDoc]:
        made = self.models["SublayerDoc"]
        assert issubclass(made, SublayerDoc)
        return made

    @property
    def sublayers(self) -> Any:
        """The type of a list of them."""
        return types.GenericAlias(list, (self.sublayer,))


@cache
def language(tables: Tables) -> Language:
    """A component has its key wherever components stand, an axis of the mesh its own in a layout."""
    keys = {component.key: (component.config | None, None) for component in tables.components.values()}
    made: dict[type[Config], type[Config]] = {}
    made[document.ComponentDoc] = _model(document.ComponentDoc, (document.ComponentDoc,), keys)
    own = document.LayoutDoc.model_fields
    axes = {name: (document.Count, 1) for name in tables.axes if name not in own}
    made[document.LayoutDoc] = _model(document.LayoutDoc, (document.LayoutDoc,), axes)
    for model in HOLDERS:
        hints = get_type_hints(model, include_extras=True)
        new = {name: _having(hints[name], made) for name in model.model_fields if name not in keys}
        fields = {name: (hint, _default(model, name)) for name, hint in new.items() if hint is not hints[name]}
        bases = (model, made[document.ComponentDoc]) if issubclass(model, document.ComponentDoc) else (model,)
        made[model] = _model(model, bases, fields)
    models = {model.__name__: other for model, other in made.items()}
    return Language(tables, models, synonyms(tables.components.values()))


def _model(model: type[Config], bases: tuple[type[Config], ...], fields: Mapping[str, tuple[Any, Any]]) -> type[Config]:
    """The model with other fields, under its name."""
    space: dict[str, Any] = {"__module__": model.__module__, "__doc__": model.__doc__}
    space["__annotations__"] = {name: hint for name, (hint, _) in fields.items()}
    space |= {name: default for name, (_, default) in fields.items() if default is not PydanticUndefined}
    return types.new_class(model.__name__, bases, exec_body=lambda body: body.update(space))


def _default(model: type[Config], name: str) -> Any:
    """What stands behind = in the model; defaults that are made anew stand in the annotation."""
    return model.model_fields[name].default


def _having(annotation: Any, made: Mapping[type[Config], type[Config]]) -> Any:
    """The annotation with the models made in the place of those they are made of; itself where it has none."""
    inner = get_args(annotation)
    if not inner:
        return made.get(annotation, annotation) if isinstance(annotation, type) else annotation
    origin = get_origin(annotation)
    if origin is Annotated:
        new = _having(inner[0], made)
        return annotation if new is inner[0] else Annotated[(new, *inner[1:])]  # pyright: ignore
    parts = tuple(_having(item, made) for item in inner)
    if all(a is b for a, b in zip(parts, inner, strict=True)):
        return annotation
    return Union[parts] if origin in (Union, types.UnionType) else origin[parts]  # noqa: UP007 # pyright: ignore
