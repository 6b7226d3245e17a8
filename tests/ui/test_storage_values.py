"""What the Storage tab asks for and shows, without a browser."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cmp.core.present import size_text
from cmp.core.progress import Progress, run_through
from cmp.core.storage import MIN_AGE, Rules
from cmp.errors import BadInput, Cancelled, Refused
from cmp.ui import storage_desk
from cmp.ui.storage_desk import Desk
from cmp.ui.storage_form import USUAL_AGE, USUAL_KEEP, USUAL_LAST, USUAL_WHAT, Fields, emptying, rules_of
from cmp.ui.storage_values import _undo, confirmation, overview_value, plan_value
from cmp.workbench.storing import Asked
from cmp.workbench.surveys import Survey
from tests.storing import OLD, RUN, contents, frozen_run, grow_old
from tests.support import Training, bench_of, convert

FORM = Fields(["thin"], ["best", "last", "starred"], "1", "", "", "", "1h", "")


@pytest.fixture
def made(tmp_path: Path) -> Training:
    made = frozen_run(tmp_path, (500, 1000, 1500))
    (made.checkpoint(500) / "optimizer.bin").write_bytes(b"x" * 1000)
    convert(made)
    grow_old(tmp_path)
    return made


# -- the form --------------------------------------------------------------------------------------------------------------


def test_the_form_says_what_the_command_line_would() -> None:
    assert rules_of(FORM) == (Rules(True, 1, None, True), Asked(unjudged=True))
    given = FORM._replace(keep=["last"], last="3", every="500", most="9", size="20GB", age="2h", share="reflink")
    assert rules_of(given) == (Rules(True, 3, 500, False, 9, 20 * 10**9, 7200), Asked(share="reflink", unjudged=True))
    limits = FORM._replace(keep=[], most="9")
    assert rules_of(limits)[0] == Rules(max_count=9), "with limits alone all may stay up to them"


def test_without_thinning_no_rule_takes_a_checkpoint_whatever_stands_in_the_hidden_fields() -> None:
    rules, asked = rules_of(FORM._replace(what=["compact", "converted", "optimizer"], most="nonsense"))
    assert not rules.asked and rules.min_age == MIN_AGE
    assert asked == Asked(True, frozenset({"converted", "optimizer"}), unjudged=True)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"what": []}, "nothing was chosen"), ({"keep": []}, "no rule says"), ({"last": "0"}, "'0'"), ({"every": "1.5"}, "'1.5'"),
        ({"most": "-1"}, "'-1'"), ({"size": "much"}, "'much'"), ({"age": "old"}, "'old'"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_quoted(change: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        rules_of(FORM._replace(**change))


def test_the_trash_is_emptied_of_all_or_of_what_is_old() -> None:
    assert emptying(None)[1] == Asked(empty_trash=True) == emptying(" ")[1]
    assert emptying("30")[1].older == emptying("30d")[1].older == 30 * 86400 and emptying("12h")[1].older == 43200
    with pytest.raises(BadInput, match="'long"):
        emptying("long")


# -- what is shown ---------------------------------------------------------------------------------------------------------


def shown(made: Training, rules: Rules, asked: Asked) -> tuple[Desk, str]:
    desk = Desk(bench_of(made))
    name = desk.preview([], rules, asked, "")
    survey = desk._previews[name]
    assert survey.wait(60), survey.progress
    return desk, name


def test_a_preview_has_all_that_goes_once_and_says_the_same_thing_once(made: Training) -> None:
    desk, name = shown(made, Rules(True, 1), Asked(True, frozenset({"converted", "optimizer"}), unjudged=True))
    preview = desk.previewed(name)
    assert preview is not None
    value = plan_value(preview)
    assert [(group["key"], len(group["items"])) for group in value["groups"]] == [("compact", 1), ("optimizer", 2), ("checkpoint", 2)]
    assert sum(len(group["items"]) for group in value["groups"]) == len(preview.plan.changes)
    (checkpoints,) = [group for group in value["groups"] if group["key"] == "checkpoint"]
    assert checkpoints["notes"] == ["no rule keeps it; undone by Bring back, until the trash is emptied"]
    assert all(item["why"] == "" for item in checkpoints["items"]), checkpoints
    assert value["bars"][0]["share"] == 1.0 > value["bars"][1]["share"]
    assert "move 4 things to the trash" in confirmation(preview) and "final" not in confirmation(preview)


def test_the_page_begins_with_the_window_of_the_verdict_and_the_last(made: Training) -> None:
    fields = Fields(USUAL_WHAT, USUAL_KEEP, USUAL_LAST, "", "", "", USUAL_AGE, "")
    bench = bench_of(made)
    plan = bench.plan_cleanup(bench.library().runs, *rules_of(fields), best=lambda run: {f"{RUN}@1000"})
    stay = {item.checkpoint: item.why for item in plan.items if item.action == "keep" and item.path.is_dir()}
    assert stay == {f"{RUN}@1000": "among the best, which cannot be told apart", f"{RUN}@1500": "the last"}
    assert [item.path.name for item in plan.changes if item.action == "trash" and item.path.is_dir()] == ["checkpoint-500"]
    assert not any("optimizer" in item.path.name for item in plan.changes)


def test_what_stays_stands_below_its_reason_and_no_byte_of_it_is_told_twice(made: Training) -> None:
    second = made.outputs / "group" / RUN
    shutil.copytree(made.run, second)
    grow_old(made.outputs)
    bench_of(made).star(f"{RUN}@500")
    desk, name = shown(made, Rules(True, 1, min_age=10 * OLD), Asked(True, unjudged=True))
    survey = desk._previews[name]
    assert survey.value is not None
    kept = plan_value(survey.value)["kept"]
    labels = [row["label"] for row in kept["items"]]
    assert len(labels) == len(set(labels)) and any(label.startswith(f"group/{RUN}/") for label in labels)
    heads = [row["head"] for row in kept["items"] if row["head"]]
    assert len(heads) == len(set(heads)) < len(labels) and all(row["why"] == "" for row in kept["items"])
    whole = sum(item.bytes for item in survey.value.plan.items if item.path.is_dir())
    assert kept["text"] == size_text(whole) and len(labels) == 12


def test_what_may_not_be_done_cannot_be_started(made: Training) -> None:
    before = contents(made.outputs)
    desk, name = shown(made, Rules(True, 5), Asked())
    assert desk.previewed(name) is None and plan_value(desk._previews[name].value)["note"] == "Nothing would go."  # type: ignore[arg-type]
    for unknown in (name, "", "17"):
        with pytest.raises(BadInput, match="no longer known"):
            desk.start(unknown)
    assert contents(made.outputs) == before


def test_a_preview_is_done_once(made: Training) -> None:
    desk, name = shown(made, Rules(True, 1), Asked())
    desk.start(name)
    with pytest.raises(BadInput, match="no longer known"):
        desk.start(name)


def test_a_page_that_may_only_look_gets_no_way_to_bring_anything_back(made: Training) -> None:
    convert(made, force=True)
    plan = bench_of(made).plan_cleanup(bench_of(made).library().runs, Rules())
    with_ways, without = (overview_value(plan, {RUN: "Shoes"}, writable, None) for writable in (True, False))
    assert [one["kind"] for one in with_ways["undo"]] == ["trash"] and without["undo"] == [] and not without["writable"]
    assert with_ways["runs"] == without["runs"] and with_ways["runs"][0]["label"] == "Shoes"
    assert sum(part["share"] for part in without["runs"][0]["parts"]) == pytest.approx(1)
    assert sum(part["share"] for part in without["disks"][0]["parts"]) == pytest.approx(1)
    assert str(made.run) not in str(without), "where things lie is the owner's to know"


def test_a_run_whose_size_differs_from_that_in_the_list_says_why(made: Training) -> None:
    bench = bench_of(made)
    runs = bench.library().runs
    plan = bench.plan_cleanup(runs, Rules())
    assert plan.runs[0]["listed_bytes"] == runs[0].bytes

    def sub(listed: float) -> str:
        told = replace(plan, runs=({**plan.runs[0], "listed_bytes": listed},))
        return str(overview_value(told, {str(plan.runs[0]["run"]): str(plan.runs[0]["run"])}, True, None)["runs"][0]["sub"])

    whole = sum(plan.runs[0]["parts"].values())  # type: ignore[attr-defined]
    assert sub(whole) == ""
    assert sub(1) == "1 B in the list of runs, which leaves out logs, training states and trash beside it"
    assert sub(5e12) == "5.0 TB in the list of runs, which counts a file once for each of its names"


def test_a_training_for_which_the_disk_is_too_small_is_told_so(made: Training) -> None:
    (told,) = (plan := bench_of(made).plan_cleanup(bench_of(made).library().runs, Rules())).runs
    coming = {"checkpoints": 5, "checkpoint_bytes": 2, "needed_bytes": 10 * 10**9, "free_bytes": 3 * 10**9, "fits": False}
    (disk,) = plan.disks
    short = replace(
        plan, runs=(dict(told) | {"state": "training", "forecast": coming},), disks=(dict(disk) | {"forecast": coming | {"trainings": 1}},)
    )
    value = overview_value(short, {}, True, None)
    for one in (value["runs"][0], value["disks"][0]):
        assert one["forecast"]["bad"] and one["forecast"]["text"].endswith(
            "5 checkpoints, 10.0 GB more, and only 3.0 GB are free: that is not enough."
        )
    assert value["runs"][0]["live"]


def test_a_run_that_came_while_others_were_being_read_is_measured_too(made: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    from cmp.workbench import lookout

    monkeypatch.setattr(lookout, "_MOMENT", 0.0)  # nothing is read at once, as on a slow disk
    bench = bench_of(made)
    bench.serves = True
    desk = Desk(bench)
    for name in (None, "other"):
        if name:
            shutil.copytree(made.run, made.outputs / name)
            grow_old(made.outputs)
        desk.measure(fresh=True)
        if desk._measuring:
            assert desk._measuring.wait(60)
        value, under_way = desk.overview()
        assert not under_way and [run["key"] for run in value["runs"]] == sorted([RUN, *([name] if name else [])], key=len, reverse=True)


def looked(desk: Desk) -> list[str]:
    """The runs that the overview has once nothing is looked at any more."""
    while True:
        value, under_way = desk.overview()
        if not under_way:
            return sorted(run["key"] for run in value["runs"])
        if survey := desk._measuring:
            assert survey.wait(60)


@pytest.mark.parametrize("soon", ["while it is looked at", "just after"])
def test_a_run_that_came_since_the_look_began_is_seen_however_soon_the_tab_is_opened_again(
    made: Training, monkeypatch: pytest.MonkeyPatch, soon: str
) -> None:
    bench, gate = bench_of(made), threading.Event()
    settled = bench.settled

    def slowly() -> Any:
        runs = yield from settled()
        gate.wait(60)
        return runs

    monkeypatch.setattr(bench, "settled", slowly)
    monkeypatch.setattr(storage_desk, "_PAUSE", 0.2)
    desk = Desk(bench)
    if soon == "just after":
        gate.set()
        desk.measure()
        assert looked(desk) == [RUN]
    else:
        desk.measure()
    shutil.copytree(made.run, made.outputs / "other")
    grow_old(made.outputs)
    desk.measure()
    gate.set()
    assert looked(desk) == [RUN, "other"]


def test_a_page_that_stays_open_is_shown_what_came_and_looks_no_more_than_that(made: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_PAUSE", "_REST", "_SHARE"):
        monkeypatch.setattr(storage_desk, name, 0)
    desk = Desk(bench := bench_of(made))
    desk.measure()
    assert looked(desk) == [RUN]
    desk.renew()
    assert not desk.overview()[1], "nothing has changed"
    shutil.copytree(made.run, made.outputs / "other")
    grow_old(made.outputs)
    bench._lookout.forget()  # as after some seconds
    desk.renew()
    assert looked(desk) == [RUN, "other"]


def test_many_who_look_at_once_are_answered_by_one_look(made: Training) -> None:
    bench, looks = bench_of(made), 0
    desk = Desk(bench)
    planning = bench.planning

    def counting(*given: Any, **named: Any) -> Any:
        nonlocal looks
        looks += 1
        return planning(*given, **named)

    bench.planning = counting  # type: ignore[method-assign]
    for _ in range(20):
        desk.measure()
        desk.overview()
    assert looked(desk) == [RUN] and looks <= 3


def test_a_folder_whose_headers_are_in_hand_is_waited_for(made: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    from cmp.core.stages import UNREAD
    from cmp.disk import scan
    from cmp.workbench import lookout

    monkeypatch.setattr(lookout, "_MOMENT", 0.0)
    bench, in_hand, gate = bench_of(made), threading.Event(), threading.Event()
    bench.serves = True
    recognise, library = scan._recognise, bench.library

    def slowly(*given: Any) -> Any:
        if not bench._lookout.unread:  # it is the last one
            in_hand.set()
            gate.wait(60)
        return recognise(*given)

    def just_then(**named: Any) -> Any:
        found = library(**named)
        assert in_hand.wait(60)
        return found

    monkeypatch.setattr(scan, "_recognise", slowly)
    monkeypatch.setattr(bench, "library", just_then)
    work = bench.settled()
    assert "reading" in next(work).what, "all was taken for read while the last folder was being read"
    gate.set()
    (run,) = run_through(work)
    assert [c.step for c in run.checkpoints] == [500, 1000, 1500] and all(c.layout != UNREAD for c in run.checkpoints)


# -- surveys ---------------------------------------------------------------------------------------------------------------


def test_a_survey_nobody_waits_for_ends_at_its_next_step_and_closes_its_work() -> None:
    go, closed = threading.Event(), threading.Event()

    def work() -> Generator[Progress, None, int]:
        try:
            for n in range(1000):
                yield Progress(n, 1000, "x")
                go.wait(60)
        finally:
            closed.set()
        return 1

    survey = Survey(work())
    survey.stop()
    go.set()
    assert survey.wait(60) and closed.is_set() and survey.value is None and isinstance(survey.error, Cancelled)


def test_a_survey_tells_its_value_or_what_stands_against_it() -> None:
    def fails() -> Generator[Progress, None, int]:
        yield Progress(0, 1, "x")
        raise Refused("not this one", "")

    def works() -> Generator[Progress, None, int]:
        yield Progress(0, 1, "x")
        return 7

    good, bad = Survey(works()), Survey(fails())
    assert good.wait(60) and (good.value, good.error) == (7, None)
    assert bad.wait(60) and bad.value is None and isinstance(bad.error, Refused)


def test_a_run_of_several_compacted_checkpoints_can_be_restored_at_once() -> None:
    one = {"run": "r", "folder": "/r", "trash": [], "compacted": [{"checkpoint": f"r@{step}", "restore_bytes": 1000} for step in (1, 2)]}
    rows = list(_undo([one, one | {"run": "s", "compacted": [{"checkpoint": "s@1", "restore_bytes": 1}]}]))
    assert [(row["key"], row["act"]) for row in rows] == [("r", "Restore all"), ("r@1", "Restore"), ("r@2", "Restore"), ("s@1", "Restore")]
    assert rows[0]["text"] == "2.0 kB"
