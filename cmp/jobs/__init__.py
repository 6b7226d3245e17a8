"""The worker that outlives a browser tab: a queue of long work, each with its progress, results and ways to pause and to stop.

It knows nothing of what a job does. Work is an iterator: what it yields as `Progress` is shown, a `Rest` is waited for while others
work, everything else is collected. What is kept in the ledger outlives the process too: for each kind of work a maker is registered
that makes it again from its order.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

from cmp.core.progress import Progress, Rest
from cmp.core.work import JobRecord
from cmp.disk.ledger import Ledger, Order, unknown
from cmp.errors import BadInput, Busy, Cancelled, CmpError, Locked, NotFound, Refused
from cmp.jobs.closing import MOST_JOBS, Closing
from cmp.jobs.job import Job, Work, log_begin, log_end

_TRIES = 3  # times that a job is taken up by itself and nothing comes of it

__all__ = ["MOST_JOBS", "Job", "Jobs", "Maker", "Work"]

Maker = Callable[[Order], tuple[Work, object]]  # work, and its subject


class Jobs(Closing):
    """Runs jobs one after another. All methods may be called from any thread.

    Without a ledger, or where nothing can be kept, jobs are forgotten when the process ends.
    """

    def __init__(self, ledger: Ledger | None = None) -> None:
        super().__init__(ledger)
        self._makers: dict[str, Maker] = {}
        self._jobs: dict[str, Job] = {}
        self._numbers = itertools.count(1)

    def make(self, kind: str, maker: Maker) -> None:
        """Registers how work of a kind is made again."""
        self._makers[kind] = maker

    # -- beginning -----------------------------------------------------------------------------------------------------

    def start(self, kind: str, title: str, total: int, work: Work, subject: object = None, order: Order | None = None) -> Job:
        """Queues work and returns at once. With an `order` its kind's maker can make it again in another process.

        Raises Busy where many wait already, whoever asks and from which face: one more would only be forgotten.
        """
        self._require_room()
        return self._enter(self._new(kind, title, total, work, subject, order))

    def follow(self, kind: str, title: str, total: int, work: Work, subject: object = None, order: Order | None = None) -> Iterator[object]:
        """The same within the caller's thread: gives each item as it comes. Leaving it cancels the job.

        Its error is raised, and Cancelled if another thread or process has cancelled it.
        """
        yield from self._here(self._new(kind, title, total, work, subject, order))

    def resume(self, job_id: str) -> Job:
        """Goes on with a paused job, or takes one up that no process has in hand; raises Busy, Locked, NotFound or Refused."""
        job = self._jobs.get(job_id)
        if job is None or job.over:
            self._require_room()
            return self._enter(self._adopt(job_id))
        with self._turns:
            job.pausing = False
            if job.state == "paused":
                self._enqueue(job)
        self._keep(job)
        return job

    def go_on(self, job_id: str) -> Iterator[object]:
        """Takes a job up within the caller's thread, as `follow` does; raises Locked, NotFound or Refused at the first item."""
        yield from self._here(self._adopt(job_id))

    def resume_interrupted(self) -> list[Job]:
        """Takes up all that the end of a process has interrupted; not again and again what may itself have ended it."""
        resumed = []
        for record in self.records():
            if record.state == "interrupted" and record.tries < _TRIES:
                # another process was faster, and may even be done with it, or it was not kept how it is made
                with suppress(Busy, Locked, BadInput, NotFound, Refused):
                    resumed.append(self.resume(record.id))
        return resumed

    # -- asking --------------------------------------------------------------------------------------------------------

    def find(self, job_id: str) -> Job:
        """The job of that id in this process; raises NotFound."""
        if (job := self.known(job_id)) is None:
            raise unknown(job_id)
        return job

    def known(self, job_id: str) -> Job | None:
        """The same; None for no id, and for that of an earlier process."""
        with self._turns:
            return self._jobs.get(job_id)

    def _all_jobs(self) -> list[Job]:
        return list(self._jobs.values())

    def records(self) -> tuple[JobRecord, ...]:
        """The jobs of all processes that share this one's home, in the order in which they were made."""
        kept: dict[str, JobRecord] = {}
        if self._ledger:
            with suppress(Refused):
                kept = {record.id: record for record in self._ledger.records()}
        with self._turns:
            places = {job.id: place for place, job in enumerate(self._queue, start=1)}
            own = {job.id: replace(job.record(), position=places.get(job.id)) for job in self._jobs.values()}
        # what has ended here may have been taken up by another process since
        gone = {id for id, one in own.items() if one.over and id in kept and kept[id].queued > (one.ended or 0.0)}
        return tuple((kept | {id: one for id, one in own.items() if id not in gone}).values())

    def record(self, job_id: str) -> JobRecord:
        """One of them; raises NotFound."""
        for record in self.records():
            if record.id == job_id:
                return record
        raise unknown(job_id)

    def order(self, job_id: str) -> Order | None:
        """From what a job is made, None where that was not kept."""
        return self._ledger.order(job_id) if self._ledger else None

    def unfinished(self) -> list[tuple[JobRecord, Order]]:
        """The kept jobs of all processes that are not over, with what they are made from."""
        with suppress(Refused):
            return self._ledger.orders() if self._ledger else []
        return []

    def ask(self, job_id: str, what: str) -> JobRecord:
        """Has a job of this or of another process do "cancel", "pause" or "resume", and tells how it stands; raises NotFound."""
        own = self.known(job_id)
        if own is None or (own.over and own.kept):  # another process may have taken up what has ended here
            if self._ledger is None:
                raise unknown(job_id)
            if own:
                self._keep(own)  # its end may not have been written
            return self._ledger.ask(job_id, what)
        acts = {"cancel": self.cancel, "pause": self.pause, "resume": self.resume}
        if what not in acts:
            raise BadInput(f"a job was asked to {what!r}", f"Use one of: {', '.join(acts)}.")
        return acts[what](job_id).record()

    def cancel(self, job_id: str) -> Job:
        """Asks a job to stop: a running one at its next sign of life, a paused one at once; a waiting one never starts."""
        job = self.find(job_id)
        with self._turns:
            job.cancelled.set()
            if job.state in ("waiting", "paused") and not job.parked:
                self._leave_queue(job)
                job.ended, job.state = time.time(), "cancelled"
            self._turns.notify_all()
        self._keep(job)
        return job

    def pause(self, job_id: str) -> Job:
        """Has a job stand still after the item in hand, and a waiting one not begin. Others have their turn meanwhile."""
        job = self.find(job_id)
        with self._turns:
            if job.state == "waiting":
                self._leave_queue(job)
                job.state = "paused"
            elif job.state == "running":
                job.pausing = True
                self._turns.notify_all()
        self._keep(job)
        return job

    # -- carrying out --------------------------------------------------------------------------------------------------

    def _new(self, kind: str, title: str, total: int, work: Work, subject: object, order: Order | None) -> Job:
        self._require_open()
        job = Job(f"{kind}-{'here-' if self._ledger else ''}{next(self._numbers)}", title, kind, total, subject, work=work)
        if self._ledger:
            with suppress(Refused):
                record = self._ledger.add(kind, title, total, order)
                job.id, job.made, job.kept = record.id, record.made, True
        return job

    def _adopt(self, job_id: str) -> Job:
        """A job that was kept, taken by this process, to be made again."""
        self._require_open()
        if self._ledger is None:
            raise unknown(job_id)
        record, order = self._ledger.claim(job_id)
        job = Job(record.id, record.title, record.kind, record.total, made=record.made, kept=True)

        def work() -> Iterator[object]:
            if job.kind not in self._makers:
                raise Refused(f"nothing is known here of work of the kind {job.kind!r}", "A newer version may have begun it.")
            made, job.subject = self._makers[job.kind](order)
            yield from made()

        job.work = work
        return job

    def _enter(self, job: Job, *, parked: bool = False) -> Job:
        with self._turns:
            self._jobs[job.id] = job
            job.parked = parked
            self._enqueue(job)
            if job.kept and self._listener is None:
                self._listener = threading.Thread(target=self._listen, args=(self._jobs.values(),), name="cmp-listener", daemon=True)
                self._listener.start()
        self._keep(job)
        return job

    def _here(self, job: Job) -> Iterator[object]:
        yield from self._steps(self._enter(job, parked=True))
        if job.state == "cancelled":  # by somebody else: whoever follows it would take what came for all of it
            raise Cancelled(f"{job.id} was cancelled", f"`python -m cmp jobs {job.id} --resume` goes on with it.")

    def _carry_out(self, job: Job) -> None:
        with suppress(CmpError):  # the job has it
            for _ in self._steps(job):
                pass

    def _steps(self, job: Job) -> Iterator[object]:
        """The items of a job whose turn it is or will be; afterwards it is over, whatever happened."""
        items: Iterator[object] = iter(())
        try:
            self._wait_for_turn(job)
            if self._leaves(job):
                return
            log_begin(job)
            items = iter(()) if job.cancelled.is_set() else job.work()
            last = time.monotonic()
            for item in items:
                job.note(item, time.monotonic() - last)
                self._keep(job, at_once=False)
                yield job.progress if isinstance(item, Rest) else item
                self._hear()
                if job.cancelled.is_set():
                    break
                if isinstance(item, Rest):
                    self._stand_aside(job, item.seconds)
                elif job.pausing and not isinstance(item, Progress):  # within an item it may hold what others wait for
                    self._stand_aside(job)
                if job.cancelled.is_set():
                    break
                if self._leaves(job, item):
                    return
                last = time.monotonic()
            self._end(job, "cancelled" if job.cancelled.is_set() else "done", items)
        except CmpError as fault:
            job.error = fault
            self._end(job, "failed", items)
            raise
        except (KeyboardInterrupt, GeneratorExit):
            self._end(job, "cancelled", items)
            raise
        finally:
            self._end_otherwise(job, items)

    def _end_otherwise(self, job: Job, items: Iterator[object]) -> None:
        """The end of a job that is not over: its process ends, or a fault of ours goes to standard error and the other jobs go on."""
        if job.leaving:
            self._end(job, job.state, items)
        elif not job.over:
            job.error = CmpError(
                "the program failed while doing this", "It is a fault of ours; the traceback is where the server was started."
            )
            self._end(job, "failed", items)

    def _end(self, job: Job, state: str, items: Iterator[object]) -> None:
        """Closes the work, which may be in the middle of an item, and lets the next job through."""
        try:
            close = getattr(items, "close", None)
            if close:
                close()
        finally:
            job.ended, job.state = (None if job.leaving else time.time()), state
            self._keep(job)
            log_end(job)
            with self._turns:
                self._leave_queue(job)
                if self._running is job:
                    self._running = None
                    self._next()
                    self._turns.notify_all()

    def _hear(self) -> None:
        """Does what other processes have asked of jobs of this one."""
        asked: list[tuple[str, str]] = []
        if self._ledger:
            with suppress(Refused):
                asked = self._ledger.take_asks()
        for job_id, what in asked:
            with suppress(CmpError):
                self.ask(job_id, what)
