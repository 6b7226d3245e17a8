"""Reads tensors out of weights files without loading the rest.

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
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache
from io import FileIO
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from cmp.disk.numbers import NUMPY_TYPES, WIDTHS
from cmp.errors import Unreadable

LONGEST_HEADER = 100_000_000  # bytes; the library's own limit
_SHARED = 1_000_000  # bytes; longer ones are seldom, and are not kept
_MOST_AXES = 64  # numpy's own limit


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one tensor lies: `start` and `end` count bytes from the beginning of the file, `file` says which of the header's files."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int
    file: int = 0


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


NOBODY = Identity(0, 0, 0, 0, 0)  # of a file that was not looked at


@dataclass(frozen=True, slots=True)
class Header:
    """The table of contents of one weights file, or of several that together make a checkpoint: `others` are those beside `path`."""

    path: Path
    tensors: Mapping[str, Entry]
    metadata: Mapping[str, str]
    identity: Identity
    others: tuple[tuple[Path, Identity], ...] = ()

    @property
    def files(self) -> tuple[tuple[Path, Identity], ...]:
        return ((self.path, self.identity), *self.others)

    @property
    def subject(self) -> str:
        """What facts about these very files are remembered under."""
        return "|".join(f"{path}|{identity}" for path, identity in self.files)

    @property
    def bytes(self) -> int:
        return sum(identity.size for _, identity in self.files)

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
        with open(path, "rb", opener=without_waiting) as file:
            length = int.from_bytes(file.read(8), "little")
            _check_length(path, length, identity.size)
            raw = file.read(length)
    except OSError as fault:
        raise Unreadable(f"cannot read {path}: {fault.strerror}", "Check its permissions.") from fault
    read = _contents if length <= _SHARED else _contents.__wrapped__
    try:
        tensors, metadata = read(raw, 8 + length, identity.size)
    except Unreadable as fault:
        raise Unreadable(f"{path} {fault.message}", fault.hint) from fault
    return Header(path, tensors, metadata, identity)


@lru_cache(maxsize=256)  # the checkpoints of a run mostly differ in their numbers alone, so that one reading serves them all
def _contents(raw: bytes, origin: int, size: int) -> tuple[Mapping[str, Entry], Mapping[str, str]]:
    """The tensors and the metadata that a header describes; the errors lack the file's name."""
    table = _parse(raw)
    metadata = _metadata(table.pop("__metadata__", None))
    return _entries(table, origin, size), metadata


