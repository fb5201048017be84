"""The modules that hold parameters, by the role of their first parameter and by lowering."""

from __future__ import annotations

from specc.emit.forms import dense
from specc.emit.forms.base import Form

__all__ = ["Form", "form_of"]

_FORM = {(form.role, form.when): form for form in dense.FORMS}


def form_of(role: str, lowering: str) -> Form:
    """Raises KeyError where nothing holds parameters of that role."""
    return _FORM.get((role, lowering)) or _FORM[role, ""]
