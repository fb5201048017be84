"""specc init"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import click

from specc.cli.interchange import fail, put
from specc.cli.numbers import large, shown
from specc.cli.specs import Loaded, load_all
from specc.cost.resize import resized
from specc.cost.shape import VOCAB, WITHIN, shape_of
from specc.emit.code import Code, render
from specc.ir.stored import total
from specc.lower import lower
from specc.source import Diagnostic, Source, find, read
from specc.spec import Spec, load
from specc.spec.grammar import alike


@click.command()
@click.option("--params", metavar="NUMBER", required=True, callback=large(1e6, 1e13), help="With embeddings.")
@click.option("--like", metavar="NAME|FILE", help="Scale a spec: one that specc has, or one of yours.")
@click.option("--vocab", type=click.IntRange(1, 2**24), help=f"Of the tokenizer; {VOCAB}, or that of what is scaled.")
@click.option("--name", help="Of the spec; `decoder`, or of what is scaled, and the size by default.")
@click.option("-o", "out", type=click.Path(path_type=Path), help="Where to write the spec; to stdout by default.")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
def init(params: float, like: str | None, vocab: int | None, name: str | None, out: Path | None, force: bool) -> int:
    """Write a spec of about so many parameters, in sizes that tp 2, 4 and 8 divide."""
    if out is not None and os.path.lexists(out) and not force:
        raise click.BadParameter(f"{out} is there; --force writes over it", param_hint="-o")
    if like is None:
        made, loaded = _plain(params, vocab or VOCAB, name), Loaded()
    else:
        place = _place(like)
        loaded = load_all((place,))
        if loaded.code:
            return fail(loaded)
        made = _scaled(loaded.specs[0], place, params, vocab, name)
    found = made if isinstance(made, list) else load(Source("spec.yaml" if out is None else str(out), made))
    if isinstance(made, list) or isinstance(found, list):  # there is no such size, or the name is none
        loaded.tell(found if isinstance(found, list) else [])
        return fail(loaded)
    return put(out, made)


def _plain(params: float, vocab: int, name: str | None) -> str:
    shape = shape_of(params, vocab)
    if shape is None:
        wish = f"{shown(params)} parameters, give or take {WITHIN:.0%}, of them a vocab of {vocab:,}"
        raise click.UsageError(f"no decoder has {wish}: give it more, or a smaller --vocab")
    text = render(
        "spec.yaml.j2",
        title=Code(f"{shape.parameters:,} parameters, as `specc init --params {shown(params)}` chose their sizes."),
        name=Code(_scalar(name or f"decoder-{_size(params)}")),
        shape=shape,
        tied=Code(str(shape.tied).lower()),
        embeddings=Code(shown(shape.vocab * shape.d_model, 3)),
        shared=shape.heads // shape.kv_heads,
    )
    return str(text)


def _scaled(spec: Spec, place: Path, params: float, vocab: int | None, name: str | None) -> str | list[Diagnostic]:
    assert spec.root is not None, "it was read from a file"
    if vocab is not None and find(spec.root, ("vocab",)) is None:
        raise click.UsageError(f"{spec.model.name} has no vocab: leave --vocab out")
    source = read(place)
    assert isinstance(source, Source), "it was read before"
    kind = re.split(r"-\d[\d.]*[mbt]\b", spec.model.name)[0]  # without the size that it had
    called = _scalar(name or f"{kind}-{_size(params)}")
    made = resized(spec, source, params, lambda model: total(lower(model)), called, vocab)
    if isinstance(made, list):
        return made
    call = f"specc init --params {shown(params)} --like {place.stem}"
    return f"# {made.parameters:,} parameters: {spec.model.name} with its sizes scaled by `{call}`.\n{made.text}"


def _place(like: str) -> Path:
    """A spec of the wheel (specc/specs), else of a checkout, by name; or a file."""
    if Path(like).suffix in (".yaml", ".yml"):
        return Path(like)
    package = Path(__file__).parents[1]
    folders = [place / "specs" / "zoo" for place in (package, package.parent)]
    known = {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}
    if like not in known:
        close = alike(like, known, {})
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
        raise click.BadParameter(f"there is no spec {like}, and a file ends in .yaml; {hint}", param_hint="--like")
    here = Path.cwd()
    return known[like].relative_to(here) if known[like].is_relative_to(here) else known[like]


def _size(params: float) -> str:
    """`1b`, `1.5b`: a part of a name."""
    return shown(params, 3).lower()


def _scalar(name: str) -> str:
    """As a YAML text; whether it can be a name is told when the spec is read."""
    return name if re.fullmatch(r"[\w.-]+", name) else json.dumps(name)
