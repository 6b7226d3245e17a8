"""Reads tensors out of a safetensors file without loading the rest, and writes such files so that either the old or the new one exists.

The header is read here rather than by the safetensors library because a scan must say *what* is wrong with a file ("1.5 of 3.2 GB are
there") and because the byte offsets are what lets a few MB of LoRA be read out of gigabytes. Format:
https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from cmp.disk.replacing import replacing
from cmp.errors import Unreadable

LONGEST_HEADER = 100_000_000  # bytes; the library's own limit
_MOST_AXES = 64  # numpy's own limit

# numpy has no bfloat16 and no float8: their bits are carried in unsigned integers of the same width
NUMPY_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "F8_E4M3": "|u1", "F8_E5M2": "|u1", "F8_E8M0": "|u1", "C64": "<c8",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
_WIDTHS = {name: np.dtype(kind).itemsize for name, kind in NUMPY_TYPES.items()}  # bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one tensor lies: `start` and `end` count bytes from the beginning of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Identity:
    """What a file was when it was looked at: if any of it changes, what was read before may not be mixed with what is read after."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int  # changes with every write, also where a copy sets the old mtime

    def __str__(self) -> str:
        return f"{self.device}:{self.inode}:{self.size}:{self.mtime_ns}:{self.ctime_ns}"


@dataclass(frozen=True, slots=True)
class Header:
    """The table of contents of one safetensors file."""

    path: Path
    tensors: Mapping[str, Entry]
    metadata: Mapping[str, str]
    identity: Identity

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: entry.shape for name, entry in self.tensors.items()}


