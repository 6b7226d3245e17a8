"""Streams tensors as bytes through one small buffer: for comparing and copying gigabytes, arrays as large as each tensor cost more time."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import replace
from io import FileIO
from types import TracebackType

from cmp.core.progress import Progress
from cmp.disk.tensors import Entry, Header, check_same, without_waiting
from cmp.errors import Unreadable

_BLOCK = 1 << 20  # bytes: fits into a processor's cache
STRIDE = 16 * _BLOCK  # bytes after which long work can be left: a plain disk gives them in a fraction of a second


class RawReader:
    """The bytes of a header's tensors, a block at a time. A file that changes between the first and the last look is Unreadable."""

    def __init__(self, header: Header) -> None:
        self.header = header
        self._files: dict[int, FileIO] = {}
        self._closing = ExitStack()
        self._buffer = bytearray(_BLOCK)

    def __enter__(self) -> RawReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        with self._closing:
            if kind is None:
                for index, file in self._files.items():
                    check_same(*self.header.files[index], file.fileno())

    def blocks(self, name: str) -> Iterator[memoryview]:
        """One tensor's bytes in order. A block is valid until the next one is asked for."""
        entry = self.header.tensors[name]
        file, view = self._file(entry), memoryview(self._buffer)
        for start in range(entry.start, entry.end, _BLOCK):
            block = view[: min(_BLOCK, entry.end - start)]
            file.seek(start)  # another tensor may be read between two blocks
            got = 0
            while got < len(block):
                if not (more := file.readinto(block[got:])):
                    path = self.header.files[entry.file][0]
                    raise Unreadable(f"{path} became shorter while it was read", "Look again when nothing writes to it.")
                got += more
            yield block

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


def comparing_bytes(first: RawReader, name: str, second: RawReader, other: str, so_far: Progress) -> Generator[Progress, None, bool]:
    """Whether two tensors of one type and shape are equal to the bit, counting on from how far the longer work has come."""
    done = 0
    for ours, theirs in zip(first.blocks(name), second.blocks(other), strict=True):
        if not _equal(ours, theirs):
            return False
        done += len(ours)
        if done % STRIDE == 0:
            yield replace(so_far, done_bytes=so_far.done_bytes + done)
    return True


def _equal(ours: memoryview, theirs: memoryview) -> bool:
    if len(ours) == len(theirs) == _BLOCK:
        return bool(ours.obj == theirs.obj)  # the buffers themselves: views are compared one byte at a time
    return bytes(ours) == bytes(theirs)
