"""How a server is stopped: a first signal lets the picture in hand be finished, a second one ends the process at once."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from cmp.workbench import Workbench

WITHIN = 8.0  # seconds to finish what is in hand: docker kills after ten
_LOG = logging.getLogger("cmp.server")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_CANCELLED = 130


class Ending:
    """Waits for a signal to stop, within a `with`; the former handlers are put back behind it.

    The exit code of an orderly end is 0, or 130 where it was asked for from the keyboard. A handler only notes what was asked for: it may
    run in the middle of anything, a lock held by this very thread included.
    """

    def __init__(self, bench: Workbench, within: float = WITHIN) -> None:
        self.bench = bench
        self.within = within
        self.asked: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Ending:
        if threading.current_thread() is threading.main_thread():  # no other thread may set handlers, nor gets a signal
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked is not None:
            os._exit(_CANCELLED)
        self.asked = number

    def wait(self, page: Any) -> int:
        """Serves until a signal comes, then ends what goes on; gives the exit code. `page` is the launched one."""
        while self.asked is None and page.is_running:
            time.sleep(0.1)
        name = signal.Signals(self.asked).name if self.asked else "page closed"
        _LOG.info("server stops", extra={"about": {"why": name, "within_seconds": self.within}})
        until = time.monotonic() + self.within
        left = self.bench.jobs.close(self.within)
        still = any(job.state == "running" for job in left)
        # what was asked for through REST is no job: whoever draws it holds the device
        still = not self.bench.gpu.acquire(timeout=max(0.0, until - time.monotonic())) or still
        _LOG.info("server stopped", extra={"about": {"jobs_left": len(left), "cut_off": still}})
        if self.bench.alerting:
            self.bench.alerting.stop()
        code = _CANCELLED if self.asked == signal.SIGINT else 0
        logging.shutdown()
        if still:  # a library is deep in a computation; the interpreter's own end would wait for it or crash
            os._exit(code)
        page.close(verbose=False)
        return code
