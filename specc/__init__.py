"""specc, a compiler for model specs. Imports nothing: what it has stands in `specc.face`."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from specc.face import Loaded, SpecError, load


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from specc import face

    return getattr(face, name)


__all__ = ["Loaded", "SpecError", "load"]
