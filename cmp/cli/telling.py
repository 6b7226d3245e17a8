"""How drawing is told while it goes on: a line per tile, and what is waited for."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence

import typer

from cmp.cli.output import in_trouble
from cmp.core.grids import Fault, Tile
from cmp.core.progress import Progress
from cmp.errors import sentences

QUIET = 5.0  # seconds


def tile_line(tile: Tile) -> str:
    """What was drawn, and how long it took or why it could not be."""
    name = tile.cell.checkpoint.id if tile.cell.checkpoint else "base model"
    took = "" if tile.seconds is None else f"{tile.seconds:.1f} s"
    became = tile.fault.error if tile.fault else ("reused" if tile.reused else took)
    return f"{name}, seed {tile.cell.seed}, {(tile.cell.prompt.name or tile.cell.prompt.text)[:60]!r}: {became}"


def told(items: Iterable[object], total: int = 0) -> Iterator[object]:
    """The items of long work but for its progress, each told on standard error as it comes; what is waited for is told once."""
    count, before = 0, ""
    for item in items:
        if isinstance(item, Progress):
            if item.what != before and item.what.startswith(("waiting", "seeing", "drawing on")):
                in_trouble(item.what)
            before = item.what
            continue
        count += 1
        if isinstance(item, Tile):
            in_trouble(f"{count}{f'/{total}' if total else ''} {tile_line(item)}")
        yield item


def at_times(items: Iterable[object], shown: float = -math.inf) -> Iterator[object]:
    """The items of long work but for its progress, which is told on standard error where nothing came for QUIET seconds; `shown` is when
    something was told last.
    """
    for item in items:
        if not isinstance(item, Progress):
            shown = time.monotonic()
            yield item
        elif time.monotonic() - shown > QUIET:
            in_trouble(f"{item.done}/{item.total} {item.what}")
            shown = time.monotonic()


def leave(tiles: Iterable[Tile]) -> None:
    """Ends a command with 1 if some cells could not be drawn, or with their own code if none could for the one same reason."""
    tiles = list(tiles)
    faults = [tile.fault for tile in tiles if tile.fault]
    for fault in dict.fromkeys(faults):
        in_trouble(f"not drawn: {sentences(fault.error, fault.hint)}")
    leave_with(faults, len(tiles))


def leave_with(faults: Sequence[Fault], cells: int) -> None:
    """The same for the faults of so many cells."""
    if faults:
        raise typer.Exit(faults[0].code if len(faults) == cells and len(set(faults)) == 1 else 1)
