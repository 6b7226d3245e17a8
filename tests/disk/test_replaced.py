"""What `convert --force` replaced comes back: to its place where that is free, else beside what took it; and nothing is lost meanwhile."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cmp.disk.replaced import make_way, put_back
from cmp.disk.trash import FOLDER, list_trash
from tests.storing import RUN, cmp, contents, frozen_run
from tests.support import Training, bench_of, convert


@pytest.fixture
def made(tmp_path: Path) -> Training:
    made = frozen_run(tmp_path, (500,))
    convert(made)
    return made


def target(made: Training) -> Path:
    return made.run / "converted" / "lora" / f"{RUN}-500.safetensors"


def trashed(made: Training) -> dict[str, object]:
    (run,) = cmp(made, "storage").json["runs"]
    (one,) = run["trash"]
    return one


def test_it_is_listed_with_where_it_was_and_why_it_went(made: Training) -> None:
    size = target(made).stat().st_size
    convert(made, force=True)
    one = trashed(made)
    assert one["path"] == str(target(made)) and one["why"] == "replaced by convert --force (form lora)" and one["bytes"] == size


def test_beside_what_took_its_place_it_comes_back_and_the_new_one_stays(made: Training) -> None:
    target(made).write_bytes(b"the old one")
    convert(made, force=True)
    new = target(made).read_bytes()
    said = cmp(made, "restore", str(trashed(made)["trash_id"]))
    (back,) = [Path(one["path"]) for one in said.json["restored"]]
    assert said.code == 0 and back.parent == target(made).parent and ".before-" in back.name and back.suffix == ".safetensors"
    assert back.read_bytes() == b"the old one" and target(made).read_bytes() == new and list_trash(made.run) == ()
    assert list((made.run / FOLDER).glob(".*.json")) == [], "its record went with it"


def test_two_that_were_replaced_come_back_as_two(made: Training) -> None:
    for _ in range(2):
        convert(made, force=True)
    (run,) = cmp(made, "storage").json["runs"]
    paths = {cmp(made, "restore", one["trash_id"]).json["restored"][0]["path"] for one in run["trash"]}
    assert len(paths) == 2 and str(target(made)) not in paths


def test_where_its_place_is_free_it_is_there_again(made: Training) -> None:
    before = contents(made.run)
    convert(made, force=True)
    target(made).unlink()
    assert cmp(made, "restore", str(trashed(made)["trash_id"])).json["restored"][0]["path"] == str(target(made))
    assert contents(made.run) == before


def test_what_is_brought_back_beside_is_no_checkpoint_and_no_form_of_one(made: Training) -> None:
    convert(made, force=True)
    before = bench_of(made).library().runs
    cmp(made, "restore", str(trashed(made)["trash_id"]))
    after = bench_of(made).library().runs
    assert [c.id for run in after for c in run.checkpoints] == [c.id for run in before for c in run.checkpoints]
    assert [c.converted for run in after for c in run.checkpoints] == [c.converted for run in before for c in run.checkpoints]


def test_one_without_a_record_is_told_and_stays_until_it_is_deleted(made: Training) -> None:
    convert(made, force=True)
    for record in (made.run / FOLDER).glob(".*.json"):  # as versions before this one left it
        record.unlink()
    one = trashed(made)
    assert (one["path"], one["why"]) == (None, "replaced by convert --force (form lora)")
    said = cmp(made, "restore", str(one["trash_id"]))
    assert said.code == 5 and FOLDER in said.json["hint"]
    assert cmp(made, "storage", "--empty-trash", "--yes").code == 0 and list_trash(made.run) == ()


@pytest.mark.parametrize("path", ["../../elsewhere", "/etc/x"])
def test_a_record_that_leads_out_of_the_folder_brings_nothing_back(made: Training, path: str) -> None:
    convert(made, force=True)
    for record in (made.run / FOLDER).glob(".*.json"):
        record.write_text(json.dumps(json.loads(record.read_text()) | {"path": path}))
    assert cmp(made, "restore", str(trashed(made)["trash_id"])).code == 5


def test_a_conversion_that_fails_leaves_what_was_there_and_nothing_in_the_trash(made: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    from cmp.workbench import Workbench

    def full(*_: object) -> Iterator[object]:
        raise OSError("the disk is full")
        yield

    before = contents(made.run)
    bench = bench_of(made)
    plan = bench.plan_conversion(f"{RUN}@500", "lora", force=True)
    monkeypatch.setattr(Workbench, "_carry_out", full)
    with pytest.raises(OSError, match="full"):
        list(bench.convert(plan))
    assert contents(made.run) == before and list((made.run / FOLDER).iterdir()) == []


def test_a_name_as_long_as_the_disk_takes_is_moved_away_and_back(tmp_path: Path) -> None:
    long = tmp_path / ("ä" * 120 + ".safetensors")
    long.write_bytes(b"1")
    moved = make_way(long, tmp_path)
    assert moved is not None and len(os.fsencode(moved.name)) <= 249
    put_back(moved, long)
    assert long.read_bytes() == b"1" and list((tmp_path / FOLDER).iterdir()) == []


def test_what_stood_in_for_a_run_that_cannot_be_written_is_found_too(made: Training) -> None:
    bench = bench_of(made)
    (run,) = bench.library().runs
    elsewhere = bench.store.stand_in(run.place) / "converted" / "lora" / "x.safetensors"
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_bytes(b"old")
    make_way(elsewhere, run.folder)
    (one,) = [t for home in bench._homes([run]) for t in list_trash(home)]
    assert one.path == elsewhere
    list(bench.restore(one.id))
    assert elsewhere.read_bytes() == b"old"
