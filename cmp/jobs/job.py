"""One piece of long work in the process that does it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from cmp.core.progress import Progress, Rest
from cmp.core.work import ENDED, JobRecord
from cmp.errors import CmpError, sentences

MOST_REASONS = 20  # that are kept of one job

Work = Callable[[], Iterator[object]]
_LOG = logging.getLogger("cmp.jobs")


@dataclass(slots=True)
class Job:
    """One piece of long work of this process. `state` as in `JobRecord`; `subject` is what it is about."""

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
    made: float = field(default_factory=time.time)
    queued: float = 0.0
    worked: float = 0.0
    reused: int = 0
    faults: int = 0
    reasons: dict[str, int] = field(default_factory=dict)  # why items could not be made, and how many
    work: Work = field(default=tuple, repr=False)  # type: ignore[assignment]
    kept: bool = False  # whether the ledger knows it
    kept_at: float = 0.0
    pausing: bool = False  # it is paused after the item in hand
    parked: bool = False  # a thread of its own waits for its turn
    leaving: bool = False  # it stands still since its process ends

    @property
    def over(self) -> bool:
        return self.state in ENDED

    def record(self) -> JobRecord:
        """What there is to tell of it now."""
        done, what = sum(map(_counts, self.items)), ""
        if self.progress:
            what = self.progress.what
            done = self.progress.done if not done and self.progress.total == self.total else done
        error = self.error.as_json() if self.error else None
        asked = None if self.over else "cancel" if self.cancelled.is_set() else "pause" if self.pausing else None
        return JobRecord(
            self.id, self.kind, self.title, self.total, self.state, done, what, self.reused, self.faults, self.worked, error,
            self.made, self.queued, self.started, self.ended, asked, reasons=tuple(self.reasons.items()),
        )  # fmt: skip

    def as_json(self) -> dict[str, object]:
        return self.record().as_json()

    def note(self, item: object, seconds: float) -> None:
        """Takes an item of its work in, that came after so many seconds. Items may say that they were `reused`, or have a `fault`."""
        if isinstance(item, Rest):
            self.progress = Progress(len(self.items), self.total, item.what)
        elif isinstance(item, Progress):
            self.progress = item
            self.worked += seconds
        else:
            self.items.append(item)
            reused = bool(getattr(item, "reused", False)) and _counts(item)
            self.reused += reused
            self.worked += 0.0 if reused else seconds
            if fault := getattr(item, "fault", None) or getattr(item, "error", None):
                self._note_fault(fault.told if isinstance(fault, CmpError) else sentences(str(fault.error), str(fault.hint)))

    def _note_fault(self, why: str) -> None:
        self.faults += 1
        if why not in self.reasons and len(self.reasons) >= MOST_REASONS:
            why = "for other reasons"
        self.reasons[why] = self.reasons.get(why, 0) + 1


def _counts(item: object) -> bool:
    """Not what comes again, as a preview does, or `beside` what is counted already."""
    return not (getattr(item, "preview", False) or getattr(item, "beside", False))


def log_begin(job: Job) -> None:
    """Without the title, which quotes prompts."""
    _LOG.info("job begins", extra={"about": {"job": job.id, "kind": job.kind, "total": job.total}})


def log_end(job: Job) -> None:
    """Without title and message, which may quote prompts; `cmp jobs ID` tells both."""
    record = job.record()
    about: dict[str, object] = {"job": job.id, "state": job.state, "done": record.done, "total": job.total, "faults": job.faults}
    about["seconds"] = round((job.ended or time.time()) - (job.started or job.made), 1)
    if job.error:
        about["error"] = job.error.title
    _LOG.log(logging.WARNING if job.state == "failed" else logging.INFO, "job ends", extra={"about": about})
