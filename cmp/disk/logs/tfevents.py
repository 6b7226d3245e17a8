"""Scalars out of TensorBoard event files, however long they are and while they grow.

Nearly every record of a training's log is "one number of one tag", alike but for the numbers; such records are decoded by
the column. The others go through TensorBoard's own message type.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event, SessionLog

from cmp.core.curves import Integers
from cmp.disk.logs.records import CHECKED, HEADER, LARGEST, Block, Bytes, first_record, is_sound, opened, read_blocks, sound
from cmp.disk.logs.scalars import EventScalars, SessionStart, TagScalars, columns, continued, joined

_TEMPLATES = 16
_FEW = 4
_TENSOR_TYPES = {1: ("<f4", "float_val"), 2: ("<f8", "double_val"), 3: ("<i4", "int_val"), 9: ("<i8", "int64_val")}
# two numbers of each fixed width that differ in every byte
_PROBES: dict[str, tuple[float, float]] = {
    "<f4": (float(np.array(0x3F112233, "<u4").view("<f4")), float(np.array(0x40556677, "<u4").view("<f4"))),
    "<f8": (float(np.array(0x3FF1223344556677, "<u8").view("<f8")), float(np.array(0x4002334455667788, "<u8").view("<f8"))),
    "<i4": (0x01020304, 0x05060708),
    "<i8": (0x0102030405060708, 0x090A0B0C0D0E0F10),
}
_NAME = re.compile(r"tfevents\.([0-9]+)\.(.+)", re.ASCII)
_HOST_PID = re.compile(r"(.+)\.([0-9]+)\.([0-9]+)(?:\.[^0-9].*)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class EventFileName:
    """What the name of an event file tells: when it was begun (Unix seconds), on which host, by which process."""

    time: int
    host: str = ""
    pid: int | None = None


def read_name(path: Path) -> EventFileName | None:
    """The parts of an event file's name, None if it is no event file (TensorBoard's rule: "tfevents" stands in the name)."""
    if "tfevents" not in path.name or path.name.endswith(".profile-empty"):
        return None
    found = _NAME.search(path.name)
    if found is None:
        return EventFileName(0)
    tail = _HOST_PID.fullmatch(found[2])
    return EventFileName(int(found[1]), tail[1], int(tail[2])) if tail else EventFileName(int(found[1]), found[2])


def oldest_first(files: Iterable[Path]) -> tuple[Path, ...]:
    """Event files in the order in which they were begun, by their names."""
    return tuple(sorted(files, key=lambda path: ((read_name(path) or EventFileName(0)).time, path.name)))


def read_scalars(path: Path, start: int = 0) -> EventScalars:
    """Every scalar from byte `start` on, which must be 0 or an earlier `end`; a file that has shrunk is read from 0.

    Stops before a half-written last record. A record that does not match its checksum is left out, and behind a length that does not the
    next good record is searched for; `notes` say so. Raises Unreadable if there is no such regular file or it must not be read.
    """
    with opened(path) as (file, size):
        return _collect(path, file, start if start <= size else 0, size)


def read_more(earlier: EventScalars) -> EventScalars:
    """The same file as it is now; only what was added is read."""
    more = read_scalars(earlier.path, earlier.end)
    if more.start != earlier.end:
        return more
    lost = _lost(earlier.path, earlier.end)  # where the reading went on, which says anew what there is
    return continued(replace(earlier, notes=tuple(note for note in earlier.notes if note != lost)), more)


def read_tail(path: Path, wanted: int) -> EventScalars:
    """The scalars of the last `wanted` bytes, without reading what lies before. Raises as `read_scalars` does."""
    with opened(path) as (file, size):
        start = max(0, size - wanted)
        if start:
            file.seek(start)
            first = first_record(file.read(wanted))
            start = size if first is None else start + first
        return _collect(path, file, start, size)


@dataclass(slots=True, eq=False)
class _Found:
    """What has been decoded so far: columns of records alike, and single (step, value, wall time, offset)."""

    columns: dict[str, list[TagScalars]] = field(default_factory=dict)
    singles: dict[str, list[tuple[int, float, float, int]]] = field(default_factory=dict)
    starts: list[SessionStart] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)

    def tags(self) -> dict[str, TagScalars]:
        for tag, rows in self.singles.items():
            self.columns.setdefault(tag, []).append(columns(*zip(*rows, strict=True)))
        return {tag: joined(parts) for tag, parts in self.columns.items()}


def _collect(path: Path, file: BinaryIO, start: int, size: int) -> EventScalars:
    found = _Found()
    notes: list[str] = []
    end = start
    skipped: list[tuple[int, int]] = []
    for block in read_blocks(file, start, size):
        _decode(block, found)
        end = block.end
        if block.damage == end:
            notes.append(_lost(path, end))
        elif block.damage is not None:
            skipped.append((block.damage, end - block.damage))
    if found.damaged:
        some = "1 damaged record" if len(found.damaged) == 1 else f"{len(found.damaged)} damaged records"
        notes.append(f"{path.name}: {some} left out, the first at byte {min(found.damaged)}")
    if skipped:
        places = "at" if len(skipped) == 1 else f"at {len(skipped)} places, the first at"
        count = sum(length for _, length in skipped)
        notes.append(f"{path.name}: {count:,} damaged {'byte' if count == 1 else 'bytes'} skipped {places} byte {skipped[0][0]}")
    return EventScalars(path, found.tags(), tuple(found.starts), start, end, tuple(notes))


def _lost(path: Path, at: int) -> str:
    return f"{path.name}: damaged from byte {at} on; what follows cannot be read"


def _decode(block: Block, found: _Found) -> None:
    right = sound(block)
    for long in np.flatnonzero((block.lengths > CHECKED) & (block.lengths <= LARGEST)).tolist():
        at = int(block.starts[long]) + HEADER
        event = _parsed(block.data[at : at + int(block.lengths[long])])
        if event is not None and any(_scalar(value) is not None for value in event.summary.value):
            right[long] = is_sound(block, long)  # not pictures, of which a flipped bit makes no wrong number
    found.damaged.extend((block.starts[~right] + block.base).tolist())
    wanted = np.flatnonzero(right & (block.lengths > 0) & (block.lengths <= LARGEST))
    wanted = wanted[np.argsort(block.lengths[wanted], kind="stable")]
    lengths = block.lengths[wanted]
    for group in np.split(wanted, np.flatnonzero(np.diff(lengths)) + 1):
        if group.size:
            _decode_alike(block, block.starts[group], int(block.lengths[group[0]]), found)


def _decode_alike(block: Block, starts: Integers, length: int, found: _Found) -> None:
    """Decodes records of one length: by the column while many are alike, the rest one by one."""
    payloads = np.lib.stride_tricks.sliding_window_view(block.data, length)[starts + HEADER]
    left = np.arange(starts.size)
    for _ in range(_TEMPLATES):
        if left.size < _FEW:
            break
        template = _template(payloads[left[0]])
        if template is None:
            _decode_one(payloads[left[0]], int(starts[left[0]]) + block.base, found)
            left = left[1:]
            continue
        alike = ~((payloads[left] ^ payloads[left[0]]) & template.mask).any(axis=1)
        column = _decode_column(payloads[left[alike]], template, starts[left[alike]] + block.base)
        found.columns.setdefault(template.tag, []).append(column)
        left = left[~alike]
    for i in left.tolist():
        _decode_one(payloads[i], int(starts[i]) + block.base, found)


@dataclass(frozen=True, slots=True, eq=False)
class _Template:
    """What records alike share. `mask` has the bits they have in common: none of the wall time (bytes 1 to 8) and of the value, which is of
    type `kind` at `at`; of the step's bytes only "another one follows".
    """

    tag: str
    mask: Bytes
    at: int
    kind: str


def _template(payload: Bytes) -> _Template | None:
    """What is alike in records as this one, None unless it is exactly one number of one tag.

    Where the bytes lie is proven: the message is written anew with two other numbers, and all else must be the record to the byte.
    """
    event = _parsed(payload)
    if event is None or len(event.summary.value) != 1 or payload.size < 14 or payload[0] != 0x09:
        return None
    kind = _kind(event.summary.value[0])
    if not kind or _scalar(event.summary.value[0]) is None or event.session_log.status:
        return None
    first, second = (np.frombuffer(_with_number(event, number, kind), np.uint8) for number in _PROBES[kind])
    if first.size != payload.size or second.size != payload.size:
        return None
    place, width = np.flatnonzero(first != second), np.dtype(kind).itemsize
    if place.size != width or place[-1] - place[0] != width - 1:
        return None
    mask = np.full(payload.size, 0xFF, dtype=np.uint8)
    mask[1:9] = mask[place] = 0
    if ((first ^ payload) & mask).any():
        return None
    if payload[9] == 0x10:
        mask[10 : 11 + int(np.argmax(payload[10:] < 0x80))] = 0x80
    return _Template(event.summary.value[0].tag, mask, int(place[0]), kind)


def _kind(value: Any) -> str:
    """How the number in a summary value is written where it has a fixed width, else ""."""
    if value.WhichOneof("value") == "simple_value":
        return "<f4"
    kind = _TENSOR_TYPES.get(value.tensor.dtype, ("", ""))[0]
    return kind if kind in _PROBES and (value.tensor.tensor_content or kind[1] == "f") else ""


def _with_number(event: Any, number: float, kind: str) -> bytes:
    """The event as it is written with another number."""
    other = Event.FromString(event.SerializeToString())
    value = other.summary.value[0]
    if value.WhichOneof("value") == "simple_value":
        value.simple_value = number
    elif value.tensor.tensor_content:
        value.tensor.tensor_content = np.array([number], kind).tobytes()
    else:
        getattr(value.tensor, _TENSOR_TYPES[value.tensor.dtype][1])[:] = [number]
    written: bytes = other.SerializeToString()
    return written


def _decode_column(rows: Bytes, template: _Template, offsets: Integers) -> TagScalars:
    steps = np.zeros(rows.shape[0], dtype=np.uint64)
    for place, column in enumerate(np.flatnonzero(template.mask == 0x80).tolist()):
        steps |= (rows[:, column] & 0x7F).astype(np.uint64) << np.uint64(7 * place)
    wall_times = np.ascontiguousarray(rows[:, 1:9]).view("<f8")[:, 0].astype(np.float64)
    behind = template.at + np.dtype(template.kind).itemsize
    values = np.ascontiguousarray(rows[:, template.at : behind]).view(template.kind)[:, 0].astype(np.float64)
    return TagScalars(steps.view(np.int64), values, wall_times, offsets)


def _decode_one(payload: Bytes, offset: int, found: _Found) -> None:
    event = _parsed(payload)
    if event is None:
        found.damaged.append(offset)
        return
    if event.session_log.status == SessionLog.START:
        found.starts.append(SessionStart(offset, event.step))
    for value in event.summary.value:
        number = _scalar(value)
        if number is not None:
            found.singles.setdefault(value.tag, []).append((event.step, number, event.wall_time, offset))


def _parsed(payload: Bytes) -> Any:
    try:
        return Event.FromString(payload.tobytes())
    except DecodeError:
        return None


def _scalar(value: Any) -> float | None:
    """The number in a summary value: a simple value, or a tensor of one number from the "scalars" plugin; else None."""
    if value.WhichOneof("value") == "simple_value":
        return float(value.simple_value)
    if value.WhichOneof("value") != "tensor" or value.metadata.plugin_data.plugin_name not in ("scalars", ""):
        return None
    kind, name = _TENSOR_TYPES.get(value.tensor.dtype, ("", ""))
    if not kind:
        return None
    content = value.tensor.tensor_content
    if content:
        return float(np.frombuffer(content, kind)[0]) if len(content) == np.dtype(kind).itemsize else None
    numbers = getattr(value.tensor, name)
    return float(numbers[0]) if len(numbers) == 1 else None
