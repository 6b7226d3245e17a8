"""What the matrix is fed with: plain values made from a grid's tiles, or from the trainer's pictures. No widget is known here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from cmp.core.grids import Cell, GridSpec, Tile
from cmp.core.labels import CHECKPOINT, PROMPT, STRENGTH, Axis, number_text, stack_text, varying
from cmp.core.rerolling import row_of
from cmp.core.runs import Checkpoint
from cmp.errors import sentences

Label = Callable[[Checkpoint | None], tuple[str, str]]
LORAS = "LoRAs"
PREVIEW = "preview"


def matrix(spec: GridSpec, tiles: Sequence[Tile], column_label: Label, working: bool, earlier: Sequence[Tile] = ()) -> dict[str, Any]:
    """The grid: a column per checkpoint, strength and stacked LoRAs, a row per prompt, seed and sampling.

    Of a cell's tiles the last one counts: a preview is replaced by what comes after it. What `earlier` grids showed in the same places
    stands there until then.
    """
    all_cells = spec.cells()
    axes = varying(all_cells)
    columns = _unique((_column_key(cell), *_column_words(cell, axes, column_label)) for cell in all_cells)
    ordered = _unique((row_of(cell).key, *_row_words(cell, axes)) for cell in all_cells)
    across = {key: i for i, (key, _, _) in enumerate(columns)}
    down = {key: i for i, (key, _, _) in enumerate(ordered)}
    last = {tile.cell: tile for tile in tiles}
    places = {(down[row_of(tile.cell).key], across[_column_key(tile.cell)]): tile for tile in last.values()}
    before = {(down.get(row_of(tile.cell).key), across.get(_column_key(tile.cell))): tile for tile in earlier if not tile.fault}
    shown = {(r, c): tile for (r, c), tile in (before | places).items() if r is not None and c is not None}
    cells = [_cell(tile, r, c) for (r, c), tile in shown.items()]
    waiting = [place for cell in all_cells if (place := (down[row_of(cell).key], across[_column_key(cell)])) not in shown]
    if working and waiting:
        cells.append({"r": waiting[0][0], "c": waiting[0][1], "key": "next", "state": "drawing"})
    return {
        "title": spec.title,
        "columns": [{"key": repr(key), "label": label, "sub": sub} for key, label, sub in columns],
        "rows": [{"key": key, "label": label, "sub": sub} for key, label, sub in ordered],
        "cells": cells,
        "done": sum(not tile.preview for tile in last.values()),
        "total": len(all_cells),
        "note": "",
        "rerolls": True,
    }


def upcoming_cell(cells: Iterable[Cell], last: dict[Cell, Tile]) -> Cell | None:
    """The first cell of which there is nothing yet, or else only a preview."""
    missing = [cell for cell in cells if cell not in last or last[cell].preview]
    return next((cell for cell in missing if cell not in last), missing[0] if missing else None)


def _column_key(cell: Cell) -> tuple[object, ...]:
    stack = tuple((one.checkpoint.id, one.strength) for one in cell.stack)
    return (cell.checkpoint.id, cell.strength, stack) if cell.checkpoint else (None, stack)


def _column_words(cell: Cell, axes: Sequence[Axis], label: Label) -> tuple[str, str]:
    name, sub = label(cell.checkpoint)
    strength = STRENGTH.label(cell) if STRENGTH in axes and cell.checkpoint else ""
    stack = f"with {stack_text(cell.stack)}" if any(axis.name == LORAS for axis in axes) and cell.stack else ""
    return name, " · ".join(part for part in (sub, strength, stack) if part)


def _row_words(cell: Cell, axes: Sequence[Axis]) -> tuple[str, str]:
    rest = [axis for axis in axes if axis not in (CHECKPOINT, STRENGTH, PROMPT) and axis.name not in (LORAS, "Seed")]
    return cell.prompt.name or cell.prompt.text, " · ".join([f"seed {cell.seed}", *(axis.label(cell) for axis in rest)])


def _unique(entries: Iterable[tuple[Any, str, str]]) -> list[tuple[Any, str, str]]:
    return list({key: (key, label, sub) for key, label, sub in entries}.values())


def _cell(tile: Tile, row: int, column: int) -> dict[str, Any]:
    shown: dict[str, Any] = {"r": row, "c": column, "details": _details(tile), "reused": tile.reused, "seconds": tile.seconds}
    if tile.fault:
        reason = sentences(tile.fault.error, tile.fault.hint)
        return shown | {"key": "fault", "state": "fault", "fault": reason}
    pictures = {"thumb": f"cmp/cell/{tile.key}.256.webp", "full": f"cmp/cell/{tile.key}.png"}
    # the row's label says what a caption would
    return shown | pictures | {"key": tile.key, "state": "done", "fault": None, "caption": "", "mark": PREVIEW if tile.preview else ""}


def _details(tile: Tile) -> list[list[str]]:
    cell = tile.cell
    told = [["preview", "small and with few steps, until the picture itself is drawn"]] if tile.preview else []
    told += [["prompt", cell.prompt.text], ["negative", cell.prompt.negative or "–"], ["seed", str(cell.seed)]]
    told += [["checkpoint", cell.checkpoint.id if cell.checkpoint else "base model"]]
    told += [["strength", number_text(cell.strength)]] if cell.checkpoint else []
    told += [["LoRAs beside", stack_text(cell.stack)]] if cell.stack else []
    usual = {"clip_skip": 1, "vae": None}
    told += [
        [name.replace("_", " "), "default" if value is None else str(value)]
        for name, value in cell.sampling.as_json().items()
        if name not in usual or value != usual[name]
    ]
    told += [["mode", tile.mode]] if not tile.fault else []
    return told + ([["base", f"{tile.base['id']} (proof: {tile.base['proof']}; {tile.base['source']})"]] if tile.base else [])
