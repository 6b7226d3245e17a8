"""The end of a process that has jobs: nothing more begins, the item in hand comes to its end, and what is left can be gone on with."""

from __future__ import annotations

from contextlib import suppress

from cmp.core.progress import Progress
from cmp.core.work import JobRecord
from cmp.errors import Busy, Refused
from cmp.jobs.job import Job
from cmp.jobs.turns import Turns

MOST_JOBS = 32  # that wait or run at once in this process


class Closing(Turns):
    """A queue that can be closed."""

    @property
    def closing(self) -> bool:
        """Whether nothing more begins here."""
        return self._closing.is_set()

    def close(self, seconds: float, grace: float = 5.0) -> tuple[JobRecord, ...]:
        """Begins nothing more, and gives what goes on so many seconds to end the item in hand; then it is left midway.

        The ledger has what is left as interrupted, or as paused, and the next process that serves goes on with it. Gives these jobs; what
        has not let go after further `grace` seconds is still "running".
        """
        with self._turns:
            self._closing.set()
            self._turns.notify_all()
            if not self._turns.wait_for(lambda: self._running is None, seconds):
                self._hurrying.set()
                self._turns.wait_for(lambda: self._running is None, grace)
            left = [job for job in self._all_jobs() if not job.over]
            for job in left:
                job.state = "interrupted" if job.state == "waiting" else job.state
        for job in left:
            self._keep(job)
            if self._ledger and job.kept:
                with suppress(Refused):
                    self._ledger.give_back(job.id)
        return tuple(job.record() for job in left)

    def _require_open(self) -> None:
        if self._closing.is_set():
            raise Refused("this server is being stopped and begins nothing more", "Ask again when it has been started anew.")

    def _leaves(self, job: Job, item: object = None) -> bool:
        """Whether the process ends, and the job stands still for the next one: after an item, or in a hurry also within it."""
        midway = isinstance(item, Progress) and not self._hurrying.is_set()
        if not self._closing.is_set() or midway or job.cancelled.is_set():
            return False
        job.leaving = True
        job.state = "paused" if job.pausing or job.state == "paused" else "interrupted"  # a restart goes on with the latter alone
        return True

    def _require_room(self) -> None:
        with self._turns:
            going_on = sum(not job.over for job in self._all_jobs())
        if going_on >= MOST_JOBS:
            raise Busy(f"{MOST_JOBS} jobs are waiting already", "Ask again when some of them are done, or cancel some.")
