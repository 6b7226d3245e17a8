"""A call that runs in a thread is watched, fails and ends as if it ran here."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from cmp.core.progress import Progress, run_through
from cmp.engine.steps import Report, Stopped, stepping
from cmp.engine.studio import Studio


def step(number: int) -> Progress:
    return Progress(number, 9, "counting")


def test_steps_come_in_order_and_then_the_result() -> None:
    def count(report: Report) -> str:
        for number in range(3):
            report(step(number))
        return "counted"

    work = stepping(count)
    assert [next(work), next(work), next(work)] == [step(0), step(1), step(2)]
    assert run_through(stepping(count)) == "counted"


def test_what_is_raised_in_the_thread_is_raised_here() -> None:
    def fail(report: Report) -> None:
        report(step(0))
        raise ValueError("of the thread")

    with pytest.raises(ValueError, match="of the thread"):
        run_through(stepping(fail))


def test_closing_ends_the_call_at_its_next_step_and_waits_for_it() -> None:
    ended = threading.Event()

    def never_done(report: Report) -> None:
        try:
            while True:
                report(step(0))
        except Stopped:
            ended.set()
            raise

    work = stepping(never_done)
    next(work)
    before = threading.active_count()
    work.close()
    assert ended.is_set() and threading.active_count() < before


def test_calls_that_share_a_thread_run_in_it_one_after_another_and_each_is_waited_for() -> None:
    seen: list[int] = []

    def note(report: Report) -> None:
        seen.append(threading.get_ident())
        report(step(0))
        report(step(1))

    with ThreadPoolExecutor(1) as threads:
        run_through(stepping(note, threads))
        left = stepping(note, threads)
        next(left)
        left.close()
        run_through(stepping(note, threads))
    assert len(seen) == 3 and len(set(seen)) == 1


def test_a_forked_process_waits_for_no_thread_of_its_parent() -> None:
    studio = Studio("cpu")
    assert studio.threads is studio.threads and studio.threads.submit(os.getpid).result() == os.getpid()
    child = os.fork()
    if child == 0:
        own = studio.threads.submit(os.getpid).result(timeout=60)
        os._exit(0 if own == os.getpid() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
