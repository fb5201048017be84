"""The tables that everybody reads, made of extensions: the one place where they meet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from specc.extension import Extension, ExtensionError, LayoutAxis

if TYPE_CHECKING:
    from specc.components.base import Component, Config
    from specc.emit.expr.base import Writer
    from specc.emit.forms.base import Form
    from specc.ops.base import OpDef

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, eq=False)
class Tables:
    """Compared by identity; each table in the order of the extensions."""

    extensions: tuple[Extension, ...]
    """Beside specc's own."""
    components: Mapping[str, Component[Any]]
    """By key."""
    ops: Mapping[str, OpDef]
    """By kind."""
    forms: Mapping[tuple[str, str], Form]
    """By role and lowering."""
    expressions: Mapping[str, Writer]
    """By kind of op."""
    kernels: Mapping[str, Path]
    """Modules by name."""
    functions: tuple[str, ...]
    """Tables of the interpreter, as "module:NAME"."""
    configs: Mapping[type[Config], Component[Any]]
    axes: Mapping[str, LayoutAxis]
    """Of a mesh, outer to inner: first ranks that are fed different tokens, of these last what shares out weights."""
    alike: Mapping[str, tuple[str, ...]]
    """Axes, and token axes with which they are split on ranks that are fed different tokens."""

    def component(self, config: Config) -> Component[Any]:
        """The component that a config is of. Raises KeyError."""
        return self.configs[type(config)]

    def op(self, kind: str) -> OpDef:
        """The declaration of a kind of op. Raises KeyError."""
        return self.ops[kind]

    def form(self, role: str, lowering: str) -> Form:
        """The module of parameters of that role. Raises KeyError where nothing holds them."""
        return self.forms.get((role, lowering)) or self.forms[role, ""]


@cache
def tables(extensions: tuple[Extension, ...] = ()) -> Tables:
    """Of specc's own extensions and those. Raises ExtensionError where two of them have the same."""
    from specc.builtin import EXTENSIONS

    every = (*EXTENSIONS, *extensions)
    components = _table("component", every, [[(item.key, item) for item in one.components] for one in every])
    axes = _table("mesh axis", every, [[(axis.name, axis) for axis in one.axes] for one in every])
    return Tables(
        extensions,
        components,
        _table("op", every, [[(item.kind, item) for item in one.ops] for one in every]),
        _table("form", every, [[((item.role, item.when), item) for item in one.forms] for one in every]),
        _table("expression", every, [one.expressions.items() for one in every]),
        _table("kernel module", every, [[(path.stem, path) for path in one.kernels] for one in every]),
        tuple(one.functions for one in every if one.functions),
        {component.config: component for component in components.values()},
        dict(sorted(axes.items(), key=lambda item: (not item[1].data, item[1].data and bool(item[1].shards)))),
        _table("token axis", every, [one.alike.items() for one in every]),
    )


def _table(what: str, extensions: Iterable[Extension], rows: Iterable[Iterable[tuple[K, V]]]) -> dict[K, V]:
    """Raises ExtensionError for a key that two extensions have."""
    found: dict[K, V] = {}
    owners: dict[K, str] = {}
    for extension, own in zip(extensions, rows, strict=True):
        for key, value in own:
            if key in found:
                name = key if isinstance(key, str) else " ".join(map(str, key))  # pyright: ignore
                raise ExtensionError(f"the {what} {name} is of the extensions {owners[key]} and {extension.name}")
            found[key], owners[key] = value, extension.name
    return found
