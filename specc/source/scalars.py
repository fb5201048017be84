"""Plain scalars by the core schema of YAML 1.2.2, section 10.3: `no` is a text, `1e-5` a number, `017` is 17."""

from __future__ import annotations

import re

_INT = re.compile(r"[-+]?[0-9]+")
_OTHER = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INF = re.compile(r"[-+]?(\.inf|\.Inf|\.INF)")
_NAN = (".nan", ".NaN", ".NAN")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("null", "Null", "NULL", "~", ""), None),
}
_NUMERIC = "+-.0123456789"  # what a number begins with
DIGITS = 400  # of a whole number: Python refuses to read more than 4300, no float has more than 309

Scalar = str | int | float | bool | None


def scalar(text: str) -> Scalar:
    """The value of a plain scalar. A whole number of absurd length is read as 10**400, which no key accepts."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMERIC:
        return text
    if _INT.fullmatch(text):
        return int(text) if len(text) <= DIGITS else -(10**DIGITS) if text[0] == "-" else 10**DIGITS
    if _OTHER.fullmatch(text):
        return int(text[2:], 8 if text[1] == "o" else 16) if len(text) <= DIGITS else 10**DIGITS
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INF.fullmatch(text):
        return float("-inf" if text[0] == "-" else "inf")
    return float("nan") if text in _NAN else text
