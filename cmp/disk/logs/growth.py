"""Columns that grow at their end without being copied, however long they are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmp.disk.logs.scalars import EventScalars, TagScalars

_ROOM = 1.25
_LEAST = 4096


class Column:
    """An array with room behind it. What was handed out before stays as it was: only what lies behind it is written."""

    def __init__(self, kind: type[np.generic], size: int = 0) -> None:
        """`size` values of that kind, which are still to be filled in: see `raw`."""
        self._buffer: NDArray[Any] = np.empty(max(int(size * _ROOM), _LEAST), kind)
        self._size = size

    @property
    def raw(self) -> memoryview:
        """The bytes of the values."""
        return self._buffer[: self._size].data.cast("B") if self._size else memoryview(bytearray())

    def extend(self, values: NDArray[Any]) -> None:
        behind = self._size + values.size
        if behind > self._buffer.size:
            wider = np.empty(int(behind * _ROOM), self._buffer.dtype)
            wider[: self._size] = self._buffer[: self._size]
            self._buffer = wider
        self._buffer[self._size : behind] = values
        self._size = behind

    @property
    def values(self) -> NDArray[Any]:
        out = self._buffer[: self._size]
        out.flags.writeable = False
        return out


class Growing:
    """The tags of one log as columns that grow."""

    def __init__(self) -> None:
        self._tags: dict[str, tuple[Column, ...]] = {}

    def extend(self, more: EventScalars) -> dict[str, TagScalars]:
        """All tags, with what `more` holds behind what was there."""
        for tag, new in more.tags.items():
            arrays = (new.steps, new.values, new.wall_times, new.offsets)
            for column, array in zip(self._tags.get(tag) or self.add(tag), arrays, strict=True):
                column.extend(array)
        return self.told()

    def add(self, tag: str, size: int = 0) -> tuple[Column, ...]:
        """The columns of a new tag: steps, values, wall times, offsets."""
        self._tags[tag] = tuple(Column(kind, size) for kind in (np.int64, np.float64, np.float64, np.int64))
        return self._tags[tag]

    def told(self) -> dict[str, TagScalars]:
        return {tag: TagScalars(*(column.values for column in of)) for tag, of in self._tags.items()}
