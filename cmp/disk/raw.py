"""Streams tensors as bytes through one small buffer: for comparing and copying gigabytes, arrays as large as each tensor cost more time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from io import FileIO
from types import TracebackType

from cmp.disk.tensors import Entry, Header, check_same, without_waiting
from cmp.errors import Unreadable

_BLOCK = 1 << 20  # bytes: fits into a processor's cache


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
        done = entry.start
        while done < entry.end:
            file.seek(done)
            got = file.readinto(view[: min(_BLOCK, entry.end - done)])
            if not got:
                path = self.header.files[entry.file][0]
                raise Unreadable(f"{path} became shorter while it was read", "Look again when nothing writes to it.")
            done += got
            yield view[:got]

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


def equal_bytes(first: RawReader, name: str, second: RawReader, other: str) -> bool:
    """Whether two tensors of one type and shape are equal to the bit."""
    pairs = zip(first.blocks(name), second.blocks(other), strict=True)
    return all(_equal(ours, theirs) for ours, theirs in pairs)


def _equal(ours: memoryview, theirs: memoryview) -> bool:
    if len(ours) == len(theirs) == _BLOCK:
        return bool(ours.obj == theirs.obj)  # the buffers themselves: views are compared one byte at a time
    return bytes(ours) == bytes(theirs)
