"""The records of a TensorBoard event file: where each one lies, and whether it is as it was written.

A record is its length (uint64), a checksum of the length, the payload and a checksum of the payload, little endian throughout;
checksums are masked CRC-32C (tensorflow/core/lib/io/record_writer.h). Checksums are computed for all records of a block at once.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from cmp.core.curves import Integers
from cmp.disk.tensors import without_waiting
from cmp.errors import Unreadable

Bytes = NDArray[np.uint8]

HEADER = 12
FOOTER = 4
LARGEST = 256 << 10  # a longer payload holds pictures or a graph: no scalar is looked for in it, and mostly it is not even read
_BLOCK = 2 << 20  # larger than LARGEST, so that each block holds at least one whole record or a record to be stepped over
CHECKED = 4 << 10  # computing a checksum takes one numpy step per byte of the longest payload: too slow for pictures
_NEAR = 4 << 10  # bytes; where damage was met more is likely, so that what is read and searched at once begins small and doubles
_FAR = 256 << 20  # bytes behind damage in which the next good record is looked for


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Records that follow each other: `starts` are positions in `data` where they begin, `lengths` those of their payloads.

    `base` is the position of `data` in the file, `end` the one behind the last record. From `damage` on no record could be found: up to
    `end` where the next good one begins, or with `end` there too as far as was looked.
    """

    data: Bytes
    base: int
    starts: Integers
    lengths: Integers
    end: int
    damage: int | None = None


@contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """The regular file at `path` and its size. Whatever else bears the name, a FIFO for example, is refused before it can block.

    Faults of the file system become Unreadable, also those met while reading.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise Unreadable(f"{path} is not a regular file")
        with open(path, "rb", opener=without_waiting) as file:
            yield file, os.fstat(file.fileno()).st_size
    except OSError as fault:
        raise Unreadable(f"{path} cannot be read: {fault}") from fault


def read_blocks(file: BinaryIO, start: int, size: int) -> Iterator[Block]:
    """Every whole record from byte `start` to byte `size`, block by block; a half-written last record is left alone.

    Behind a length that does not match its checksum the next good record is searched for; the block before it says what was passed
    over. Without one the reading ends there.
    """
    at, room = start, _BLOCK
    while size - at >= HEADER + FOOTER:
        file.seek(at)
        data = file.read(min(room, size - at))
        block = _walk(data, at)
        if block.damage is not None:
            found = _next_record(file, block.damage, size)
            block = replace(block, end=block.damage if found is None else found)
            room = min(_NEAR, _BLOCK)
        elif block.starts.size == 0:
            behind = at + _span(data, 0) if len(data) >= HEADER else size + 1
            if behind > size:
                return
            if behind - at - HEADER - FOOTER <= LARGEST:
                if room == _BLOCK:
                    return
                room = _BLOCK
                continue
            block = replace(block, end=behind)
        else:
            room = min(2 * room, _BLOCK)
        yield block
        if block.damage == block.end:
            return
        at = block.end


def _next_record(file: BinaryIO, damage: int, size: int) -> int | None:
    """Where the next record behind `damage` begins that is good, or good as far as it was written; None if none does nearby."""
    at, room, far = damage + 1, _NEAR, min(size, damage + _FAR)
    while far - at >= HEADER:
        file.seek(at)
        data = file.read(min(room, far - at))
        for found in _good_headers(data).tolist():
            if _is_good(file, at + found, size):
                return at + found
        at += max(len(data) - HEADER + 1, 1)
        room = min(2 * room, _BLOCK)
    return None


def _is_good(file: BinaryIO, at: int, size: int) -> bool:
    """Whether the payload matches its checksum too, of a record whose length does. A long one, and one still being written, is believed."""
    file.seek(at)
    data = file.read(HEADER + CHECKED + FOOTER)
    length = _span(data, 0) - HEADER - FOOTER
    if length > CHECKED or at + HEADER + length + FOOTER > size:
        return True
    whole = np.frombuffer(data, np.uint8)
    ends = np.array([HEADER + length])
    return bool((checksums(whole, np.array([HEADER]), np.array([length])) == _stored(whole, ends)).all())


def _span(data: bytes, at: int) -> int:
    length: int = struct.unpack_from("<Q", data, at)[0]
    return HEADER + length + FOOTER


def _walk(data: bytes, base: int) -> Block:
    """The records that lie whole in `data`, up to the first one whose length is not to be trusted."""
    starts = []
    at, last = 0, len(data) - HEADER - FOOTER
    read_length = struct.Struct("<Q").unpack_from
    while at <= last:
        starts.append(at)
        at += 16 + read_length(data, at)[0]  # HEADER + length + FOOTER; inlined, this loop runs once per logged value
    column = np.array(starts, dtype=np.int64)
    view = np.frombuffer(data, np.uint8)
    trusted = checksums(view, column, np.full(column.size, 8)) == _stored(view, column + 8)
    damage = None
    if not trusted.all():
        column = column[: int(np.argmin(trusted))]
        at = starts[column.size]
        damage = base + at
    elif at > len(data):
        at = starts[-1]
        column = column[:-1]
    lengths = np.diff(np.append(column, at)) - HEADER - FOOTER
    return Block(view, base, column, lengths, base + at, damage)


def sound(block: Block) -> NDArray[np.bool_]:
    """For each record whether its payload matches its checksum. Long ones are taken as they are, see `is_sound`."""
    right = np.ones(block.starts.size, dtype=np.bool_)
    short = np.flatnonzero(block.lengths <= CHECKED)
    starts, lengths = block.starts[short] + HEADER, block.lengths[short]
    right[short] = checksums(block.data, starts, lengths) == _stored(block.data, starts + lengths)
    return right


def is_sound(block: Block, record: int) -> bool:
    """Whether one record's payload matches its checksum, however long it is."""
    at, length = block.starts[record : record + 1] + HEADER, block.lengths[record : record + 1]
    return bool((checksums(block.data, at, length) == _stored(block.data, at + length)).all())


