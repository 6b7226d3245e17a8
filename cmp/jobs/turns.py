"""Whose turn it is: one job at a time has it, the others wait, are paused, or rest."""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Collection
from contextlib import suppress

from cmp.disk.ledger import Ledger
from cmp.errors import Refused
from cmp.jobs.job import Job

_POLL = 0.5  # seconds between two times that it is looked whether another process asks something
_EVERY = 0.5  # seconds between two times that progress is kept


class Turns:
    """The queue. Methods with an underscore that change it are called with `_turns` held, unless they say that they wait."""

    def __init__(self, ledger: Ledger | None) -> None:
        self._ledger = ledger
        self._queue: deque[Job] = deque()
        self._running: Job | None = None
        self._turns = threading.Condition()
        self._keeping = threading.Lock()
        self._listener: threading.Thread | None = None
        self._closing = threading.Event()  # nothing more begins, and what goes on ends after the item in hand
        self._hurrying = threading.Event()  # or in the middle of it

    @abstractmethod
    def _carry_out(self, job: Job) -> None:
        """Does a job that has the turn, in a thread of its own."""

    def all(self) -> list[Job]:
        """The jobs of this process."""
        with self._turns:
            return list(self._all_jobs())

    @abstractmethod
    def _all_jobs(self) -> Collection[Job]:
        """The same, with `_turns` held."""

    @abstractmethod
    def _hear(self) -> None:
        """Does what other processes have asked of jobs of this one."""

    def _enqueue(self, job: Job) -> None:
        job.state, job.queued = "waiting", time.time()
        self._queue.append(job)
        self._next()

    def _leave_queue(self, job: Job) -> None:
        with suppress(ValueError):
            self._queue.remove(job)

    def _next(self) -> None:
        """Gives the turn to the first job that waits, unless one has it."""
        if self._running is None and self._queue and not self._closing.is_set():
            job = self._running = self._queue.popleft()
            job.state, job.started = "running", job.started or time.time()
            if job.parked:
                self._turns.notify_all()
            else:
                threading.Thread(target=self._carry_out, args=(job,), name=f"cmp-{job.id}", daemon=True).start()

    def _stand_aside(self, job: Job, seconds: float | None = None) -> None:
        """Lets others have the turn, for so many seconds or until the job is resumed; comes back with the turn, or cancelled."""
        until = None if seconds is None else time.monotonic() + seconds
        with self._turns:
            if until is None and not job.pausing:  # resumed meanwhile
                return
            if until is None:
                job.state, job.pausing = "paused", False
            job.parked, self._running = True, None
            self._next()
        self._wait_for_turn(job, until)

    def _wait_for_turn(self, job: Job, until: float | None = None) -> None:
        while True:
            with self._turns:
                if job.pausing and self._running is not job:
                    self._leave_queue(job)
                    job.state, job.pausing = "paused", False
                left = _POLL if until is None else until - time.monotonic()
                if job.state == "running" and left <= 0 and self._running is not job:
                    until = None
                    self._enqueue(job)
                if job.cancelled.is_set() or self._running is job or self._closing.is_set():
                    job.parked = False
                    break
            self._keep(job, at_once=False)
            with self._turns:
                if not (job.cancelled.is_set() or self._running is job or self._closing.is_set()):
                    self._turns.wait(max(0.0, min(left, _POLL)))
        self._keep(job)

    def _keep(self, job: Job, *, at_once: bool = True) -> None:
        now = time.monotonic()
        if self._ledger and job.kept and (at_once or now - job.kept_at > _EVERY):
            job.kept_at = now
            with self._keeping, suppress(Refused):
                self._ledger.write(job.record())

    def _listen(self, jobs: Collection[Job]) -> None:
        """Hears other processes for as long as one of these jobs is not over: one that was paused before it began has nobody else to."""
        while True:
            with self._turns:
                if all(job.over for job in jobs):
                    self._listener = None
                    return
                self._turns.wait(_POLL)
            self._hear()
