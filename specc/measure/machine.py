"""This machine: its device, what is known of it, and all that is measured."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Literal

import torch
import torch.distributed as dist

from specc.cost.device import Measured, devices
from specc.measure.collectives import collectives
from specc.measure.kernels import Bench, attention_times, bandwidth, begin, matmuls

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def here() -> torch.device:
    """The accelerator of this process, or the CPU."""
    return (
        torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if torch.cuda.is_available() else torch.device("cpu")
    )


def sheet(device: torch.device) -> str | None:
    """The name of the device whose sheet specc has, None where it has none."""
    if device.type == "cpu":
        return "cpu"
    told = torch.cuda.get_device_name(device).lower()
    return next((name for name in devices() if name in told), None)


def usual(device: torch.device) -> Literal["bf16", "fp32"]:
    """What models are trained in there."""
    return "bf16" if device.type == "cuda" else "fp32"


@contextmanager
def joined(device: torch.device) -> Generator[int, None, None]:
    """In a process group with all that torchrun started; the number of this rank, 0 for a process alone."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield 0
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield dist.get_rank()
    finally:
        dist.destroy_process_group()


def measured(device: torch.device, precision: Literal["bf16", "fp32"], quick: bool) -> Measured:
    """Minutes on an accelerator; quickly, seconds. Ranks of a process group measure collectives, too."""
    bench = Bench(device, DTYPES[precision], quick)
    return Measured(
        precision=precision,
        torch=torch.__version__,
        matmuls=matmuls(bench),
        attention=attention_times(bench),
        bandwidth=bandwidth(bench),
        kernel=begin(bench),
        collectives=collectives(bench) if dist.is_initialized() else [],
    )
