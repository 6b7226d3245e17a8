"""What was measured, in CMP_HOME: by the weights, so that the same weights under another name are known, and a new checkpoint costs only
itself. Which weights a run's checkpoints hold stands beside it. Nothing of it is in a run.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from cmp.core.evidence import BASE
from cmp.core.measured import Measured
from cmp.core.runs import Checkpoint, Run, plain_text
from cmp.disk.held import files_of, holds_the_same
from cmp.disk.store import Store, subject_of

_TABLES = (
    """CREATE TABLE IF NOT EXISTS measures (
        weights TEXT, base TEXT, metric TEXT, setup TEXT, items TEXT, bands TEXT, "values" BLOB, lower INTEGER, relative INTEGER, told TEXT,
        PRIMARY KEY (weights, base, metric, setup))""",
    """CREATE TABLE IF NOT EXISTS measured (
        place TEXT, checkpoint TEXT, metric TEXT, base TEXT, setup TEXT, said TEXT, weights TEXT, files TEXT, at REAL,
        PRIMARY KEY (place, checkpoint, metric, base, setup, said))""",
)
_VALUES = 'items, bands, "values", lower, relative, told'
_FORMAT = np.dtype("<f8")


@dataclass(frozen=True, slots=True)
class Measures:
    """What was measured, of one CMP_HOME. Usable from several threads and processes; raises Refused where nothing can be kept."""

    store: Store

    def keep(self, found: Measured) -> None:
        """Keeps it by its weights; what was there of the same is replaced."""
        values = np.ascontiguousarray(found.values, dtype=_FORMAT).tobytes()
        row = (
            found.weights, found.base, found.metric, found.setup, _listed(found.items), _listed(found.bands), values,
            int(found.lower_is_better), int(found.relative), _listed(found.told),
        )  # fmt: skip
        with self._database() as database:
            database.execute(f"INSERT OR REPLACE INTO measures VALUES ({', '.join('?' * len(row))})", row)

    def find(self, weights: str, base: str, metric: str, setup: str, checkpoint_id: str = BASE) -> Measured | None:
        """What is known of these weights, under the name of a checkpoint that holds them."""
        key = (weights, base, metric, setup)
        with self._database() as database:
            asked = f"SELECT {_VALUES} FROM measures WHERE weights = ? AND base = ? AND metric = ? AND setup = ?"
            row = database.execute(asked, key).fetchone()
        return _read(key, row, checkpoint_id) if row else None

    def note(self, run: Run, found: Measured, checkpoint: Checkpoint | None, files: str, said: str = "") -> bool:
        """Notes that a checkpoint of a run holds these weights; None is the run's base model alone.

        `files` are what `files_of` said of it before its weights were read: where it says another thing now, nothing is noted, and it is
        False. `said` is what else decided its weights: the alpha that was given for it.
        """
        if files != files_of(checkpoint) or (checkpoint is not None and not files):
            return False
        row = (
            subject_of(run.place), plain_text(checkpoint.key if checkpoint else ""), found.metric, found.base, found.setup, said,
            found.weights, files, time.time(),
        )  # fmt: skip
        with self._database() as database:
            database.execute(f"INSERT OR REPLACE INTO measured VALUES ({', '.join('?' * len(row))})", row)
        return True

    def of(self, run: Run) -> dict[str, tuple[Measured, ...]]:
        """By metric what is known of a run's checkpoints, as their files are now, and of its base: that which was measured last."""
        return self.noted(run)[0]

    def noted(self, run: Run) -> tuple[dict[str, tuple[Measured, ...]], dict[str, tuple[str, ...]]]:
        """The same; and by metric the ids of those that were measured with these, and of whose files, which are others by now, nobody has
        looked whether they hold the same weights (see disk.recognised).
        """
        asked = (
            f"SELECT checkpoint, files, said, weights, base, metric, setup, {_VALUES} FROM measured JOIN measures"
            " USING (weights, base, metric, setup) WHERE place = ? ORDER BY at DESC"
        )
        with self._database() as database:
            rows = database.execute(asked, (subject_of(run.place),)).fetchall()
        names = {plain_text(c.key): c for c in run.checkpoints}
        now = {key: files_of(names[key]) for key in {row[0] for row in rows} & names.keys()}
        groups: dict[str, tuple[object, ...]] = {}
        found: dict[str, list[Measured]] = {}
        unsettled: dict[str, dict[str, None]] = {}
        for key, files, said, *rest in rows:
            checkpoint, weights = names.get(key), tuple(rest[:4])
            if key and (checkpoint is None or (same := holds_the_same(self.store, files, now[key])) is False):
                continue
            if groups.setdefault(weights[2], (*weights[1:], said)) != (*weights[1:], said):
                continue
            if checkpoint and same is None:
                unsettled.setdefault(weights[2], {})[checkpoint.id] = None
            else:
                found.setdefault(weights[2], []).append(_read(weights, rest[4:], checkpoint.id if checkpoint else BASE))
        known = {metric: {one.checkpoint_id for one in values} for metric, values in found.items()}
        left = {metric: tuple(name for name in ids if name not in known.get(metric, ())) for metric, ids in unsettled.items()}
        return {metric: tuple(values) for metric, values in found.items()}, {metric: ids for metric, ids in left.items() if ids}

    def files_noted(self) -> dict[tuple[str, str], set[str]]:
        """What the files of checkpoints were when they were measured, by the place of their run and their key."""
        found: dict[tuple[str, str], set[str]] = {}
        with self._database() as database:
            for place, key, files in database.execute("SELECT DISTINCT place, checkpoint, files FROM measured WHERE checkpoint != ''"):
                found.setdefault((place, key), set()).add(files)
        return found

    def adopt(self, run: Run, checkpoint: Checkpoint, files: str, weights: str) -> None:
        """Notes of a checkpoint, whose files are these, all that was noted of the same weights elsewhere; and what of its base with it."""
        place = subject_of(run.place)
        asked = (
            "INSERT OR IGNORE INTO measured SELECT ?, ?, metric, base, setup, said, weights, ?, max(at) FROM measured"
            " WHERE weights = ? AND {} GROUP BY metric, base, setup, said"
        )
        own = "(metric, base, setup, said) IN (SELECT metric, base, setup, said FROM measured WHERE place = ?)"
        with self._database() as database:
            database.execute(asked.format("TRUE"), (place, plain_text(checkpoint.key), files, weights))
            database.execute(asked.format(f"checkpoint = '' AND {own}"), (place, "", "", "", place))

    def changed(self, run: Run) -> object:
        """Another value once something more was measured of a run."""
        with self._database() as database:
            asked = "SELECT count(*), max(at) FROM measured WHERE place = ?"
            return tuple(database.execute(asked, (subject_of(run.place),)).fetchone())

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        with self.store.database() as database:
            for table in _TABLES:
                database.execute(table)
            yield database


def _listed(values: tuple[str, ...]) -> str:
    return json.dumps([plain_text(value) for value in values])


def _read(key: tuple[str, ...], row: tuple[object, ...] | list[object], checkpoint_id: str) -> Measured:
    items, bands, values, lower, relative, told = row
    listed = [tuple(json.loads(str(text))) for text in (items, bands, told)]
    assert isinstance(values, bytes)
    table = np.frombuffer(values, dtype=_FORMAT).reshape(len(listed[0]), len(listed[1])).astype(np.float64)
    weights, base, metric, setup = key
    return Measured(
        metric, checkpoint_id, weights, base, setup, listed[0], table, listed[1], bool(lower), bool(relative), listed[2], reused=True
    )
