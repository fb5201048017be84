"""The command line. Exit codes: 0 clean, 1 findings or stale files, 2 could not do the work, 130 interrupted."""

from __future__ import annotations

import sys
import traceback

import click

from specc.cli.build import build
from specc.cli.check import check
from specc.cli.plan import plan
from specc.cli.verify import verify


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="specc")
@click.option("--debug", is_flag=True, help="Show the traceback of a bug.")
@click.pass_context
def cli(context: click.Context, debug: bool) -> None:
    """Compile model specs to readable, partitioned PyTorch."""
    context.obj = debug


for command in (check, build, plan, verify):
    cli.add_command(command)


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        code = cli.main(arguments, prog_name="specc", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = 2
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        code = 130
    except Exception as error:  # whatever is not a finding about a spec is a bug of ours, and is told as one
        click.echo(f"This is a bug in specc: {type(error).__name__}: {error}", err=True)
        for note in getattr(error, "__notes__", ()):
            click.echo(note, err=True)
        if "--debug" in arguments:
            traceback.print_exc()
        else:
            click.echo("`specc --debug ...` shows where", err=True)
        code = 2
    sys.exit(code or 0)
