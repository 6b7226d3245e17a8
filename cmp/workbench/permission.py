"""Who may do what: the owner everything, visitors look, and in the mode "space" everybody draws within limits."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cmp.core.limits import Limits, Rates
from cmp.disk.ready import Answers
from cmp.errors import Refused, TooOften
from cmp.settings import Settings
from cmp.workbench.callers import caller

if TYPE_CHECKING:
    from cmp.core.grids import GridSpec

_AS_OWNER, _AS_VISITOR = (120, 1.0), (6, 20.0)  # grids at once, and after them one in so many seconds


class Permission:
    """Whatever changes or draws anything begins with one of these. Safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._rates = {mode: Rates(*rate) for mode, rate in (("space", _AS_VISITOR), ("local", _AS_OWNER))}

    def require_writing(self) -> None:
        """Raises Refused where things may only be looked at, by everybody or by whoever asks."""
        if self.settings.read_only:
            raise Refused("this server is read-only", "It was started with --read-only: nothing can be drawn or changed.")
        if not caller().owner:
            raise Refused(
                "only the owner of this dashboard changes anything", "Open the address with ?token=… that was printed at its start."
            )

    def require_drawing(self, spec: GridSpec, given: Answers = Answers()) -> None:
        """The same for drawing. In the mode "space" everybody may, within limits; over the network nobody too often. Raises TooOften."""
        self.require_known(given)
        in_space = self.settings.mode == "space"
        if in_space:
            Limits().check(spec)
        else:
            self.require_writing()
        rates = self._rates["space" if in_space else "local"]
        if caller().address and (wait := rates.take(caller().address, time.monotonic())):
            raise TooOften(f"pictures were asked for too often; the next in {wait:.0f} s", "What was asked for goes on.", wait)

    def require_known(self, given: Answers) -> None:
        """Raises Refused where a visitor names a base model: no path of theirs is looked at."""
        if given.base is not None and not caller().owner:
            raise Refused("visitors name no base model", "It is the one that the run was trained from.")
