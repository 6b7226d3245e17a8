"""The axes of a grid as the matrix wants them: what values there are, and which of them a cell has."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cmp.core.grids import Cell
from cmp.core.labels import CHECKPOINT, NEGATIVE, PROMPT, SEED, STRENGTH, Axis, stack_text, varying
from cmp.core.rerolling import Row, row_of
from cmp.core.runs import Checkpoint

Label = Callable[[Checkpoint | None], tuple[str, str]]
LORAS = "LoRAs"
RUN, STEP = "run", "checkpoint"
# what the axes over a sampling's values are called
_NAMED = {"steps": "Steps", "guidance": "CFG Scale", "scheduler": "Sampler", "clip_skip": "Clip skip", "vae": "VAE"} | dict.fromkeys(
    ("width", "height"), "Size"
)
ACROSS = (RUN, STEP, STRENGTH.name, LORAS)


@dataclass(frozen=True, slots=True)
class Value:
    """One value of an axis, as it is told."""

    key: str
    label: str
    sub: str = ""
    details: tuple[tuple[str, str], ...] = ()
    step: int | None = None
    told: str = ""  # in tables and settings, where the label is too friendly; the key if empty

    def as_json(self) -> dict[str, Any]:
        plain = {"key": self.key, "label": self.label, "sub": self.sub, "details": [list(pair) for pair in self.details]}
        return plain | ({"told": self.told} if self.told else {}) | ({} if self.step is None else {"step": self.step})


@dataclass(slots=True)
class MatrixAxis:
    """`of` gives a cell's value, None where it has none and stands under all of them."""

    key: str
    label: str
    of: Callable[[Cell], Value | None]
    values: list[Value] = field(default_factory=list)
    places: dict[str, int] = field(default_factory=dict)

    def fill(self, cells: Iterable[Cell]) -> MatrixAxis:
        self.values = list({value.key: value for cell in cells if (value := self.of(cell))}.values())
        if self.key == STEP:  # of several runs they would come run by run
            self.values.sort(key=lambda value: _step_of(value.key))
        self.places = {value.key: i for i, value in enumerate(self.values)}
        return self

    def at(self, cell: Cell) -> int | None:
        """Raises KeyError for a value that the axis does not have."""
        value = self.of(cell)
        return None if value is None else self.places[value.key]

    def as_json(self) -> dict[str, Any]:
        return {"key": self.key, "label": self.label, "values": [value.as_json() for value in self.values]}


def _step_of(key: str) -> tuple[int, int, str]:
    key = key.rpartition("@")[2]
    return (0, 0, "") if key == "base model" else (1, int(key), "") if key.isdecimal() else (2, 0, key)


def short(*parts: object) -> str:
    """A key that a link can hold, whatever long text it stands for."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:10]


def axes_of(cells: Sequence[Cell], label: Label) -> list[MatrixAxis]:
    """The axes of these cells: run (of several), checkpoint, prompt and seed always, and all others on which they differ."""
    differ = varying(cells)
    several = len({cell.checkpoint.run_id for cell in cells if cell.checkpoint}) > 1
    runs = [MatrixAxis(RUN, "Run", lambda cell: _run_value(cell, label))] if several else []
    across = [MatrixAxis(STEP, CHECKPOINT.name, lambda cell: _checkpoint_value(cell, label, several))]
    strengths = {cell.strength for cell in cells if cell.checkpoint}
    across += [MatrixAxis(STRENGTH.name, STRENGTH.name, _plain(STRENGTH))] if strengths - {1.0} else []
    across += [MatrixAxis(LORAS, LORAS, _stack_value)] if any(axis.name == LORAS for axis in differ) else []
    negatives = NEGATIVE in differ
    down = [MatrixAxis("prompt", "Prompt", lambda cell: _prompt_value(cell, negatives)), MatrixAxis("seed", "Seed", _seed_value)]
    known = (CHECKPOINT, STRENGTH, PROMPT, SEED)
    down += [MatrixAxis(axis.name, axis.name, _plain(axis)) for axis in differ if axis not in known and axis.name != LORAS]
    return [axis.fill(cells) for axis in (*runs, *across, *down)]


def _run_value(cell: Cell, label: Label) -> Value | None:
    return Value(cell.checkpoint.run_id, label(cell.checkpoint)[1] or cell.checkpoint.run_id) if cell.checkpoint else None


def _checkpoint_value(cell: Cell, label: Label, several: bool) -> Value:
    name, sub = label(cell.checkpoint)
    if cell.checkpoint is None:
        return Value("base model", name, sub, (("checkpoint", "base model"),))
    key = cell.checkpoint.key if several else cell.checkpoint.id
    return Value(key, name, "" if several else sub, step=cell.checkpoint.step, told=key)  # what another run drew is not shown here


def _prompt_value(cell: Cell, negatives: bool) -> Value:
    text, negative, name = cell.prompt.text, cell.prompt.negative, cell.prompt.name
    told = (("prompt", text), *([] if negatives else [("negative", negative or "–")]))
    return Value(short(text, name, "" if negatives else negative), name or text, "", tuple(told), told=text)


def _seed_value(cell: Cell) -> Value:
    return Value(str(cell.seed), f"seed {cell.seed}", "", (("seed", str(cell.seed)),))


def _stack_value(cell: Cell) -> Value:
    told = stack_text(cell.stack)
    return Value(short(told), f"with {told}" if cell.stack else "alone", "", (("LoRAs beside", told),), told=told)


def _plain(axis: Axis) -> Callable[[Cell], Value | None]:
    def of(cell: Cell) -> Value | None:
        told = axis.of(cell)
        return None if told is None else Value(short(told), axis.label(cell), "", ((axis.name.lower(), told or "–"),), told=told)

    return of


def common_details(cells: Sequence[Cell], axes: Sequence[MatrixAxis], drawn: Mapping[str, object]) -> list[list[str]]:
    """What all cells have in common and no axis tells; `drawn` is how all of them are drawn, where that is known."""
    keys = {axis.key for axis in axes}
    first = cells[0]
    told = [["LoRAs beside", stack_text(first.stack)]] if LORAS not in keys and first.stack else []
    unusual = {"clip_skip": 1, "vae": None}
    return told + [
        [name.replace("_", " "), _sampling_text(name, value, drawn)]
        for name, value in first.sampling.as_json().items()
        if _NAMED.get(name, name) not in keys and (name not in unusual or value != unusual[name])
    ]


def _sampling_text(name: str, value: object, drawn: Mapping[str, object]) -> str:
    """A value of the sampling, and what it comes to where it is left to the base model."""
    if value is None:
        return str(drawn.get(name, "default"))
    return f"{drawn['sampler']}, the base model's own" if name == "scheduler" and value == "base" and "sampler" in drawn else str(value)


def row_at(cells: Iterable[Cell], label: Label, at: dict[str, Any]) -> Row | None:
    """The row of the cell that has these values, which the matrix has told; None where the grid has none such."""
    cells = list(cells)
    axes = axes_of(cells, label)
    for cell in cells:
        values = {axis.key: axis.of(cell) for axis in axes}
        if all(value is None or at.get(key) == value.key for key, value in values.items()):
            return row_of(cell)
    return None


def places(axes: Iterable[MatrixAxis]) -> dict[str, str]:
    """Where the axes run until the user decides otherwise: runs in groups across, everything else as it was asked for."""
    return {axis.key: "X" if axis.key == RUN else "x" if axis.key in ACROSS else "y" for axis in axes}
