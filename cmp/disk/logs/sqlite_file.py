"""Reads a SQLite file without ever disturbing the training that writes it.

Opening such a file in its place takes locks and may leave files beside it, so it is read in its place only where nobody writes
(`immutable=1`), else out of a copy.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from itertools import count
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from cmp.disk.logs.records import opened
from cmp.errors import Unreadable

T = TypeVar("T")

MAGIC = b"SQLite format 3\0"
_COPY = "log.db"
_TRIES = 3  # a training writes a few times a second at most, a copy takes milliseconds
_LARGEST = 1 << 30  # bytes
_BETWEEN, _MOST_WORK = 10_000, 20_000  # of SQLite's own instructions: a file may be made so that a query never ends


def asked(path: Path, query: Callable[[sqlite3.Connection], T], of: str) -> T:
    """What `query` gives; raises Unreadable, also for a file that changes all the time. `of` names the program whose log it is to be."""
    with opened(path) as (_, size):
        if size > _LARGEST:
            raise Unreadable(f"{path} is {size:,} bytes long, which no log of losses is", "Check what wrote it.")
    try:
        for _ in range(_TRIES):
            before = _state(path)
            try:
                with _connection(path) as connection:
                    found = query(connection)
            except (sqlite3.Error, OverflowError, ValueError) as fault:
                if _state(path) == before:
                    raise Unreadable(f"{path} is no log of {of}: {fault}", "It may be damaged.") from fault
                continue
            if _state(path) == before:
                return found
    except OSError as fault:
        raise Unreadable(f"{path} cannot be read: {fault.strerror}") from fault
    raise Unreadable(f"{path} changes while it is read", "It is being written; look again later.")


def require_tables(connection: sqlite3.Connection, *names: str) -> None:
    """Raises sqlite3.DatabaseError unless the file has these tables; a view of the name may compute anything."""
    marks = ", ".join("?" * len(names))
    kinds = dict(connection.execute(f"SELECT name, type FROM sqlite_master WHERE name IN ({marks})", names))
    if kinds != dict.fromkeys(names, "table"):
        raise sqlite3.DatabaseError(f"it has no tables {' and '.join(names)}")


def wal(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _state(path: Path) -> tuple[object, ...]:
    """What changes as soon as what was read can no longer be trusted. The log beside the file may grow; it may not begin anew."""
    found = os.stat(path)
    head = b""
    if not wal(path).is_symlink():
        with suppress(Unreadable), opened(wal(path)) as (file, _):
            head = file.read(32)
    return (found.st_ino, found.st_size, found.st_mtime_ns, head)


@contextmanager
def _connection(path: Path) -> Iterator[sqlite3.Connection]:
    with tempfile.TemporaryDirectory() if _state(path)[-1] else nullcontext() as folder:
        if folder:
            shutil.copyfile(path, Path(folder) / _COPY)
            shutil.copyfile(wal(path), wal(Path(folder) / _COPY))
        place = Path(folder) / _COPY if folder else path.absolute()
        flags = "" if folder else "?mode=ro&immutable=1"
        with closing(sqlite3.connect(f"file:{quote(os.fsencode(place))}{flags}", uri=True)) as connection:
            turns = count()
            connection.set_progress_handler(lambda: next(turns) > _MOST_WORK, _BETWEEN)
            connection.execute("PRAGMA trusted_schema = OFF")
            yield connection
