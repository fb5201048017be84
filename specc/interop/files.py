"""Folders of safetensors: an index and shards, or one file; read a tensor at a time, written as they come."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, cast

import safetensors
import torch

from specc.source import Diagnostic

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
SHARD = 5_000_000_000
"""Bytes of a file, at most, unless one tensor is larger."""
TYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""As the format names them."""


@dataclass(frozen=True)
class Entry:
    """A tensor of a folder."""

    file: Path
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Folder:
    """Tensors by name; `get` reads one, from the open files."""

    place: Path
    entries: dict[str, Entry]
    handles: dict[Path, Any]

    def get(self, name: str) -> torch.Tensor:
        """Raises KeyError."""
        return self.handles[self.entries[name].file].get_tensor(name)


def open_folder(place: Path, stack: ExitStack) -> Folder | list[Diagnostic]:
    """The folder with its headers read and checked, or everything that is wrong with it (E641 to E643)."""
    listed = _listed(place)
    if not isinstance(listed, dict):
        return listed
    found: list[Diagnostic] = []
    entries: dict[str, Entry] = {}
    handles: dict[Path, Any] = {}
    for file, wanted in listed.items():
        try:
            handle: Any = stack.enter_context(safetensors.safe_open(file, framework="pt"))
            here: dict[str, Entry] = {}
            for name in handle.keys():  # noqa: SIM118 (it is no mapping)
                part = handle.get_slice(name)
                here[name] = Entry(file, tuple(part.get_shape()), part.get_dtype())
        except (OSError, safetensors.SafetensorError) as error:
            found.append(_broken(file, error))
            continue
        handles[file] = handle
        for name in here if wanted is not None else ():
            if name not in (wanted or ()):
                found.append(_found("E643", file, f"it holds {name}, which the index does not say"))
        for name in wanted or ():
            if name not in here:
                found.append(_found("E643", file, f"the index says that it holds {name}"))
        for name, entry in here.items():
            if name in entries:
                found.append(_found("E643", file, f"{name} is in {entries[name].file.name}, too"))
            if entry.dtype not in TYPES:
                found.append(_found("E643", file, f"{name} is of the type {entry.dtype}, which torch has not"))
            entries[name] = entry
    return found or Folder(place, entries, handles)


def _listed(place: Path) -> dict[Path, set[str] | None] | list[Diagnostic]:
    """The files, with the names that an index says of each."""
    if place.is_file():
        return {place: None}
    if not place.is_dir():
        return [_found("E641", place, "there is no such folder")]
    indices = sorted(place.glob("*.safetensors.index.json"))
    if len(indices) > 1:
        return [_found("E641", place, f"there are several indices: {', '.join(path.name for path in indices)}")]
    if not indices:
        files = sorted(place.glob("*.safetensors"))
        if files:
            return dict.fromkeys(files)
        pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in place.glob(pattern))
        what = f"but {', '.join(pickles)}, which may run code when read" if pickles else "in it"
        return [_found("E641", place, f"there is no *.safetensors {what}")]
    try:
        loaded: Any = json.loads(indices[0].read_text(encoding="utf-8"))
        weights = cast(dict[str, str], loaded["weight_map"])
        made: dict[Path, set[str] | None] = {}
        for name, file in weights.items():
            if Path(file).name != file:
                return [_found("E643", indices[0], f"{name} is said to be in {file}, outside of the folder")]
            names = made.setdefault(place / file, set())
            assert names is not None
            names.add(name)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return [_found("E643", indices[0], f"it is no index: {type(error).__name__}: {error}")]
    return made


def _broken(file: Path, error: Exception) -> Diagnostic:
    """What a file is that cannot be read as safetensors."""
    if not file.exists():
        return _found("E642", file, "the index names it, but it is not there")
    try:
        with file.open("rb") as opened:
            start = opened.read(2)
    except OSError as problem:
        return _found("E642", file, f"it cannot be read: {problem.strerror}")
    if start in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        return _found("E642", file, "it is a pickle, not safetensors; pickles run code and are not read")
    return _found("E642", file, f"it is damaged or cut short: {str(error)[:120]}")


def _found(code: str, file: Path, message: str) -> Diagnostic:
    return Diagnostic(code, f"{file}: {message}", None)


@dataclass(frozen=True)
class Coming:
    """A tensor that is to be written, and what makes it."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    make: Callable[[], torch.Tensor]

    @property
    def bytes(self) -> int:
        return prod(self.shape) * TYPES[self.dtype].itemsize


def write_folder(place: Path, coming: list[Coming], shard: int = SHARD, texts: Iterable[tuple[str, str]] = ()) -> None:
    """Write shards and an index, with other files beside them; the folder is there once all of it is.

    Raises OSError, FileExistsError where there is something in the folder, and what making a tensor raises.
    """
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise FileExistsError(17, "there is something already", str(place))
    place.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}.", suffix=".specc-new"))
    try:
        shards = _shards(coming, shard)
        index: dict[str, str] = {}
        for n, tensors in enumerate(shards, 1):
            name = SINGLE if len(shards) == 1 else f"model-{n:05}-of-{len(shards):05}.safetensors"
            _write(new / name, tensors)
            index |= {tensor.name: name for tensor in tensors}
        if len(shards) > 1:
            total = {"total_size": sum(tensor.bytes for tensor in coming)}
            made = {"metadata": total, "weight_map": dict(sorted(index.items()))}
            (new / INDEX).write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
        for name, text in texts:
            (new / name).write_text(text, encoding="utf-8")
        mask = os.umask(0)
        os.umask(mask)
        new.chmod(0o777 & ~mask)
        os.replace(new, place)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def _shards(coming: list[Coming], shard: int) -> list[list[Coming]]:
    made: list[list[Coming]] = [[]]
    size = 0
    for tensor in coming:
        if made[-1] and size + tensor.bytes > shard:
            made.append([])
            size = 0
        made[-1].append(tensor)
        size += tensor.bytes
    return made


def _write(path: Path, tensors: list[Coming]) -> None:
    """The format: the length of the header in 8 bytes, the header in JSON, the tensors one after the other."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [end, end + tensor.bytes],
        }
        end += tensor.bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("xb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for tensor in tensors:
            value = tensor.make().detach().cpu().contiguous()
            if tuple(value.shape) != tensor.shape or value.dtype != TYPES[tensor.dtype]:
                raise ValueError(
                    f"{tensor.name} is {value.dtype} {tuple(value.shape)}, not {tensor.dtype} {tensor.shape}"
                )
            if value.numel():
                file.write(value.reshape(-1).view(torch.uint8).numpy().data)
        file.flush()
        os.fsync(file.fileno())
