"""The cells that were drawn: how much room they take, and how room is made. Any of them can be drawn again."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmp.core.work import JobRecord
from cmp.disk.store import Store
from cmp.disk.thumbs import sweep_thumbnails
from cmp.errors import BadInput

_MOST = 1 << 20  # bytes of a description that are read
Unfinished = Iterable[tuple[JobRecord, Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class CellFile:
    """A cell's picture; `used` is when it was drawn or last found again, Unix seconds."""

    path: Path
    bytes: int
    used: float


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """Which cells go, oldest use first; `held` counts those that would go but for a job that is not over."""

    going: tuple[CellFile, ...]
    held: int
    cells: int
    bytes: int

    @property
    def bytes_after(self) -> int:
        return self.bytes - sum(cell.bytes for cell in self.going)

    def as_json(self) -> dict[str, object]:
        return {
            "cells": self.cells, "before_bytes": self.bytes, "after_bytes": self.bytes_after, "going": len(self.going), "held": self.held,
        }  # fmt: skip


def mark_used(path: Path) -> None:
    """Notes that a cell was found again, in its file's time."""
    with suppress(OSError):
        os.utime(path)


def all_cells(store: Store) -> Iterator[CellFile]:
    """Every cell in the store, in no order."""
    with suppress(OSError), os.scandir(store.home / "cells") as folders:
        for folder in folders:
            with suppress(OSError), os.scandir(folder.path) as files:
                for file in files:
                    if file.name.endswith(".png") and not file.name.startswith("."):
                        found = file.stat(follow_symlinks=False)
                        yield CellFile(Path(file.path), found.st_size, found.st_mtime)


def cells_size(store: Store) -> tuple[int, int]:
    """How many cells there are, and their bytes."""
    sizes = [cell.bytes for cell in all_cells(store)]
    return len(sizes), sum(sizes)


def plan_prune(
    store: Store, unfinished: Unfinished, *, most_bytes: int | None = None, unused_for: float | None = None, now: float | None = None
) -> PrunePlan:
    """What goes so that at most so many bytes stay, and nothing that was not used for so many seconds.

    Cells of the jobs that are `unfinished` stay: what shows a prompt and seed of one.
    """
    if most_bytes is None and unused_for is None:
        raise BadInput("it was not said what may stay", "Give a size such as 2GB, or an age such as 30d, or both.")
    now = time.time() if now is None else now
    cells = sorted(all_cells(store), key=lambda cell: (cell.used, cell.path))
    total = left = sum(cell.bytes for cell in cells)
    jobs = list(unfinished)
    wanted = {pair for _, order in jobs for pair in _pictures(order.get("grid"))}
    going, held = [], 0
    for cell in cells:
        old = unused_for is not None and now - cell.used > unused_for
        if not (old or (most_bytes is not None and left > most_bytes)):
            continue
        if _is_wanted(cell.path, wanted):
            held += 1
            continue
        going.append(cell)
        left -= cell.bytes
    return PrunePlan(tuple(going), held, len(cells), total)


def prune(plan: PrunePlan) -> int:
    """Carries out a plan; gives the bytes that came free. What was used since the plan was made stays."""
    freed = 0
    for cell in plan.going:
        with suppress(OSError):
            if cell.path.stat().st_mtime == cell.used:
                cell.path.unlink()
                freed += cell.bytes
    if plan.going:  # cells lie in HOME/cells/AB/KEY.png
        sweep_thumbnails(plan.going[0].path.parents[2], (cell.path.stem for cell in plan.going))
    return freed


def _pictures(grid: object) -> Iterator[tuple[object, object]]:
    if isinstance(grid, dict):
        for prompt in grid.get("prompts", ()):
            own = (prompt.get("own") or {}).get("seed")
            yield from ((prompt.get("text"), seed) for seed in (grid.get("seeds", ()) if own is None else (own,)))


def _is_wanted(path: Path, wanted: set[tuple[object, object]]) -> bool:
    """Whether a picture shows one of these prompts and seeds; also where it does not tell."""
    told = description(path) if wanted else {}
    return bool(wanted) and (told is None or (told.get("prompt"), told.get("seed")) in wanted)


def description(path: Path) -> dict[str, Any] | None:
    """What a cell tells of itself, None if it cannot be read: the text under `cmp` in the PNG."""
    try:
        with open(path, "rb") as file:
            file.seek(8)
            while len(head := file.read(8)) == 8:
                size, kind = int.from_bytes(head[:4], "big"), head[4:]
                if kind == b"iTXt" and size <= _MOST and (chunk := file.read(size)).startswith(b"cmp\0"):
                    # keyword, two bytes of compression (none), language, translated keyword, text
                    told = json.loads(chunk[len(b"cmp\0") + 2 :].split(b"\0", 2)[2])
                    return told if isinstance(told, dict) else None
                file.seek(4 if kind == b"iTXt" and size <= _MOST else size + 4, os.SEEK_CUR)
    except (OSError, ValueError, IndexError):
        pass
    return None
