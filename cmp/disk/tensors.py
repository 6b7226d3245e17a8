"""Reads tensors out of weights files without loading the rest.

The header is read here rather than by the safetensors library because a scan must say *what* is wrong with a file ("1.5 of 3.2 GB are
there") and because the byte offsets are what lets a few MB of LoRA be read out of gigabytes. Format:
https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from io import FileIO
from pathlib import Path

import numpy as np

from cmp.core.progress import Progress
from cmp.disk.numbers import NUMPY_TYPES, as_float32
from cmp.disk.table import Entry, read_table
from cmp.errors import Unreadable

PART_OF = "cmp.part_of"  # in the metadata of a file that holds the LoRA of a dump and not its frozen tensors: where these are
LONGEST_HEADER = 100_000_000  # bytes; the library's own limit


@dataclass(frozen=True, slots=True)
class Identity:
    """What a file was when it was looked at: if any of it changes, what was read before may not be mixed with what is read after."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int  # changes with every write, also where a copy sets the old mtime; 0 where the file has several names, see `of`
    names: int = field(default=1, compare=False)

    @classmethod
    def of(cls, found: os.stat_result) -> Identity:
        """The identity in a look at a file. Every further hard link to a file changes its ctime too, as backups make them."""
        ctime = found.st_ctime_ns if found.st_nlink < 2 else 0
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, ctime, found.st_nlink)

    def became(self, now: Identity) -> bool:
        """Whether a later look shows the same file, be it under more names or fewer: each that comes or goes changes its ctime."""
        return now == self or (now.names != self.names and replace(now, ctime_ns=self.ctime_ns) == self)

    def __str__(self) -> str:
        return f"{self.device}:{self.inode}:{self.size}:{self.mtime_ns}:{self.ctime_ns}"


@dataclass(frozen=True, slots=True)
class Header:
    """The table of contents of one weights file, or of several that together make a checkpoint: `others` are those beside `path`.

    `references` are what a compacted file cannot be read without: its manifest, and the files that hold its frozen tensors.
    """

    path: Path
    tensors: Mapping[str, Entry]
    metadata: Mapping[str, str]
    identity: Identity
    others: tuple[tuple[Path, Identity], ...] = ()
    references: tuple[tuple[Path, Identity | None], ...] = ()

    @property
    def files(self) -> tuple[tuple[Path, Identity], ...]:
        return ((self.path, self.identity), *self.others)

    @property
    def subject(self) -> str:
        """What facts about these very files are remembered under."""
        return "|".join(f"{path}|{identity}" for path, identity in (*self.files, *self.references))

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
    return Identity.of(found)


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
    try:
        tensors, metadata = read_table(raw, 8 + length, identity.size)
    except Unreadable as fault:
        raise Unreadable(f"{path} {fault.message}", fault.hint) from fault
    return Header(path, tensors, metadata, identity)


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


def join_headers(parts: Iterable[tuple[str, Header]]) -> Header:
    """One table of contents over several files. Each comes with what to put in front of its tensors' names ("" or `text_encoder.`)."""
    files: list[tuple[Path, Identity]] = []
    references: dict[tuple[Path, Identity | None], None] = {}
    tensors: dict[str, Entry] = {}
    metadata: dict[str, str] = {}
    for prefix, header in parts:
        for name, entry in header.tensors.items():
            if f"{prefix}{name}" in tensors:
                raise Unreadable(f"{prefix}{name} is in two files, the second is {header.path}", "Nobody can say which was trained.")
            tensors[f"{prefix}{name}"] = replace(entry, file=len(files) + entry.file)
        files.extend(header.files)
        references |= dict.fromkeys(header.references)
        metadata = {**header.metadata, **metadata}
    return Header(files[0][0], tensors, metadata, files[0][1], tuple(files[1:]), tuple(references))


def read_tensors(header: Header, names: Iterable[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the named tensors one at a time, each a fresh array in its stored type (bfloat16 as its bits, see numbers.NUMPY_TYPES).

    Raises Unreadable if a file has been replaced or has changed since its header was read.
    """
    from cmp.disk.raw import RawReader  # it is built on this module

    opened: dict[int, FileIO] = {}
    sealed: RawReader | None = None
    with ExitStack() as closing:
        for name in names:
            entry = header.tensors[name]
            if entry.seal:
                sealed = sealed or closing.enter_context(RawReader(header))
                yield name, sealed.array(name)
                continue
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


def read_float32(header: Header, name: str) -> np.ndarray:
    """One tensor's values as float32, see numbers.as_float32."""
    return as_float32(read_tensor(header, name), header.tensors[name].dtype)


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
    if not identity.became(Identity.of(os.fstat(descriptor))):
        raise Unreadable(f"{path} has changed since it was looked at", "Try again when nothing writes to it.")


def digest_tensors(header: Header, names: Mapping[str, str]) -> Generator[Progress, None, str]:
    """SHA-256 over the tensors `names` (stored name → canonical name): their canonical names, types, shapes and bytes."""
    total = hashlib.sha256()
    ordered = sorted(names, key=names.__getitem__)
    for done, (stored, array) in enumerate(read_tensors(header, ordered)):
        entry = header.tensors[stored]
        total.update(f"{names[stored]}\0{entry.dtype}\0{entry.shape}\0".encode())
        total.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        yield Progress(done, len(ordered), "hashing what was trained")
    return total.hexdigest()
