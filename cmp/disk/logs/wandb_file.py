"""Scalars out of the file that wandb keeps of a run, offline or not: `wandb/…run-TIME-ID/run-ID.wandb`.

The file is LevelDB's log: blocks of 32 KiB, records cut at their borders, each piece with a CRC-32 (wandb/sdk/internal/datastore.py);
a record is a message of wandb's (wandb/proto/wandb_internal.proto), of which the few fields that hold the history are described here.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from cmp.disk.logs.lines import as_number, as_step, as_time, is_tag
from cmp.disk.logs.records import opened
from cmp.disk.logs.scalars import EventScalars, Rows, continued

MAGIC = b":W&B\xe1\xbe\x00"
_BLOCK, _HEADER = 32768, 7
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_STEPS = ("train/global_step", "trainer/global_step", "global_step", "_step")  # transformers' own, Lightning's, wandb's count of calls
_LARGEST = 16 << 20  # bytes of one record: a longer one holds no numbers
_WORDS = {"NaN", "Infinity", "-Infinity"}
# message → its fields: name, number, type (a message's name, or "int64" | "string"), whether there are several
_FIELDS: dict[str, tuple[tuple[str, int, str, bool], ...]] = {
    "Item": (("key", 1, "string", False), ("nested_key", 2, "string", True), ("value_json", 16, "string", False)),
    "Count": (("num", 1, "int64", False),),
    "History": (("item", 1, "Item", True), ("step", 2, "Count", False)),
    "Config": (("update", 1, "Item", True),),
    "Run": (("config", 4, "Config", False), ("display_name", 8, "string", False)),
    "Record": (("history", 2, "History", False), ("run", 17, "Run", False)),
}


def is_wandb(path: Path, head: bytes) -> bool:
    return head.startswith(MAGIC)


def read_wandb(path: Path, earlier: EventScalars | None = None) -> EventScalars:
    """Every number of the history by step; a record that is damaged ends the reading with a note, a half-written one is left."""
    start = earlier.end if earlier else len(MAGIC)
    last = earlier.state.get("last") if earlier else None
    rows, notes = Rows(last if isinstance(last, int) else None), []
    base = start - start % _BLOCK  # blocks are counted from the file's first byte
    with opened(path) as (file, size):
        file.seek(base)
        data = memoryview(file.read(max(0, size - base)))
    if not base and bytes(data[: len(MAGIC)]) != MAGIC[: len(data)]:
        return EventScalars(path, {}, (), 0, 0, (f"{path.name}: damaged from byte 0 on; what follows cannot be read",))
    start = end = min(start, size)
    for at, behind, payload in _records(data, start - base):
        if payload is None:
            notes.append(f"{path.name}: damaged from byte {base + at} on; what follows cannot be read")
            break
        at, end = base + at, base + behind
        try:
            record = _record().FromString(payload)
        except DecodeError:
            notes.append(f"{path.name}: the record at byte {at} is damaged and left out")
            continue
        if record.HasField("history"):
            _add(record.history, rows, at)
    new = EventScalars(path, rows.told(), rows.starts(), start, end, tuple(notes), {"last": rows.last})
    return continued(earlier, new) if earlier else replace(new, start=0)


def read_config(path: Path) -> dict[str, object]:
    """The settings with which the run was begun, empty where there are none; only the file's first records are read."""
    with opened(path) as (file, _):
        data = memoryview(file.read(1 << 20))
    for _, _, payload in _records(data, len(MAGIC)) if is_wandb(path, bytes(data[:16])) else ():
        try:
            record = _record().FromString(payload or b"")
        except DecodeError:
            break
        if record.HasField("run"):
            return {item.key: value for item in record.run.config.update if (value := _value(item.value_json)) is not None}
    return {}


def _add(history: Any, rows: Rows, at: int) -> None:
    values = {".".join(filter(None, (item.key, *item.nested_key))): _value(item.value_json) for item in history.item}
    steps = (as_step(values[name]) for name in _STEPS if name in values)
    step = next((found for found in steps if found is not None), history.step.num if history.HasField("step") else None)
    if step is None:
        return
    time = as_time(values.get("_timestamp"))
    for tag, value in values.items():
        if (number := _number(value)) is not None and is_tag(tag):
            rows.add(tag, step, number, time, at)


def _value(text: str) -> object:
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found


def _number(value: object) -> float | None:
    return None if isinstance(value, str) and value not in _WORDS else as_number(value)


def _records(data: memoryview, at: int) -> Iterator[tuple[int, int, bytes | None]]:
    """Where each whole record begins and ends, and its bytes; None for one that is damaged, after which nothing is found."""
    parts: list[memoryview] = []
    begun = at
    while True:
        if (room := _BLOCK - at % _BLOCK) < _HEADER:
            at += room
        if at + _HEADER > len(data):
            return
        checksum, length, kind = struct.unpack_from("<IHB", data, at)
        fits = at % _BLOCK + _HEADER + length <= _BLOCK and _FULL <= kind <= _LAST and (kind in (_FULL, _FIRST)) == (not parts)
        behind = at + _HEADER + length
        if fits and behind > len(data):
            return
        if not fits or zlib.crc32(data[at + _HEADER : behind], zlib.crc32(bytes([kind]))) != checksum:
            yield begun if parts else at, behind, None
            return
        if not parts:
            begun = at
        parts.append(data[at + _HEADER : behind])
        at = behind
        if kind in (_FULL, _LAST):
            yield begun, at, b"".join(parts)
            parts = []


@cache
def _record() -> Any:
    """The message type of a record."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="cmp_wandb.proto", package="cmp_wandb", syntax="proto3")
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for label, number, kind, several in fields:
            plain = {"int64": field.TYPE_INT64, "string": field.TYPE_STRING}.get(kind, field.TYPE_MESSAGE)
            added = message.field.add(name=label, number=number, type=plain)
            added.label = field.LABEL_REPEATED if several else field.LABEL_OPTIONAL
            if plain == field.TYPE_MESSAGE:
                added.type_name = f".cmp_wandb.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("cmp_wandb.Record"))
