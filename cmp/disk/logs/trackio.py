"""Scalars out of trackio's `PROJECT.db` (gradio-app/trackio `trackio/sqlite_storage.py`): one row a step, its values as JSON."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from pathlib import Path

from cmp.disk.logs.lines import as_number, as_time, is_tag
from cmp.disk.logs.scalars import EventScalars, Rows
from cmp.disk.logs.sqlite_file import MAGIC, asked, require_tables

_WORDS = {"NaN", "Infinity", "-Infinity"}
_QUERY = "SELECT run_name, step, timestamp, metrics FROM metrics WHERE typeof(step) = 'integer' ORDER BY id"


def is_trackio(path: Path, head: bytes) -> bool:
    return path.suffix == ".db" and head.startswith(MAGIC)


def read_trackio(path: Path, earlier: EventScalars | None = None) -> EventScalars:
    """Every number that was logged; of several runs in one project each has its name in front of its tags."""
    return asked(path, lambda connection: _scalars(path, connection), "trackio")


def _scalars(path: Path, connection: sqlite3.Connection) -> EventScalars:
    require_tables(connection, "metrics")
    found = connection.execute(_QUERY).fetchall()
    names = sorted({str(row[0]) for row in found})
    rows: dict[str, Rows] = {name: Rows() for name in names}
    for number, (run, step, time, told) in enumerate(found):
        mine = rows[str(run)]
        for tag, value in _values(told):
            mine.add(tag if len(names) == 1 else f"{run}/{tag}", step, value, as_time(time), number)
    tags = {tag: scalars for mine in rows.values() for tag, scalars in mine.told().items()}
    notes = (f"{path.name} holds {len(names)} runs: {', '.join(names[:5])}{' …' if len(names) > 5 else ''}",) if len(names) > 1 else ()
    starts = tuple(start for mine in rows.values() for start in mine.starts()) if len(names) == 1 else ()
    return EventScalars(path, tags, starts, 0, len(found), notes)


def _values(told: object) -> Iterable[tuple[str, float]]:
    try:
        table = json.loads(told) if isinstance(told, (str, bytes)) else None
    except (ValueError, RecursionError):
        return
    for tag, value in table.items() if isinstance(table, dict) else ():
        if isinstance(value, str) and value not in _WORDS:
            continue
        if (number := as_number(value)) is not None and is_tag(tag):
            yield tag, number
