"""What every drawn cell tells of itself, in the database: a picture is opened once, and later only folders that have changed are listed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmp.disk.cells import description
from cmp.disk.store import Store

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS cells (key TEXT PRIMARY KEY, folder TEXT, weights TEXT, told TEXT)",
    "CREATE INDEX IF NOT EXISTS cells_by_weights ON cells (weights)",
    "CREATE INDEX IF NOT EXISTS cells_by_folder ON cells (folder)",
    "CREATE TABLE IF NOT EXISTS cell_folders (name TEXT PRIMARY KEY, changed INTEGER)",
)
_TOLD = ("prompt", "negative", "seed", "strength", "sampling", "stack", "base", "base_digest", "mode", "as_preview")
_SETTLED = 2.0  # seconds since a folder's last change after which nothing more can come with the same time
_AT_ONCE = 400  # values of one question


@dataclass(frozen=True, slots=True)
class KeptCell:
    """A cell's key, the digest of the weights that it says it was drawn from, and what else it tells."""

    key: str
    weights: str
    told: Mapping[str, Any]


class CellIndex:
    """The cells of one CMP_HOME. Usable from several threads and processes; raises Refused where nothing can be kept."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def of_weights(self, weights: Collection[str]) -> tuple[KeptCell, ...]:
        """The cells that were drawn from weights of these digests ("": from the base model's alone, or they do not tell), those that were
        found first before the others.
        """
        self._look()
        asked, rows = sorted(weights), []
        with self._store.database() as database:
            for start in range(0, len(asked), _AT_ONCE):
                part = asked[start : start + _AT_ONCE]
                marks = ", ".join("?" * len(part))
                rows += database.execute(f"SELECT rowid, key, weights, told FROM cells WHERE weights IN ({marks})", part).fetchall()
        return tuple(KeptCell(key, digest, json.loads(told)) for _, key, digest, told in sorted(rows))

    def _look(self) -> None:
        """Brings the table up to date with the folders."""
        with self._store.database() as database:
            for statement in _SCHEMA:
                database.execute(statement)
            before = dict(database.execute("SELECT name, changed FROM cell_folders").fetchall())
        now = {}
        with suppress(OSError), os.scandir(self._store.home / "cells") as folders:
            now = {folder.name: folder.stat().st_mtime_ns for folder in folders if folder.is_dir(follow_symlinks=False)}
        for name in set(now) | set(before):
            if now.get(name) != before.get(name):
                self._look_into(name, now.get(name))

    def _look_into(self, folder: str, changed: int | None) -> None:
        """The same for one folder, None for one that is gone. What is still changing is looked at again the next time."""
        looked = time.time()
        place = self._store.home / "cells" / folder
        there = _keys_in(place) if changed is not None else set()
        with self._store.database() as database:
            known = {key for (key,) in database.execute("SELECT key FROM cells WHERE folder = ?", (folder,))}
        new = [_row(place / f"{key}.png", folder) for key in sorted(there - known)]
        settled = changed is not None and looked - changed / 1e9 > _SETTLED
        with self._store.database() as database:
            database.execute("BEGIN IMMEDIATE")
            try:
                database.executemany("DELETE FROM cells WHERE key = ?", [(key,) for key in known - there])
                database.executemany("INSERT OR REPLACE INTO cells (key, folder, weights, told) VALUES (?, ?, ?, ?)", new)
                database.execute("DELETE FROM cell_folders WHERE name = ?", (folder,))
                if settled:
                    database.execute("INSERT OR REPLACE INTO cell_folders VALUES (?, ?)", (folder, changed))
                database.execute("COMMIT")
            finally:
                if database.in_transaction:
                    database.execute("ROLLBACK")


def _keys_in(folder: Path) -> set[str]:
    with suppress(OSError), os.scandir(folder) as files:
        return {file.name.removesuffix(".png") for file in files if file.name.endswith(".png") and not file.name.startswith(".")}
    return set()


def _row(picture: Path, folder: str) -> tuple[str, str, str, str]:
    """A cell that tells nothing is kept too, so that it is not opened again."""
    told = description(picture) or {}
    weights = told.get("weights")
    kept = {name: told[name] for name in _TOLD if name in told}
    return picture.stem, folder, weights if isinstance(weights, str) else "", json.dumps(kept)
