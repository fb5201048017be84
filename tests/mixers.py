"""Every mixer that goes along a sequence in order, in small."""

from __future__ import annotations

from specc.source import Source
from specc.spec import Spec, load

TEXT = """\
specc: 1
name: mixed
d_model: 32
vocab: 96
norm: {kind: rms, eps: 1e-2}
decoder:
  layers: 2
  block:
    - MIXER
    - ffn: {kind: gated, hidden: 16}
"""
MIXERS = {
    "short_conv": "short_conv: {hidden: 16, conv: 4, bias: true}",
}
"""By name, a sublayer. Sizes that a tp of 2 splits, and that differ from each other."""


def mixed(mixer: str, *more: str, **changes: str) -> Spec:
    """The spec of two layers of that sublayer, with more lines and other texts."""
    text = TEXT.replace("MIXER", mixer) + "".join(f"{line}\n" for line in more)
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    found = load(Source("mixed.yaml", text))
    assert isinstance(found, Spec), found
    return found
