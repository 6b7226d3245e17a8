"""Drawing where a graphics card is lent for a call at a time, as on ZeroGPU: rows of a grid, each in a call, in a forked process.

What such a process changes in memory is lost to this one, so it is told all that it needs and opens its own workbench over the same store.
The LoRAs that a row wears are read here, before a card is asked for, and sent along; the forked process puts them on a base of its own and
reads them back. It may be used again, and keeps its base then. Whole components and learned words it reads itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cmp.core.progress import Progress
from cmp.core.runs import Run
from cmp.disk.ready import Answers
from cmp.errors import CmpError
from cmp.settings import Settings
from cmp.workbench.callers import Caller, act_for_owner, acting_for

if TYPE_CHECKING:
    from cmp.core.grids import Cell, GridPlan, GridSpec, Tile
    from cmp.core.stacking import Folded
    from cmp.engine.draw import Drawing
    from cmp.workbench import Workbench
    from cmp.workbench.lending import Lending

_SHORTEST, _LONGEST = 20, 120  # seconds that a card is asked for
_LOADING = 20.0  # seconds for reading the base
_UNKNOWN = 4.0  # seconds for a picture where nothing was drawn with this base yet
_SLOWER = 1.5  # what is asked for, by what it took before
_MOST_SENT = 1_000_000_000  # bytes of adapters; what is more is read where it is drawn


@dataclass(frozen=True, slots=True)
class Row:
    """What one call draws, all of it to be pickled; `seconds` is how long that will take. `adapters` go by what is worn, as a studio has
    them: of each module its folded factors.
    """

    settings: Settings
    spec: GridSpec
    runs: tuple[Run, ...]
    given: Answers
    cells: tuple[Cell, ...] = ()
    seconds: int = 0
    adapters: Mapping[str, Folded] | None = None


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
        bench = kept[row.settings]
        try:
            bench.studio().take_sent(row.adapters or {})
            # it was forked in the middle of somebody's request; who asked was allowed to
            with acting_for(Caller()), closing(bench.drawing(row.spec, row.runs, row.given).draw(row.cells)) as items:
                return tuple(item for item in items if isinstance(item, Tile))
        except CmpError as fault:  # of which only the name would come back
            return failed(row.cells, fault)

    return draw_row


@dataclass(slots=True)
class InRows:
    """One grid, drawn in as many calls as it has rows with anything new in them, or more where a row takes longer than a card is lent."""

    lending: Lending
    row: Row
    drawing: Drawing  # of this process: it plans, and finds what was drawn before
    gpu: threading.Lock
    done: int = 0
    total: int = 0
    _too_large: set[str] = field(default_factory=set)  # adapters that are never sent
    _read: dict[str, Folded] = field(default_factory=dict)  # the adapters of the row before: the next one mostly wears the same

    def draw(self, cells: Sequence[Cell], preview: bool = False) -> Generator[Progress | Tile, None, None]:
        """One tile per cell, a row at a time; nothing is previewed, since a second call costs more than it shows."""
        from cmp.core.grids import Tile

        rows: dict[tuple[object, ...], list[Cell]] = {}
        strength = next((cell.strength for cell in cells if cell.checkpoint), 1.0)  # the base column, which has none, joins the first
        for cell in cells:
            row = (cell.prompt, cell.seed, cell.sampling, cell.stack, cell.strength if cell.checkpoint else strength)
            rows.setdefault(row, []).append(cell)
        self.total = len(cells)
        for its in rows.values():
            for call in calls_of(its, self.drawing.plan(its), self.drawing.is_drawn):
                yield Progress(self.done, self.total, "asking for a graphics card")
                for item in self._tiles(call):
                    self.done += isinstance(item, Tile)
                    yield item

    def _tiles(self, cells: Sequence[Cell]) -> Iterator[Tile | Progress]:
        from cmp.core.grids import Tile

        plan = self.drawing.plan(cells)
        if not plan.new:
            yield from (item for item in self.drawing.draw(cells) if isinstance(item, Tile))
            return
        row = replace(self.row, cells=tuple(cells), seconds=seconds_for(plan), adapters=self._adapters(cells))
        with closing(self.lending.offering(row)) as waiting:
            for _ in waiting:
                yield Progress(self.done, self.total, "asking for a graphics card")
        try:
            with self.gpu:
                tiles = self.lending.draw(row)
        except CmpError as fault:
            tiles = failed(cells, fault)
        yield from tiles

    def _adapters(self, cells: Sequence[Cell]) -> dict[str, Folded]:
        """Those that these cells wear, by what they are called; none of a cell that was drawn before."""
        sent: dict[str, Folded] = {}
        left = _MOST_SENT
        for cell in cells:
            with suppress(CmpError):  # where it is drawn, it becomes the cell's fault
                worn = self.drawing.wants(cell)
                if worn and worn[0] not in sent and worn[0] not in self._too_large:
                    folded = self._read.get(worn[0]) or worn[1]()
                    if (size := _bytes_of(folded)) <= left:
                        sent[worn[0]] = folded
                        left -= size
                    elif size > _MOST_SENT:
                        self._too_large.add(worn[0])
        self._read = sent
        return sent


def failed(cells: Sequence[Cell], fault: CmpError) -> tuple[Tile, ...]:
    """The tiles of cells that could not be drawn, all for the same reason."""
    from cmp.core.grids import Fault, Tile

    return tuple(Tile(cell, "", fault=Fault(fault.message, fault.hint, fault.exit_code)) for cell in cells)


def seconds_for(plan: GridPlan) -> int:
    """How long a card is asked for: half as long again as the pictures took before, and what reading the base takes."""
    return round(min(max(_drawing_takes(plan) + _LOADING, _SHORTEST), _LONGEST))


def calls_of(cells: Sequence[Cell], plan: GridPlan, is_drawn: Callable[[Cell], bool]) -> list[list[Cell]]:
    """A row in as many parts as it needs so that what is new in each can be drawn while a card is lent."""
    most = max(1, int((_LONGEST - _LOADING) * plan.new / max(_drawing_takes(plan), 1e-3)))
    if plan.new <= most:
        return [list(cells)]
    parts: list[list[Cell]] = [[]]
    new = 0
    for cell in cells:
        is_new = not is_drawn(cell)
        if is_new and new == most:
            parts.append([])
            new = 0
        new += is_new
        parts[-1].append(cell)
    return parts


def _drawing_takes(plan: GridPlan) -> float:
    return _UNKNOWN * plan.new if plan.seconds is None else _SLOWER * plan.seconds


def _bytes_of(folded: Folded) -> int:
    return sum(values.nbytes for values in folded.values())


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
