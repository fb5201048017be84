"""What a device can do: numbers of its data sheet, and what was measured on one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import Field, ValidationError

from specc.components.base import Config
from specc.source import Diagnostic, Source, parse, plain, read
from specc.spec.grammar import alike
from specc.spec.language import language
from specc.spec.report import Report
from specc.spec.shape import tell
from specc.tables import tables

FOLDER = Path(__file__).parents[1] / "devices"
PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "bf16"}
"""Which of `flops` a dtype of torch has; devices multiply both halves alike."""

Rate = Annotated[float, Field(gt=0, le=1e21)]
"""So many a second."""
Share = Annotated[float, Field(gt=0, le=1)]
Seconds = Annotated[float, Field(gt=0, le=1e4)]
Count = Annotated[int, Field(ge=1, le=2**40)]


class Flops(Config):
    """The most floating-point operations a second, dense."""

    bf16: Rate
    fp32: Rate


class Shares(Config):
    """Which part of a data sheet's number is reached at best."""

    matmul: Share
    attention_forward: Share
    attention_backward: Share
    bandwidth: Share = 0.85
    link: Share = 0.75
    network: Share = 0.8


class Latency(Config):
    """What it takes to begin: a kernel, a collective within a node, one across nodes."""

    kernel: Seconds = 4e-6
    link: Seconds = 8e-6
    network: Seconds = 20e-6


class MatmulTime(Config):
    """Seconds of products [m, k] x [k, n].

    `nt`: the second is transposed, as in a linear; `nn` as in the gradient of its input; `tn`: the first is, as in the
    gradient of its weight.
    """

    m: Count
    n: Count
    k: Count
    nt: Seconds
    nn: Seconds
    tn: Seconds


class AttentionTime(Config):
    """Seconds of the attention kernel over [batch, heads, tokens, head_dim], causal, forward and backward."""

    batch: Count
    heads: Count
    tokens: Count
    head_dim: Count
    forward: Seconds
    backward: Seconds


class CollectiveTime(Config):
    """Seconds of a collective of a whole value of so many bytes, over ranks of one node or of several."""

    kind: Literal["all-reduce", "all-gather", "reduce-scatter", "all-to-all"]
    ranks: Count
    bytes: Count
    seconds: Seconds


class Measured(Config):
    """What `specc measure` found, in one dtype."""

    precision: Literal["bf16", "fp32"]
    torch: str
    matmuls: list[MatmulTime] = Field(default_factory=list[MatmulTime])
    attention: list[AttentionTime] = Field(default_factory=list[AttentionTime])
    bandwidth: Rate | None = None  # of what is done element by element
    kernel: Seconds | None = None  # until one begins
    collectives: list[CollectiveTime] = Field(default_factory=list[CollectiveTime])


class Range(Config):
    """What a modelled step is multiplied by for the least and for the most that a real one takes, nothing measured."""

    low: Annotated[float, Field(gt=0, le=1)] = 0.9
    high: Annotated[float, Field(ge=1, le=100)] = 1.75


class Device(Config):
    """One accelerator and what joins it to others. Bytes, flops and seconds; rates are of one direction."""

    name: str
    flops: Flops
    memory: Rate  # bytes that a program can have
    bandwidth: Rate  # of its memory
    node: Count  # ranks that `link` joins
    link: Rate  # from one rank to others of its node
    network: Rate  # from one rank to other nodes
    shares: Shares
    latency: Latency = Latency()
    range: Range = Range()
    measured: Measured | None = None

    def peak(self, dtype: str) -> float:
        """Flops a second in that dtype of torch. Raises KeyError for one that models are not trained in."""
        return {"bf16": self.flops.bf16, "fp32": self.flops.fp32}[PRECISIONS[dtype]]

    def measured_in(self, dtype: str) -> Measured | None:
        """What was measured in that dtype of torch. Raises KeyError as `peak` does."""
        found = self.measured
        return found if found is not None and found.precision == PRECISIONS[dtype] else None


@cache
def devices() -> Mapping[str, Path]:
    """Files of the devices that specc knows, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def device(name: str) -> Device | list[Diagnostic]:
    """One that specc knows by name, or that a YAML file describes; or what is wrong with it."""
    source = _source(name)
    return source if isinstance(source, list) else described(source)


def device_text(name: str) -> str | list[Diagnostic]:
    """The text of its file, which is right; or what is wrong with it."""
    source = _source(name)
    if isinstance(source, list):
        return source
    found = described(source)
    return source.text if isinstance(found, Device) else found


def _source(name: str) -> Source | list[Diagnostic]:
    if Path(name).suffix in (".yaml", ".yml"):
        return read(name)
    path = devices().get(name)
    if path is None:
        close = alike(name, devices(), {})
        known = f"devices are {', '.join(devices())}, or a file: my-device.yaml"
        help = f"did you mean {close[0]}? {known}" if close else known
        return [Diagnostic("E701", f"there is no device {name}", None, help)]
    return read(path)


def with_measured(text: str, measured: Measured) -> str:
    """The text of a device's file with what was measured in the place of what was before, if anything was."""
    before = re.sub(r"^measured:.*\n(?:[ #].*\n|\n)*", "", text, flags=re.M)
    return f"{before.rstrip()}\nmeasured:\n{''.join(_lines(measured))}"


def _lines(measured: Measured) -> Iterator[str]:
    """Three digits of every number; a line for each row."""
    for name, value in measured.model_dump(exclude_none=True).items():
        if isinstance(value, list):
            rows = cast(list[dict[str, Any]], value)
            yield f"  {name}:\n" if rows else f"  {name}: []\n"
            yield from (
                f"    - {{{', '.join(f'{key}: {_number(each)}' for key, each in row.items())}}}\n" for row in rows
            )
        else:
            yield f"  {name}: {_number(value)}\n"


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else f'"{value}"' if isinstance(value, str) else str(value)


def described(source: Source) -> Device | list[Diagnostic]:
    """The device that a YAML text describes, or all that is wrong with it."""
    parsed = parse(source)
    if parsed.root is None:
        return parsed.found
    report = Report(parsed.root, language(tables()), parsed.found)
    for path in parsed.damaged:
        report.broken(path)
    data: Any = plain(parsed.root)
    try:
        made = Device.model_validate(data)
    except ValidationError as error:
        tell(error, report, Device)
    else:
        if not report.found:
            return made
    return report.findings()