def without_waiting(path: str, flags: int) -> int:
    """An opener for regular files that never blocks."""
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


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        text = raw.decode("utf-8")  # json itself would also guess at UTF-16
        table = json.loads(text)
        if isinstance(table, dict) and text.count(":") > _colons(table):  # seldom: to look at every pair takes as long again
            json.loads(text, object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as fault:
        raise Unreadable("has a header that is not JSON", "The file is damaged, or is no safetensors file.") from fault
    if not isinstance(table, dict):
        raise Unreadable("has a header that is no table", "The file is damaged, or is no safetensors file.")
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


def _metadata(found: object) -> dict[str, str]:
    """The metadata, which the format takes as texts alone; the library refuses a file where anything else stands in it."""
    try:
        if not isinstance(found, (dict, type(None))):
            raise TypeError
        "".join(found.values() if found else ()).encode()  # JSON can spell halves of surrogate pairs
        "".join(found or ()).encode()
    except (TypeError, ValueError) as fault:
        raise Unreadable("has a header whose metadata is no table of texts", "The file is damaged; copy it again.") from fault
    return dict(found or {})


def _entries(table: dict[str, Any], origin: int, size: int) -> dict[str, Entry]:
    entries = {}
    for name, described in table.items():
        try:
            dtype, shape = described["dtype"], tuple(described["shape"])
            start, end = described["data_offsets"]
            numbers = (*shape, start, end)
            whole = {*map(type, numbers)} == {int} and min(numbers) >= 0 and max(numbers) < 1 << 63 and len(shape) <= _MOST_AXES
            width = WIDTHS.get(dtype)
            name.encode()  # JSON can spell halves of surrogate pairs, which no encoding takes
        except (TypeError, KeyError, ValueError) as fault:
            raise Unreadable(f"describes tensor {name[:80]!r} wrongly", "The file is damaged; copy it again.") from fault
        if width is None:
            raise Unreadable(f"holds {name[:80]!r} as {str(dtype)[:20]!r}", "Numbers of this type are not read here.")
        if not whole or end - start != math.prod(shape) * width or (0 in shape and math.prod(filter(None, shape)) * width >= 1 << 63):
            raise Unreadable(f"describes tensor {name[:80]!r} wrongly", "The file is damaged; copy it again.")
        entries[name] = Entry(dtype, shape, origin + start, origin + end)
    _check_layout(entries, origin, size)
    return entries


def _check_layout(entries: dict[str, Entry], origin: int, size: int) -> None:
    """Tensors must lie end to end: an overlap or a hole means that the offsets cannot be trusted."""
    reached = origin
    for entry in sorted(entries.values(), key=attrgetter("start", "end")):
        if entry.start != reached:
            raise Unreadable("has tensors that overlap or leave a hole", "The file is damaged; copy it again.")
        reached = entry.end
    if reached > size:
        raise Unreadable(
            f"is incomplete: {size:,} of {reached:,} bytes are there",
            "It may still be being written; it is picked up when it is whole.",
        )
    if reached < size:
        raise Unreadable(f"has {size - reached:,} bytes behind its last tensor", "The file is damaged; copy it again.")


def join_headers(parts: Iterable[tuple[str, Header]]) -> Header:
    """One table of contents over several files. Each comes with what to put in front of its tensors' names ("" or `text_encoder.`)."""
    files: list[tuple[Path, Identity]] = []
    tensors: dict[str, Entry] = {}
    metadata: dict[str, str] = {}
    for prefix, header in parts:
        for name, entry in header.tensors.items():
            if f"{prefix}{name}" in tensors:
                raise Unreadable(f"{prefix}{name} is in two files, the second is {header.path}", "Nobody can say which was trained.")
            tensors[f"{prefix}{name}"] = replace(entry, file=len(files) + entry.file)
        files.extend(header.files)
        metadata = {**header.metadata, **metadata}
    return Header(files[0][0], tensors, metadata, files[0][1], tuple(files[1:]))


def read_tensors(header: Header, names: Iterable[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the named tensors one at a time, each a fresh array in its stored type (bfloat16 as its bits, see numbers.NUMPY_TYPES).

    Raises Unreadable if a file has been replaced or has changed since its header was read.
    """
    opened: dict[int, FileIO] = {}
    with ExitStack() as closing:
        for name in names:
            entry = header.tensors[name]
            path, identity = header.files[entry.file]
            try:
                if entry.file not in opened:
                    opened[entry.file] = closing.enter_context(open(path, "rb", buffering=0, opener=without_waiting))
                    check_same(path, identity, opened[entry.file].fileno())
                array = _read_tensor(path, opened[entry.file], entry)
            except OSError as fault:
                raise Unreadable(f"cannot read {path}: {fault.strerror}", "It may have been removed; look again.") from fault
            yield name, array
        for index, file in opened.items():
            check_same(*header.files[index], file.fileno())


def read_tensor(header: Header, name: str) -> np.ndarray:
    """One tensor, see read_tensors."""
    return next(iter(read_tensors(header, [name])))[1]


def _read_tensor(path: Path, file: FileIO, entry: Entry) -> np.ndarray:
    array: np.ndarray = np.empty(entry.shape, NUMPY_TYPES[entry.dtype])
    if not array.nbytes:
        return array
    file.seek(entry.start)
    wanted = array.reshape(-1).view(np.uint8)
    got = 0
    while got < wanted.nbytes:  # one call gives at most 2 GiB
        more = file.readinto(wanted[got:].data)
        if not more:
            raise Unreadable(f"{path} became shorter while it was read", "Look again when nothing writes to it.")
        got += more
    return array


def check_same(path: Path, identity: Identity, descriptor: int) -> None:
    """Raises Unreadable if an opened file is not what was looked at."""
    now = os.fstat(descriptor)
    if Identity(now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns) != identity:
        raise Unreadable(f"{path} has changed since it was looked at", "Try again when nothing writes to it.")


def digest_tensors(header: Header, names: Mapping[str, str]) -> str:
    """SHA-256 over the tensors `names` (stored name → canonical name): their canonical names, types, shapes and bytes."""
    total = hashlib.sha256()
    ordered = sorted(names, key=names.__getitem__)
    for stored, array in read_tensors(header, ordered):
        entry = header.tensors[stored]
        total.update(f"{names[stored]}\0{entry.dtype}\0{entry.shape}\0".encode())
        total.update(array.tobytes())
    return total.hexdigest()
