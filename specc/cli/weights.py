"""specc weights"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import click

from specc.cli.interchange import fail, family_option, map_option
from specc.cli.specs import load_all
from specc.source import Diagnostic, Source
from specc.spec import Spec

if TYPE_CHECKING:
    from specc.interop.exporting import Exported
    from specc.interop.plan import Plan
    from specc.interop.schema import Mapping

GIGABYTE = 1_000_000_000
Moved = list[Diagnostic] | Callable[[], list[Diagnostic]]
"""What keeps weights from being moved, or what moves them and says what was wrong then."""
size_option = click.option(
    "--shard-size",
    type=click.FloatRange(min=1e-6),
    default=5.0,
    show_default=True,
    help="Gigabytes of a file, at most.",
)
form_option = click.option(
    "--form",
    type=click.Choice(["hub", "class"]),
    default="hub",
    show_default=True,
    help="Tensors as files on the hub have them, or as the class holds them; it reads both.",
)
out_option = click.option("-o", "out", type=click.Path(path_type=Path), required=True, help="A folder to be made.")
spec_argument = click.argument("spec", type=click.Path(path_type=Path))
folder_argument = click.argument("folder", type=click.Path(path_type=Path))


@click.group()
def weights() -> None:
    """Rename and rearrange safetensors between Hugging Face's classes and generated files."""


@weights.command("to-specc")
@spec_argument
@folder_argument
@out_option
@family_option
@map_option
@size_option
def to_specc(spec: Path, folder: Path, out: Path, family: str | None, own: Path | None, shard_size: float) -> int:
    """Weights of a class of Hugging Face, in FOLDER, as a generated file has them."""

    def ready(model: Spec) -> Moved:
        mapping = _of_folder(folder, own) if family is None and (folder / "config.json").is_file() else None
        if mapping is None:
            made = _exported(model, family, own)
            mapping = made if isinstance(made, list) else made.mapping
        plan = mapping if isinstance(mapping, list) else _plan(model, mapping)
        if isinstance(plan, list):
            return plan
        return lambda: _weights().to_specc(plan, folder, out, int(shard_size * GIGABYTE))

    return _run(spec, out, ready)


@weights.command("to-hf")
@spec_argument
@folder_argument
@out_option
@family_option
@map_option
@form_option
@size_option
def to_hf(
    spec: Path, folder: Path, out: Path, family: str | None, own: Path | None, form: str, shard_size: float
) -> int:
    """Weights of a generated file, in FOLDER, and their config.json, for a class of Hugging Face."""

    def ready(model: Spec) -> Moved:
        made = _exported(model, family, own)
        plan = made if isinstance(made, list) else _plan(model, made.mapping)
        if isinstance(made, list) or isinstance(plan, list):
            return plan if isinstance(plan, list) else []
        plan = plan.hub if form == "hub" and plan.hub is not None else plan
        texts = [("config.json", made.text)]
        return lambda: _weights().to_hf(plan, folder, out, int(shard_size * GIGABYTE), texts)

    return _run(spec, out, ready)


def _weights() -> ModuleType:
    try:
        from specc.interop import weights
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "numpy", "safetensors"):
            raise
        raise click.ClickException(f"weights need torch: pip install 'specc[torch]' ({error})") from error
    return weights


def _run(spec: Path, out: Path, ready: Callable[[Spec], Moved]) -> int:
    """Load the spec and move its weights; what is wrong before or then is told."""
    loaded = load_all((spec,))
    if loaded.code:
        return fail(loaded)
    move = ready(loaded.specs[0])
    if not callable(move):
        loaded.tell(move)
        return fail(loaded)
    try:
        found = move()
    except OSError as error:
        click.echo(f"error: {out} cannot be written: {error.strerror or error}", err=True)
        return 2
    if found:
        loaded.tell(found)
        return fail(loaded)
    click.echo(f"wrote     {out}", err=True)
    return 0


def _plan(spec: Spec, mapping: Mapping) -> Plan | list[Diagnostic]:
    from specc.interop.plan import parameters, plan
    from specc.lower import lower

    return plan(mapping, parameters(lower(spec.model)))


def _of_folder(folder: Path, own: Path | None) -> Mapping | list[Diagnostic]:
    """The mapping of the config beside the weights, as its fields have it."""
    from specc.interop.importing import mapping_of, read_config

    source = read_config(folder)
    if not isinstance(source, Source):
        return source
    given = _own(own)
    return given if isinstance(given, list) else mapping_of(source, given)


def _exported(spec: Spec, family: str | None, own: Path | None) -> Exported | list[Diagnostic]:
    from specc.interop.exporting import export

    given = _own(own)
    return given if isinstance(given, list) else export(spec, family, given)


def _own(own: Path | None) -> Mapping | list[Diagnostic] | None:
    from specc.interop.library import mapping

    return None if own is None else mapping(own)
