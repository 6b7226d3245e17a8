"""What is kept of jobs in CMP_HOME: what was ordered, how far it came, and which process has it in hand.

A process that has jobs holds a lock of its own for as long as it lives. A job that is not over and whose process holds its lock no longer
was interrupted, and another process may take it: a killed process cannot say so itself, and its number may be another's by now.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from cmp.core.work import ASKS, UNFINISHED, JobRecord
from cmp.disk.store import Store
from cmp.errors import BadInput, Locked, NotFound, Refused, why_not

Order = Mapping[str, Any]

_KEPT_FOR = 30 * 86400.0  # seconds after which a job that is over is forgotten
_SCHEMA = """CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT, title TEXT, total INTEGER, work TEXT, owner TEXT, state TEXT, asked TEXT,
    done INTEGER, what TEXT, reused INTEGER, faults INTEGER, worked REAL, error TEXT, made REAL, queued REAL, started REAL, ended REAL,
    tries INTEGER DEFAULT 0)"""
_REASONS = "job-reasons"  # the kind of fact under which it stands why items of a job could not be made
_SELECT = f"""SELECT jobs.*, (SELECT value FROM facts WHERE facts.kind = '{_REASONS}' AND subject = jobs.kind || '-' || number) AS reasons
    FROM jobs"""
_CHANGING = ("total", "state", "done", "what", "reused", "faults", "worked", "error", "queued", "started", "ended")


class Ledger:
    """The jobs of one CMP_HOME, as one process keeps them. Usable from several threads; methods raise Refused where nothing can be kept."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._owner = f"{os.getpid()}-{secrets.token_hex(6)}"
        self._lock: object | None = None

    def add(self, kind: str, title: str, total: int, order: Order | None) -> JobRecord:
        """A new job of this process, waiting. Without an order it cannot be made again by another."""
        now = time.time()
        with self._writing() as database:
            self._be_alive()
            database.execute("DELETE FROM jobs WHERE ended < ?", (now - _KEPT_FOR,))
            kept = "SELECT kind || '-' || number FROM jobs"
            database.execute(f"DELETE FROM facts WHERE kind = ? AND subject NOT IN ({kept})", (_REASONS,))
            number = database.execute(
                "INSERT INTO jobs (kind, title, total, work, owner, state, done, what, reused, faults, worked, made, queued)"
                " VALUES (?, ?, ?, ?, ?, 'waiting', 0, '\"\"', 0, 0, 0, ?, ?)",
                (kind, json.dumps(title), total, None if order is None else json.dumps(order), self._owner, now, now),
            ).lastrowid
        return JobRecord(f"{kind}-{number}", kind, title, total, made=now, queued=now)

    def write(self, record: JobRecord) -> None:
        """Keeps how far a job of this process has come."""
        values = {name: getattr(record, name) for name in _CHANGING} | {"what": json.dumps(record.what)}
        values["error"] = json.dumps(record.error) if record.error else None
        columns = ", ".join(f"{name} = :{name}" for name in _CHANGING)
        if record.done > record.reused:  # it gets on
            columns += ", tries = 0"
        with self._database() as database:
            written = database.execute(
                f"UPDATE jobs SET {columns} WHERE number = :number AND owner = :owner",
                values | {"number": _number(record.id), "owner": self._owner},
            ).rowcount
            if not written:  # another process has taken it up
                return
            if record.reasons:
                database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?, ?)", (_REASONS, record.id, json.dumps(record.reasons)))
            elif record.over:  # it was gone on with, and all went well
                database.execute("DELETE FROM facts WHERE kind = ? AND subject = ?", (_REASONS, record.id))

    def take_asks(self) -> list[tuple[str, str]]:
        """What other processes have asked of the jobs of this one since the last time: ids, and what."""
        with self._database() as database:
            found = database.execute(
                "SELECT number, kind, asked FROM jobs WHERE owner = ? AND asked IS NOT NULL", (self._owner,)
            ).fetchall()
            for number, _, asked in found:  # another wish may have come since
                database.execute("UPDATE jobs SET asked = NULL WHERE number = ? AND asked = ?", (number, asked))
        return [(f"{kind}-{number}", asked) for number, kind, asked in found]

    def ask(self, job_id: str, what: str) -> JobRecord:
        """Asks the process that has a job to do something with it; what no process has in hand is changed at once. Raises NotFound."""
        if what not in ASKS:
            raise BadInput(f"a job was asked to {what!r}", f"Use one of: {', '.join(ASKS)}.")
        with self._writing() as database:
            row, living = self._row(database, job_id)
            if living:
                database.execute("UPDATE jobs SET asked = ? WHERE number = ?", (what, row["number"]))
            elif row["state"] in UNFINISHED and what != "resume":
                state, ended = ("cancelled", time.time()) if what == "cancel" else ("paused", None)
                database.execute("UPDATE jobs SET state = ?, ended = ? WHERE number = ?", (state, ended, row["number"]))
            return _record(*self._row(database, job_id))

    def claim(self, job_id: str) -> tuple[JobRecord, Order]:
        """Takes a job that no living process has in hand, to go on with it; raises Locked, NotFound or Refused."""
        with self._writing() as database:
            row, living = self._row(database, job_id)
            if living:
                raise Locked(f"{job_id} is in the hands of another process", "It goes on there; `python -m cmp jobs` shows how far it is.")
            if row["state"] == "done":
                raise BadInput(f"{job_id} is done", "There is nothing left of it to do.")
            if row["work"] is None:
                raise Refused(f"it was not kept how {job_id} is made", "Start it anew.")
            self._be_alive()
            database.execute(
                "UPDATE jobs SET owner = ?, state = 'waiting', asked = NULL, error = NULL, ended = NULL, queued = ?, tries = tries + 1"
                " WHERE number = ?",
                (self._owner, time.time(), row["number"]),
            )
            return _record(*self._row(database, job_id)), json.loads(row["work"])

    def give_back(self, job_id: str) -> None:
        """This process ends in order: that the job did not get on here is not held against it."""
        with self._database() as database:
            database.execute("UPDATE jobs SET tries = MAX(tries - 1, 0) WHERE number = ? AND owner = ?", (_number(job_id), self._owner))

    def records(self) -> tuple[JobRecord, ...]:
        """All jobs that are remembered, in the order in which they were made."""
        with self._writing() as database:
            rows = _rows(database, f"{_SELECT} ORDER BY number")
            living = {owner: self._lives(owner) for owner in {row["owner"] for row in rows if row["state"] in UNFINISHED}}
        queues: dict[str, list[Mapping[str, Any]]] = {}
        for row in sorted(rows, key=lambda row: row["queued"]):
            if row["state"] == "waiting" and living[row["owner"]]:
                queues.setdefault(row["owner"], []).append(row)
        records = []
        for row in rows:
            record = _record(row, living.get(row["owner"], False))
            queue = queues.get(row["owner"], [])
            records.append(replace(record, position=queue.index(row) + 1) if row in queue else record)
        return tuple(records)

    def order(self, job_id: str) -> Order | None:
        """From what a job is made, None if that was not kept; raises NotFound."""
        with self._database() as database:
            rows = _rows(database, f"{_SELECT} WHERE number = ?", _number(job_id))
        if not rows or f"{rows[0]['kind']}-{rows[0]['number']}" != job_id:
            raise unknown(job_id)
        return json.loads(rows[0]["work"]) if rows[0]["work"] is not None else None

    def orders(self) -> list[tuple[JobRecord, Order]]:
        """The jobs that are not over, each with what it is made from."""
        told = [(record, self.order(record.id)) for record in self.records() if not record.over]
        return [(record, order) for record, order in told if order is not None]

    # -- who is alive --------------------------------------------------------------------------------------------------

    def _lock_of(self, owner: str) -> Path:
        return self._store.home / "jobs" / f"{owner}.lock"

    def _be_alive(self) -> None:
        """Takes this process' lock, which the system takes from it when it ends, however it ends."""
        if self._lock is None:
            self._lock = _locked(self._lock_of(self._owner))

    def _lives(self, owner: str) -> bool:
        """Whether a process still has its lock. Within a transaction only, so that no two look at once and take each other for it."""
        if owner == self._owner:
            return self._lock is not None
        file = self._lock_of(owner)
        if not os.path.exists(file):
            return False
        try:
            _locked(file).release()
        except Locked:
            return True
        with suppress(OSError):
            file.unlink(missing_ok=True)
        return False

    # -- the table -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        with self._store.database() as database:
            database.execute(_SCHEMA)
            yield database

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction in which no other process changes or judges anything."""
        with self._database() as database:
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
                database.execute("COMMIT")
            finally:
                if database.in_transaction:
                    database.execute("ROLLBACK")

    def _row(self, database: sqlite3.Connection, job_id: str) -> tuple[Mapping[str, Any], bool]:
        """A job, and whether a living process has it in hand."""
        rows = _rows(database, f"{_SELECT} WHERE number = ?", _number(job_id))
        if not rows or f"{rows[0]['kind']}-{rows[0]['number']}" != job_id:
            raise unknown(job_id)
        return rows[0], rows[0]["state"] in UNFINISHED and self._lives(rows[0]["owner"])


def unknown(job_id: str) -> NotFound:
    return NotFound(f"there is no job {job_id!r}", "`python -m cmp jobs` lists them; those that are over are forgotten after 30 days.")


def _number(job_id: str) -> int:
    digits = job_id.rpartition("-")[2]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 19 else -1


def _rows(database: sqlite3.Connection, query: str, *values: object) -> list[Mapping[str, Any]]:
    found = database.execute(query, values)
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found]


def _record(row: Mapping[str, Any], living: bool) -> JobRecord:
    """Paused jobs stay so when their process ends: whoever paused one does not want it resumed by a restart."""
    state = "interrupted" if row["state"] in ("waiting", "running") and not living else row["state"]
    told = {name: row[name] for name in (*_CHANGING, "kind", "made", "asked", "tries")}
    told |= {"title": json.loads(row["title"]), "what": json.loads(row["what"]), "state": state}
    told["error"] = json.loads(row["error"]) if row["error"] else None
    told["reasons"] = tuple((str(why), int(count)) for why, count in json.loads(row["reasons"] or "[]"))
    return JobRecord(f"{row['kind']}-{row['number']}", **told)


def _locked(file: Path) -> Any:
    """The lock, taken; raises Locked if another has it, Refused if there can be none."""
    from filelock import FileLock, Timeout  # not at the top: it costs more than opening a store

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file, timeout=0, thread_local=False)
        lock.acquire()
    except Timeout as taken:
        raise Locked(f"{file} is locked by another process", "Wait for it.") from taken
    except (OSError, NotImplementedError) as fault:
        why = why_not(fault) if isinstance(fault, OSError) else fault
        raise Refused(f"no lock can be had at {file}: {why}", "Set CMP_HOME to a folder of a file system that has locks.") from fault
    return lock
