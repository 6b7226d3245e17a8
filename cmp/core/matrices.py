"""What the matrix is fed with: the plain value that is made from a grid's tiles. Page, command line and exports share it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from cmp.core.grid_axes import ACROSS, RUN, STEP, Label, MatrixAxis, axes_of, common_details, places
from cmp.core.grids import Cell, GridSpec, Tile
from cmp.core.labels import STRENGTH
from cmp.errors import sentences

PREVIEW = "preview"
URLS = {"thumb": "cmp/cell/{key}.256.webp", "full": "cmp/cell/{key}.png", "settings": "cmp/cell/{key}.txt"}


def grid_matrix(
    spec: GridSpec,
    tiles: Sequence[Tile],
    label: Label,
    working: bool = False,
    earlier: Sequence[Tile] = (),
    known: Callable[[str], dict[str, Any]] = lambda checkpoint: {},
) -> dict[str, Any]:
    """The grid: checkpoints, strengths and stacked LoRAs across, prompts, seeds and sampling down, until the user arranges it otherwise.

    Of a cell's tiles the last one counts: a preview is replaced by what comes after it. What `earlier` grids showed in the same places
    stands there until then. `known` tells of a checkpoint's id what its head shows.
    """
    all_cells = spec.cells()
    axes = axes_of(all_cells, label)
    last = {tile.cell: tile for tile in tiles}
    shown = {place: tile for tile in earlier if not tile.fault and (place := _place(tile.cell, axes)) is not None}
    shown |= {place: tile for tile in last.values() if (place := _place(tile.cell, axes)) is not None}
    ways = {tuple(tile.drawn.items()) for tile in shown.values() if tile.drawn and not tile.preview}
    drawn = dict(ways.pop()) if len(ways) == 1 else {}
    modes = {tile.mode for tile in shown.values() if not tile.fault}
    cells = [_cell(tile, place, modes) for place, tile in shown.items()]
    waiting = [place for cell in all_cells if (place := _place(cell, axes)) is not None and place not in shown]
    cells += [{"at": list(place), "key": "", "state": "drawing" if working and not i else "waiting"} for i, place in enumerate(waiting)]
    return {
        "title": spec.title,
        "axes": [axis.as_json() for axis in axes],
        "place": places(axes),
        "step_axis": STEP,
        "run": next((cell.checkpoint.run_id for cell in all_cells if cell.checkpoint), ""),
        "cells": cells,
        "urls": URLS,
        "marks": list(_marks(axes, all_cells, last, known)),
        "common": common_details(all_cells, axes, drawn) + ([["mode", modes.pop()]] if len(modes) == 1 else []),
        "done": sum(not tile.preview for tile in last.values()),
        "total": len(all_cells),
        "note": "",
        "rerolls": [axis.key for axis in axes if axis.key not in ACROSS],
    }


def upcoming_cell(cells: Iterable[Cell], last: dict[Cell, Tile]) -> Cell | None:
    """The first cell of which there is nothing yet, or else only a preview."""
    missing = [cell for cell in cells if cell not in last or last[cell].preview]
    return next((cell for cell in missing if cell not in last), missing[0] if missing else None)


def _place(cell: Cell, axes: Sequence[MatrixAxis]) -> tuple[int | None, ...] | None:
    """The cell's place in the grid; None for a cell of another one."""
    try:
        return tuple(axis.at(cell) for axis in axes)
    except KeyError:
        return None


def _cell(tile: Tile, place: tuple[int | None, ...], modes: set[str]) -> dict[str, Any]:
    shown: dict[str, Any] = {"at": list(place)}
    shown |= {"seconds": round(tile.seconds, 2)} if tile.seconds is not None else {}
    shown |= {"reused": True} if tile.reused else {}
    if tile.fault:
        return shown | {"key": tile.key, "state": "fault", "fault": sentences(tile.fault.error, tile.fault.hint)}
    details = [["preview", "small and with few steps, until the picture itself is drawn"]] if tile.preview else []
    details += [["mode", tile.mode]] if len(modes) > 1 else []
    shown |= {"details": details} if details else {}
    return shown | {"key": tile.key, "state": "done"} | ({"mark": PREVIEW} if tile.preview else {})


def _marks(
    axes: Sequence[MatrixAxis], cells: Sequence[Cell], last: dict[Cell, Tile], known: Callable[[str], dict[str, Any]]
) -> Iterable[dict[str, Any]]:
    """What is known of each checkpoint."""
    bases = {cell.checkpoint: tile.base for cell, tile in last.items() if tile.base}
    for checkpoint in dict.fromkeys(cell.checkpoint for cell in cells):
        cell = next(cell for cell in cells if cell.checkpoint == checkpoint)
        at = {axis.key: axis.at(cell) for axis in axes if axis.key in (RUN, STEP) and axis.at(cell) is not None}
        base = bases.get(checkpoint)
        details = [["checkpoint", checkpoint.id]] if checkpoint else []
        details += [["strength", "1"]] if checkpoint and STRENGTH.name not in {axis.key for axis in axes} else []
        sources = "; ".join(str(base[name]) for name in ("proof", "source") if base.get(name)) if base else ""
        details += [["base", f"{base['id']} (proof: {sources})"]] if base else []
        yield {"at": at, "details": details} | (known(checkpoint.id) if checkpoint else {})
