"""Cleaning up as a job: what is carried out is what was shown; and what a disk holds is counted once."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from cmp.core.storage import Item, Rules
from cmp.disk.trash import list_trash
from cmp.disk.usage import occupied
from cmp.errors import CmpError, NotFound
from cmp.workbench import Workbench
from cmp.workbench.reclaiming import Preview
from cmp.workbench.storing import Asked, NotDone
from tests.storing import RUN, cmp, contents, frozen_run, grow_old
from tests.support import Training, bench_of, convert, finished

THIN = Rules(named=True, last=1)


@pytest.fixture
def made(tmp_path: Path) -> Training:
    return frozen_run(tmp_path, (500, 1000, 1500))


def preview(bench: Workbench, rules: Rules = THIN, asked: Asked = Asked()) -> Preview:
    from cmp.core.progress import run_through

    return run_through(bench.previewing(bench.library().runs, rules, asked))


def of_step(made: Training, step: int) -> str:
    return next(each.id for each in list_trash(made.run) if each.path == made.checkpoint(step))


def test_what_was_shown_is_done(made: Training) -> None:
    bench = bench_of(made)
    shown = preview(bench)
    job = finished(bench.start_cleanup(shown))
    assert job.error is None and [item.path for item in job.items] == [item.path for item in shown.plan.changes]
    assert len(list_trash(made.run)) == 2 and job.items[0].undo == f"restore {list_trash(made.run)[0].id}"


@pytest.mark.parametrize("change", ["star", "write", "remove", "new"])
def test_nothing_is_done_once_something_has_changed_since(made: Training, change: str) -> None:
    bench = bench_of(made)
    shown = preview(bench)
    if change == "star":
        bench.star(f"{RUN}@500")
    elif change == "write":
        (made.checkpoint(500) / "new.txt").write_text("x")
        grow_old(made.run)
    elif change == "remove":
        os.rename(made.checkpoint(500), made.run.parent / "elsewhere")
    else:
        shutil.copytree(made.checkpoint(500), made.checkpoint(700))
        grow_old(made.run)
    before = contents(made.outputs)
    job = finished(bench.start_cleanup(shown))
    assert job.state == "failed" and "changed since this was shown" in job.error.message
    assert contents(made.outputs) == before and list_trash(made.run) == ()


def test_a_second_click_on_the_same_preview_does_nothing_more(made: Training) -> None:
    bench = bench_of(made)
    shown = preview(bench)
    finished(bench.start_cleanup(shown))
    assert finished(bench.start_cleanup(shown)).state == "failed" and len(list_trash(made.run)) == 2


def test_one_that_was_interrupted_ends_what_is_left_and_takes_nothing_else(made: Training) -> None:
    bench = bench_of(made)
    shown = preview(bench)
    job = bench.start_cleanup(shown)
    order = bench.jobs.order(finished(job).id)
    assert order is not None
    list(bench.restore(of_step(made, 500)))
    assert [step.path for step in bench._cleanup_again(order)[0]() if isinstance(step, Item)] == [made.checkpoint(500)]
    list(bench.restore(of_step(made, 500)))
    (made.checkpoint(500) / "new.txt").write_text("x")
    grow_old(made.run)
    with pytest.raises(CmpError, match="changed since"):
        list(bench._cleanup_again(order)[0]())


def test_compaction_and_restoring_run_as_jobs_and_give_the_bytes_back(made: Training) -> None:
    before = contents(made.run)
    bench = bench_of(made)
    job = finished(bench.start_cleanup(preview(bench, Rules(), Asked(compact=True))))
    assert job.error is None and not [item for item in job.items if isinstance(item, NotDone)]
    (run,) = preview(bench, Rules()).plan.runs
    assert [one["checkpoint"] for one in run["compacted"]] == [f"{RUN}@{step}" for step in (500, 1000, 1500)]  # type: ignore[attr-defined]
    assert finished(bench.start_restore(RUN)).error is None and contents(made.run) == before


def test_what_is_not_there_is_no_job_and_an_id_stays_an_id_when_the_job_is_made_again(made: Training) -> None:
    bench = bench_of(made)
    finished(bench.start_cleanup(preview(bench)))
    trashed = of_step(made, 500)
    place, jobs = str(made.run / ".cmp-trash" / trashed), len(bench.jobs.all())
    for target, by_id in (("nope", True), ("nope", False), (place, True), (f"{place}-not", False)):
        with pytest.raises(NotFound):
            bench.start_restore(target, by_id=by_id)
    assert len(bench.jobs.all()) == jobs
    job = finished(bench.start_restore(trashed, by_id=True))
    order = bench.jobs.order(job.id)
    assert job.error is None and made.checkpoint(500).exists() and order == {"target": trashed, "by_id": True}
    path = str(made.run / ".cmp-trash" / of_step(made, 1000))
    with pytest.raises(NotFound):
        list(bench._restore_again({"target": path, "by_id": True})[0]())
    assert list(bench._restore_again({"target": path})[0]()) and made.checkpoint(1000).exists()


def test_a_run_without_a_verdict_stays_whole_where_the_best_is_to_stay(made: Training) -> None:
    bench = bench_of(made)
    plan = preview(bench, Rules(named=True, best=True), Asked(unjudged=True)).plan
    assert plan.changes == () and {item.action for item in plan.items} == {"keep"} and "held-out" in plan.items[0].why


# -- what is where ---------------------------------------------------------------------------------------------------------


def test_the_parts_of_a_run_are_all_that_it_occupies_and_no_byte_twice(made: Training) -> None:
    for step in (500, 1000, 1500):
        (made.checkpoint(step) / "optimizer.bin").write_bytes(b"x" * 1000)
        (made.checkpoint(step) / "scheduler.bin").unlink(missing_ok=True)
    convert(made)
    convert(made, force=True)
    os.link(made.checkpoint(1000) / "model.safetensors", made.run / "second name.safetensors")
    grow_old(made.run)
    bench = bench_of(made)
    (run,) = bench.library().runs
    (told,) = bench.plan_cleanup([run], Rules()).runs
    parts: dict[str, int] = told["parts"]  # type: ignore[assignment]
    assert sum(parts.values()) == occupied([run.folder, *run.logs]) and parts["optimizer"] == 3000
    assert parts["converted"] and parts["trash"] and parts["logs"] == occupied(run.logs)


def test_what_a_disk_holds_is_told_with_what_is_free(made: Training) -> None:
    bench = bench_of(made)
    (disk,) = bench.plan_cleanup(bench.library().runs, Rules()).disks
    assert disk["runs_bytes"] == occupied([made.run]) and disk["trash_bytes"] == disk["converted_bytes"] == disk["cells_bytes"] == 0
    assert 0 < disk["free_bytes"] < disk["total_bytes"] and disk["forecast"] is None  # type: ignore[operator]


def test_two_trainings_that_fit_one_by_one_and_not_together_do_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from collections import namedtuple
    from dataclasses import replace

    from cmp.core.runs import Setting
    from cmp.disk.disks import disks

    made = frozen_run(tmp_path, (500, 1000))
    bench = bench_of(made)
    (run,) = bench.library().runs
    settings = {"max_train_steps": Setting(2000, ""), "checkpointing_steps": Setting(500, "")}
    one = replace(run, settings=settings, last_logged=1000.0)
    need = 2 * run.checkpoints[0].bytes
    monkeypatch.setattr(shutil, "disk_usage", lambda place: namedtuple("usage", "total used free")(10 * need, 0, need + need // 2))
    (alone,) = disks([one], (), bench.store, 1001.0)
    (both,) = disks([one, replace(one, id="other")], (), bench.store, 1001.0)
    assert alone["forecast"]["fits"] is True and both["forecast"]["fits"] is False  # type: ignore[index]
    assert both["forecast"]["needed_bytes"] == 2 * need  # type: ignore[index]


def test_one_that_is_cancelled_leaves_each_thing_whole_on_one_of_its_two_sides(made: Training) -> None:
    before = contents(made.run)
    bench = bench_of(made)
    shown = preview(bench, Rules(), Asked(compact=True))
    job = bench.start_cleanup(shown)
    bench.jobs.cancel(job.id)
    assert finished(job).state == "cancelled" and len(job.items) < 3
    assert not [*made.run.rglob(".tmp-*"), *made.run.rglob(".begun-*")]
    if job.items:
        list(bench.restore(RUN))
    assert contents(made.run) == before


def test_what_goes_from_a_folder_in_which_no_run_is_left_is_listed_brought_back_and_emptied(tmp_path: Path) -> None:
    made = frozen_run(tmp_path, (500, 1000))
    shutil.rmtree(tmp_path / "logs")
    grow_old(tmp_path)
    before = contents(made.run)
    for emptied in (False, True):
        said = cmp(made, "storage", "--keep", "every:7", "--yes")
        assert said.code == 0 and cmp(made, "list").json["runs"] == [], said.told
        told = cmp(made, "storage").json
        assert len(told["left_in_trash"]) == 2 and told["trash_bytes"] == sum(one["bytes"] for one in told["left_in_trash"])
        if emptied:
            assert cmp(made, "storage", "--empty-trash", "--yes").code == 0 and list_trash(made.run) == ()
        else:
            assert {cmp(made, "restore", one["trash_id"]).code for one in told["left_in_trash"]} == {0}
            assert contents(made.run) == before


def test_what_was_replaced_at_a_place_of_the_users_own_is_found_by_its_id(made: Training, tmp_path: Path) -> None:
    target = tmp_path / "mine" / "x.safetensors"
    for more in ((), ("--force",)):
        assert cmp(made, "convert", f"{RUN}@500", "--to", "lora", "--output", str(target), *more).code == 0
    (one,) = list_trash(target.parent)
    target.unlink()
    assert cmp(made, "restore", one.id).json["restored"][0]["path"] == str(target) and target.is_file()
    assert cmp(made, "storage").json["left_in_trash"] == [], "what lies outside of the folders that are looked at is none of their business"
