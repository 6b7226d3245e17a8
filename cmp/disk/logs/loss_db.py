"""Scalars out of ai-toolkit's `loss_log.db` (ostris/ai-toolkit `toolkit/logging_aitk.py`, UILogger), also while it is written."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np

from cmp.disk.logs.scalars import EventScalars, TagScalars
from cmp.disk.logs.sqlite_file import asked, require_tables

NAME = "loss_log.db"
_QUERY = """
    SELECT m.key, m.step, m.value_real, s.wall_time FROM metrics AS m LEFT JOIN steps AS s ON s.step = m.step
    WHERE typeof(m.value_real) IN ('real', 'integer') AND typeof(m.step) = 'integer' AND typeof(m.key) = 'text'
"""


def is_loss_db(path: Path) -> bool:
    return path.name == NAME


def read_loss_db(path: Path, last: int | None = None) -> EventScalars:
    """Every scalar of the file, or those of its `last` steps; raises Unreadable, also for a file that changes all the time."""
    return asked(path, lambda connection: _scalars(path, _rows(connection, last)), "ai-toolkit")


def _rows(connection: sqlite3.Connection, last: int | None) -> list[tuple[str, int, float, float | None]]:
    require_tables(connection, "metrics", "steps")
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
