"""specc size"""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from specc.cli.numbers import large, shown
from specc.cli.specs import Loaded
from specc.cli.table import table
from specc.cost.device import device
from specc.cost.shape import VOCAB
from specc.cost.size import USED, Amount, Machine, Row, Wish, sizing


def _used(context: click.Context, option: click.Parameter, text: str | None) -> Amount | None:
    """`0.4`, or `0.35..0.45` with the middle of it."""
    if text is None:
        return None
    try:
        low, high = (float(end) for end in (text.split("..") if ".." in text else (text, text)))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no share: write 0.4 or 0.35..0.45") from error
    if not 0 < low <= high <= 1:
        raise click.BadParameter(f"{text} is not between 0 and 1, the smaller first")
    return Amount((low + high) / 2, low, high)


@click.command()
@click.option("--params", metavar="NUMBER", callback=large(1e3, 1e18), help="Parameters, with embeddings.")
@click.option(
    "--tokens",
    metavar="NUMBER",
    callback=large(1e3, 1e21),
    help="Tokens to train on, those that come again counted again.",
)
@click.option("--flops", metavar="NUMBER", callback=large(1e9, 1e36), help="Compute of training.")
@click.option("--budget", metavar="NUMBER", callback=large(1e-3, 1e12), help="Compute as hours of a --device.")
@click.option("--served", metavar="NUMBER", callback=large(), help="Tokens that it will read and write in its life.")
@click.option(
    "--unique", metavar="NUMBER", callback=large(1e3, 1e21), help="Different tokens to train on that there are."
)
@click.option("--vocab", type=click.IntRange(1, 2**24), default=VOCAB, show_default=True, help="Of the tokenizer.")
@click.option("--device", "name", metavar="NAME|FILE", help="What it is trained on: h100, or a file of yours.")
@click.option("--gpus", type=click.IntRange(1, 10**7), help="How many of them.")
@click.option("--mfu", callback=_used, metavar="SHARE", help="Of their flops: 0.4 or 0.35..0.45, which is the default.")
@click.option("--json", "as_json", is_flag=True, help="The table as JSON, without rounding.")
def size(
    params: float | None,
    tokens: float | None,
    flops: float | None,
    budget: float | None,
    served: float | None,
    unique: float | None,
    vocab: int,
    name: str | None,
    gpus: int | None,
    mfu: Amount | None,
    as_json: bool,
) -> int:
    """Show parameters, tokens, compute, rates, bytes and hours of a training of which one or two are known."""
    if flops is not None and budget is not None:
        raise click.UsageError("--flops and --budget are both the compute: leave one out")
    needs = {"--budget": budget, "--gpus": gpus, "--mfu": mfu}
    without = [option for option, value in needs.items() if value is not None]
    if name is None and without:
        raise click.UsageError(f"{without[0]} is of a --device: h100, or a file that describes one")
    machine = None
    if name is not None:
        found = device(name)
        if isinstance(found, list):
            loaded = Loaded(unreadable=any(item.code == "E100" for item in found))
            loaded.tell(found)
            return loaded.finish("")
        machine = Machine(found.name, found.peak("bfloat16"), found.memory, mfu or USED, gpus)
    wish = Wish(params, tokens, flops, budget, machine, served, unique, vocab)
    if not wish.given:
        raise click.UsageError("say one or two of --params, --tokens, and --flops or --budget")
    if len(wish.given) > 2:
        raise click.UsageError("of --params, --tokens and the compute two decide the third: leave one out")
    rows = sizing(wish)
    if as_json:
        click.echo(json.dumps({"rows": [asdict(row) for row in rows]}, indent=2))
        return 0
    beside = any(row.beside is not None for row in rows)
    head = ("what", "amount", "range", "at 20 tokens a parameter", "from")
    lines = [head, *map(_line, rows)]
    table([line if beside else (*line[:3], line[4]) for line in lines])
    return 0


def _line(row: Row) -> tuple[str, ...]:
    name = f"{row.name}, {row.unit}" if row.unit and row.unit != "bytes" else row.name
    exact = row.amount.low == row.amount.high
    ends = "" if exact else _range(row.amount, row.unit)
    beside = "" if row.beside is None else shown(row.beside.value, 4 if exact else 2, row.unit)
    return name, _amount(row.amount, row.unit), ends, beside, _from(row)


def _amount(amount: Amount, unit: str) -> str:
    """With as many digits as its range leaves."""
    digits = 4 if amount.low == amount.high else 2 if amount.high < 10 * amount.low else 1
    return shown(amount.value, digits, unit)


def _range(amount: Amount, unit: str) -> str:
    return f"{shown(amount.low, 2, unit)} .. {shown(amount.high, 2, unit)}"


def _from(row: Row) -> str:
    text, of = row.source, row.fitted
    if of is not None:
        text += f"; fitted for {shown(of.low, 2, of.of)} .. {shown(of.high, 2, of.of)} {of.of}"
    return f"{text}: outside" if row.outside else text
