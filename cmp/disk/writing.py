"""Writes safetensors files tensor by tensor, so that either the old file or the new one exists whatever happens."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from cmp.disk.numbers import NUMPY_TYPES, WIDTHS
from cmp.disk.replacing import replacing


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
    for _ in writing_tensors(target, described, read, metadata, check):
        pass


def writing_tensors(
    target: Path,
    described: Mapping[str, tuple[str, tuple[int, ...]]],
    read: Callable[[str], np.ndarray],
    metadata: Mapping[str, str],
    check: Callable[[Path], object] = lambda draft: None,
) -> Iterator[str]:
    """The same as an iterator of the names, each once its tensor is written. Who leaves it early leaves nothing behind."""
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
    with replacing(target) as draft:
        with open(draft, "wb") as file:
            file.write(len(head).to_bytes(8, "little") + head)
            for name in ordered:
                dtype, shape = described[name]
                array = read(name)
                if array.shape != shape or array.dtype != np.dtype(NUMPY_TYPES[dtype]):
                    raise ValueError(f"{name} was to be {dtype} {shape} and came as {array.dtype} {array.shape}")
                file.write(np.ascontiguousarray(array).data)
                yield name
            file.flush()
            os.fsync(file.fileno())
        check(draft)
