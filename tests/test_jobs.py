"""The queue of long work: one at a time, in order, stoppable, and not stopped by what one job does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from cmp.core.progress import Progress
from cmp.errors import NotFound, Refused
from cmp.jobs import Job, Jobs


class Gate:
    """Work that yields its items one by one, each when the test lets it."""

    def __init__(self, *items: object) -> None:
        self.items = items
        self.begun = threading.Event()
        self.open = threading.Semaphore(0)
        self.closed = threading.Event()

    def __call__(self) -> Iterator[object]:
        self.begun.set()
        try:
            for item in self.items:
                assert self.open.acquire(timeout=10)
                yield item
        finally:
            self.closed.set()

    def let(self, count: int = 1) -> None:
        self.open.release(count)


def until(true: Callable[[], bool]) -> None:
    """Waits for another thread, 10 s at most."""
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.001)


def over(*jobs: Job) -> None:
    until(lambda: all(job.over and job.ended for job in jobs))


def at_once(*items: object) -> Callable[[], Iterator[object]]:
    return lambda: iter(items)


def test_work_runs_in_the_order_it_was_given_and_one_at_a_time() -> None:
    jobs, running, seen = Jobs(), threading.Semaphore(1), []

    def work(number: int) -> Iterator[object]:
        assert running.acquire(blocking=False), "two ran at once"
        seen.append(number)
        yield number
        running.release()

    started = [jobs.start("grid", f"number {n}", 1, lambda n=n: work(n)) for n in range(20)]
    over(*started)
    assert seen == list(range(20)) and {job.state for job in started} == {"done"}
    assert len({job.id for job in started}) == 20 and jobs.all() == started


def test_progress_is_shown_and_everything_else_is_collected() -> None:
    jobs, gate = Jobs(), Gate("tile", Progress(1, 3, "halfway"), None)
    job = jobs.start("convert", "three", 3, gate, subject="run@500")
    gate.let(2)
    until(lambda: job.progress is not None)
    told = job.as_json()
    assert {name: told[name] for name in ("job", "kind", "title", "state", "done", "total", "what", "error")} == {
        "job": job.id, "kind": "convert", "title": "three", "state": "running", "done": 1, "total": 3, "what": "halfway", "error": None,
    }  # fmt: skip
    gate.let()
    over(job)
    assert (job.items, job.state, job.subject) == (["tile", None], "done", "run@500")
    assert job.started is not None and job.ended is not None and job.started <= job.ended


def test_starting_returns_at_once_and_what_follows_waits() -> None:
    jobs, gate = Jobs(), Gate(1)
    first, second = jobs.start("grid", "1", 1, gate), jobs.start("grid", "2", 1, at_once())
    assert gate.begun.wait(10) and (first.state, second.state) == ("running", "waiting")
    gate.let()
    over(first, second)


def test_a_cancelled_job_stops_after_the_item_in_hand_and_closes_its_work() -> None:
    jobs, gate = Jobs(), Gate("a", "b", "c")
    job = jobs.start("grid", "1", 3, gate)
    gate.let()
    until(lambda: job.items == ["a"])
    assert jobs.cancel(job.id) is job and job.state == "running"
    gate.let()
    over(job)
    assert (job.state, job.items) == ("cancelled", ["a", "b"]) and gate.closed.wait(10)


def test_a_waiting_job_that_is_cancelled_never_starts_and_lets_the_next_through() -> None:
    jobs, gate = Jobs(), Gate(1)
    first = jobs.start("grid", "1", 1, gate)
    second = jobs.start("grid", "2", 1, lambda: pytest.fail("it was started"))
    third = jobs.start("grid", "3", 1, at_once("x"))
    jobs.cancel(second.id)
    assert second.state == "cancelled" and second.ended is not None and second.started is None
    gate.let()
    over(first, third)
    assert (first.state, second.state, third.state, third.items) == ("done", "cancelled", "done", ["x"])


def test_cancelling_what_is_over_changes_nothing() -> None:
    jobs = Jobs()
    job = jobs.start("grid", "1", 1, at_once())
    over(job)
    assert jobs.cancel(job.id).state == "done"


@pytest.mark.parametrize("before", [0, 2])
def test_a_failing_job_keeps_its_error_and_its_items_and_does_not_stop_the_next(before: int) -> None:
    def fails() -> Iterator[object]:
        yield from range(before)
        raise Refused("the base differs", "Give its own.")

    jobs = Jobs()
    failed, next_one = jobs.start("convert", "1", 1, fails), jobs.start("convert", "2", 1, at_once("x"))
    over(failed, next_one)
    assert (failed.state, failed.items, next_one.state) == ("failed", list(range(before)), "done")
    assert failed.as_json()["error"] == {"error": "the base differs", "hint": "Give its own.", "code": 5}


@pytest.mark.parametrize("begun", [False, True])
def test_a_fault_of_ours_fails_the_job_keeps_its_traceback_and_does_not_stop_the_next(monkeypatch: pytest.MonkeyPatch, begun: bool) -> None:
    told: list[type[BaseException] | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda fault: told.append(fault.exc_type))

    def fails() -> Iterator[object]:
        yield 1
        raise ZeroDivisionError

    jobs = Jobs()
    failed = jobs.start("grid", "1", 1, fails if begun else lambda: iter([1 / 0]))
    next_one = jobs.start("grid", "2", 1, at_once("x"))
    over(failed, next_one)
    until(lambda: told == [ZeroDivisionError])
    assert failed.state == "failed" and failed.error is not None and failed.error.exit_code == 70 and next_one.state == "done"


def test_an_unknown_job_is_not_found() -> None:
    jobs = Jobs()
    for call in (jobs.find, jobs.cancel):
        with pytest.raises(NotFound, match="grid-7"):
            call("grid-7")


def test_work_given_by_many_threads_is_all_done() -> None:
    jobs = Jobs()
    threads = [threading.Thread(target=lambda: [jobs.start("grid", "", 1, at_once(1)) for _ in range(10)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    over(*jobs.all())
    assert len(jobs.all()) == 40 and all(job.items == [1] for job in jobs.all())
