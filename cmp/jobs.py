"""The worker that outlives a browser tab: a queue of long work, each with its progress, results and a way to cancel.

It knows nothing of what a job does. Work is an iterator: what it yields as `Progress` is shown, everything else is collected.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from cmp.core.progress import Progress
from cmp.errors import CmpError, NotFound

Work = Callable[[], Iterator[object]]
ENDED = ("done", "failed", "cancelled")


@dataclass(slots=True)
class Job:
    """One piece of long work. `state`: "waiting", "running", "done", "failed" or "cancelled"; `subject` is what it is about."""

    id: str
    title: str
    kind: str
    total: int
    subject: object = None
    state: str = "waiting"
    progress: Progress | None = None
    items: list[object] = field(default_factory=list)
    error: CmpError | None = None
    started: float | None = None
    ended: float | None = None
    cancelled: threading.Event = field(default_factory=threading.Event, repr=False)

    @property
    def over(self) -> bool:
        return self.state in ENDED

    def as_json(self) -> dict[str, object]:
        done = self.progress.done if self.progress else len(self.items)
        return {
            "job": self.id,
            "kind": self.kind,
            "title": self.title,
            "state": self.state,
            "done": done,
            "total": self.total,
            "what": self.progress.what if self.progress else "",
            "error": self.error.as_json() if self.error else None,
        }


class Jobs:
    """Runs jobs one after another, each in a thread of its own. All methods may be called from any thread."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._waiting: deque[tuple[Job, Work]] = deque()
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._busy = False

    def start(self, kind: str, title: str, total: int, work: Work, subject: object = None) -> Job:
        """Queues work and returns at once."""
        with self._lock:
            job = Job(f"{kind}-{next(self._numbers)}", title, kind, total, subject)
            self._jobs[job.id] = job
            self._waiting.append((job, work))
        self._next()
        return job

    def find(self, job_id: str) -> Job:
        """The job of that id; raises NotFound."""
        with self._lock:
            if job_id not in self._jobs:
                raise NotFound(f"there is no job {job_id!r}", "Jobs are forgotten when the program is restarted.")
            return self._jobs[job_id]

    def all(self) -> list[Job]:
        with self._lock:
            return list(self._jobs.values())

    def cancel(self, job_id: str) -> Job:
        """Asks a job to stop; a running one stops after the item in hand, a waiting one never starts."""
        job = self.find(job_id)
        job.cancelled.set()
        with self._lock:
            if job.state == "waiting":
                job.state, job.ended = "cancelled", time.time()
        return job

    def _next(self) -> None:
        """Starts the first job that waits, unless one runs."""
        with self._lock:
            while self._waiting and not self._busy:
                job, work = self._waiting.popleft()
                if job.state == "waiting":
                    self._busy = True
                    job.state, job.started = "running", time.time()
                    threading.Thread(target=self._carry_out, args=(job, work), name=f"cmp-{job.id}", daemon=True).start()

    def _carry_out(self, job: Job, work: Work) -> None:
        try:
            for item in work():
                if isinstance(item, Progress):
                    job.progress = item
                else:
                    job.items.append(item)
                if job.cancelled.is_set():
                    break
            job.state = "cancelled" if job.cancelled.is_set() else "done"
        except CmpError as fault:
            job.error, job.state = fault, "failed"
        finally:
            if not job.over:  # a fault of ours: its traceback goes to standard error, the other jobs go on
                job.error = CmpError(
                    "the program failed while doing this", "It is a fault of ours; the traceback is where the server was started."
                )
                job.state = "failed"
            job.ended = time.time()
            with self._lock:
                self._busy = False
            self._next()
