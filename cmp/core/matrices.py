"""A grid's tiles as the plain value of a matrix: its axes, and of each cell its coordinates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from cmp.core.grids import Cell, GridSpec, Tile
from cmp.core.labels import AXES, CHECKPOINT, NEGATIVE, PROMPT, SEED, STRENGTH, Axis, values_of
from cmp.core.runs import Checkpoint
from cmp.errors import sentences

STEP = "checkpoint"  # the key of the axis that is the training step
NameOf = Callable[[Checkpoint | None], tuple[str, str]]
_KEYS = {CHECKPOINT: STEP, STRENGTH: "strength", PROMPT: "prompt", NEGATIVE: "negative"}
_ACROSS = (STEP, "strength", "loras")
_USUAL = (("LoRAs", "none"), ("VAE", "the base model's"), ("Size", "the base model's"), ("Clip skip", "1"))  # not worth a word


def key_of(axis: Axis) -> str:
    return _KEYS.get(axis, axis.name.lower().replace(" ", "-"))


def grid_matrix(spec: GridSpec, tiles: Iterable[Tile], name_of: NameOf) -> dict[str, Any]:
    """The grid: across it checkpoints, strengths and stacked LoRAs, down it prompts, seeds and all else that differs. Of a cell's tiles the
    last one counts.

    `name_of` gives a checkpoint's label and what stands below it.
    """
    cells = spec.cells()
    last = {tile.cell: tile for tile in tiles}
    values = {axis: values_of(axis, cells) for axis in AXES}
    first = {(axis, told): cell for cell in reversed(cells) for axis in AXES if (told := axis.of(cell)) is not None}
    always = (CHECKPOINT, PROMPT, SEED)
    # a strength that the base model does not have is no value of all cells
    axes = [axis for axis in AXES if axis in always or len({axis.of(cell) for cell in cells}) > 1]
    lying = [axis for axis in axes if axis in always or len(values[axis]) > 1]
    place = {key_of(axis): "x" if key_of(axis) in _ACROSS else "y" for axis in lying}
    if len(values[PROMPT]) > 1 and any(axis is not PROMPT and place[key_of(axis)] == "y" and len(values[axis]) > 1 for axis in lying):
        place["prompt"] = "Y"
    numbers = {axis: {told: i for i, told in enumerate(values[axis])} for axis in axes}
    common = [[axis.name, values[axis][0]] for axis in AXES if axis not in axes and values[axis] and values[axis][0]]
    return {
        "title": spec.title,
        "note": "",
        "axes": [_axis(axis, values[axis], first, name_of) for axis in axes],
        "place": place,
        "step_axis": STEP,
        "cells": [_cell(cell, last.get(cell), [_number(axis.of(cell), numbers[axis]) for axis in axes]) for cell in cells],
        "urls": {"thumb": "cmp/cell/{key}.256.webp", "full": "cmp/cell/{key}.png", "settings": ""},
        "common": [pair for pair in common if tuple(pair) not in _USUAL],
        "done": sum(not tile.preview for tile in last.values()),
        "total": len(cells),
        "rerolls": [],
        "export": "",
    }


def _number(told: str | None, numbers: Mapping[str, int]) -> int | None:
    return None if told is None else numbers[told]


def _axis(axis: Axis, values: Sequence[str], first: Mapping[tuple[Axis, str], Cell], name_of: NameOf) -> dict[str, Any]:
    return {"key": key_of(axis), "label": axis.name, "values": [_head(axis, told, first[axis, told], name_of) for told in values]}


def _head(axis: Axis, told: str, cell: Cell, name_of: NameOf) -> dict[str, Any]:
    if axis is CHECKPOINT:
        label, sub = name_of(cell.checkpoint)
        step = {"step": cell.checkpoint.step} if cell.checkpoint and cell.checkpoint.step is not None else {}
        return {"key": told, "label": label, "sub": sub, "details": [[axis.name, told]], **step}
    if axis is PROMPT:
        name = cell.prompt.name
        return {"key": told, "label": name or told or "(no prompt)", "sub": told if name else "", "details": [[axis.name, told]]}
    if axis is NEGATIVE:
        return {"key": told, "label": f"without {told}" if told else "no negative prompt", "sub": "", "details": [[axis.name, told]]}
    return {"key": told, "label": f"{axis.name.lower()} {told}", "sub": "", "details": [[axis.name, told]]}


def _cell(cell: Cell, tile: Tile | None, at: list[int | None]) -> dict[str, Any]:
    if tile is None:
        return {"at": at, "key": "", "state": "waiting"}
    shown: dict[str, Any] = {"at": at, "key": tile.key, "reused": tile.reused, "seconds": tile.seconds, "details": _details(tile)}
    if tile.fault:
        return shown | {"state": "fault", "fault": sentences(tile.fault.error, tile.fault.hint)}
    return shown | {"state": "done", "mark": "preview" if tile.preview else ""}


def _details(tile: Tile) -> list[list[str]]:
    """What no axis says."""
    told = [] if tile.fault else [["mode", tile.mode]]
    return told + ([["base", f"{tile.base['id']} (proof: {tile.base['proof']})"]] if tile.base else [])
