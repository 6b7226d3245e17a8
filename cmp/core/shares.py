"""Cells of a grid handed out to several workers: how many at once, and what becomes of those whose worker was lost."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable

from cmp.core.grids import Cell

TRIES = 3  # workers that a cell may cost
_MOST = 16  # cells handed out at once


class Shares:
    """The cells that wait, in the order in which they are wanted."""

    def __init__(self) -> None:
        self._waiting: deque[Cell] = deque()
        self._lost: Counter[Cell] = Counter()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, cells: Iterable[Cell]) -> None:
        self._waiting.extend(cells)

    def take(self, workers: int) -> list[Cell]:
        """The next cells for one of so many workers: fewer the fewer there are, so that all end together.

        A cell that a worker was lost with is drawn alone, so that it costs no other.
        """
        first = self._waiting.popleft()
        share = (len(self._waiting) + 1) / workers
        most = math.ceil(share) if is_dear(first) else max(1, min(_MOST, int(share / 2)))
        cells = [first]
        while len(cells) < most and self._waiting and self._go_together(first, self._waiting[0]):
            cells.append(self._waiting.popleft())
        return cells

    def give_back(self, cells: Iterable[Cell]) -> list[Cell]:
        """What a lost worker had in hand is wanted next; gives those that have cost too many workers, which are wanted no more."""
        given_up = []
        for cell in reversed(list(cells)):
            self._lost[cell] += 1
            if self._lost[cell] < TRIES:
                self._waiting.appendleft(cell)
            else:
                given_up.append(cell)
        return given_up

    def _go_together(self, one: Cell, other: Cell) -> bool:
        if self._lost[one] or self._lost[other]:
            return False
        if is_dear(one) or is_dear(other):
            return (one.checkpoint, one.strength, one.stack) == (other.checkpoint, other.strength, other.stack)
        return one.sampling == other.sampling


def is_dear(cell: Cell) -> bool:
    """Whether it costs much to put on what the cell wears, as far as that is known without reading weights."""
    return cell.checkpoint is not None and cell.checkpoint.holds != "lora"
