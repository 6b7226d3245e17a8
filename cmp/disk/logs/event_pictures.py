"""Pictures in TensorBoard event files, found by where they lie: not one of them is read for it.

TensorBoard has two forms: `Summary.Value.image`, which torch's writer uses, and a tensor of the plugin "images" whose texts are
width, height and then the files (tensorboard/compat/proto/summary.proto, tensor.proto). Fields are walked by their lengths.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cmp.core.samples import Logged, Within
from cmp.disk.logs.records import FOOTER, HEADER, checksums, opened, read_blocks, sound

MOST = 20_000  # pictures of one file
LARGEST = 64 << 20  # bytes of one
_SMALL = 100  # bytes: a record that is no longer holds one number, and no picture
_BLOCK = 1 << 20
_MOST_FIELDS = 4096
_LONGEST_TAG = 4096
_MAGIC = (b"\x89PNG", b"\xff\xd8\xff")
_STRING = 7  # TensorFlow's DT_STRING


@dataclass(frozen=True, slots=True)
class EventPictures:
    """What bytes 0 to `end` of an event file hold; reading can go on there. `inode` tells whether it is the same file still, `barren` the
    size at which nothing good was found behind damage there.
    """

    pictures: tuple[Logged, ...] = ()
    end: int = 0
    reached: int | None = None
    inode: int = 0
    barren: int | None = None


def read_pictures(path: Path, earlier: EventPictures | None = None) -> EventPictures:
    """Every picture of an event file; of one that was read before only what was added. A half-written last record is left alone.

    Behind a damaged length the next good record is searched for, as the reader of scalars does, which says what was skipped. Raises
    Unreadable as `records.opened` does.
    """
    with opened(path) as (file, size):
        inode = os.fstat(file.fileno()).st_ino
        if earlier is None or earlier.inode != inode or earlier.end > size:
            earlier = EventPictures(inode=inode)
        if earlier.barren == size:
            return earlier
        return _collect(file, size, earlier)


def _collect(file: BinaryIO, size: int, earlier: EventPictures) -> EventPictures:
    found = list(earlier.pictures)
    reached, end, barren = earlier.reached, earlier.end, None
    for at, length, number in _records(file, earlier.end, size):
        if length < 0:
            barren = size
            break
        if number is not None:
            reached = _reached(number, reached)
        if length > _SMALL and len(found) < MOST:
            pictures, step = _pictures(file, at + HEADER, length, reached)
            found += pictures
            reached = reached if pictures or step is None else step
        end = at + HEADER + length + FOOTER
    return EventPictures(tuple(found[:MOST]), end, reached, earlier.inode, barren)


def _records(file: BinaryIO, start: int, size: int) -> Iterator[tuple[int, int, bytes | None]]:
    """Where each long record lies, with payload and checksum of the last short one before it; at the end that of the last short one at all.

    A length of -1 says that nothing good was found behind damage.
    """
    at, since, data, base, last = start, start, b"", start, None
    read_length = struct.Struct("<Q").unpack_from
    short: int | None = None
    while at + HEADER + FOOTER <= size:
        if not base <= at <= base + len(data) - HEADER - _SMALL - FOOTER:
            file.seek(at)
            data, base = file.read(_BLOCK), at
            if len(data) < HEADER:
                return
        length = read_length(data, at - base)[0]
        if length > _SMALL and not _is_trusted(data[at - base : at - base + HEADER]):
            behind, last = _checked(file, since, size)
            if behind is None:
                yield at, -1, None
                return
            at, since, short = behind, behind, None
            continue
        if at + HEADER + length + FOOTER > size:
            break
        if length <= _SMALL:
            short, last = at, data[at - base + HEADER : at - base + HEADER + length + FOOTER]
        else:
            last = last if last is None or _is_whole(last) else _checked(file, since, at)[1]
            yield at, length, last
            short, since = None, at + HEADER + length + FOOTER
        at += HEADER + length + FOOTER
    if short is not None:
        yield short, len(last or b"") - FOOTER, last


def _checked(file: BinaryIO, since: int, size: int) -> tuple[int | None, bytes | None]:
    """Where the first good record behind damage begins, None if none is found; and the last good short one before the damage, as
    `_records` gives it.

    The lengths of short records are believed while they are walked: the damage may lie before the place where it was met.
    """
    last = None
    for block in read_blocks(file, since, size):
        short = np.flatnonzero((block.lengths <= _SMALL) & sound(block))
        if short.size:
            at = int(block.starts[short[-1]]) + HEADER
            last = block.data[at : at + int(block.lengths[short[-1]]) + FOOTER].tobytes()
        if block.damage is not None:
            return None if block.end == block.damage else block.end, last
    return None, last


def _is_trusted(header: bytes) -> bool:
    view = np.frombuffer(header, np.uint8)
    return bool(int(checksums(view, np.array([0]), np.array([8]))[0]) == struct.unpack_from("<I", header, 8)[0])


def _is_whole(record: bytes) -> bool:
    """Whether a payload matches the checksum behind it."""
    view, length = np.frombuffer(record, np.uint8), len(record) - FOOTER
    return bool(int(checksums(view, np.array([0]), np.array([length]))[0]) == struct.unpack_from("<I", record, length)[0])


def _reached(record: bytes, otherwise: int | None) -> int | None:
    """The step of a short record that holds a number, else what was reached before."""
    payload = record[:-FOOTER] if _is_whole(record) else b""
    event = list(_fields(_InMemory(payload), 0, len(payload)))
    if not any(number == 5 for number, _, _ in event):
        return otherwise
    return next((value for number, value, length in event if number == 2 and length < 0), 0)


class _InMemory:
    """Bytes that are read like a file."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def at(self, start: int, count: int) -> bytes:
        return self._data[start : start + count]


