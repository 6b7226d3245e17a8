"""In whose name a card is lent: to the request that a row is drawn in.

What says who asks is good for a short time, and a grid of many rows outlives it. A page that shows a grid sends an event for each of its
rows, in which that is drawn. Where none comes, it is drawn in the name of the request that began the grid.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cmp.errors import CmpError, Refused

if TYPE_CHECKING:
    from cmp.core.grids import GridSpec, Tile
    from cmp.workbench.zero import DrawRow, Row

_SEEN = 5.0  # seconds for which a grid counts as looked at; a page asks several times a second
_PATIENCE = 10.0  # seconds in which its event has to come


@dataclass(slots=True, eq=False)
class _Offer:
    """A row that waits for an event to be drawn in."""

    row: Row
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    taken: bool = False
    over: threading.Event = field(default_factory=threading.Event)
    tiles: tuple[Tile, ...] = ()
    error: CmpError | None = None


class Lending:
    """Has rows drawn, one at a time. Safe to use from several threads.

    `in_name_of` has what follows in this context be done in the name of a request that is not a page's event.
    """

    def __init__(self, draw_row: DrawRow, in_name_of: Callable[[Any], None]) -> None:
        self._draw_row, self.in_name_of = draw_row, in_name_of
        self._changed = threading.Condition()
        self._offer: _Offer | None = None
        self._seen: tuple[GridSpec, float] | None = None

    def draw(self, row: Row) -> tuple[Tile, ...]:
        """The tiles of a row, drawn in an event of a page that shows its grid, or else here. Raises what stands against it."""
        offer = self._offered(row)
        if not offer.taken:
            return self._draw_row(row)
        offer.over.wait()
        if offer.error:
            raise offer.error
        return offer.tiles

    def _offered(self, row: Row) -> _Offer:
        offer = _Offer(row)
        with self._changed:
            if self._seen and self._seen[0] == row.spec and time.monotonic() - self._seen[1] < _SEEN:
                self._offer = offer
                self._changed.wait_for(lambda: offer.taken, _PATIENCE)
                self._offer = None
        return offer

    def wanted(self, spec: object) -> str:
        """The id of the row of this grid that waits for an event, "" where none does. Whoever asks is taken for a page that shows it."""
        with self._changed:
            offer = self._offer
            if offer is not None and offer.row.spec == spec:
                self._seen = offer.row.spec, time.monotonic()
                return offer.id
            self._seen = (spec, time.monotonic()) if spec is not None else self._seen  # type: ignore[assignment]
            return ""

    def carry_out(self, offer_id: str) -> None:
        """Draws the row of that id, in the name of the request that is being handled. Nothing where another has taken it."""
        with self._changed:
            offer = self._offer
            if offer is None or offer.id != offer_id or offer.taken:
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
