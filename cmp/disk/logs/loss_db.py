"""Scalars out of ai-toolkit's `loss_log.db`, without ever disturbing the training that writes it.

The file is SQLite with a write-ahead log (ostris/ai-toolkit `toolkit/logging_aitk.py`, UILogger). Opening such a file in its place
takes locks and may leave files beside it, so it is read in its place only where nobody writes (`immutable=1`), else out of a copy.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from itertools import count
from pathlib import Path
from urllib.parse import quote

import numpy as np

from cmp.disk.logs.records import opened
from cmp.disk.logs.tfevents import EventScalars, TagScalars
from cmp.errors import Unreadable

NAME = "loss_log.db"
_TRIES = 3  # a training writes four times a second at most, a copy takes milliseconds
_LARGEST = 1 << 30  # bytes
_BETWEEN, _MOST_WORK = 10_000, 20_000  # of SQLite's own instructions: a file may be made so that a query never ends
_QUERY = """
    SELECT m.key, m.step, m.value_real, s.wall_time FROM metrics AS m LEFT JOIN steps AS s ON s.step = m.step
    WHERE typeof(m.value_real) IN ('real', 'integer') AND typeof(m.step) = 'integer' AND typeof(m.key) = 'text'
"""


def is_loss_db(path: Path) -> bool:
    return path.name == NAME


def read_loss_db(path: Path, last: int | None = None) -> EventScalars:
    """Every scalar of the file, or those of its `last` steps; raises Unreadable, also for a file that changes all the time."""
    with opened(path) as (_, size):
        if size > _LARGEST:
            raise Unreadable(f"{path} is {size:,} bytes long, which no log of losses is", "Check what wrote it.")
    try:
        for _ in range(_TRIES):
            if (found := _read(path, last)) is not None:
                return found
    except OSError as fault:
        raise Unreadable(f"{path} cannot be read: {fault.strerror}") from fault
    raise Unreadable(f"{path} changes while it is read", "It is being written; look again later.")


def _read(path: Path, last: int | None) -> EventScalars | None:
    """None if the file has changed meanwhile."""
    before = _state(path)
    try:
        with _connection(path) as connection:
            found = _scalars(path, _rows(connection, last))
    except (sqlite3.Error, OverflowError, ValueError) as fault:
        if _state(path) == before:
            raise Unreadable(f"{path} is no log of ai-toolkit: {fault}", "It may be damaged.") from fault
        return None
    return found if _state(path) == before else None


def _wal(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _state(path: Path) -> tuple[object, ...]:
    """What changes as soon as what was read can no longer be trusted. The log beside the file may grow; it may not begin anew."""
    found = os.stat(path)
    head = b""
    if not _wal(path).is_symlink():
        with suppress(Unreadable), opened(_wal(path)) as (file, _):
            head = file.read(32)
    return (found.st_ino, found.st_size, found.st_mtime_ns, head)


@contextmanager
def _connection(path: Path) -> Iterator[sqlite3.Connection]:
    with tempfile.TemporaryDirectory() if _state(path)[-1] else nullcontext() as folder:
        if folder:
            shutil.copyfile(path, Path(folder) / NAME)
            shutil.copyfile(_wal(path), _wal(Path(folder) / NAME))
        place = Path(folder) / NAME if folder else path.absolute()
        flags = "" if folder else "?mode=ro&immutable=1"
        with closing(sqlite3.connect(f"file:{quote(os.fsencode(place))}{flags}", uri=True)) as connection:
            yield connection


def _rows(connection: sqlite3.Connection, last: int | None) -> list[tuple[str, int, float, float | None]]:
    asked = count()
    connection.set_progress_handler(lambda: next(asked) > _MOST_WORK, _BETWEEN)
    connection.execute("PRAGMA trusted_schema = OFF")
    kinds = dict(connection.execute("SELECT name, type FROM sqlite_master WHERE name IN ('metrics', 'steps')"))
    if kinds != {"metrics": "table", "steps": "table"}:
        raise sqlite3.DatabaseError("it has no tables metrics and steps")
    recent = "" if last is None else f"AND m.step > (SELECT MAX(step) FROM metrics) - {int(last)}"
    return connection.execute(f"{_QUERY} {recent} ORDER BY m.key, m.step").fetchall()


def _scalars(path: Path, rows: list[tuple[str, int, float, float | None]]) -> EventScalars:
    columns: dict[str, list[tuple[int, float, float]]] = {}
    for key, step, value, time in rows:
        columns.setdefault(key, []).append((step, float(value), float(time) if isinstance(time, (int, float)) else 0.0))
    tags = {}
    for key, points in columns.items():
        steps, values, times = zip(*points, strict=True)
        place = np.arange(len(points), dtype=np.int64)
        tags[key] = TagScalars(np.array(steps, np.int64), np.array(values, np.float64), np.array(times, np.float64), place)
    return EventScalars(path, tags, (), 0, max(map(len, columns.values()), default=0))
