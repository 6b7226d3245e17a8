"""Who may do what: the owner everything, visitors look, and where all is read-only whoever may draw does so within limits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from cmp.core.limits import Limits, Rates
from cmp.disk.ready import Answers
from cmp.errors import Busy, Refused, TooOften
from cmp.jobs import Job
from cmp.settings import Settings
from cmp.workbench.callers import Caller, caller

if TYPE_CHECKING:
    from cmp.core.grids import GridSpec

_AS_OWNER, _AS_VISITOR = (120, 1.0), (6, 20.0)  # grids at once, and after them one in so many seconds
_PLANS = (30, 1.0)  # what a visitor's program asks for; a page is told of its own beside it, see ui.planner
MOST_OF_ONE = 4  # jobs of a visitor's address that wait or run


class Permission:
    """Whatever changes or draws anything begins with one of these. Safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._as_visitor, self._as_owner = Rates(*_AS_VISITOR), Rates(*_AS_OWNER)
        self._plans = Rates(*_PLANS)
        self._held: dict[str, list[Job]] = {}  # by visitors' addresses
        self._holding = threading.Lock()

    def require_writing(self) -> None:
        """Raises Refused where things may only be looked at, by everybody or by whoever asks."""
        if self.settings.read_only:
            raise Refused("this server is read-only", "It was started so: nothing can be converted, measured, marked or deleted.")
        self._require_owner(caller())

    def _require_owner(self, who: Caller) -> None:
        if not who.owner:
            raise Refused(
                "only the owner of this dashboard changes anything", "Open the address with ?token=… that was printed at its start."
            )

    def require_drawing(self, spec: GridSpec, given: Answers = Answers()) -> None:
        """The same for drawing: within limits where all is read-only, and over the network for nobody too often. Raises TooOften."""
        self.require_known(given)
        self._require_brush(spec, caller())
        self.take_turn()

    def take_turn(self) -> None:
        """Counts that something was asked for over the network; raises TooOften."""
        who = caller()
        rates = self._as_owner if who.owner and not self.settings.read_only else self._as_visitor
        if who.address and (wait := rates.take(who.address, time.monotonic())):
            raise TooOften(f"pictures were asked for too often; the next in {wait:.0f} s", "What was asked for goes on.", wait)

    def hold_place(self, start: Callable[[], Job]) -> Job:
        """Starts a job. A visitor's address holds few of the places that there are; raises Busy where it has all of those."""
        who = caller()
        if who.owner or not who.address:
            return start()
        with self._holding:
            left = {address: [job for job in jobs if not job.over] for address, jobs in self._held.items()}
            self._held = {address: jobs for address, jobs in left.items() if jobs}
            own = self._held.setdefault(who.address, [])
            if len(own) >= MOST_OF_ONE:
                raise Busy(f"{MOST_OF_ONE} of your jobs are waiting already", "Ask again when one of them is done.")
            own.append(start())
            return own[-1]

    def _require_brush(self, spec: GridSpec, who: Caller) -> None:
        """What this process does by itself has been asked for before, or from a command line of its owner."""
        if who.owner and not who.address:
            return
        if not self.settings.draws:
            raise Refused("this server is read-only and draws nothing", "It was started with --no-drawing; what has been drawn is shown.")
        if not self.settings.for_strangers:
            self._require_owner(who)
        self.require_small(spec)

    def require_small(self, spec: GridSpec) -> None:
        """Raises BadInput for a grid larger than is drawn where all is read-only, or planned for a visitor anywhere."""
        if self.settings.read_only or not caller().owner:
            Limits().check(spec)

    def require_planning(self, spec: GridSpec) -> None:
        """The same over REST, and of visitors not too often: a plan reads what a grid is drawn from. Raises TooOften."""
        self.require_small(spec)
        who = caller()
        if not who.owner and (wait := self._plans.take(who.address, time.monotonic())):
            raise TooOften(f"plans were asked for too often; the next in {wait:.0f} s", "Draw what was planned.", wait)

    def require_known(self, given: Answers) -> None:
        """Raises Refused where a visitor names a base model: no path of theirs is looked at."""
        if given.base is not None and not caller().owner:
            raise Refused("visitors name no base model", "It is the one that the run was trained from.")
