"""The votes that were cast, in CMP_HOME: of several voters, by several processes at once. Nothing of them is in a run."""

from __future__ import annotations

import csv
import io
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from cmp.core.packing import harmless
from cmp.core.runs import plain_text
from cmp.core.votes import Vote
from cmp.disk.cells import description
from cmp.disk.replacing import replacing
from cmp.disk.store import Store, subject_of
from cmp.errors import Refused

_COLUMNS = (
    "voter", "left", "right", "outcome", "prompt", "negative", "seed", "left_cell", "right_cell", "left_weights", "right_weights", "at",
)  # fmt: skip
_SCHEMA = """CREATE TABLE IF NOT EXISTS votes (
    number INTEGER PRIMARY KEY AUTOINCREMENT, place TEXT, voter TEXT, "left" TEXT, "right" TEXT, outcome TEXT, prompt TEXT, negative TEXT,
    seed TEXT, left_cell TEXT, right_cell TEXT, left_weights TEXT, right_weights TEXT, at REAL)"""
_NAMED = ", ".join(f'"{name}"' for name in _COLUMNS)


class Votes:
    """The votes of one CMP_HOME, by the place of their run. Usable from several threads; raises Refused where nothing can be kept."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, place: Path, vote: Vote) -> None:
        values = asdict(vote) | {"seed": str(vote.seed)}  # a seed may be larger than SQLite's integers
        row = [plain_text(value) if isinstance(value, str) else value for value in map(values.__getitem__, _COLUMNS)]
        with self._database() as database:
            marks = ", ".join("?" * (len(_COLUMNS) + 1))
            database.execute(f"INSERT INTO votes (place, {_NAMED}) VALUES ({marks})", (subject_of(place), *row))

    def of(self, place: Path) -> tuple[Vote, ...]:
        """A run's votes, the oldest first."""
        with self._database() as database:
            rows = database.execute(f"SELECT {_NAMED} FROM votes WHERE place = ? ORDER BY number", (subject_of(place),)).fetchall()
        found = (dict(zip(_COLUMNS, row, strict=True)) for row in rows)
        return tuple(Vote(**told | {"seed": int(told["seed"])}) for told in found)

    def stamp(self, place: Path) -> object:
        """Equal while a run's votes are; where nothing can be kept there are none."""
        with suppress(Refused), self._database() as database:
            asked = "SELECT count(*), max(number) FROM votes WHERE place = ?"
            return tuple(database.execute(asked, (subject_of(place),)).fetchone())
        return ()

    def seen(self, place: Path, voter: str) -> Counter[frozenset[str]]:
        """How often a voter has answered to each pair of cells."""
        return Counter(frozenset((vote.left_cell, vote.right_cell)) for vote in self.of(place) if vote.voter == voter)

    def take_back(self, place: Path, voter: str) -> bool:
        """Forgets a voter's last vote on a run; whether there was one."""
        last = "SELECT max(number) FROM votes WHERE place = ? AND voter = ?"
        with self._database() as database:
            return database.execute(f"DELETE FROM votes WHERE number = ({last})", (subject_of(place), plain_text(voter))).rowcount > 0

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        with self._store.database() as database:
            database.execute(_SCHEMA)
            yield database


def weights_in(picture: Path) -> str:
    """The digest of the weights that a cell says it was drawn from, "" where it does not."""
    told = description(picture) or {}
    found = told.get("weights")
    return found if isinstance(found, str) else ""


def write_votes(votes: Sequence[Vote], target: Path, *, force: bool = False) -> None:
    """Writes votes as CSV, whole or not at all; unless `force` raises Refused where something lies already."""
    if not force and os.path.lexists(target):
        raise Refused(f"{target} is there already", "Give another name, or --force to replace it.")
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    rows = [vote.as_json() for vote in votes]
    writer.writerow(rows[0] if rows else [])
    writer.writerows([harmless("" if value is None else str(value)) for value in row.values()] for row in rows)
    with replacing(target) as draft:
        draft.write_text(out.getvalue(), encoding="utf-8", errors="replace", newline="")
