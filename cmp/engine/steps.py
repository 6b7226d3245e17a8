"""Long calls into libraries as iterators: the call runs in a thread, tells its steps, and stops at the next one when nobody listens."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import nullcontext
from queue import SimpleQueue
from threading import Event
from typing import TypeVar

from cmp.core.progress import Progress

T = TypeVar("T")
Report = Callable[[Progress], None]


def silent(step: Progress) -> None:
    """For whoever does not watch."""


class Stopped(Exception):
    """Raised within the call at its next step, once whoever watched it has gone."""


def stepping(work: Callable[[Report], T], threads: Executor | None = None) -> Generator[Progress, None, T]:
    """Runs `work(report)` in a thread, one of `threads` or one of its own, yields what it reports, and gives its result or raises what it
    raises.

    Closing the iterator makes the next `report` raise Stopped, and waits for the call to end: nothing of it goes on unseen.
    """
    said: SimpleQueue[Progress | Future[T]] = SimpleQueue()
    gone = Event()

    def report(step: Progress) -> None:
        if gone.is_set():
            raise Stopped
        said.put(step)

    with nullcontext(threads) if threads else ThreadPoolExecutor(1, thread_name_prefix="drawing") as pool:
        call = pool.submit(work, report)
        try:
            call.add_done_callback(said.put)
            while isinstance(step := said.get(), Progress):
                yield step
            return step.result()
        finally:
            gone.set()
            wait([call])
