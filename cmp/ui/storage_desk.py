"""What the Storage tab has measured and what it has shown, for all pages of this server. No widget is known here."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Generator, Iterable
from dataclasses import replace
from typing import Any

from cmp.core.progress import Progress
from cmp.core.runs import Run
from cmp.core.storage import CleanupPlan, Rules
from cmp.errors import BadInput, CmpError
from cmp.jobs import Job
from cmp.ui.storage_values import empty_plan, overview_value, plan_value
from cmp.workbench import Workbench
from cmp.workbench.reclaiming import Preview
from cmp.workbench.storing import Asked
from cmp.workbench.surveys import Survey

KINDS = ("storage", "restore")
_PAUSE = 2.0  # seconds between two looks, so that many pages do not keep the disk busy
_REST = 10.0  # seconds between two looks that nobody has asked for
_SHARE = 10  # and so many times as long as a look takes
_MOMENT = 0.3  # seconds that a page waits for what may be known at once
_MOST = 16  # previews that are remembered


def _stamp_of(runs: Iterable[Run]) -> object:
    return [(c.id, c.bytes, c.layout, len(c.converted)) for run in runs for c in run.checkpoints]


class Desk:
    """Safe to use from several threads."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._lock = threading.Lock()
        self._measuring: Survey[CleanupPlan] | None = None
        self._measured: CleanupPlan | None = None
        self._began = self._ended = -math.inf  # when the last look began and was over
        self._wanted = -math.inf  # when somebody asked last: what was seen before that may have changed since
        self._seen_then: object = None  # the runs as the last look found them
        self._fault: CmpError | None = None
        self._previews: dict[str, Survey[Preview]] = {}
        self._numbers = itertools.count(1)

    # -- what is occupied ----------------------------------------------------------------------------------------------

    def measure(self, *, fresh: bool = False) -> None:
        """Has what is occupied looked at in the background. Whoever asks gets what is seen from now on: of a look that was begun earlier
        the value is shown, and another follows. `fresh`: at once, since something has just been changed.
        """
        with self._lock:
            self._take()
            self._wanted = time.monotonic()
            if fresh:
                if self._measuring:
                    self._measuring.stop()
                self._measuring, self._ended = None, -math.inf
            self._look()
            survey = self._measuring
        if survey:
            survey.wait(_MOMENT)

    def renew(self) -> None:
        """For a page that stays open: has it looked at again, now and then, once the runs are others than at the last look."""
        stamp = _stamp_of(self._bench.library(fresh=False).runs)
        with self._lock:
            self._take()
            rest = max(_REST, _SHARE * (self._ended - self._began))
            if self._measured and not self._measuring and self._seen_then != stamp and time.monotonic() - self._ended >= rest:
                self._wanted = time.monotonic()
                self._look()

    def _look(self) -> None:
        """Begins a look where one is wanted, none is under way, and the last was long enough ago."""
        if self._measuring is None and self._wanted > self._began and time.monotonic() - self._ended >= _PAUSE:
            self._began = time.monotonic()
            self._measuring = Survey(self._planning())

    def _planning(self) -> Generator[Progress, None, CleanupPlan]:
        runs = yield from self._bench.settled()
        self._seen_then = _stamp_of(runs)
        return (yield from self._bench.planning(runs, Rules(), Asked(left=True)))

    def _take(self) -> None:
        if self._measuring and self._measuring.over:
            self._fault, self._ended = self._measuring.error, time.monotonic()
            self._measured = self._measuring.value or self._measured
            self._measuring = None

    def overview(self) -> tuple[dict[str, Any], bool]:
        """What is occupied as far as it is known, and whether it is still being looked at."""
        with self._lock:
            self._take()
            self._look()
            survey, plan, fault, waiting = self._measuring, self._measured, self._fault, self._wanted > self._began
        names = {run.id: self._bench.name_of(run) for run in self._bench.library(fresh=False).runs}
        value = overview_value(plan, names, not self._bench.settings.read_only, survey.progress if survey else None)
        return value | ({"note": fault.told} if fault and not survey else {}), survey is not None or waiting

    # -- what would go -------------------------------------------------------------------------------------------------

    def preview(self, ids: list[str], rules: Rules, asked: Asked, before: str) -> str:
        """Begins to find out what would go, and gives the name under which that is shown. `before` is the one that nobody waits for now."""
        with self._lock:
            if earlier := self._previews.get(before):
                earlier.stop()
            name = str(next(self._numbers))
            survey = self._previews[name] = Survey(self._previewing(ids, rules, replace(asked, left=not ids)))
            for old in list(self._previews)[:-_MOST]:
                self._previews.pop(old).stop()
        survey.wait(_MOMENT)
        return name

    def _previewing(self, ids: list[str], rules: Rules, asked: Asked) -> Generator[Progress, None, Preview]:
        runs = [run for run in (yield from self._bench.settled()) if run.id in ids or not ids]
        return (yield from self._bench.previewing(runs, rules, asked))

    def shown(self, name: str, note: str) -> tuple[dict[str, Any], bool]:
        """A preview's value, and whether it is still being found out."""
        survey = self._previews.get(name)
        if survey is None:
            return empty_plan(note), False
        if not survey.over:
            return empty_plan("", survey.progress), True
        return (plan_value(survey.value), False) if survey.value else (empty_plan(survey.error.told if survey.error else note), False)

    def previewed(self, name: str) -> Preview | None:
        """What was shown under a name and can be done; None where nothing was, or nothing would go."""
        survey = self._previews.get(name)
        value = survey.value if survey else None
        return value if value and value.plan.changes else None

    def start(self, name: str) -> Job:
        """Queues what was shown under a name; raises BadInput where that is no longer known."""
        preview = self.previewed(name)
        if preview is None:
            raise BadInput("this preview is no longer known", "Look at the preview again.")
        with self._lock:
            self._previews.pop(name, None)  # it is done once
        return self._bench.start_cleanup(preview)

    def again(self, job: Job) -> str:
        """The name of a new preview for what a job did not do since something had changed; "" where that was not the matter."""
        if not (isinstance(job.subject, Preview) and job.state == "failed" and not job.items):
            return ""
        asked = job.subject
        return self.preview([] if asked.asked.left else [run.id for run in asked.runs], asked.rules, asked.asked, "")

    # -- what is being done --------------------------------------------------------------------------------------------

    def job(self, wanted: str = "") -> Job | None:
        """The job of that id, or else the one that is not over."""
        jobs = [job for job in self._bench.jobs.all() if job.kind in KINDS]
        return next((job for job in jobs if job.id == wanted), None) or next((job for job in jobs if not job.over), None)