def first_record(data: bytes) -> int | None:
    """Where in a piece cut out of an event file the first record begins, None if none does.

    Recognised by the checksum of the length; payloads of 16 MiB and more are passed over.
    """
    found = _good_headers(data)
    return int(found[0]) if found.size else None


def _good_headers(data: bytes) -> Integers:
    """Where in `data` a length below 16 MiB stands that matches its checksum. Empty payloads, which say nothing, are passed over."""
    view = np.frombuffer(data, np.uint8)
    places = view.size - HEADER + 1
    if places < 1:
        return np.empty(0, np.int64)
    small = (view[:places] | view[1 : places + 1] | view[2 : places + 2]) != 0
    for byte in range(3, 8):
        small &= view[byte : places + byte] == 0
    candidates = np.flatnonzero(small)
    return candidates[checksums(view, candidates, np.full(candidates.size, 8)) == _stored(view, candidates + 8)]


def checksums(data: Bytes, starts: Integers, lengths: Integers) -> NDArray[np.uint32]:
    """The masked CRC-32C of each of the stretches of `data`."""
    order = np.argsort(-lengths, kind="stable")
    at, lengths = starts[order], lengths[order]
    state = np.full(at.size, 0xFFFFFFFF, dtype=np.uint32)
    longest = int(lengths[0]) if lengths.size else 0
    # Longest first: in column j the stretches that still have a byte are the first `count`.
    for j, count in enumerate(np.searchsorted(-lengths, -np.arange(longest), side="left").tolist()):
        head = state[:count]
        state[:count] = _CRC_TABLE[(head ^ data[at[:count] + j]) & 0xFF] ^ (head >> 8)
    crc = ~state
    masked = np.empty_like(crc)
    masked[order] = ((crc >> 15) | (crc << 17)) + np.uint32(0xA282EAD8)
    return masked


def _stored(data: Bytes, at: Integers) -> NDArray[np.uint32]:
    """The uint32 at each of these positions."""
    if at.size == 0:
        return np.empty(0, dtype=np.uint32)
    rows = np.lib.stride_tricks.sliding_window_view(data, 4)[at]
    return np.ascontiguousarray(rows).view("<u4")[:, 0]


def _crc_table() -> NDArray[np.uint32]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(0x82F63B78), table >> 1)
    table.flags.writeable = False
    return table


_CRC_TABLE = _crc_table()
