"""Biases on scores: of the distance alone (Press et al. 2022), or learned for buckets of it (Raffel et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Tag

from specc.components import mask
from specc.components.base import Config, Dim, Formula, Problem, Problems, Synonyms, Table, Tokens, by_kind, settled
from specc.components.mask import Mask
from specc.ir.op import Init, Param, Ref
from specc.ir.types import Axis

if TYPE_CHECKING:
    from specc.lower.builder import Builder

SYNONYMS: Synonyms = {
    "alibi": ("use_alibi",),
    "relative_bias": ("relative_attention_bias", "relative_attention_num_buckets"),
    "buckets": ("relative_attention_num_buckets", "num_buckets"),
    "max_distance": ("relative_attention_max_distance",),
}


class Alibi(Config):
    """Scores fall with the distance, in each head by a slope of its own."""

    slopes: Literal["below", "above"] = "below"
    """Of heads that are no power of two: of the power below, and some between; or every other one of that above."""
    scale: Formula = 1.0
    """Factor on the bias."""


OwnAlibi = Annotated[Annotated[bool, Tag("bool")] | Annotated[Alibi, Tag("mapping")], by_kind]


class RelativeBias(Config):
    """A learned number for each head and bucket of distance; half of the buckets are of one distance each."""

    buckets: Dim = 32
    """Buckets; where tokens see later ones, half of them are of those."""
    max_distance: Dim = 128
    """From which on all are in the last bucket."""
    shared: bool = True
    """One table of the stack, or one of each layer."""


class Buckets(Config):
    """Of distances; `both`: of later tokens, too."""

    buckets: int
    max_distance: int
    both: bool


class Biases(Config):
    """What attention of so many heads has."""

    heads: int
    alibi: Alibi | None
    relative: RelativeBias | None
    seen: Mask

    @property
    def own(self) -> RelativeBias | None:
        """A table of each layer."""
        return self.relative if self.relative is not None and not self.relative.shared else None


def own(value: bool | Alibi) -> Alibi | Literal[False]:
    """What stands in a component."""
    return value if isinstance(value, Alibi) else Alibi() if value else False


def rules(config: RelativeBias | None, causal: bool) -> Problems:
    """Of buckets: some are of one distance each, and longer ones are left for the others."""
    if config is None:
        return
    each = config.buckets if causal else config.buckets // 2
    if each < 2:
        least = 2 if causal else 4
        message = f"{config.buckets} buckets are too few to tell near tokens from far ones"
        yield Problem("E280", ("relative_bias", "buckets"), message, f"at least {least}")
    elif config.max_distance <= each // 2:
        message = f"max_distance = {config.max_distance} is within the {each // 2} buckets of one distance each"
        yield Problem("E280", ("relative_bias", "max_distance"), message, f"more than {each // 2}")


def shrink(config: RelativeBias | None) -> RelativeBias | None:
    """Few buckets, which a short sequence has distances of."""
    if config is None:
        return None
    return config.model_copy(update={"buckets": min(config.buckets, 8), "max_distance": min(config.max_distance, 12)})


def tables(config: Biases) -> tuple[Table, ...]:
    """What attention reads: a mask; a bias, which has it in it; or what each layer makes its own bias of."""
    masks = mask.table(config.seen)
    slopes = () if config.alibi is None else (_slopes(config.alibi, config.heads),)
    if config.relative is None and not slopes:
        return masks
    if config.relative is None:
        shared = slopes
    else:
        both = not config.seen.causal or config.seen.prefix
        counts = Buckets(buckets=config.relative.buckets, max_distance=config.relative.max_distance, both=both)
        mark = f"{counts.buckets}_{counts.max_distance}{'_both' * both}"
        buckets = Table("buckets", mark, counts, 0, _buckets)
        if config.own:
            return (buckets, *slopes, *masks)
        shared = (*slopes, Table("relative_bias", mark, counts, config.heads, _relative, (buckets,)))
    mark = "_".join((*(table.mark for table in shared), config.seen.mark))
    return (Table("bias", mark, config, len(shared), _masked, (*shared, *masks)),)


def lower(config: Biases, b: Builder, found: Mapping[str, Ref], own_mask: Ref | None) -> Ref | None:
    """The mask of attention, or its bias; `found` by the names of its tables."""
    if config.own is None:
        return found.get("bias", found.get("mask", own_mask))
    bias = _learned(b, found["buckets"], config.own.buckets, config.heads, "relative_bias")
    if "alibi" in found:
        bias = b.op("add", bias, found["alibi"], name="bias_sum", hint="bias")
    hidden = found.get("mask", own_mask)
    return bias if hidden is None else b.op("biased", bias, hidden, name="bias", hint="bias")


def _slopes(config: Alibi, heads: int) -> Table:
    return Table("alibi", f"{heads}{'' if config.slopes == 'below' else '_above'}", config, heads, _alibi)


def _alibi(config: Alibi, b: Builder, tokens: Tokens, heads: int, hint: str) -> Ref:
    """[heads, seq, keys]"""
    above = config.slopes == "above" and heads & (heads - 1) != 0
    slopes = b.op("slopes", tokens.index, hint="slopes", heads=heads, above=above)
    if (factor := settled(config.scale)) != 1.0:
        slopes = b.op("scale", slopes, hint="slopes", factor=factor)
    return b.op("alibi", slopes, tokens.index, tokens.index, hint=hint, of=("slopes", "queries", "keys"))


def _buckets(config: Buckets, b: Builder, tokens: Tokens, size: int, hint: str) -> Ref:
    """[seq, keys]"""
    of, count, far, both = ("queries", "keys"), config.buckets, config.max_distance, config.both
    return b.op("buckets", tokens.index, tokens.index, hint=hint, of=of, buckets=count, max_distance=far, both=both)


def _relative(config: Buckets, b: Builder, tokens: Tokens, heads: int, hint: str, buckets: Ref) -> Ref:
    """[heads, seq, keys], of a table of the stack."""
    return _learned(b, buckets, config.buckets, heads, f"{tokens.prefix}{hint}", hint)


def _learned(b: Builder, buckets: Ref, count: int, heads: int, leaf: str, hint: str = "bias") -> Ref:
    table: Param = b.param(
        leaf, "weight", (Axis("buckets", count), Axis("heads", heads)), Init("normal", b.init.std), "relative_bias"
    )
    return b.op("relative_bias", buckets, name=leaf, hint=hint, params=(table,))


def _masked(config: Biases, b: Builder, tokens: Tokens, count: int, hint: str, *of: Ref) -> Ref:
    """The sum of the first ones, where a mask does not hide: [heads, seq, keys], or [batch, heads, seq, keys]."""
    bias = of[0] if count == 1 else b.op("add", of[1], of[0], name="bias_sum", hint=hint)
    hidden = of[count] if len(of) > count else tokens.mask
    return bias if hidden is None else b.op("biased", bias, hidden, hint=hint)
