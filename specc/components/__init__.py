"""The table of components: a new one is a module here and a line in it."""

from __future__ import annotations

from typing import Any

from specc.components.attention import ATTENTION
from specc.components.base import Component, Config
from specc.components.cross_attention import CROSS_ATTENTION
from specc.components.ffn import FFN

COMPONENTS: tuple[Component[Any], ...] = (
    ATTENTION,
    CROSS_ATTENTION,
    FFN,
)


def definition(config: Config) -> Component[Any]:
    """The component that a config is of. Raises KeyError."""
    return {component.config: component for component in COMPONENTS}[type(config)]


__all__ = ["COMPONENTS", "Component", "definition"]
