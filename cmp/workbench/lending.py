"""In whose name a card is lent: to the request that a row is drawn in.

What says who asks is good for a short time, and a grid of many rows outlives it. The page that began a grid therefore sends an event for
each of its rows, in which that is drawn; no other page is told of them. Where none comes, as when it was closed, the row is drawn in the
name of the request that began the grid.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cmp.errors import CmpError, Refused
from cmp.workbench.callers import caller

if TYPE_CHECKING:
    from cmp.core.grids import Tile
    from cmp.workbench.zero import DrawRow, Row

# Seconds. A page asks several times a second, and one that is hidden once a minute.
_SEEN = 70.0  # for which a page counts as open
_TO_COME = 10.0  # in which its event has to come once it was told of a row
_MOMENT = 0.5  # between two signs of life


class Gone(Refused):
    """Whoever asked for a card has gone before one was lent."""


@dataclass(slots=True, eq=False)
class _Offer:
    """A row that waits for an event of its page to be drawn in."""

    row: Row
    page: str
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    told: float | None = None  # when its page was told of it
    taken: bool = False
    over: threading.Event = field(default_factory=threading.Event)
    tiles: tuple[Tile, ...] = ()
    error: CmpError | None = None


class Lending:
    """Has rows drawn, one at a time. Safe to use from several threads.

    `in_name_of` has what follows in this context be done in the name of a request that is not a page's event. `page` is gradio's own, once
    it is there.
    """

    def __init__(self, draw_row: DrawRow, in_name_of: Callable[[Any], None]) -> None:
        self._draw_row, self.in_name_of = draw_row, in_name_of
        self.page: Any = None
        self._changed = threading.Condition()
        self._offer: _Offer | None = None
        self._seen: dict[str, float] = {}  # pages that ask, and when they did last

    def offering(self, row: Row) -> Generator[None, None, None]:
        """Waits until an event of the page that began its grid has taken a row, with signs of life; not at all where it is not open. What
        was not taken is withdrawn, also where the wait is left.
        """
        offer, began = _Offer(row, caller().page), time.monotonic()
        with self._changed:
            if began - self._seen.get(offer.page, began - _SEEN) >= _SEEN:
                return
            self._offer = offer
        try:
            while not offer.taken and time.monotonic() < (began + _SEEN if offer.told is None else offer.told + _TO_COME):
                with self._changed:
                    self._changed.wait_for(lambda: offer.taken, _MOMENT)
                yield
        finally:
            with self._changed:
                if not offer.taken:
                    self._offer = None
                    self._seen.pop(offer.page, None)

    def draw(self, row: Row) -> tuple[Tile, ...]:
        """The tiles of a row: those of the event that has taken it, or else drawn here. Raises what stands against it."""
        with self._changed:
            offer = self._offer if self._offer and self._offer.row is row else None
        if offer is None:
            return self._draw_row(row)
        offer.over.wait()
        with self._changed:
            self._offer = None
        if isinstance(offer.error, Gone):
            return self._draw_row(row)
        if offer.error:
            raise offer.error
        return offer.tiles

    def wanted(self) -> str:
        """The id of the row that waits for an event of the page that asks, "" where none does."""
        page, now = caller().page, time.monotonic()
        with self._changed:
            self._seen = {name: last for name, last in self._seen.items() if now - last < _SEEN} | ({page: now} if page else {})
            offer = self._offer
            if offer is None or offer.taken or not page or offer.page != page:
                return ""
            offer.told = offer.told or now
            return offer.id

    def carry_out(self, offer_id: str) -> None:
        """Draws the row of that id, in the name of the request that is handled; nothing where it waits for another page, or for none."""
        with self._changed:
            offer = self._offer
            if offer is None or offer.taken or (offer.id, offer.page) != (offer_id, caller().page):
                return
            offer.taken = True
            self._changed.notify_all()
        offer.error = Refused("the row was not drawn to its end", "Press Draw again.")  # until it is
        try:
            offer.tiles, offer.error = self._draw_row(offer.row), None
        except CmpError as fault:
            offer.error = fault  # told in the row's cells
        finally:
            offer.over.set()
