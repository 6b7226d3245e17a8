"""Writes safetensors files tensor by tensor, so that either the old file or the new one exists whatever happens."""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import replace
from io import BufferedWriter
from pathlib import Path

import numpy as np

from cmp.core.progress import WAITING, Progress, run_through
from cmp.disk.numbers import NUMPY_TYPES, WIDTHS
from cmp.disk.raw import STRIDE
from cmp.disk.replacing import replacing

ENDING = ".safetensors"  # of drafts: one that the libraries know, whatever the user calls the file
_MOMENT = 0.05  # seconds between two looks whether the disk is done


class Syncing:
    """A file on its way to the disk, which takes seconds for gigabytes. Who leaves early does not wait, and the system goes on alone."""

    def __init__(self, descriptor: int) -> None:
        self._own = os.dup(descriptor)  # the caller's is closed before the system is done
        self._faults: list[OSError] = []
        self._thread = threading.Thread(target=self._sync, daemon=True)
        self._thread.start()

    def _sync(self) -> None:
        try:
            os.fsync(self._own)
        except OSError as fault:
            self._faults.append(fault)
        finally:
            os.close(self._own)

    def wait(self, so_far: Progress = Progress(0, 0, "")) -> Generator[Progress, None, None]:
        """Ends once the disk has the file; raises what stands against it. Before that the file must not take its name."""
        while self._thread.is_alive():
            yield replace(so_far, what=WAITING)
            self._thread.join(_MOMENT)
        for fault in self._faults:
            raise fault


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
    with replacing(target, ENDING) as draft:
        run_through(run_through(write_draft(draft, target.name, described, read, metadata)).wait())
        check(draft)


def write_draft(
    draft: Path,
    what: str,
    described: Mapping[str, tuple[str, tuple[int, ...]]],
    read: Callable[[str], np.ndarray],
    metadata: Mapping[str, str],
    blocks: Callable[[str], Iterable[memoryview] | None] = lambda name: None,
) -> Generator[Progress, None, Syncing]:
    """Writes one safetensors file in small steps, in which it is called `what`; on its way to the disk it may be read back already.

    Where `blocks(name)` gives a tensor's very bytes, these are written and nothing is read.
    """
    ordered, head = head_of(described, metadata)
    sizes = {name: math.prod(shape) * WIDTHS[dtype] for name, (dtype, shape) in described.items()}
    so_far = Progress(0, len(ordered), f"writing {what}", 0, sum(sizes.values()))
    with open(draft, "wb") as file:
        file.write(head)
        for done, name in enumerate(ordered):
            yield so_far
            raw = blocks(name)
            yield from _write_tensor(file, name, sizes[name], raw if raw is not None else _bytes(name, described[name], read(name)), so_far)
            so_far = replace(so_far, done=done + 1, done_bytes=so_far.done_bytes + sizes[name])
        file.flush()
        return Syncing(file.fileno())


def head_of(described: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str]) -> tuple[list[str], bytes]:
    """The tensors in their order within the file, and everything that stands before them."""
    table: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    # widest types first, then by name: the library's own order, which keeps every tensor aligned to its type
    ordered = sorted(described, key=lambda n: (-WIDTHS[described[n][0]], n))
    reached = 0
    for name in ordered:
        dtype, shape = described[name]
        size = math.prod(shape) * WIDTHS[dtype]
        table[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [reached, reached + size]}
        reached += size
    head = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    head += b" " * (-len(head) % 8)
    return ordered, len(head).to_bytes(8, "little") + head


def _bytes(name: str, described: tuple[str, tuple[int, ...]], array: np.ndarray) -> list[memoryview]:
    if array.shape != described[1] or array.dtype != np.dtype(NUMPY_TYPES[described[0]]):
        raise ValueError(f"{name} was to be {described} and came as {array.dtype} {array.shape}")
    return [np.ascontiguousarray(array).reshape(-1).view(np.uint8).data]


def _write_tensor(file: BufferedWriter, name: str, size: int, raw: Iterable[memoryview], so_far: Progress) -> Iterator[Progress]:
    written = 0
    for block in raw:
        for start in range(0, len(block), STRIDE):
            written += file.write(block[start : start + STRIDE])
            if written % STRIDE == 0:
                yield replace(so_far, done_bytes=so_far.done_bytes + written)
    if written != size:
        raise ValueError(f"{name} was to have {size} bytes and came with {written}")