class _OnDisk:
    """A file of which pieces are read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def at(self, start: int, count: int) -> bytes:
        self._file.seek(start)
        return self._file.read(count)


def _fields(source: _InMemory | _OnDisk, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The fields of a message: (number, value, -1), or (number, where, length) of one with a length. Ends where it is none."""
    at = start
    for _ in range(_MOST_FIELDS):
        head = source.at(at, min(30, end - at))
        key, used = _varint(head, 0)
        if not used or not key:
            return
        kind = key & 7
        if kind in (1, 5):
            value, width = 0, used + (8 if kind == 1 else 4)
            if kind == 1 and len(head) >= width:
                value = struct.unpack_from("<q", head, used)[0]
            yield key >> 3, value, -1
            at += width
        elif kind in (0, 2):
            value, more = _varint(head, used)
            if not more:
                return
            at += used + more
            if kind == 0:
                yield key >> 3, value, -1
            else:
                if at + value > end:
                    return
                yield key >> 3, at, value
                at += value
        else:
            return


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number and how many bytes it takes, 0 where there is none."""
    value = 0
    for i, byte in enumerate(data[at : at + 10]):
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, i + 1
    return 0, 0


def _pictures(file: BinaryIO, start: int, length: int, reached: int | None) -> tuple[list[Logged], int | None]:
    """The pictures of one event, and its step if it holds a number."""
    source, end = _OnDisk(file), start + length
    wall_time, step, found, numbers = 0.0, 0, [], False
    for number, value, span in _fields(source, start, end):
        if number == 1 and span < 0:
            wall_time = struct.unpack("<d", struct.pack("<q", value))[0]
        elif number == 2 and span < 0:
            step = value
        elif number == 5 and span >= 0:
            for inner, at, size in _fields(source, value, value + span):
                if inner == 1 and size >= 0:
                    images, is_number = _value(source, at, size)
                    numbers |= is_number
                    found += images
    step = step if step < 1 << 62 else 0
    out = [Logged(tag, step, reached, wall_time, width, height, within) for tag, width, height, within in found]
    return out, step if numbers else None


def _value(source: _OnDisk, start: int, length: int) -> tuple[list[tuple[str, int, int, Within]], bool]:
    """The pictures in one value, and whether it is a number instead."""
    tag, images = "", []
    for number, value, span in _fields(source, start, start + length):
        if number == 1 and 0 <= span <= _LONGEST_TAG:
            tag = source.at(value, span).decode("utf-8", "replace")
        elif number == 2 and span < 0:
            return [], True
        elif number == 4 and span >= 0:
            images = _image(source, value, span)
        elif number == 8 and span >= 0:
            images = _tensor(source, value, span)
    return [(tag, *image) for image in images], False


def _image(source: _OnDisk, start: int, length: int) -> list[tuple[int, int, Within]]:
    width = height = 0
    content = None
    for number, value, span in _fields(source, start, start + length):
        if number == 1 and span < 0:
            height = value
        elif number == 2 and span < 0:
            width = value
        elif number == 4 and span >= 0:
            content = Within(value, span)
    return [(width, height, content)] if content and _is_picture(source, content) else []


def _tensor(source: _OnDisk, start: int, length: int) -> list[tuple[int, int, Within]]:
    fields = list(_fields(source, start, start + length))
    if not any(number == 1 and value == _STRING and span < 0 for number, value, span in fields):
        return []
    texts = [Within(value, span) for number, value, span in fields if number == 8 and span >= 0]
    sides = [source.at(text.at, text.size) for text in texts[:2] if text.size <= 9]
    if len(sides) < 2 or not all(side.isdigit() for side in sides):
        return []
    return [(int(sides[0]), int(sides[1]), text) for text in texts[2:] if _is_picture(source, text)]


def _is_picture(source: _OnDisk, content: Within) -> bool:
    return content.size <= LARGEST and source.at(content.at, 4).startswith(_MAGIC)
