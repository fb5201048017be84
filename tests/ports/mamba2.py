"""Mamba 2 (Dao and Gu 2024): a short convolution and the scan of a state space for each head, gated and normed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from specc.components import norm
from specc.components.base import Component, Config, Dim, Given
from specc.components.norm import Norm
from specc.emit.forms.base import Form, Split
from specc.extension import Extension
from specc.ir.op import Init, Op, Ref
from specc.ir.types import Axis, I, MeshAxis, R, S
from specc.ops.base import Facts, OpDef, Signature, Stream, Types, as_first, shardable
from specc.ops.places import use_of
from tests.ports.moe import called

if TYPE_CHECKING:
    from specc.lower.builder import Builder

TAPS = 4


class Mamba2(Config):
    """State space mixer."""

    heads: Dim
    """Heads, each with a state."""
    head_dim: Dim = 8
    """Features of a head."""
    groups: Dim = 1
    """Groups of heads that share what is written to states and read of them."""
    state: Dim = 4
    """Rows of a state."""
    chunk: Dim = 4
    """Positions that are computed at once."""


def lower(config: Mamba2, b: Builder, x: Ref, given: Given, features: Axis) -> Ref:
    """x [batch, seq, d_model] -> the same."""
    inner = Axis.of(heads=config.heads, head_dim=config.head_dim)
    shared = Axis.of(groups=config.groups, state=config.state)

    def mixed(name: str, axis: Axis, count: int) -> Ref:
        flat = b.linear(x, name, axis, features, False, hint=name)
        weight = b.param(f"{name}_conv", "weight", (axis, Axis("taps", TAPS)), b.weight_init(axis, axis, False), "conv")
        bias = b.param(f"{name}_conv", "bias", (axis,), Init("zeros"), "conv")
        flat = b.op("causal_conv", flat, name=f"{name}_conv", hint=name, params=(weight, bias))
        flat = b.op("activation", flat, name=f"{name}_act", hint=name, function="silu")
        return b.op("split", flat, name=f"{name}_heads", hint=name, heads=count)

    u = mixed("u", inner, config.heads)
    keys, queries = mixed("keys", shared, config.groups), mixed("queries", shared, config.groups)
    heads = Axis("heads", config.heads)
    dt = b.linear(x, "dt", heads, features, False, hint="dt")
    params = tuple(b.param(name, "weight", (heads,), Init("ones"), "per_head") for name in ("a_log", "d", "dt_bias"))
    y = b.op("scan", u, dt, keys, queries, hint="y", params=params, chunk=config.chunk)
    z = b.linear(x, "z", inner, features, False, hint="z")
    z = b.op("split", z, name="z_heads", hint="z", heads=config.heads)
    y = b.op("mul", y, b.op("activation", z, name="z_act", hint="z", function="silu"), hint="y")
    y = norm.lower(Norm(kind="rms", eps=1e-5).resolved(), b, y, "norm", Axis("head_dim", config.head_dim), "y")
    return b.linear(b.op("merge", y), "out", features, inner, False, last=True)


MAMBA2 = Component(
    "mamba2",
    Mamba2,
    "Mamba",
    lower,
    smallest={"heads": 1},
    shards=("heads", "groups"),
    split_by_tp=lambda config: (("heads", config.heads),),
    results=lambda config: ("u", "keys", "queries", "dt", "scan", "z", "out"),
    shrink=lambda config, tp: config,
)


def _conv_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    """Positions are needed in order, channels by themselves."""
    channels, count = ins[0].axes[-1], len(op.params)
    found: list[Signature] = []
    if shardable(channels, mesh):
        own = S(channels.shard_name)
        found.append(Signature((own,), (own,), (own,) * count))
    if "batch" in mesh.tokens:
        found.append(Signature((S("batch"),), (S("batch"),), (R,) * count))
    return [*found, *(Signature((t,), (t,), (use_of(t),) * count) for t in ((R,) if mesh.data else (R, I)))]


CONV = OpDef(
    "causal_conv",
    as_first,
    _conv_signatures,
    lambda op, ins: Facts(mix=tuple(a.name for a in ins[0].axes[:2] if a.name != "batch")),
    flops=lambda op, ins, symbols: 2 * TAPS * ins[0].numel(symbols),
    saves=lambda op: ("in0",),
    any_order=True,
)


def _scan_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    """Heads by themselves, each with its group; one group serves all of them."""
    heads, groups = ins[0].axes[1], ins[2].axes[1]
    found: list[Signature] = []
    if shardable(heads, mesh) and (groups.length == 1 or shardable(groups, mesh)):
        own, theirs = S(heads.name), R if groups.length == 1 else S(groups.name)
        found.append(Signature((own, own, theirs, theirs), (own,), (own,) * 3))
    if "batch" in mesh.tokens:
        found.append(Signature((S("batch"),) * 4, (S("batch"),), (R,) * 3))
    return [*found, *(Signature((t,) * 4, (t,), (use_of(t),) * 3) for t in ((R,) if mesh.data else (R, I)))]


def _scan_facts(op: Op, ins: Types) -> Facts:
    heads, groups, seq = ins[0].axes[1].name, ins[2].axes[1], ins[0].axes[2].name
    tied = {groups.name: heads} if groups.length > 1 else {}
    return Facts(rename={2: tied, 3: tied}, mix=(seq, "state", *(() if tied else (groups.name,))))


def _scan_flops(op: Op, ins: Types, symbols: Mapping[str, int]) -> int:
    return 6 * ins[0].numel(symbols) * ins[2].axes[-1].length


SCAN = OpDef(
    "scan",
    as_first,
    _scan_signatures,
    _scan_facts,
    flops=_scan_flops,
    saves=lambda op: ("in0", "in1", "in2", "in3"),
    any_order=True,
)


def _own(what: str) -> Split:
    return Split("Own", f"{what} are split over {{}}")


FORMS = (
    Form(
        "conv",
        "Conv",
        "Taps and biases of each channel.",
        {"weight": ("channels", "taps"), "bias": ("channels",)},
        ("channels", "taps"),
        splits={"channels": _own("Channels")},
    ),
    Form(
        "per_head",
        "PerHead",
        "A number for each head.",
        {"weight": ("heads",)},
        ("heads",),
        splits={"heads": _own("Heads")},
    ),
)
EXTENSION = Extension(
    "mamba2",
    (MAMBA2,),
    (CONV, SCAN),
    FORMS,
    {"causal_conv": called("causal_conv", ordered=True), "scan": called("scan", "chunk", ordered=True)},
    kernels=(Path(__file__).with_name("recurrent.py"),),
    functions="tests.ports.recurrent:FUNCTIONS",
)
