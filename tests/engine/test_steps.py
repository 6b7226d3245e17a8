"""A call that runs in a thread is watched, fails and ends as if it ran here."""

from __future__ import annotations

import threading

import pytest

from cmp.core.progress import Progress, run_through
from cmp.engine.steps import Report, Stopped, stepping


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
