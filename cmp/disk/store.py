"""What this program remembers between starts, in CMP_HOME: names, notes, answers, folders, digests, and where cells lie.

One SQLite file. Nothing in it is needed to read a run: deleting it loses names and answers, never weights or images.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar, cast

from cmp.core.runs import plain_text
from cmp.errors import Refused, why_not

T = TypeVar("T")

_SCHEMA = "CREATE TABLE IF NOT EXISTS facts (kind TEXT, subject TEXT, value TEXT, PRIMARY KEY (kind, subject)) WITHOUT ROWID"


class Store:
    """Small facts by kind and subject, each a JSON value. Usable from several threads and processes of one machine.

    Machines that share `home` must keep their facts apart, each in its own `facts` folder: SQLite's WAL needs one memory for all.
    """

    def __init__(self, home: Path, facts: Path | None = None) -> None:
        self.home = home
        self._facts = facts or home
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    @contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        """The database, for tables of their own too; raises Refused where nothing can be kept."""
        with self._lock:
            if self._connection is None:
                try:
                    self._connection = _connect(self._facts)
                except (OSError, sqlite3.Error) as fault:  # filelock's Timeout is an OSError
                    why = why_not(fault) if isinstance(fault, OSError) else fault
                    raise Refused(f"cannot keep state in {self._facts}: {why}", "Set CMP_HOME to a folder that can be written.") from fault
            try:
                yield self._connection
            except sqlite3.Error as fault:
                raise Refused(f"cannot use the state in {self._facts}: {fault}", "Set CMP_HOME to another folder.") from fault

    def get(self, kind: str, subject: str) -> object | None:
        """The remembered value, None if there is none or nothing can be remembered here."""
        with suppress(Refused), self.database() as connection:
            row = connection.execute("SELECT value FROM facts WHERE kind = ? AND subject = ?", (kind, plain_text(subject))).fetchone()
            return json.loads(row[0]) if row else None
        return None

    def remembered(self, kind: str, subject: str, compute: Callable[[], T]) -> T:
        """What is remembered, or else what `compute` gives, remembered from then on if anything can be."""
        known = self.get(kind, subject)
        if known is not None:
            return cast(T, known)
        value = compute()
        with suppress(Refused):
            self.put(kind, subject, value)
        return value

    def put(self, kind: str, subject: str, value: object | None) -> None:
        """Remembers a value; None forgets it."""
        with self.database() as connection:
            if value is None:
                connection.execute("DELETE FROM facts WHERE kind = ? AND subject = ?", (kind, plain_text(subject)))
            else:
                connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?, ?)", (kind, plain_text(subject), json.dumps(value)))

    def change(self, kind: str, subjects: Sequence[str], to: Callable[[object | None], object | None]) -> object | None:
        """Remembers what `to` makes of the value that is remembered for the first of these subjects that has one, under the first of them
        alone, and gives it. No other process changes it meanwhile. Raises Refused where nothing can be kept.
        """
        names = tuple(dict.fromkeys(map(plain_text, subjects)))
        with self.database() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                rows = dict(connection.execute("SELECT subject, value FROM facts WHERE kind = ?", (kind,)).fetchall())
                before = next((json.loads(rows[name]) for name in names if name in rows), None)
                connection.executemany("DELETE FROM facts WHERE kind = ? AND subject = ?", [(kind, name) for name in names])
                if (value := to(before)) is not None:
                    connection.execute("INSERT INTO facts VALUES (?, ?, ?)", (kind, names[0], json.dumps(value)))
                connection.execute("COMMIT")
                return value
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    def all(self, kind: str) -> dict[str, object]:
        """Every remembered value of one kind, by subject."""
        with suppress(Refused), self.database() as connection:
            rows = connection.execute("SELECT subject, value FROM facts WHERE kind = ?", (kind,)).fetchall()
            return {subject: json.loads(value) for subject, value in rows}
        return {}

    def cell_path(self, key: str) -> Path:
        """Where the picture of a cell lies, whether it has been drawn or not."""
        return self.home / "cells" / key[:2] / f"{key}.png"

    def stand_in(self, place: Path) -> Path:
        """Where converted forms go of a run (by its `place`) whose folder cannot be written. Runs of the same name have one each."""
        digest = hashlib.sha256(subject_of(place).encode()).hexdigest()
        return self.home / "converted-runs" / f"{place.name[:60]}-{digest[:12]}"  # 255 bytes at most


def _connect(home: Path) -> sqlite3.Connection:
    home.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(home / "state.db", timeout=10, check_same_thread=False, isolation_level=None)
    if not _is_in_wal(connection):
        from filelock import FileLock  # not at the top: it costs more than opening a store that is there

        # switching to WAL does not wait for others as all else does, so two processes that begin at once take turns
        with FileLock(home / "state.lock", timeout=10):
            connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(_SCHEMA)
    return connection


def _is_in_wal(connection: sqlite3.Connection) -> bool:
    try:
        return bool(connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal")
    except sqlite3.OperationalError:  # another process is switching at this moment, and even asking does not wait for it
        return False


def subject_of(folder: Path) -> str:
    """A folder's name for the store: its real path, bytes that are no UTF-8 included."""
    return os.fsencode(os.path.realpath(folder)).decode("utf-8", "backslashreplace")
