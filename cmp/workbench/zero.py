"""Drawing where a graphics card is lent for a call at a time, as on ZeroGPU: one call for each row of a grid, in a forked process.

What such a process changes in memory is lost to this one, so it is told all that it needs and opens its own workbench over the same store:
it reads the LoRA's tensors itself, puts them on a base of its own, and reads them back. It may be used again, and keeps its base then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from contextvars import Context, copy_context
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cmp.core.progress import Progress
from cmp.core.runs import Run
from cmp.disk.ready import Answers
from cmp.errors import CmpError
from cmp.settings import Settings
from cmp.workbench.callers import act_for_owner

if TYPE_CHECKING:
    from cmp.core.grids import Cell, GridSpec, Tile
    from cmp.engine.draw import Drawing
    from cmp.workbench import Workbench

_SHORTEST, _LONGEST = 20, 120  # seconds that a card is asked for
_LOADING = 20.0  # seconds for reading the base
_UNKNOWN = 4.0  # seconds for a picture where nothing was drawn with this base yet


@dataclass(frozen=True, slots=True)
class Row:
    """What one call draws, all of it to be pickled; `seconds` is how long that will take."""

    settings: Settings
    spec: GridSpec
    runs: tuple[Run, ...]
    given: Answers
    cells: tuple[Cell, ...]
    seconds: int


DrawRow = Callable[[Row], "tuple[Tile, ...]"]


def row_seconds(row: Row) -> int:
    """How long the card is asked for."""
    return row.seconds


def row_drawer() -> DrawRow:
    """The function that is called with the card at hand; whoever lends it decorates it."""
    kept: dict[Settings, Workbench] = {}  # filled in the forked process alone

    def draw_row(row: Row) -> tuple[Tile, ...]:
        from cmp.core.grids import Tile
        from cmp.workbench import Workbench

        if row.settings not in kept:
            kept[row.settings] = Workbench(row.settings)
        with closing(kept[row.settings].drawing(row.spec, row.runs, row.given).draw(row.cells)) as items:
            return tuple(item for item in items if isinstance(item, Tile))

    return draw_row


@dataclass(slots=True)
class InRows:
    """One grid, drawn in as many calls as it has rows with anything new in them."""

    draw_row: DrawRow
    row: Row
    drawing: Drawing  # of this process: it plans, and finds what was drawn before
    gpu: threading.Lock

    def draw(self, cells: Sequence[Cell], preview: bool = False) -> Generator[Progress | Tile, None, None]:
        """One tile per cell, a row at a time; nothing is previewed, since a second call costs more than it shows."""
        rows: dict[tuple[object, ...], list[Cell]] = {}
        strength = next((cell.strength for cell in cells if cell.checkpoint), 1.0)  # the base column, which has none, joins the first
        for cell in cells:
            row = (cell.prompt, cell.seed, cell.sampling, cell.stack, cell.strength if cell.checkpoint else strength)
            rows.setdefault(row, []).append(cell)
        done = 0
        for its in rows.values():
            yield Progress(done, len(cells), "asking for a graphics card")
            for tile in self._tiles(its):
                done += 1
                yield tile

    def _tiles(self, cells: Sequence[Cell]) -> Iterator[Tile]:
        from cmp.core.grids import Fault, Tile

        plan = self.drawing.plan(cells)
        if not plan.new:
            yield from (item for item in self.drawing.draw(cells) if isinstance(item, Tile))
            return
        took = _UNKNOWN * plan.new if plan.seconds is None else 1.5 * plan.seconds
        seconds = round(min(max(took + _LOADING, _SHORTEST), _LONGEST))
        try:
            with self.gpu:
                tiles = self.draw_row(replace(self.row, cells=tuple(cells), seconds=seconds))
        except CmpError as fault:
            tiles = tuple(Tile(cell, "", fault=Fault(fault.message, fault.hint, fault.exit_code)) for cell in cells)
        yield from tiles


def as_asked(work: Callable[[], Iterator[Any]]) -> Callable[[], Iterator[Any]]:
    """The same work, done in another thread with what is known here of the request that asks for it: the card is lent to its sender."""
    context = copy_context()
    context.run(act_for_owner)  # jobs are this process's own; who asked was allowed to

    return lambda: _within(context, work())


def _within(context: Context, items: Iterator[Any]) -> Iterator[Any]:
    over = object()
    try:
        while (item := context.run(next, items, over)) is not over:
            yield item
    finally:
        if close := getattr(items, "close", None):
            context.run(close)
