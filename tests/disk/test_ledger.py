"""What is kept of jobs: told the same by every process, with nothing lost that a name or a path may hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cmp.disk.ledger import Ledger
from cmp.disk.store import Store
from cmp.errors import BadInput, Locked, NotFound, Refused


def test_a_job_is_told_the_same_by_every_process(tmp_path: Path) -> None:
    here, there = Ledger(Store(tmp_path)), Ledger(Store(tmp_path))
    order = {"path": "/r/caf\udce9", "seeds": [2**62]}
    record = here.add("grid", "half \ud83d", 4, order)
    here.write(
        replace(record, state="running", done=2, reused=1, worked=1.5, what="caf\udce9", error={"error": "x", "hint": "", "code": 2})
    )
    (told,) = there.records()
    assert told == replace(
        record, state="running", done=2, reused=1, worked=1.5, what="caf\udce9", error={"error": "x", "hint": "", "code": 2}
    )
    assert there.order(record.id) == order and told.as_json()["what"] == "caf%E9"


def test_a_process_writes_only_of_its_own_jobs(tmp_path: Path) -> None:
    here, there = Ledger(Store(tmp_path)), Ledger(Store(tmp_path))
    record = here.add("grid", "", 4, {})
    there.write(replace(record, state="done"))
    assert here.records()[0].state == "waiting"


def test_ids_are_never_given_twice(tmp_path: Path) -> None:
    here, there = Ledger(Store(tmp_path)), Ledger(Store(tmp_path))
    ids = [ledger.add("grid", "", 1, {}).id for ledger in (here, there, here)]
    assert len(set(ids)) == 3


@pytest.mark.parametrize("name", ["grid-9", "convert-1", "grid", "", "grid-1-1", "grid-" + "9" * 30, "grid-٣", "'; DROP TABLE jobs; --"])
def test_a_job_that_is_not_there_is_not_found(tmp_path: Path, name: str) -> None:
    ledger = Ledger(Store(tmp_path))
    ledger.add("grid", "", 1, {})
    for act in (ledger.order, ledger.claim, lambda name: ledger.ask(name, "cancel")):
        with pytest.raises(NotFound):
            act(name)
    assert len(ledger.records()) == 1


def test_what_is_asked_is_heard_once_and_by_its_process_alone(tmp_path: Path) -> None:
    here, there, third = (Ledger(Store(tmp_path)) for _ in range(3))
    record = here.add("grid", "", 1, {})
    assert there.ask(record.id, "pause").asked == "pause"
    assert third.take_asks() == [] and here.take_asks() == [(record.id, "pause")] and here.take_asks() == []
    with pytest.raises(BadInput, match="'explode'"):
        there.ask(record.id, "explode")


def test_a_job_is_taken_only_from_a_process_that_is_gone(tmp_path: Path) -> None:
    here, there = Ledger(Store(tmp_path)), Ledger(Store(tmp_path))
    record, bare = here.add("grid", "", 1, {"a": 1}), here.add("grid", "", 1, None)
    with pytest.raises(Locked):
        there.claim(record.id)
    here._lock.release()  # type: ignore[union-attr]  # as the system does when a process ends
    taken, order = there.claim(record.id)
    assert (taken.id, taken.state, order) == (record.id, "waiting", {"a": 1})
    with pytest.raises(Refused, match="not kept"):
        there.claim(bare.id)
    here.write(replace(record, state="done"))  # a process that was only asleep has lost it
    assert there.records()[0].state == "waiting"


def test_where_nothing_can_be_kept_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused):
        Ledger(Store(tmp_path / "file")).add("grid", "", 1, {})
