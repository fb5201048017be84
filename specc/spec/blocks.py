"""Blocks: sugar and `like` expanded into sublayers of the core form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from specc.components.attention import Attention, CrossAttention, resolved
from specc.components.ffn import Ffn
from specc.components.norm import Norm
from specc.source import Diagnostic, Node, Path, plain, span_of
from specc.spec.core import Block, Branch, Sublayer
from specc.spec.document import BranchDoc, Document, GeneralDoc, LikeDoc, ParallelDoc, SublayerDoc
from specc.spec.shape import diagnostics, suggestion

KINDS = ("attention", "cross_attention", "ffn")


@dataclass(frozen=True)
class Written:
    """A block as written: its sublayers, where each component stands, and its name."""

    name: str
    sublayers: list[SublayerDoc]
    at: Path
    overrides: Mapping[str, Path]  # component -> where `with` changes it


def written_blocks(document: Document, root: Node, found: list[Diagnostic]) -> dict[str, Written]:
    """All named blocks with `like` resolved; errors go to `found`."""
    raw: dict[str, Any] = plain(root).get("blocks", {})
    done: dict[str, Written] = {}

    def resolve(name: str, trail: tuple[str, ...]) -> tuple[Any, Path, dict[str, Path]] | None:
        block = document.blocks[name]
        at: Path = ("blocks", name)
        if not isinstance(block, LikeDoc):
            return raw[name], at, {}
        span = span_of(root, (*at, "like"))
        if block.like not in document.blocks:
            found.append(
                Diagnostic("E220", f"there is no block {block.like}", span, suggestion(block.like, raw, "blocks"))
            )
            return None
        if block.like in trail:
            circle = " -> ".join((*trail, block.like))
            found.append(Diagnostic("E221", f"blocks are like each other in a circle: {circle}", span))
            return None
        base = resolve(block.like, (*trail, block.like))
        if base is None:
            return None
        data, origin, overrides = base
        for kind, values in block.with_.items():
            place: Path = (*at, "with", kind)
            data, hit = _merged(data, kind, values)
            if not hit:
                here = sorted({key for key in KINDS if _merged(data, key, {})[1]})
                help = suggestion(kind, here, "components")
                found.append(
                    Diagnostic("E222", f"block {block.like} has no {kind}", span_of(root, place, key=True), help)
                )
            overrides = {**overrides, kind: place}
        return data, origin, overrides

    sublayer_list = TypeAdapter(list[SublayerDoc]) if document.blocks else None
    for name in document.blocks:
        result = resolve(name, (name,))
        if result is None or sublayer_list is None:
            continue
        data, origin, overrides = result
        try:
            sublayers = sublayer_list.validate_python(data)
        except ValidationError as error:
            place = next(iter(overrides.values()), origin)
            where = span_of(root, place)
            found += [
                Diagnostic(d.code, d.message, where, d.help) for d in diagnostics(error, root, SublayerDoc, origin)
            ]
            continue
        done[name] = Written(name, sublayers, origin, overrides)
    return done


def _merged(data: Any, kind: str, values: Mapping[str, Any]) -> tuple[Any, bool]:
    """The block with values put into every component of that kind; and whether there is one."""
    if isinstance(data, list):
        parts = [_merged(item, kind, values) for item in cast(list[Any], data)]
        return [item for item, _ in parts], any(hit for _, hit in parts)
    if not isinstance(data, dict):
        return data, False
    result: dict[str, Any] = {}
    any_hit = False
    for key, value in cast(dict[str, Any], data).items():
        if key == kind and isinstance(value, dict):
            result[key], hit = _deep(cast(dict[str, Any], value), values), True
        elif key in ("parallel", "sublayer", "branches"):
            result[key], hit = _merged(value, kind, values)
        else:
            result[key], hit = value, False
        any_hit = any_hit or hit
    return result, any_hit


def _deep(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(old)
    for key, value in new.items():
        before = merged.get(key)
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict) and isinstance(before, dict):
            merged[key] = _deep(cast(dict[str, Any], before), cast(dict[str, Any], value))
        else:
            merged[key] = value
    return merged


def expand(block: Written, document: Document, role: str, root: Node, found: list[Diagnostic]) -> Block:
    """Sublayers of the core form, every dimension resolved. `role`: of the stack that runs the block."""
    return _Expander(block, document, role, root, found).block()


@dataclass
class _Expander:
    written: Written
    document: Document
    role: str
    root: Node
    found: list[Diagnostic]

    def block(self) -> Block:
        self.norm = Norm(**self.document.norm.model_dump(exclude={"placement"})).resolved()
        self.counts: dict[str, int] = {}
        at = self.written.at
        sublayers = [self._sublayer(item, (*at, n)) for n, item in enumerate(self.written.sublayers)]
        return Block(self.written.name, tuple(item for item in sublayers if item is not None), at)

    def _sublayer(self, doc: SublayerDoc, at: Path) -> Sublayer | None:
        given = [key for key in (*KINDS, "parallel", "sublayer") if getattr(doc, key) is not None]
        if len(given) != 1:
            message = f"a sublayer is one of {', '.join((*KINDS, 'parallel', 'sublayer'))}, this names {len(given)}"
            self.found.append(Diagnostic("E223", message, span_of(self.root, at), "make each an item of its own"))
            return None
        post = self.document.norm.placement == "post"
        if doc.sublayer is not None:
            return self._general(doc.sublayer, (*at, "sublayer"))
        after = self.norm if post else None
        if doc.parallel is None:
            branch = self._branch(doc, at, None if post else self.norm)
            return None if branch is None else Sublayer((branch,), after=after)
        branches = [self._branch(item, (*at, "parallel", n), None) for n, item in enumerate(doc.parallel)]
        kept = tuple(branch for branch in branches if branch is not None)
        return Sublayer(kept, norm=None if post else self.norm, after=after)

    def _general(self, doc: GeneralDoc, at: Path) -> Sublayer:
        shared = self._norm(doc.norm)
        if doc.base == "normed" and shared is None:
            span = span_of(self.root, (*at, "base"))
            self.found.append(
                Diagnostic("E224", "base: normed needs a norm that all branches share", span, "give norm")
            )
        branches = [self._branch(item, (*at, "branches", n), None) for n, item in enumerate(doc.branches)]
        kept = tuple(branch for branch in branches if branch is not None)
        return Sublayer(kept, shared, doc.base, doc.alpha, doc.beta, self._norm(doc.after))

    def _norm(self, value: bool | Norm) -> Norm | None:
        if isinstance(value, bool):
            return self.norm if value else None
        return value.resolved()

    def _branch(self, doc: SublayerDoc | ParallelDoc | BranchDoc, at: Path, pre: Norm | None) -> Branch | None:
        given = [key for key in KINDS if getattr(doc, key) is not None]
        if len(given) != 1:
            message = f"a branch is one of {', '.join(KINDS)}, this names {len(given)}"
            self.found.append(Diagnostic("E223", message, span_of(self.root, at), "make each an item of its own"))
            return None
        kind = given[0]
        place = self.written.overrides.get(kind, (*at, kind))
        self.counts[kind] = self.counts.get(kind, 0) + 1
        name = kind if self.counts[kind] == 1 else f"{kind}{self.counts[kind]}"
        component = self._component(getattr(doc, kind))
        dropout = self.document.dropout
        if not isinstance(doc, BranchDoc):
            return Branch(name, component, place, pre=pre, dropout=dropout)
        return Branch(
            name,
            component,
            place,
            self._norm(doc.pre),
            self._norm(doc.post),
            doc.in_scale,
            doc.out_scale,
            doc.layerscale,
            dropout if doc.dropout is None else doc.dropout,
        )

    def _component(self, config: Attention | CrossAttention | Ffn) -> Attention | CrossAttention | Ffn:
        if isinstance(config, Ffn):
            return config
        if isinstance(config, Attention) and "causal" not in config.model_fields_set:
            config = config.model_copy(update={"causal": self.role == "decoder"})
        return resolved(config, self.document.d_model)
