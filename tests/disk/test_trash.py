"""Removal that can be undone: what goes, what stays whatever is asked, and what comes back."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from cmp.core.progress import Progress
from cmp.core.storage import Item, parse_rules
from cmp.disk.trash import FOLDER, list_trash, reclaiming, tidy
from cmp.disk.usage import freed_by, occupied
from cmp.errors import Locked, Refused
from cmp.workbench.storing import NotDone, Restored
from tests.in_process import command
from tests.storing import RUN, cmp, contents, dumped, frozen_run, grow_old
from tests.support import Training, adapter_tensors, bench_of, convert, diffusers_run, save, write_log


@pytest.fixture
def made(tmp_path: Path) -> Training:
    return frozen_run(tmp_path, (500, 1000, 1500))


def steps_in(made: Training) -> list[int]:
    return sorted(int(path.name.partition("-")[2]) for path in (made.run / "checkpoints").iterdir())


def test_nothing_is_changed_without_yes(made: Training) -> None:
    before = contents(made.outputs)
    for arguments in (
        ["--keep", "last"],
        ["--compact"],
        ["--drop", "optimizer,converted"],
        ["--max-count", "1", "--dry-run"],
        ["--empty-trash"],
    ):
        said = cmp(made, "storage", *arguments)
        assert said.code == 0 and said.json["done"] is False, said.told
    assert contents(made.outputs) == before and not (made.run / FOLDER).exists()


def test_what_went_comes_back_as_it_was(made: Training) -> None:
    before = contents(made.run)
    said = cmp(made, "storage", "--keep", "last", "--yes")
    gone = [item for item in said.json["items"] if item["action"] == "trash"]
    assert said.code == 0 and steps_in(made) == [1500] and len(gone) == 2
    assert said.json["after_bytes"] >= said.json["before_bytes"], "a trash frees nothing before it is emptied"
    for item in gone:
        assert item["undo"] == f"restore {item['trash_id']}"
        assert cmp(made, "restore", item["trash_id"]).json["restored"][0]["path"] == item["path"]
    assert contents(made.run) == before


def test_storage_names_what_lies_in_the_trash_and_restore_finds_a_checkpoint_there(made: Training, tmp_path: Path) -> None:
    before = contents(made.run)
    cmp(made, "storage", "--keep", "last", "--yes")
    told = command(tmp_path / "home", "--runs", str(made.outputs), "storage").out
    assert all(each.id in told and str(each.path) in told for each in list_trash(made.run))
    unknown = cmp(made, "restore", f"{RUN}@700")
    assert unknown.code == 3 and all(each.id in unknown.json["hint"] for each in list_trash(made.run)), unknown.told
    record = next((made.run / FOLDER).glob(".*checkpoint-500.json"))
    told = json.loads(record.read_text())
    assert told.pop("names") == ["@500"]
    record.write_text(json.dumps(told))  # as older versions wrote it
    for step in (500, 1000):
        assert cmp(made, "restore", f"{RUN}@{step}").json["restored"][0]["path"] == str(made.checkpoint(step))
    assert contents(made.run) == before and cmp(made, "restore", f"{RUN}@500").code == 2


def test_of_two_checkpoints_of_one_name_in_the_trash_restore_names_both_and_takes_neither(made: Training) -> None:
    for _ in range(2):
        cmp(made, "storage", "--keep", "last", "--yes")
        shutil.copytree(list_trash(made.run)[0].place, made.checkpoint(500))
        grow_old(made.run)
    shutil.rmtree(made.checkpoint(500))
    twice = [each for each in list_trash(made.run) if each.path == made.checkpoint(500)]
    refused = cmp(made, "restore", f"{RUN}@500")
    assert len(twice) == 2 and refused.code == 3 and all(each.id in refused.json["hint"] for each in twice)
    assert steps_in(made) == [1500]


def test_a_run_that_is_named_by_its_path_can_be_thinned_and_brought_back_from_anywhere(made: Training, tmp_path: Path) -> None:
    before = contents(made.run)
    (tmp_path / "nothing").mkdir()
    other = Training(made.run, tmp_path / "nothing", made.bases)
    assert cmp(other, "storage", str(made.run), "--keep", "last", "--yes").code == 0
    for each in list_trash(made.run):
        assert cmp(other, "restore", str(each.place)).code == 0
    assert contents(made.run) == before


def test_an_emptied_trash_frees_what_was_told(made: Training) -> None:
    size = occupied([made.checkpoint(500), made.checkpoint(1000)])
    cmp(made, "storage", "--keep", "last", "--yes")
    told = cmp(made, "storage", "--empty-trash").json
    assert told["before_bytes"] - told["after_bytes"] == size == told["runs"][0]["could_be_freed"]["trash"]
    assert cmp(made, "storage", "--empty-trash", "--min-age", "30d", "--yes").json["items"] == []
    assert len(list_trash(made.run)) == 2
    assert cmp(made, "storage", "--empty-trash", "--yes").code == 0
    assert list_trash(made.run) == () and occupied([made.run / FOLDER]) == 0


def test_what_was_just_moved_is_not_deleted_by_the_same_command(made: Training) -> None:
    assert cmp(made, "storage", "--keep", "last", "--empty-trash", "--yes").code == 0
    assert len(list_trash(made.run)) == 2


def test_nothing_is_brought_back_over_something_else(made: Training) -> None:
    (one, _) = [i for i in cmp(made, "storage", "--keep", "last", "--yes").json["items"] if i["action"] == "trash"]
    Path(one["path"]).mkdir()
    said = cmp(made, "restore", one["trash_id"])
    assert said.code == 5 and "exists again" in said.json["error"] and len(list_trash(made.run)) == 2


@pytest.mark.parametrize("path", ["../../../elsewhere", "/etc/elsewhere", "a/../../../../x"])
def test_a_record_that_leads_out_of_the_run_brings_nothing_back(made: Training, path: str) -> None:
    cmp(made, "storage", "--keep", "last", "--yes")
    for record in (made.run / FOLDER).glob(".*.json"):
        record.write_text(json.dumps(json.loads(record.read_text()) | {"path": path}))
    said = cmp(made, "restore", list_trash(made.run)[0].id)
    assert said.code == 5 and "not recorded" in said.json["error"]


def test_a_trash_that_is_a_link_is_refused(made: Training, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (made.run / FOLDER).symlink_to(tmp_path / "elsewhere")
    assert cmp(made, "storage", "--keep", "last", "--yes").code == 5 and steps_in(made) == [500, 1000, 1500]


# -- what stays ------------------------------------------------------------------------------------------------------------


def kept(made: Training, rules: str = "every:7", **more: object) -> dict[str, str]:
    bench = bench_of(made)
    plan = bench.plan_cleanup(bench.library().runs, parse_rules(rules), **more)  # type: ignore[arg-type]
    return {str(item.checkpoint).rpartition("@")[2]: item.why for item in plan.items if item.action == "keep"}


def test_starred_young_final_and_flawed_checkpoints_stay(tmp_path: Path) -> None:
    made = frozen_run(tmp_path, (500, 1000, 1500, 2000), final=True)
    save(made.run / "lora_weights" / "adapter_model.safetensors", {f"base_model.model.{n}": v for n, v in adapter_tensors(7).items()})
    grow_old(made.run)
    grow_old(made.checkpoint(500), 600)
    (made.checkpoint(1500) / "model.safetensors").write_bytes(b"half")
    grow_old(made.checkpoint(1500))
    stays = kept(made, stars={f"{RUN}@1000": "good"})
    assert {key: why.split()[0] for key, why in stays.items()} == {"500": "written", "1000": "starred", "1500": "nobody", "final": "what"}


def test_a_starred_alias_keeps_the_checkpoint_that_bears_it(made: Training) -> None:
    bench = bench_of(made)
    (run,) = bench.library().runs
    aliased = replace(run, checkpoints=tuple(replace(c, aliases=(f"{RUN}@final",)) if c.step == 500 else c for c in run.checkpoints))
    plan = bench.plan_cleanup([aliased], parse_rules("last"), stars={f"{RUN}@final": ""})
    assert [item.why for item in plan.items if item.checkpoint == f"{RUN}@500"] == ["starred"]


def test_the_last_copy_of_what_is_starred_is_not_deleted_from_the_trash(made: Training) -> None:
    """It was moved there by somebody who did not know of the star."""
    assert cmp(made, "star", f"{RUN}@500").code == 0
    stranger = ("--runs", str(made.outputs), "--bases", str(made.bases), "storage", "--keep", "last", "--yes")
    assert command(made.outputs.parent / "another-home", *stranger).code == 0 and steps_in(made) == [1500]
    said = cmp(made, "storage", "--empty-trash", "--yes")
    (left,) = list_trash(made.run)
    assert said.code == 0 and left.path == made.checkpoint(500), said.told
    assert [item["why"][:7] for item in said.json["items"] if item["action"] == "keep"] == ["starred"]
    assert cmp(made, "restore", left.id).code == 0
    assert cmp(made, "star", f"{RUN}@500", "--off").code == 0
    assert cmp(made, "storage", "--keep", "last", "--yes").code == cmp(made, "storage", "--empty-trash", "--yes").code == 0
    assert list_trash(made.run) == ()


def test_a_verb_for_stars_is_asked_where_there_is_one(made: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench_of(made)
    monkeypatch.setattr(type(bench), "starred", lambda self, run: {"500": "good"}, raising=False)
    plan = bench.plan_cleanup(bench.library().runs, parse_rules("last"))
    assert [item.path.name for item in plan.changes] == ["checkpoint-1000"]


def test_the_best_stays_where_a_verdict_says_which_and_is_refused_otherwise(made: Training) -> None:
    said = cmp(made, "storage", "--keep", "best", "--yes")
    assert said.code == 5 and "the best" in said.json["error"] and steps_in(made) == [500, 1000, 1500]
    assert list(kept(made, "best", best=lambda run: {f"{RUN}@1000"})) == ["1000"]
    with pytest.raises(Refused, match="no verdict"):
        kept(made, "best", best=lambda run: set())


def test_a_run_in_training_is_never_touched(made: Training) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    convert(made)
    shutil.rmtree(made.outputs.parent / "logs")
    log = write_log(made.run / "logs" / "run", [(1, 0.5)], max_train_steps=3000, checkpointing_steps=500)
    event = Event(wall_time=time.time(), step=1500)
    event.summary.value.add(tag="loss", simple_value=0.5)
    with open(log, "wb") as file:
        RecordWriter(file).write(event.SerializeToString())
    before = contents(made.run)
    said = cmp(made, "storage", "--keep", "last", "--compact", "--drop", "optimizer,converted", "--min-age", "0", "--yes")
    assert said.code == 0 and {item["action"] for item in said.json["items"]} == {"keep"}, said.told
    assert all(item["why"].endswith("the run is being trained") for item in said.json["items"]) and contents(made.run) == before
    (run,) = said.json["runs"]
    assert run["state"] == "training" and run["forecast"]["checkpoints"] == 3 and run["forecast"]["fits"] is True


def test_a_run_that_began_to_grow_since_the_plan_is_left_alone(made: Training) -> None:
    bench = bench_of(made)
    plan = bench.plan_cleanup(bench.library().runs, parse_rules("last"))
    with open(made.checkpoint(1500) / "optimizer.bin", "ab") as file:
        file.write(b"more")
    done = [step for step in bench.clean_up(plan) if not isinstance(step, Progress)]
    assert len(done) == 2 and all(isinstance(each, NotDone) and "being trained" in each.error.message for each in done)
    assert steps_in(made) == [500, 1000, 1500]


def test_what_changed_since_the_plan_stays(made: Training) -> None:
    bench = bench_of(made)
    plan = bench.plan_cleanup(bench.library().runs, parse_rules("last"))
    (made.checkpoint(500) / "scheduler.bin").write_bytes(b"other bytes!")
    done = [step for step in bench.clean_up(plan) if not isinstance(step, Progress)]
    assert [type(each) for each in done] == [NotDone, Item] and steps_in(made) == [500, 1500]


def test_averages_within_a_checkpoint_go_and_stay_with_it(tmp_path: Path) -> None:
    made = frozen_run(tmp_path, (500, 1000))
    for step in (500, 1000):
        shutil.copytree(made.checkpoint(step), made.checkpoint(step) / "unet_ema")
    grow_old(made.run)
    assert kept(made, "last")["1000"] == "the last"
    plan = bench_of(made).plan_cleanup(bench_of(made).library().runs, parse_rules("last"))
    assert [item.path for item in plan.changes] == [made.checkpoint(500)]
    assert set(kept(made, "last", stars={f"{RUN}@500~unet_ema": ""})) == {"500", "1000"}


# -- forms and optimizers --------------------------------------------------------------------------------------------------


def test_a_form_that_can_be_made_again_goes_first_and_one_that_cannot_stays(made: Training) -> None:
    again = convert(made, target=f"{RUN}@500").output
    other = convert(made, target=f"{RUN}@1000").output
    save(made.checkpoint(1000) / "model.safetensors", dumped(7), {"format": "pt"})  # trained anew since
    grow_old(made.run)
    items = cmp(made, "storage", "--drop", "converted", "--max-count", "2").json["items"]
    assert [(item["action"], item["path"]) for item in items][:2] == [("keep", str(other)), ("trash", str(made.checkpoint(500)))]
    assert str(again) not in {item["path"] for item in items}, "the form of a checkpoint that goes is all that is left of it"
    assert cmp(made, "storage", "--drop", "converted", "--yes").code == 0
    assert not again.exists() and other.exists()
    (trashed,) = list_trash(made.run)
    assert [step.path for step in bench_of(made).restore(trashed.id) if isinstance(step, Restored)] == [again] and again.exists()


def test_optimizers_are_dropped_only_if_asked_and_it_is_said_what_that_means(made: Training) -> None:
    items = [item for item in cmp(made, "storage", "--drop", "optimizer", "--yes").json["items"] if item["action"] == "trash"]
    assert sorted(Path(item["path"]).name for item in items) == ["optimizer.bin"] * 3 + ["scheduler.bin"] * 3
    assert all("no training can be resumed" in item["why"] for item in items)
    assert (made.checkpoint(500) / "model.safetensors").exists() and (made.checkpoint(500) / "random_states_0.pkl").exists()


def test_a_lora_run_of_small_files_can_be_thinned_and_has_nothing_to_compact(tmp_path: Path) -> None:
    made = diffusers_run(tmp_path)
    grow_old(tmp_path)
    assert cmp(made, "storage", "--compact").json["items"] == []
    assert cmp(made, "storage", "--keep", "last", "--yes").code == 0
    assert not (made.run / "checkpoint-2").exists() and (made.run / "checkpoint-4").exists()
    assert (made.run / "pytorch_lora_weights.safetensors").exists(), "what the training ended with"


# -- counting, locks -------------------------------------------------------------------------------------------------------


def test_a_file_of_several_names_is_counted_once_and_frees_nothing_while_one_is_left(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one").write_bytes(b"12345")
    os.link(tmp_path / "a" / "one", tmp_path / "a" / "two")
    os.link(tmp_path / "a" / "one", tmp_path / "outside")
    assert occupied([tmp_path / "a", tmp_path / "outside"]) == occupied([tmp_path]) == 5
    assert freed_by([tmp_path / "a"]) == 0 and freed_by([tmp_path / "a", tmp_path / "outside"]) == 5


def test_a_second_process_waits_for_the_first(made: Training) -> None:
    with reclaiming(made.run):
        said = cmp(made, "storage", "--keep", "last", "--yes")
        assert said.code == 75 and steps_in(made) == [500, 1000, 1500], said.told
        with pytest.raises(Locked), reclaiming(made.run):
            pass
    assert cmp(made, "storage", "--keep", "last", "--yes").code == 0


def test_a_folder_that_cannot_be_written_is_refused_and_not_crashed_into(made: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    (made.run / FOLDER).write_bytes(b"a file of that name")
    assert cmp(made, "storage", "--keep", "last", "--yes").code == 5


def test_records_of_what_never_came_are_tidied_away(made: Training) -> None:
    with reclaiming(made.run):
        (made.run / FOLDER / ".never-came.json").write_text("{}")
        (made.run / FOLDER / ".gone-half").mkdir()
        assert tidy(made.run) == ("deleted the rest of half",)
    assert [path.name for path in (made.run / FOLDER).iterdir()] == [".lock"]


@pytest.mark.parametrize(
    "arguments, code",
    [
        (["--keep", "newest"], 2), (["--max-size", "much"], 2), (["--min-age", "long"], 2), (["--drop", "all"], 2),
        (["--max-count", "0"], 2), (["--yes", "--dry-run"], 2), ([f"{RUN}@500"], 2), (["nothing"], 3), ([RUN], 0),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_quoted(made: Training, arguments: list[str], code: int) -> None:
    said = cmp(made, "storage", *arguments)
    assert said.code == code and not said.crashed, said.told


def test_what_is_not_compacted_is_not_restored(made: Training) -> None:
    assert cmp(made, "restore", f"{RUN}@500").code == 2 and cmp(made, "restore", "20260101T000000-00000000-x").code == 3