def identify(path: Path) -> Identity:
    """The identity of a regular file; raises Unreadable for anything else, so that no FIFO is ever opened."""
    try:
        found = os.stat(path)
    except OSError as fault:
        raise Unreadable(f"cannot look at {path}: {fault.strerror}", "Check that it exists and may be read.") from fault
    if not stat.S_ISREG(found.st_mode):
        raise Unreadable(f"{path} is not a regular file", "Only regular files are opened.")
    return Identity(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def read_header(path: Path) -> Header:
    """The header of a safetensors file; raises Unreadable and says what is wrong, also for a file that is still being written."""
    identity = identify(path)
    if identity.size == 0:
        raise Unreadable(f"{path} is empty (0 bytes)", "It may still be being written; look again later.")
    if identity.size < 8:
        raise Unreadable(f"{path} is not a safetensors file: it has {identity.size} bytes", "Check what wrote it.")
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            length = int.from_bytes(file.read(8), "little")
            _check_length(path, length, identity.size)
            raw = file.read(length)
    except OSError as fault:
        raise Unreadable(f"cannot read {path}: {fault.strerror}", "Check its permissions.") from fault
    table = _parse(path, raw)
    metadata = _metadata(path, table.pop("__metadata__", None))
    return Header(path, _entries(path, table, 8 + length, identity.size), metadata, identity)


def _without_waiting(path: str, flags: int) -> int:
    # between the look at it and the opening the name may have come to mean a FIFO
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _check_length(path: Path, length: int, size: int) -> None:
    if length > LONGEST_HEADER:
        raise Unreadable(f"{path} is not a safetensors file: its header claims {length} bytes", "Check what wrote it.")
    if 8 + length > size:
        raise Unreadable(
            f"{path} is incomplete: {size:,} bytes are there and the header alone needs {8 + length:,}",
            "It may still be being written; it is picked up when it is whole.",
        )


def _parse(path: Path, raw: bytes) -> dict[str, Any]:
    try:
        text = raw.decode("utf-8")  # json itself would also guess at UTF-16
        table = json.loads(text)
        if isinstance(table, dict) and text.count(":") > _colons(table):  # seldom: to look at every pair takes as long again
            json.loads(text, object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as fault:
        raise Unreadable(f"{path} has a header that is not JSON", "The file is damaged, or is no safetensors file.") from fault
    if not isinstance(table, dict):
        raise Unreadable(f"{path} has a header that is no table", "The file is damaged, or is no safetensors file.")
    return table


def _colons(table: Mapping[str, Any]) -> int:
    """How many colons a header of these tensors has at least; one that says something twice has more."""
    metadata = table.get("__metadata__")
    inside = len(metadata) if isinstance(metadata, dict) else 0
    return 4 * len(table) + (inside - 3 if "__metadata__" in table else 0)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name stands in it twice")
    return table


def _metadata(path: Path, found: object) -> dict[str, str]:
    """The metadata, which the format takes as texts alone; the library refuses a file where anything else stands in it."""
    try:
        if not isinstance(found, (dict, type(None))):
            raise TypeError
        "".join(found.values() if found else ()).encode()  # JSON can spell halves of surrogate pairs
        "".join(found or ()).encode()
    except (TypeError, ValueError) as fault:
        raise Unreadable(f"{path} has a header whose metadata is no table of texts", "The file is damaged; copy it again.") from fault
    return dict(found or {})


def _entries(path: Path, table: dict[str, Any], origin: int, size: int) -> dict[str, Entry]:
    entries = {}
    for name, described in table.items():
        try:
            dtype, shape = described["dtype"], tuple(described["shape"])
            start, end = described["data_offsets"]
            numbers = (*shape, start, end)
            whole = {*map(type, numbers)} == {int} and min(numbers) >= 0 and max(numbers) < 1 << 63 and len(shape) <= _MOST_AXES
            width = _WIDTHS.get(dtype)
            name.encode()  # JSON can spell halves of surrogate pairs, which no encoding takes
        except (TypeError, KeyError, ValueError) as fault:
            raise Unreadable(f"{path} describes tensor {name[:80]!r} wrongly", "The file is damaged; copy it again.") from fault
        if width is None:
            raise Unreadable(f"{path} holds {name[:80]!r} as {str(dtype)[:20]!r}", "Numbers of this type are not read here.")
        if not whole or end - start != math.prod(shape) * width or (0 in shape and math.prod(filter(None, shape)) * width >= 1 << 63):
            raise Unreadable(f"{path} describes tensor {name[:80]!r} wrongly", "The file is damaged; copy it again.")
        entries[name] = Entry(dtype, shape, origin + start, origin + end)
    _check_layout(path, entries, origin, size)
    return entries


def _check_layout(path: Path, entries: dict[str, Entry], origin: int, size: int) -> None:
    """Tensors must lie end to end: an overlap or a hole means that the offsets cannot be trusted."""
    reached = origin
    for entry in sorted(entries.values(), key=attrgetter("start", "end")):
        if entry.start != reached:
            raise Unreadable(f"{path} has tensors that overlap or leave a hole", "The file is damaged; copy it again.")
        reached = entry.end
    if reached > size:
        raise Unreadable(
            f"{path} is incomplete: {size:,} of {reached:,} bytes are there",
            "It may still be being written; it is picked up when it is whole.",
        )
    if reached < size:
        raise Unreadable(f"{path} has {size - reached:,} bytes behind its last tensor", "The file is damaged; copy it again.")


def read_tensors(header: Header, names: Iterable[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the named tensors one at a time, each a fresh array in its stored type (bfloat16 as its bits, see NUMPY_TYPES).

    Raises Unreadable if the file has been replaced or has changed since its header was read.
    """
    try:
        with open(header.path, "rb", buffering=0, opener=_without_waiting) as file:
            _check_same(header, file.fileno())
            for name in names:
                yield name, _read_tensor(header, file, header.tensors[name])
            _check_same(header, file.fileno())
    except OSError as fault:
        raise Unreadable(f"cannot read {header.path}: {fault.strerror}", "It may have been removed; look again.") from fault


def _read_tensor(header: Header, file: FileIO, entry: Entry) -> np.ndarray:
    array: np.ndarray = np.empty(entry.shape, NUMPY_TYPES[entry.dtype])
    if not array.nbytes:
        return array
    file.seek(entry.start)
    wanted = array.reshape(-1).view(np.uint8)
    got = 0
    while got < wanted.nbytes:  # one call gives at most 2 GiB
        more = file.readinto(wanted[got:].data)
        if not more:
            raise Unreadable(f"{header.path} became shorter while it was read", "Look again when nothing writes to it.")
        got += more
    return array


def _check_same(header: Header, descriptor: int) -> None:
    now = os.fstat(descriptor)
    if Identity(now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns) != header.identity:
        raise Unreadable(f"{header.path} has changed since it was looked at", "Try again when nothing writes to it.")


def as_float32(array: np.ndarray, dtype: str) -> np.ndarray:
    """The values as float32, exact for every floating type that is not wider."""
    if dtype == "BF16":
        return (array.astype("<u4") << 16).view("<f4")
    if dtype in ("F32", "F16", "F64"):
        return array.astype("<f4", copy=False)
    raise Unreadable(f"tensors of type {dtype} hold no weights that can be computed with here", "Save the LoRA in a float type.")


def cast_bits(array: np.ndarray, dtype: str, wanted: str) -> np.ndarray:
    """The array as `wanted` would store it, rounded to nearest even as torch does."""
    if dtype == wanted:
        return array
    values = as_float32(array, dtype)
    if wanted == "BF16":
        bits = values.view("<u4")
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return np.where(np.isnan(values), 0x7FC0, rounded).astype("<u2")
    return values.astype(NUMPY_TYPES[wanted])


def digest_tensors(header: Header, names: Mapping[str, str]) -> str:
    """SHA-256 over the tensors `names` (stored name → canonical name): their canonical names, types, shapes and bytes."""
    total = hashlib.sha256()
    ordered = sorted(names, key=names.__getitem__)
    for stored, array in read_tensors(header, ordered):
        entry = header.tensors[stored]
        total.update(f"{names[stored]}\0{entry.dtype}\0{entry.shape}\0".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def write_tensors(
    target: Path,
    described: Mapping[str, tuple[str, tuple[int, ...]]],
    read: Callable[[str], np.ndarray],
    metadata: Mapping[str, str],
    check: Callable[[Path], object] = lambda draft: None,
) -> None:
    """Writes one safetensors file, tensor by tensor, and syncs it; memory is that of the largest tensor.

    `described` gives type and shape of every tensor; `read(name)` its values in that type. `check(draft)` sees the whole file before it
    takes its name, and raises what stands against it. Raises NoSpace, and BadInput for a place that cannot be written.
    """
    table: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    # widest types first, then by name: the library's own order, which keeps every tensor aligned to its type
    ordered = sorted(described, key=lambda n: (-_WIDTHS[described[n][0]], n))
    reached = 0
    for name in ordered:
        dtype, shape = described[name]
        size = math.prod(shape) * _WIDTHS[dtype]
        table[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [reached, reached + size]}
        reached += size
    head = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    head += b" " * (-len(head) % 8)
    with replacing(target) as draft:
        with open(draft, "wb") as file:
            file.write(len(head).to_bytes(8, "little") + head)
            for name in ordered:
                dtype, shape = described[name]
                array = read(name)
                if array.shape != shape or array.dtype != np.dtype(NUMPY_TYPES[dtype]):
                    raise ValueError(f"{name} was to be {dtype} {shape} and came as {array.dtype} {array.shape}")
                file.write(np.ascontiguousarray(array).data)
            file.flush()
            os.fsync(file.fileno())
        check(draft)
