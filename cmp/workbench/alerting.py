"""Looks at runs in training and at jobs while a page is served, and tells what somebody should hear of: on the page, and to targets."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cmp.core.alerts import Alert, curve_alerts, fresh, job_alert, state_alerts
from cmp.core.curves import LossCurve
from cmp.core.runs import Run
from cmp.errors import CmpError, Refused
from cmp.workbench.sending import Target

if TYPE_CHECKING:
    from cmp.workbench import Workbench

_EVERY = 5.0  # seconds between two looks at jobs
_RUNS_EVERY = 3  # of which each third is at runs as well
_FORGOTTEN = 7 * 86400.0  # seconds since a run was last seen in training, after which it is looked at no more
_SHOWN = 20
_TRIES = 60  # looks at which a target that does not answer is told again
_KIND = "alert"
_LOG = logging.getLogger("cmp.alerts")

Stamp = tuple[tuple[int, int], ...]


class Alerting:
    """The alerts of one server. A run is looked at from when it is first seen in training; what was told of it is remembered."""

    def __init__(self, bench: Workbench, targets: tuple[Target, ...] = ()) -> None:
        self.bench = bench
        self._outboxes = tuple(_Outbox(target) for target in targets)
        self._began = time.time()
        self._watched: dict[Path, float] = {}  # each run's place, and when it was last in training
        self._read: dict[Path, tuple[Stamp, tuple[LossCurve, ...], tuple[Alert, ...]]] = {}
        self._told: set[str] = set()
        self._shown: deque[Alert] = deque(maxlen=_SHOWN)
        self._ends = threading.Event()
        self._looking = threading.Lock()
        self._thread: threading.Thread | None = None

    def shown(self) -> tuple[Alert, ...]:
        """What the page shows, the newest first."""
        return tuple(alert for alert in reversed(self._shown) if not alert.quiet)

    def start(self) -> None:
        """Looks again and again from now on."""
        self._thread = threading.Thread(target=self._go_on, name="alerts", daemon=True)
        self._thread.start()

    def stop(self, seconds: float = 2.0) -> None:
        """Looks at the jobs a last time, and has what was found sent if that takes no longer."""
        self._ends.set()
        last = threading.Thread(target=self.look, kwargs={"runs": False}, name="last alerts", daemon=True)
        last.start()
        last.join(seconds)

    def _go_on(self) -> None:
        looks, last = 0, ""  # the fault of the look before
        while not self._ends.is_set():
            try:
                self.look(runs=looks % _RUNS_EVERY == 0)
                last = ""
            except Exception as fault:  # noqa: BLE001  (one run or target must not silence all others: the fault is logged)
                told = logging.DEBUG if repr(fault) == last else logging.ERROR
                _LOG.log(told, "looking for alerts failed", exc_info=True)
                last = repr(fault)
            looks += 1
            self._ends.wait(_EVERY)

    def look(self, now: float | None = None, *, runs: bool = True) -> tuple[Alert, ...]:
        """Looks once, tells what is new, and gives it."""
        now = time.time() if now is None else now
        with self._looking:
            found = fresh([*self._of_jobs(now), *(self._of_runs(now) if runs else ())], self._told)
            new = []
            for alert in found:
                self._told.add(alert.id)
                self._shown.append(alert)
                if not self._known(alert):
                    new.append(alert)
                    _LOG.warning("alert", extra={"about": {"kind": alert.kind, "about": alert.about, "what": alert.what}})
            for outbox in self._outboxes:
                outbox.send(new)
        return tuple(new)

    def _known(self, alert: Alert) -> bool:
        """Whether an earlier process has told it; from now on it is."""
        if alert.kind.startswith("job-"):
            return False
        known = self.bench.store.get(_KIND, alert.id) is not None
        with suppress(Refused):
            self.bench.store.put(_KIND, alert.id, alert.at)
        return known

    def _of_jobs(self, now: float) -> list[Alert]:
        ended = (record for record in self.bench.jobs.records() if record.ended is not None and record.ended >= self._began)
        return [alert for record in ended if (alert := job_alert(record, now))]

    def _of_runs(self, now: float) -> list[Alert]:
        found: list[Alert] = []
        with suppress(CmpError):
            for run in self.bench.library(fresh=False).runs:
                if run.state(now) == "training":
                    self._watched[run.place] = now
                if now - self._watched.get(run.place, -_FORGOTTEN) < _FORGOTTEN:
                    curves, alerts = self._of_logs(run, now)
                    found += (*alerts, *state_alerts(run, curves, _free(run.folder), now))
        return found

    def _of_logs(self, run: Run, now: float) -> tuple[tuple[LossCurve, ...], tuple[Alert, ...]]:
        """The curves and what they say; looked at anew only where a log has changed."""
        stamp = _stamp(run)
        known = self._read.get(run.place)
        if known is None or known[0] != stamp:
            curves: tuple[LossCurve, ...] = ()
            with suppress(CmpError):
                curves = self.bench.curves(run).curves
            known = self._read[run.place] = (stamp, curves, curve_alerts(run, curves, now))
        return known[1:]


class _Outbox:
    """What is still to be sent to one target, in order. That it cannot be reached is logged once, until it can be again."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._waiting: deque[Alert] = deque()
        self._failed = 0

    def send(self, alerts: list[Alert]) -> None:
        self._waiting.extend(alerts)
        while self._waiting:
            try:
                self.target.send(self._waiting[0].as_json())
            except Refused as fault:
                self._failed += 1
                if self._failed == 1:
                    _LOG.warning("alert not sent", extra={"about": {"target": self.target.name, "why": fault.message}})
                if self._failed % _TRIES == 0:  # it will not come any more; the next one may
                    self._waiting.popleft()
                return
            self._waiting.popleft()
            if self._failed:
                _LOG.info("alerts are sent again", extra={"about": {"target": self.target.name, "failures": self._failed}})
            self._failed = 0


def _stamp(run: Run) -> Stamp:
    """What the run's logs are now: their sizes and times."""
    with suppress(OSError):
        return tuple((found.st_size, found.st_mtime_ns) for found in map(os.stat, run.logs))
    return ()


def _free(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None
