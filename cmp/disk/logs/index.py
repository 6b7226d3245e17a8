"""What was read of logs before: kept in memory while this program runs, and for long logs as columns of numbers in CMP_HOME.

A log that has only grown is read on from where the reading stopped; one that was changed otherwise is read anew. Nothing in a run is
locked, and nothing is written there.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import threading
import zlib
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cmp.core.runs import plain_text
from cmp.disk.logs.growth import Growing
from cmp.disk.logs.kinds import KINDS, Kind, read_log
from cmp.disk.logs.records import opened
from cmp.disk.logs.scalars import EventScalars, SessionStart
from cmp.disk.logs.sqlite_file import wal
from cmp.errors import Unreadable

Marks = tuple[tuple[int, int, int], ...]

_MAGIC = b"cmp log 1\n"
_WORTH = 256 << 10  # bytes of a log; a shorter one is read faster than it is looked up
_BEHIND = 4  # an index is written anew once a log has grown by a quarter
_PROBE = 256  # bytes before the end of what was read, by which a log that was written anew is known
_MOST_POINTS = 4_000_000  # kept in memory, at 32 bytes each
_MOST_FILES = 500


@dataclass(slots=True, eq=False)
class _Kept:
    """One log as it was read. `indexed`: up to which byte the index on disk holds it."""

    marks: Marks
    kind: Kind
    scalars: EventScalars
    probe: str
    growing: Growing
    indexed: int = 0

    @property
    def points(self) -> int:
        return sum(tag.steps.size for tag in self.scalars.tags.values())


class LogIndex:
    """Reads logs, and reads only what is new. Safe to use from several threads; without `home` nothing is kept on disk."""

    def __init__(self, home: Path | None = None) -> None:
        self._folder = home / "logs" if home else None
        self._kept: OrderedDict[Path, _Kept] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, path: Path) -> tuple[Kind, EventScalars]:
        """What the log holds now; raises Unreadable as `read_log` does."""
        with self._lock:
            marks = _marks(path)
            kept = self._kept.pop(path, None) or self._load(path)
            if kept is None or kept.marks != marks:
                kept = self._read(path, marks, kept)
            self._kept[path] = kept
            while len(self._kept) > 1 and sum(one.points for one in self._kept.values()) > _MOST_POINTS:
                self._kept.popitem(last=False)
            return kept.kind, kept.scalars

    def _read(self, path: Path, marks: Marks, kept: _Kept | None) -> _Kept:
        """Reads on where the log has only grown, else all of it."""
        if kept and kept.kind.appended and marks[0][0] == kept.marks[0][0] and kept.probe == _probe(path, kept.scalars.end):
            behind = replace(kept.scalars, tags={}, starts=(), start=kept.scalars.end)
            _, more = read_log(path, kept.kind, behind)
            if more.start == kept.scalars.end:
                starts = kept.scalars.starts + more.starts
                whole = replace(more, tags=kept.growing.extend(more), starts=starts, start=kept.scalars.start)
                kept = replace(kept, marks=marks, scalars=whole, probe=_probe(path, whole.end))
                return self._saved(kept)
        kind, scalars = read_log(path)
        growing = Growing()
        scalars = replace(scalars, tags=growing.extend(scalars))
        return self._saved(_Kept(marks, kind, scalars, _probe(path, scalars.end), growing))

    # -- on disk -------------------------------------------------------------------------------------------------------

    def _place(self, path: Path) -> Path | None:
        name = hashlib.sha256(os.fsencode(os.path.abspath(path))).hexdigest()[:40]
        return self._folder / name if self._folder else None

    def _saved(self, kept: _Kept) -> _Kept:
        """The same, after its index was written where that is worth it. Where it cannot be, nothing is lost."""
        scalars, place = kept.scalars, self._place(kept.scalars.path)
        size = kept.marks[0][1]
        if place is None or size < _WORTH or (kept.indexed and scalars.end - kept.indexed < size // _BEHIND):
            return kept
        arrays = [array for tag in scalars.tags.values() for array in (tag.steps, tag.values, tag.wall_times, tag.offsets)]
        check = 0
        for array in arrays:
            check = zlib.crc32(array.data, check)
        head = {
            "path": plain_text(str(kept.scalars.path)),
            "marks": kept.marks,
            "kind": kept.kind.name,
            "probe": kept.probe,
            "start": scalars.start,
            "end": scalars.end,
            "starts": [(start.offset, start.step) for start in scalars.starts],
            "notes": scalars.notes,
            "state": dict(scalars.state),
            "written": scalars.written,
            "tags": [(tag, of.steps.size) for tag, of in scalars.tags.items()],
            "check": check,
        }
        with suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            _make_room(place.parent)
            with tempfile.NamedTemporaryFile(dir=place.parent, prefix=".", delete=False) as file:
                file.write(_MAGIC + json.dumps(head).encode() + b"\n")
                for array in arrays:
                    file.write(array.data)
            os.replace(file.name, place)
        return replace(kept, indexed=scalars.end)

    def _load(self, path: Path) -> _Kept | None:
        """What the index holds of a log; None where it holds nothing, or is damaged."""
        place = self._place(path)
        if place is None:
            return None
        try:
            with opened(place) as (file, size):
                if file.readline() != _MAGIC:
                    return None
                head = json.loads(file.readline())
                growing, check = Growing(), 0
                for column in (column for tag, count in head["tags"] for column in growing.add(tag, _count(count, size))):
                    file.readinto(column.raw)  # type: ignore[attr-defined]
                    check = zlib.crc32(column.raw, check)
                if file.tell() != size or check != head["check"]:
                    return None
            return _as_kept(path, head, growing)
        except (Unreadable, OSError, ValueError, KeyError, TypeError, StopIteration):
            return None


def _count(told: object, size: int) -> int:
    """How many values a column has, which cannot be more than the file has room for."""
    if not isinstance(told, int) or not 0 <= told <= size // 8:
        raise ValueError(told)
    return told


def _as_kept(path: Path, told: dict[str, Any], growing: Growing) -> _Kept:
    starts = tuple(SessionStart(offset, step) for offset, step in told["starts"])
    kind = next(kind for kind in KINDS if kind.name == told["kind"])
    rest = {key: told[key] for key in ("start", "end", "state", "written")}
    scalars = EventScalars(path, growing.told(), starts, notes=tuple(told["notes"]), **rest)
    marks = tuple(tuple(mark) for mark in told["marks"])
    return _Kept(marks, kind, scalars, str(told["probe"]), growing, scalars.end)


def _marks(path: Path) -> Marks:
    """What changes when a log does: also of the log that SQLite keeps beside its file."""
    try:
        found = [os.stat(path)]
    except OSError as fault:
        raise Unreadable(f"{path} cannot be read: {fault}") from fault
    if path.suffix == ".db":
        with suppress(OSError):
            found.append(os.stat(wal(path)))
    return tuple((each.st_ino, each.st_size, each.st_mtime_ns) for each in found)


def _probe(path: Path, end: int) -> str:
    """A digest of the bytes just before `end` and of the first ones, by which a log that was written anew under its name is known."""
    with opened(path) as (file, _):
        first = file.read(min(_PROBE, end))
        file.seek(max(0, end - _PROBE))
        return hashlib.sha256(first + file.read(min(_PROBE, end))).hexdigest()


def _make_room(folder: Path) -> None:
    """Takes away the indexes that were written longest ago, where there are too many."""
    found = sorted(((entry.stat().st_mtime, entry.path) for entry in os.scandir(folder)), reverse=True)
    for _, path in found[_MOST_FILES:]:
        os.unlink(path)
