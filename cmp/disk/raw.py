"""Streams tensors as bytes through one small buffer: for comparing and copying gigabytes, arrays as large as each tensor cost more time."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import replace
from io import FileIO
from pathlib import Path
from types import TracebackType

import numpy as np

from cmp.core.progress import Progress
from cmp.disk.numbers import NUMPY_TYPES, WIDTHS, cast_bits
from cmp.disk.table import Seal
from cmp.disk.tensors import Entry, Header, check_same, identify, without_waiting
from cmp.errors import Refused, Unreadable

_BLOCK = 1 << 20  # bytes: fits into a processor's cache
STRIDE = 16 * _BLOCK  # bytes after which long work can be left: a plain disk gives them in a fraction of a second


class RawReader:
    """The bytes of a header's tensors, a block at a time. A file that changes between the first and the last look is Unreadable.

    What a compacted file has elsewhere is proven by its digest once a tensor's last block was read; without `proving` it is the caller's
    to prove.
    """

    def __init__(self, header: Header, *, proving: bool = True) -> None:
        self.header = header
        self._proving = proving
        self._files: dict[int, FileIO] = {}
        self._sealed: dict[Path, FileIO] = {}
        self._closing = ExitStack()
        self._buffer = bytearray(_BLOCK)

    def __enter__(self) -> RawReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        with self._closing:
            if kind is None:
                for index, file in self._files.items():
                    check_same(*self.header.files[index], file.fileno())

    def blocks(self, name: str, wanted: str | None = None) -> Iterator[memoryview]:
        """One tensor's bytes in order, in the type `wanted` or in its own. A block is valid until the next one is asked for."""
        entry = self.header.tensors[name]
        if entry.seal is None:
            yield from self._cast(self._file(entry), entry, entry.start, entry.dtype, wanted or entry.dtype)
            return
        if wanted not in (None, entry.dtype):
            raise ValueError(f"{name} is sealed as {entry.dtype} and was wanted as {wanted}")
        digest = hashlib.sha256()
        for block in self._cast(self._sealed_file(entry.seal), entry, entry.seal.start, entry.seal.dtype, entry.dtype):
            if self._proving:
                digest.update(block)
            yield block
        if self._proving and digest.hexdigest() != entry.seal.sha256:
            raise self.broken(name, entry.seal)

    def array(self, name: str) -> np.ndarray:
        """One tensor as a fresh array, see tensors.read_tensors."""
        entry = self.header.tensors[name]
        found: np.ndarray = np.empty(entry.shape, NUMPY_TYPES[entry.dtype])
        raw, got = found.reshape(-1).view(np.uint8), 0
        for block in self.blocks(name):
            raw[got : got + len(block)] = np.frombuffer(block, np.uint8)
            got += len(block)
        return found

    def broken(self, name: str, seal: Seal) -> Refused | Unreadable:
        """What it means that a tensor of a compacted file has other bytes than it had."""
        if seal.path == self.header.path or any(seal.path == path for path, _ in self.header.files):
            return Unreadable(f"{seal.path} is damaged: {name} is not what was written into it", "Copy the file again from a backup.")
        told = f"{seal.path} has changed since {self.header.path} was compacted against it: {name} is another"
        return Refused(told, "Put back the file that it was. Nothing else holds those weights.")

    def _cast(self, file: FileIO, entry: Entry, start: int, stored: str, wanted: str) -> Iterator[memoryview]:
        """The bytes of a tensor that lies at `start` of a file, cast a block at a time."""
        view, width = memoryview(self._buffer), WIDTHS[stored]
        end = start + (entry.end - entry.start) // WIDTHS[entry.dtype] * width
        stride = _BLOCK // WIDTHS[wanted] * width  # so that blocks are equally long whatever they are cast from
        for place in range(start, end, stride):
            size = min(stride, end - place)
            file.seek(place)  # another tensor may be read between two blocks
            if stored == wanted:
                _fill(file, view[:size])
                yield view[:size]
                continue
            raw = bytearray(size)
            _fill(file, memoryview(raw))
            cast = np.ascontiguousarray(cast_bits(np.frombuffer(raw, NUMPY_TYPES[stored]), stored, wanted)).view(np.uint8)
            view[: cast.nbytes] = cast.data
            yield view[: cast.nbytes]

    def _file(self, entry: Entry) -> FileIO:
        if entry.file not in self._files:
            path, identity = self.header.files[entry.file]
            try:
                file = self._closing.enter_context(open(path, "rb", buffering=0, opener=without_waiting))  # noqa: SIM115
            except OSError as fault:
                raise Unreadable(f"cannot read {path}: {fault.strerror}", "It may have been removed; look again.") from fault
            check_same(path, identity, file.fileno())
            self._files[entry.file] = file
        return self._files[entry.file]

    def _sealed_file(self, seal: Seal) -> FileIO:
        if seal.missing:
            raise Unreadable(seal.missing, "Put it back where it was.")
        if seal.path not in self._sealed:
            identify(seal.path)
            try:
                file = self._closing.enter_context(open(seal.path, "rb", buffering=0, opener=without_waiting))  # noqa: SIM115
            except OSError as fault:
                raise Unreadable(f"cannot read {seal.path}: {fault.strerror}", "It may have been removed; look again.") from fault
            self._sealed[seal.path] = file
        return self._sealed[seal.path]


def _fill(file: FileIO, block: memoryview) -> None:
    got = 0
    while got < len(block):
        if not (more := file.readinto(block[got:])):
            raise Unreadable(f"{file.name} became shorter while it was read", "Look again when nothing writes to it.")
        got += more


def comparing_bytes(first: RawReader, name: str, second: RawReader, other: str, so_far: Progress) -> Generator[Progress, None, bool]:
    """Whether two tensors of one shape are equal to the bit, once the second is cast to the first one's type.

    Counts on from how far the longer work has come.
    """
    done, kind = 0, first.header.tensors[name].dtype
    for ours, theirs in zip(first.blocks(name), second.blocks(other, kind), strict=True):
        if not _equal(ours, theirs):
            return False
        done += len(ours)
        if done % STRIDE == 0:
            yield replace(so_far, done_bytes=so_far.done_bytes + done)
    return True


def has_digest(reader: RawReader, name: str, kind: str, sha256: str, so_far: Progress) -> Generator[Progress, None, bool]:
    """Whether a tensor's bytes, cast to the type `kind`, have this SHA-256."""
    done, digest = 0, hashlib.sha256()
    for block in reader.blocks(name, kind):
        digest.update(block)
        done += len(block)
        if done % STRIDE == 0:
            yield replace(so_far, done_bytes=so_far.done_bytes + done)
    return digest.hexdigest() == sha256


def _equal(ours: memoryview, theirs: memoryview) -> bool:
    if len(ours) == len(theirs) == _BLOCK:
        return bool(ours.obj == theirs.obj)  # the buffers themselves: views are compared one byte at a time
    return bytes(ours) == bytes(theirs)
