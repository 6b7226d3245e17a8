"""The queue of long work: one at a time, in order, stoppable, and not stopped by what one job does."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from cmp.core.grids import Fault
from cmp.core.progress import Progress, Rest
from cmp.core.work import JobRecord
from cmp.disk.ledger import Ledger
from cmp.disk.store import Store
from cmp.errors import BadInput, Busy, Cancelled, CmpError, Locked, NotFound, Refused
from cmp.jobs import MOST_JOBS, Job, Jobs
from cmp.jobs.job import MOST_REASONS


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
    threads = [threading.Thread(target=lambda: [jobs.start("grid", "", 1, at_once(1)) for _ in range(MOST_JOBS // 4)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    over(*jobs.all())
    assert len(jobs.all()) == MOST_JOBS and all(job.items == [1] for job in jobs.all())


# pausing, resting, stopping


def test_a_paused_job_stands_still_after_an_item_lets_others_work_and_goes_on_where_it_was() -> None:
    jobs, gate = Jobs(), Gate("a", "b", "c")
    job = jobs.start("grid", "1", 3, gate)
    assert gate.begun.wait(10)
    jobs.pause(job.id)
    assert job.state == "running", "the item in hand is finished"
    gate.let()
    until(lambda: job.state == "paused")
    other = jobs.start("grid", "2", 1, at_once("x"))
    over(other)
    gate.let(2)
    assert job.state == "paused" and job.items == ["a"] and not gate.closed.is_set()
    jobs.resume(job.id)
    over(job)
    assert (job.state, job.items) == ("done", ["a", "b", "c"])


def test_a_job_is_never_paused_within_an_item() -> None:
    jobs, gate = Jobs(), Gate(Progress(0, 2, "step 1"), Progress(0, 2, "step 2"), "a", "b")
    job = jobs.start("grid", "1", 2, gate)
    jobs.pause(job.id)
    for step in ("step 1", "step 2"):
        gate.let()
        until(lambda step=step: job.progress is not None and job.progress.what == step)
        assert job.state == "running" and job.record().asked == "pause"
    gate.let()
    until(lambda: job.state == "paused")
    assert job.items == ["a"]
    jobs.cancel(job.id)
    over(job)


def test_a_job_stops_within_an_item_and_its_work_is_closed_before_it_is_over() -> None:
    jobs, gate = Jobs(), Gate(Progress(0, 1, "step 1"), Progress(0, 1, "step 2"), "a")
    job = jobs.start("grid", "1", 1, gate)
    gate.let()
    until(lambda: job.progress is not None)
    jobs.cancel(job.id)
    gate.let()
    over(job)
    assert (job.state, job.items) == ("cancelled", []) and gate.closed.is_set()


def test_a_paused_job_can_be_cancelled_and_its_work_is_closed() -> None:
    jobs, gate = Jobs(), Gate("a", "b")
    job = jobs.start("grid", "1", 2, gate)
    jobs.pause(job.id)
    gate.let()
    until(lambda: job.state == "paused")
    jobs.cancel(job.id)
    over(job)
    assert (job.state, job.items) == ("cancelled", ["a"]) and gate.closed.is_set()


def test_a_waiting_job_that_is_paused_lets_the_next_through_and_goes_to_the_end_of_the_queue() -> None:
    jobs, gate, seen = Jobs(), Gate(1), []
    first = jobs.start("grid", "1", 1, gate)
    second, third, fourth = (jobs.start("grid", str(n), 1, lambda n=n: iter([seen.append(n)])) for n in (2, 3, 4))
    assert [record.position for record in jobs.records()] == [None, 1, 2, 3]
    jobs.pause(second.id)
    assert [record.position for record in jobs.records()] == [None, None, 1, 2] and second.state == "paused"
    gate.let()
    over(first, third, fourth)
    assert second.state == "paused" and seen == [3, 4]
    jobs.resume(second.id)
    over(second)
    assert seen == [3, 4, 2]


def test_while_a_job_rests_others_have_their_turn_and_it_says_what_it_waits_for() -> None:
    rested = threading.Event()

    def work() -> Iterator[object]:
        yield Rest(0.0 if rested.is_set() else 3600.0, "waiting: the GPU is in use")
        yield "drawn"

    jobs = Jobs()
    job = jobs.start("grid", "1", 1, work)
    until(lambda: job.progress is not None)
    over(jobs.start("grid", "2", 1, at_once("x")))
    assert job.state == "running" and job.as_json()["what"] == "waiting: the GPU is in use" and job.items == []
    jobs.cancel(job.id)
    over(job)
    assert job.state == "cancelled" and job.items == []
    rested.set()
    again = jobs.start("grid", "3", 1, work)
    over(again)
    assert (again.state, again.items) == ("done", ["drawn"])


def test_work_that_is_followed_gives_its_items_to_the_caller_in_its_turn() -> None:
    jobs, gate = Jobs(), Gate("a")
    first = jobs.start("grid", "1", 1, gate)
    followed = jobs.follow("grid", "2", 2, at_once(Progress(0, 2, "begins"), "x", "y"))
    gate.let()
    assert list(followed) == [Progress(0, 2, "begins"), "x", "y"] and first.over
    assert [job.state for job in jobs.all()] == ["done", "done"]


def test_whoever_leaves_what_is_followed_has_cancelled_it_and_an_error_reaches_him() -> None:
    jobs, gate = Jobs(), Gate("a", "b")
    gate.let(2)
    followed = jobs.follow("grid", "1", 2, gate)
    assert next(followed) == "a"
    followed.close()  # type: ignore[attr-defined]
    assert jobs.all()[0].state == "cancelled" and gate.closed.is_set()

    def fails() -> Iterator[object]:
        yield 1
        raise Refused("the base differs", "Give its own.")

    with pytest.raises(Refused):
        list(jobs.follow("grid", "2", 2, fails))
    assert jobs.all()[1].state == "failed"
    over(jobs.start("grid", "3", 1, at_once("x")))


def test_whoever_follows_a_job_that_another_cancels_is_told() -> None:
    jobs, gate = Jobs(), Gate("a", "b")
    gate.let(2)
    followed = jobs.follow("grid", "1", 2, gate)
    assert next(followed) == "a"
    jobs.cancel(jobs.all()[0].id)
    with pytest.raises(Cancelled):
        next(followed)
    assert gate.closed.is_set()


def test_ctrl_c_in_what_is_followed_cancels_it_and_lets_the_next_through() -> None:
    def interrupted() -> Iterator[object]:
        yield 1
        raise KeyboardInterrupt

    jobs = Jobs()
    with pytest.raises(KeyboardInterrupt):
        list(jobs.follow("watch", "1", 0, interrupted))
    assert jobs.all()[0].state == "cancelled"
    over(jobs.start("grid", "2", 1, at_once("x")))


# another process


def home_of(tmp_path: Path) -> Jobs:
    """The jobs of a process of its own as far as the ledger knows: it has a lock of its own."""
    jobs = Jobs(Ledger(Store(tmp_path)))
    jobs.make("grid", lambda order: (lambda: iter([f"{word} again" for word in order["words"]]), order["words"]))
    return jobs


def left_behind(tmp_path: Path) -> JobRecord:
    """A job whose process is gone."""
    ledger = Ledger(Store(tmp_path))
    record = ledger.add("grid", "1", 1, {"words": ["a"]})
    ledger._lock.release()  # type: ignore[union-attr]  # as the system does when a process ends
    return record


def test_what_a_killed_process_had_in_hand_is_interrupted_and_another_makes_it_again(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        try:
            jobs = home_of(tmp_path)
            gate = Gate("a", "b")
            running = jobs.start("grid", "running", 2, gate, order={"words": ["a", "b"]})
            jobs.start("grid", "waiting", 1, at_once("c"), order={"words": ["c"]})
            paused = jobs.start("grid", "paused", 1, at_once("d"), order={"words": ["d"]})
            jobs.pause(paused.id)
            jobs.start("grid", "unmakeable", 1, at_once("e"))
            gate.let()
            until(lambda: running.items == ["a"])
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    jobs = home_of(tmp_path)
    before = {record.title: record.state for record in jobs.records()}
    assert before == {"running": "interrupted", "waiting": "interrupted", "paused": "paused", "unmakeable": "interrupted"}
    resumed = jobs.resume_interrupted()
    over(*resumed)
    assert [(job.title, job.state, job.items, job.subject) for job in resumed] == [
        ("running", "done", ["a again", "b again"], ["a", "b"]), ("waiting", "done", ["c again"], ["c"]),
    ]  # fmt: skip
    after = {record.title: record.state for record in home_of(tmp_path).records()}
    assert after == {"running": "done", "waiting": "done", "paused": "paused", "unmakeable": "interrupted"}
    (paused,) = (record for record in jobs.records() if record.title == "paused")
    assert list(jobs.go_on(paused.id)) == ["d again"], "whoever paused it may go on with it anywhere"


def test_a_job_that_was_cancelled_here_and_taken_up_elsewhere_is_asked_there(tmp_path: Path) -> None:
    first, second, gate = home_of(tmp_path), home_of(tmp_path), Gate("a", "b")
    job = first.start("grid", "1", 1, gate, order={"words": ["a"]})
    first.cancel(job.id)
    gate.let(2)
    over(job)
    held = Gate("c", "d")
    second.make("grid", lambda order: (held, None))
    again = second.resume(job.id)
    assert first.ask(job.id, "cancel").asked == "cancel" and job.state == "cancelled"
    until(lambda: again.cancelled.is_set())
    over_there = first.record(job.id)
    assert over_there.queued > (job.ended or 0) and over_there.state != "interrupted", "what is told of it is the other one's"
    held.let(2)
    over(again)
    again.reasons["no base"] = 2
    second._keep(again)
    first.ask(job.id, "cancel")
    assert second.record(job.id).reasons == first.record(job.id).reasons == (("no base", 2),), "the first has no say in it any more"


def test_a_job_that_is_over_is_taken_up_again_only_where_there_is_room(tmp_path: Path) -> None:
    jobs, gate = home_of(tmp_path), Gate(1)
    job = jobs.start("grid", "1", 1, at_once("a"), order={"words": ["a"]})
    over(job)
    failed = left_behind(tmp_path)
    begun = [jobs.start("grid", "a", 0, gate) for _ in range(MOST_JOBS)]
    with pytest.raises(Busy, match=f"{MOST_JOBS} jobs"):
        jobs.resume(failed.id)
    assert jobs.resume_interrupted() == [], "what is left is taken up when somebody asks for it"
    for one in begun:
        jobs.cancel(one.id)
    gate.let(MOST_JOBS)
    over(*begun)
    over(jobs.resume(failed.id))


def test_two_processes_never_do_the_same_job(tmp_path: Path) -> None:
    first, second, gate = home_of(tmp_path), home_of(tmp_path), Gate("a")
    job = first.start("grid", "1", 1, gate, order={"words": ["a"]})
    for attempt in (second.resume, lambda name: next(second.go_on(name))):
        with pytest.raises(Locked, match=job.id):
            attempt(job.id)
    assert second.resume_interrupted() == [] and second.record(job.id).state == "running"
    gate.let()
    over(job)
    until(lambda: second.record(job.id).state == "done")
    with pytest.raises(BadInput, match="is done"):
        second.resume(job.id)


def test_of_many_that_take_up_an_interrupted_job_at_once_one_gets_it(tmp_path: Path) -> None:
    job = left_behind(tmp_path)
    others, got = [home_of(tmp_path) for _ in range(6)], []
    threads = [threading.Thread(target=lambda other=other: got.extend(other.resume_interrupted())) for other in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    over(*got)
    assert [taken.id for taken in got] == [job.id] and got[0].items == ["a again"]


def test_a_job_that_another_process_has_taken_up_and_ended_meanwhile_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_behind(tmp_path)
    slow, quick = home_of(tmp_path), home_of(tmp_path)
    before = slow.records()  # what it saw when it looked
    over(*quick.resume_interrupted())
    monkeypatch.setattr(slow, "records", lambda: before)
    assert slow.resume_interrupted() == []


def test_a_running_job_is_paused_resumed_and_cancelled_from_another_process(tmp_path: Path) -> None:
    here, there, gate = home_of(tmp_path), home_of(tmp_path), Gate("a", "b", "c")
    job = here.start("grid", "1", 3, gate, order={"words": []})
    assert there.ask(job.id, "pause").asked == "pause"
    gate.let()
    until(lambda: there.record(job.id).state == "paused")
    assert job.items == ["a"]
    there.ask(job.id, "resume")
    gate.let()
    until(lambda: job.items == ["a", "b"])
    there.ask(job.id, "cancel")
    gate.let()
    until(lambda: there.record(job.id).state == "cancelled")
    assert job.items in (["a", "b"], ["a", "b", "c"])


def test_a_job_that_never_began_hears_other_processes_too(tmp_path: Path) -> None:
    here, there, gate = home_of(tmp_path), home_of(tmp_path), Gate("a")
    first = here.start("grid", "1", 1, gate, order={"words": []})
    second, third = (here.start("grid", "2", 1, at_once("x"), order={"words": []}) for _ in range(2))
    there.ask(second.id, "pause")
    there.ask(third.id, "cancel")
    until(lambda: {there.record(second.id).state, there.record(third.id).state} == {"paused", "cancelled"})
    gate.let()
    over(first, third)
    there.ask(second.id, "resume")
    over(second)
    assert (second.state, second.items, third.items) == ("done", ["x"], [])


def test_a_job_that_ends_every_process_is_not_taken_up_for_ever(tmp_path: Path) -> None:
    job = left_behind(tmp_path)
    for _ in range(3):
        ledger = Ledger(Store(tmp_path))
        ledger.claim(job.id)
        ledger._lock.release()  # type: ignore[union-attr]
    jobs = home_of(tmp_path)
    assert jobs.resume_interrupted() == [] and jobs.record(job.id).state == "interrupted"
    assert list(jobs.go_on(job.id)) == ["a again"], "whoever asks for it gets it"


def test_a_job_that_gets_on_is_taken_up_as_often_as_it_takes(tmp_path: Path) -> None:
    job = left_behind(tmp_path)
    for done in range(1, 6):
        ledger = Ledger(Store(tmp_path))
        record, _ = ledger.claim(job.id)
        ledger.write(replace(record, state="running", done=done, reused=done - 1))
        ledger._lock.release()  # type: ignore[union-attr]
    (resumed,) = home_of(tmp_path).resume_interrupted()
    over(resumed)
    assert resumed.items == ["a again"]


def test_an_interrupted_job_can_be_cancelled_where_it_never_ran(tmp_path: Path) -> None:
    job = left_behind(tmp_path)
    other = home_of(tmp_path)
    assert other.ask(job.id, "cancel").state == "cancelled" and other.resume_interrupted() == []


def test_where_nothing_can_be_kept_jobs_run_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    jobs = Jobs(Ledger(Store(tmp_path / "file")))
    job = jobs.start("grid", "1", 1, at_once("x"), order={"words": []})
    over(job)
    assert job.state == "done" and [record.id for record in jobs.records()] == [job.id]
    with pytest.raises((NotFound, Refused)):
        jobs.ask("grid-77", "cancel")


def test_what_cannot_be_made_again_fails_with_its_reason(tmp_path: Path) -> None:
    job = left_behind(tmp_path)
    other = Jobs(Ledger(Store(tmp_path)))

    def maker(order: object) -> tuple[Callable[[], Iterator[object]], object]:
        raise NotFound("the checkpoint is gone", "Choose another.")

    other.make("grid", maker)
    again = other.resume(job.id)
    over(again)
    assert again.state == "failed" and other.record(job.id).error == {
        "error": "the checkpoint is gone",
        "hint": "Choose another.",
        "code": 3,
    }


# -- the end of the process ------------------------------------------------------------------------------------------------


def kept(tmp_path: Path) -> Jobs:
    jobs = Jobs(Ledger(Store(tmp_path / "home")))
    jobs.make("grid", lambda order: (at_once(*order["items"]), None))
    return jobs


def test_a_closed_queue_ends_the_item_in_hand_and_the_next_process_goes_on_with_the_rest(tmp_path: Path) -> None:
    jobs, gate = kept(tmp_path), Gate(Progress(0, 3, "drawing"), "one", "two", "three")
    running = jobs.start("grid", "g", 3, gate, order={"items": ["one", "two", "three"]})
    waiting = jobs.start("grid", "later", 1, at_once("x"), order={"items": ["x"]})
    gate.let()
    until(lambda: running.progress is not None)
    closing = threading.Thread(target=jobs.close, args=(10.0,))
    closing.start()
    until(lambda: jobs.closing)
    gate.let()
    closing.join(10)
    assert running.items == ["one"] and gate.closed.is_set() and waiting.items == []
    assert [(record.state, record.done, record.tries) for record in jobs.records()] == [("interrupted", 1, 0), ("interrupted", 0, 0)]
    jobs._ledger._lock.release()  # type: ignore[union-attr]  # as the system does when a process ends
    after = kept(tmp_path)
    resumed = after.resume_interrupted()
    over(*resumed)
    assert [(job.state, len(job.items)) for job in resumed] == [("done", 3), ("done", 1)]


def test_what_does_not_come_to_its_end_in_time_is_left_midway(tmp_path: Path) -> None:
    jobs = kept(tmp_path)
    closed = threading.Event()

    def endless() -> Iterator[object]:
        try:
            while True:
                time.sleep(0.001)
                yield Progress(0, 1, "drawing")
        finally:
            closed.set()

    job = jobs.start("grid", "g", 1, endless, order={"items": ["x"]})
    until(lambda: job.progress is not None)
    (left,) = jobs.close(0.01)
    assert closed.is_set() and left.state == "interrupted" and left.ended is None


def test_a_closed_queue_takes_nothing_and_keeps_what_was_paused_paused(tmp_path: Path) -> None:
    jobs, gate = kept(tmp_path), Gate("one", "two")
    job = jobs.start("grid", "g", 2, gate, order={"items": ["one", "two"]})
    gate.let()
    until(lambda: job.items == ["one"])
    jobs.pause(job.id)
    gate.let()
    until(lambda: job.state == "paused")
    jobs.close(1.0)
    with pytest.raises(Refused, match="being stopped"):
        jobs.start("grid", "more", 1, at_once("x"))
    with pytest.raises(Refused, match="being stopped"):
        jobs.resume("grid-77")
    until(lambda: gate.closed.is_set())
    jobs._ledger._lock.release()  # type: ignore[union-attr]
    after = kept(tmp_path)
    assert after.resume_interrupted() == [] and after.record(job.id).state == "paused"


def test_restarts_in_order_do_not_count_as_failed_tries(tmp_path: Path) -> None:
    first = kept(tmp_path)
    gate = Gate("one")
    first.start("grid", "ahead", 1, gate)
    first.start("grid", "g", 1, at_once("x"), order={"items": ["x"]})
    first.close(0.01, 0.01)
    first._ledger._lock.release()  # type: ignore[union-attr]
    for _ in range(5):
        jobs = kept(tmp_path)
        blocked = Gate("never")
        jobs.start("grid", "ahead", 1, blocked)
        assert [job.title for job in jobs.resume_interrupted()] == ["g"], "it was given up"
        jobs.close(0.01, 0.01)
        jobs._ledger._lock.release()  # type: ignore[union-attr]
        blocked.let()
    gate.let()


def test_so_many_jobs_wait_at_most_and_one_that_is_over_makes_room() -> None:
    jobs, gate = Jobs(), Gate(1)
    begun = [jobs.start("grid", "a", 0, gate) for _ in range(MOST_JOBS)]
    with pytest.raises(Busy, match=f"{MOST_JOBS} jobs"):
        jobs.start("grid", "a", 0, gate)
    assert len(jobs.all()) == MOST_JOBS
    jobs.cancel(begun[-1].id)
    begun.append(jobs.start("grid", "a", 0, gate))
    for job in begun:
        jobs.cancel(job.id)
    gate.let(MOST_JOBS)
    over(*begun)


def test_why_items_failed_is_kept_once_for_each_reason_and_other_processes_know_it(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Made:
        fault: Fault | None = None
        error: CmpError | None = None

    items = [Made(Fault("no base", "Give one.")), Made(), Made(Fault("no base", "Give one.")), Made(error=Refused("too large", "Less."))]
    jobs = Jobs(Ledger(Store(tmp_path)))
    over(job := jobs.start("grid", "g", 4, at_once(*items)))
    meant = (("no base. Give one.", 2), ("too large. Less.", 1))
    assert job.record().reasons == meant and job.record().faults == 3
    until(lambda: Ledger(Store(tmp_path)).records()[0].reasons == meant)  # it is written a moment after the job is over here
    many = jobs.start("grid", "g", 99, at_once(*(Made(Fault(f"cell {n}")) for n in range(99))))
    over(many)
    assert len(many.record().reasons) == MOST_REASONS + 1 and sum(count for _, count in many.record().reasons) == 99
