"""The command line.

Exit codes: 0 clean, 1 findings or stale files, 2 could not do the work, 130 interrupted, 141 nobody reads the output.
"""

from __future__ import annotations

import gc
import io
import os
import sys
import traceback
from collections.abc import Generator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any, NamedTuple

import click

COMMANDS = {
    "check": "Validate specs and every layout of them.",
    "build": "Write the PyTorch file of each spec, and the table of its parameters.",
    "plan": "Show every decided value and where it comes from.",
    "measure": "Measure this machine's device for `plan`.",
    "init": "Write a spec of about so many parameters, in sizes that tp 2, 4 and 8 divide.",
    "size": "Show parameters, tokens, compute, rates, bytes and hours of a training of which one or two are known.",
    "verify": "Prove that interpreter, generated file and layout compute the same.",
    "import": "Make a spec of a config.json of Hugging Face.",
    "export": "Make a config.json of Hugging Face of a spec.",
    "weights": "Turn weights of Hugging Face into those of generated files, and back.",
}
"""Each in a module of its name, imported when it is called."""
MODULES = {"import": "import_spec", "export": "export_spec"}  # import is a word of Python


class Unread(Exception):
    """The reader of the output is gone. Where that is an OSError click ends with 1, which is for findings."""


@contextmanager
def _read() -> Generator[None, None, None]:
    try:
        yield
    except BrokenPipeError as error:
        raise Unread from error


class Chosen(NamedTuple):
    """What the options before a command say: extensions as they are named, and whether specs may bring their own."""

    extensions: tuple[str, ...] = ()
    own: bool = False


class Commands(click.Group):
    """Commands by name; the short help does not import them."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        with _read():  # help is printed here
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _read():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        name = MODULES.get(cmd_name, cmd_name)
        return getattr(import_module(f"specc.cli.{name}"), name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="specc")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of a bug.")  # read by `main`
@click.option("--extension", "extensions", multiple=True, metavar="MODULE:NAME", help="Use an extension, too.")
@click.option("--allow-components", is_flag=True, help="Run the Python files that specs name as `components`.")
@click.pass_context
def cli(context: click.Context, extensions: tuple[str, ...], allow_components: bool) -> None:
    """Compile model specs to readable, partitioned PyTorch."""
    context.obj = Chosen(extensions, allow_components)


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit."""
    arguments = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name of a file may have what a terminal has not
    collecting = gc.isenabled()
    gc.disable()  # a build is over before there is anything worth collecting
    try:
        code = cli.main(arguments, prog_name="specc", standalone_mode=False)
        if sys.stdout is not None:  # pyright: ignore[reportUnnecessaryComparison]  # it was closed
            sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        code = 2
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        code = 130
    except (BrokenPipeError, Unread):
        code = 141
        _print_no_more()
    except OSError as error:  # the disk is full
        if "--debug" in arguments:
            traceback.print_exc()
        click.echo(f"error: {error}", err=True)
        code = 2
        _print_no_more()
    except Exception as error:  # whatever is not a finding about a spec is a bug of ours, and is told as one
        click.echo(f"This is a bug in specc: {type(error).__name__}: {error}", err=True)
        for note in getattr(error, "__notes__", ()):
            click.echo(note, err=True)
        if "--debug" in arguments:
            traceback.print_exc()
        else:
            click.echo("`specc --debug ...` shows where", err=True)
        code = 2
    finally:
        if collecting:
            gc.enable()
    sys.exit(code or 0)


def _print_no_more() -> None:
    with suppress(io.UnsupportedOperation):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
