"""What a component gives, multiplied by an activation of a linear of its input (Qiu et al. 2025)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Tag

from specc.components import activation, norm
from specc.components.activation import Activation
from specc.components.base import Config, Dim, Synonyms, by_kind
from specc.components.norm import Norm
from specc.ir.op import Ref
from specc.ir.types import Axis

if TYPE_CHECKING:
    from specc.lower.builder import Builder

SYNONYMS: Synonyms = {"output_gate": ("attn_output_gate", "gating", "gated_attention")}


class OutputGate(Config):
    """The result is multiplied by an activation of a linear of the input."""

    activation: Activation = "sigmoid"
    """Of the linear."""
    per: Literal["channel", "head"] = "channel"
    """A factor for each feature, or one for each head."""
    rank: Dim | None = None
    """Two linears of this rank in place of one."""
    bias: bool = False
    """A bias of the linear, or of the second."""


OwnGate = Annotated[Annotated[bool, Tag("bool")] | Annotated[OutputGate, Tag("mapping")], by_kind]


def own(value: bool | OutputGate) -> OutputGate | Literal[False]:
    """What stands in a component."""
    return value if isinstance(value, OutputGate) else OutputGate() if value else False


def results(value: bool | OutputGate) -> tuple[str, ...]:
    """Results that checkpointing can keep, in op order."""
    if not isinstance(value, OutputGate):
        return ()
    return ("gate_a", "gate_b", "gate_act") if value.rank else ("gate", "gate_act")


def lower(config: OutputGate, b: Builder, x: Ref, features: Axis, heads: int, head_dim: int) -> Ref:
    """x [..., d_model] -> [..., heads*head_dim], or for each head [batch, heads, seq, 1]."""
    joint = Axis.of(heads=heads, head_dim=head_dim) if config.per == "channel" else Axis.of(**{"heads": heads, "1": 1})
    name = "gate"
    if config.rank is not None:
        rank = Axis("rank", config.rank)
        x, features, name = b.linear(x, "gate_a", rank, features, False, hint="gate"), rank, "gate_b"
    gate = b.linear(x, name, joint, features, config.bias, hint="gate")
    gate = activation.lower(config.activation, b, gate, "gate_act", "gate")
    return gate if config.per == "channel" else b.op("split", gate, name="gate_heads", hint="gate", heads=heads)


def closed(
    b: Builder,
    x: Ref,
    mixed: Ref,
    features: Axis,
    inner: Axis,
    gate: bool | OutputGate,
    bias: bool,
    sub_norm: bool | Norm = False,
) -> Ref:
    """x [batch, seq, d_model], what its heads attend to -> [batch, seq, d_model]; `inner` is heads*head_dim."""

    def normed(x: Ref) -> Ref:
        return norm.lower(sub_norm, b, x, "sub_norm", inner) if isinstance(sub_norm, Norm) else x

    (_, heads), (_, head_dim) = inner.factors
    if isinstance(gate, OutputGate):
        by_head = gate.per == "head"
        factors = lower(gate, b, x, features, heads, head_dim)
        if by_head and not sub_norm:
            mixed = b.op("mul", mixed, factors)
        mixed = normed(b.op("merge", mixed))
        if by_head and sub_norm:
            again = b.op("split", mixed, name="normed_heads", heads=heads)
            mixed = b.op("merge", b.op("mul", again, factors), name="gated")
        elif not by_head:
            mixed = b.op("mul", mixed, factors)
    else:
        mixed = normed(b.op("merge", mixed))
    return b.linear(mixed, "o", features, inner, bias, last=True)
