"""What compacting and restoring share: every byte of a compacted dump in order, and its digest."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from cmp.core.progress import Progress
from cmp.disk.compact import Manifest, compact_beside, manifest_beside
from cmp.disk.raw import STRIDE, RawReader
from cmp.disk.tensors import Header


class Hasher:
    """SHA-256 in a thread of its own, one block behind: hashing and reading take turns otherwise."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._pool = ThreadPoolExecutor(1)
        self._last: Future[None] | None = None

    def __enter__(self) -> Hasher:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.shutdown()

    def update(self, block: memoryview | bytes) -> None:
        if self._last:
            self._last.result()
        self._last = self._pool.submit(self._digest.update, bytes(block))  # the block's memory is used again

    def hexdigest(self) -> str:
        if self._last:
            self._last.result()
        return self._digest.hexdigest()


def in_order(header: Header) -> list[str]:
    """Names as their tensors lie in the file, or lay in the one that was compacted."""
    return sorted(header.tensors, key=lambda name: (header.tensors[name].start, header.tensors[name].end))


def rebuilt(header: Header, manifest: Manifest, what: str) -> Iterator[tuple[memoryview | bytes, Progress | None]]:
    """Every byte of the dump in order, and now and then how far it has come. What it is must be proven by the digest of all."""
    so_far = Progress(3, 4, what, 0, manifest.size)
    yield len(manifest.head).to_bytes(8, "little") + manifest.head, so_far
    done, told = 8 + len(manifest.head), 0
    with RawReader(header, proving=False) as reader:
        for name in in_order(header):
            for block in reader.blocks(name):
                done += len(block)
                often = done - told >= STRIDE
                told = done if often else told
                yield block, replace(so_far, done_bytes=done) if often else None


def dress(draft: Path, manifest: Manifest, like: os.stat_result | None) -> None:
    """Gives a file the permissions and times of the dump, and its owner where that is permitted."""
    if like is not None:
        with suppress(OSError, AttributeError):
            os.chown(draft, like.st_uid, like.st_gid)
    os.chmod(draft, manifest.mode)
    os.utime(draft, ns=(manifest.mtime_ns, manifest.mtime_ns))


def remove_pair(raw: Path) -> None:
    """Removes the compact form of a dump that is there itself."""
    for file in (compact_beside(raw), manifest_beside(compact_beside(raw))):
        file.unlink(missing_ok=True)
