from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
import yaml
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter

from cmp.disk.folders import Folder, list_folder
from cmp.disk.logs import match
from cmp.disk.logs.curves import read_curves
from cmp.disk.logs.hparams import read_output_dir
from cmp.disk.logs.match import Tracker, logs_of_run

NOW = 1795430000


def log(tracker: Path, time: int = NOW, host: str = "vm", pid: int = 7, count: int = 0, loss: float = 0.5) -> Path:
    """An event file with three values as SummaryWriter names it."""
    out = io.BytesIO()
    writer = RecordWriter(out)
    for step in (1, 2, 3):
        event = Event(wall_time=time + step, step=step)
        event.summary.value.add(tag="loss", simple_value=loss)
        writer.write(event.SerializeToString())
    tracker.mkdir(parents=True, exist_ok=True)
    path = tracker / f"events.out.tfevents.{time}.{host}.{pid}.{count}"
    path.write_bytes(out.getvalue())
    return path


def start(tracker: Path, output_dir: str | None, time: int = NOW, pid: int = 7, second: bool = True, **settings: object) -> Path:
    """One start of a training as Accelerate's tracker leaves it: log, second event file and settings."""
    main = log(tracker, time, pid=pid)
    if second:
        log(tracker / f"{time}.725677", time, pid=pid, count=1, loss=9.0)
    folder = tracker / f"{time}.7268877"
    folder.mkdir()
    named = {} if output_dir is None else {"output_dir": output_dir}
    (folder / "hparams.yml").write_text(yaml.dump({**named, "hub_token": "hf_secret", **settings}))
    return main


def run_in(training: Path, name: str = "lora_casual_shoes_3000steps_full") -> Path:
    run = training / "outputs" / name
    (run / "checkpoints" / "checkpoint-500").mkdir(parents=True)
    return run


def test_logs_beside_the_outputs_are_found_by_the_output_folder_in_their_settings(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    main = start(tmp_path / "logs" / "train_lora_casual_shoes", f"../outputs/{run.name}", lora_rank=8, lora_alpha=16)
    (found,) = logs_of_run(run)
    assert found.path == main.parent and found.event_files == (main,)
    assert found.hparams is not None and (found.hparams["lora_rank"], found.hparams["lora_alpha"]) == (8, 16)
    assert "hub_token" not in found.hparams
    assert run.name in found.why


def test_two_runs_that_log_into_one_folder_get_their_own_files(tmp_path: Path) -> None:
    first, second = run_in(tmp_path, "first"), run_in(tmp_path, "second")
    tracker = tmp_path / "logs" / "text2image-fine-tune"
    of_first = start(tracker, "outputs/first", NOW, pid=7, rank=4)
    of_second = start(tracker, "outputs/second/", NOW + 1, pid=8, rank=8)
    again = start(tracker, "outputs/first", NOW + 900, pid=9, rank=4)
    (found,) = logs_of_run(first)
    assert found.event_files == (of_first, again) and found.hparams is not None and found.hparams["rank"] == 4
    (other,) = logs_of_run(second)
    assert other.event_files == (of_second,) and other.hparams is not None and other.hparams["rank"] == 8


def test_starts_of_the_same_second_are_told_apart_by_their_process(tmp_path: Path) -> None:
    runs = [run_in(tmp_path, name) for name in ("first", "second")]
    tracker = tmp_path / "logs" / "tracker"
    expected = {}
    for pid, run, moment in ((7, runs[0], "10"), (8, runs[1], "50")):
        expected[run] = log(tracker, NOW, pid=pid)
        log(tracker / f"{NOW}.{moment}", NOW, pid=pid, count=1)
        folder = tracker / f"{NOW}.{moment}2"
        folder.mkdir()
        (folder / "hparams.yml").write_text(f"output_dir: outputs/{run.name}\n")
    for run in runs:
        (found,) = logs_of_run(run)
        assert found.event_files == (expected[run],)


def test_the_same_process_number_in_every_container_does_not_mix_starts(tmp_path: Path) -> None:
    run = run_in(tmp_path, "second")
    tracker = tmp_path / "logs" / "tracker"
    start(tracker, "outputs/first", NOW, pid=1)
    mine = start(tracker, "outputs/second", NOW + 600, pid=1)
    (found,) = logs_of_run(run)
    assert found.event_files == (mine,)


def test_without_the_second_event_file_the_nearest_log_within_seconds_counts(tmp_path: Path) -> None:
    run = run_in(tmp_path, "mine")
    tracker = tmp_path / "logs" / "tracker"
    log(tracker, NOW - 300)
    mine = start(tracker, "outputs/mine", NOW, second=False)
    (found,) = logs_of_run(run)
    assert found.event_files == (mine,)


def test_two_logs_equally_near_to_settings_without_a_process_belong_to_nobody(tmp_path: Path) -> None:
    run = run_in(tmp_path, "mine")
    start(tmp_path / "logs" / "tracker", "outputs/mine", NOW, second=False)
    log(tmp_path / "logs" / "tracker", NOW, pid=99)
    assert [found.event_files for found in logs_of_run(run)] == [()]


@pytest.mark.parametrize(
    "output_dir",
    [
        "outputs/mine",
        "./outputs/mine/",
        "/home/me/training/outputs/mine",
        "mine",
        "../elsewhere/mine",
        "D:\\training\\outputs\\mine",
    ],
)
def test_settings_still_name_the_run_after_everything_was_moved(tmp_path: Path, output_dir: str) -> None:
    run = run_in(tmp_path, "mine")
    start(tmp_path / "logs" / "tracker", output_dir)
    assert len(logs_of_run(run)) == 1


@pytest.mark.parametrize("output_dir", ["outputs/other", "outputs/mine2", "outputs/mine/sub", "outputs", "/", ".", "outputs2/mine", None])
def test_settings_that_name_another_folder_are_no_evidence(tmp_path: Path, output_dir: str | None) -> None:
    run = run_in(tmp_path, "mine")
    (tmp_path / "outputs2" / "mine").mkdir(parents=True)
    start(tmp_path / "logs" / "tracker", output_dir)
    assert logs_of_run(run) == ()


def test_a_folder_of_logs_may_stand_beside_the_run_itself(tmp_path: Path) -> None:
    run = tmp_path / "mine"
    run.mkdir()
    start(tmp_path / "logs" / "tracker", "mine")
    assert len(logs_of_run(run)) == 1


def test_everything_below_the_runs_own_logs_is_its_own(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    main = start(run / "logs" / "text2image-fine-tune", "/somewhere/else", rank=4)
    kohya = log(run / "logs" / "20261123115342" / "network_train", NOW - 50)
    found = logs_of_run(run)
    assert [log.event_files for log in found] == [(kohya,), (main,)]
    assert found[1].hparams is not None and found[1].hparams["rank"] == 4


def test_the_event_file_of_the_settings_is_never_taken_for_a_log(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    start(run / "logs" / "tracker", "x")
    (found,) = logs_of_run(run)
    (curve,), _ = read_curves("run", found.event_files)
    assert set(curve.values.tolist()) == {0.5}


def test_logs_directly_in_the_run_or_one_folder_down_are_found(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    direct, below = log(run, NOW), log(run / "dreambooth", NOW + 5)
    deep = log(run / "tensorboard" / "2026-11-23_12-00-00", NOW + 9)
    log(run / "checkpoints" / "checkpoint-500", NOW)
    log(run / "far" / "too" / "deep", NOW)
    assert [log.event_files for log in logs_of_run(run)] == [(direct,), (below,), (deep,)]


def test_the_newest_readable_settings_of_a_folder_hold(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    tracker = run / "logs" / "tracker"
    start(tracker, "x", NOW, pid=1, rank=4)
    start(tracker, "x", NOW + 100, pid=2, rank=8)
    start(tracker, "x", NOW + 200, pid=3)
    (tracker / f"{NOW + 200}.7268877" / "hparams.yml").write_text("rank: !!python/name:os.system")
    (found,) = logs_of_run(run)
    assert len(found.event_files) == 3 and found.hparams is not None and found.hparams["rank"] == 8
    assert found.hparams_file == tracker / f"{NOW + 100}.7268877" / "hparams.yml"


def test_settings_that_cannot_be_read_are_none_and_say_why(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    folder = run / "logs" / "run" / f"{NOW}.7"
    folder.mkdir(parents=True)
    (folder / "hparams.yml").write_text("rank: 4\nx: !!python/object/apply:builtins.open [a]")
    (found,) = logs_of_run(run)
    assert found.event_files == () and found.hparams is None and found.flaw is not None and "running code" in found.flaw


@pytest.mark.parametrize("tracker", ["shoes", "train_shoes", "shoes/tensorboard", "2026-11-23 shoes", "shoes_20261123115342/network_train"])
def test_without_settings_a_log_folder_that_carries_the_runs_name_is_taken(tmp_path: Path, tracker: str) -> None:
    run = run_in(tmp_path, "shoes")
    run_in(tmp_path, "hats")
    main = log(tmp_path / "logs" / tracker)
    (found,) = logs_of_run(run)
    assert found.event_files == (main,) and "carries the run's name" in found.why


@pytest.mark.parametrize(
    "trackers",
    [["shoes_v2"], ["train_shoes_v2"], ["train_shoes", "eval_shoes"], ["shoestring"], ["text2image-fine-tune"], ["."]],
)
def test_a_name_that_may_mean_another_run_is_no_evidence(tmp_path: Path, trackers: list[str]) -> None:
    run = run_in(tmp_path, "shoes")
    run_in(tmp_path, "shoes_v2")
    for tracker in trackers:
        log(tmp_path / "logs" / tracker)
    assert logs_of_run(run) == ()


def test_the_same_name_goes_before_a_name_that_only_holds_it(tmp_path: Path) -> None:
    run = run_in(tmp_path, "shoes")
    main = log(tmp_path / "logs" / "shoes")
    log(tmp_path / "logs" / "old_shoes")
    assert [found.event_files for found in logs_of_run(run)] == [(main,)]


def test_a_name_does_not_outweigh_settings_that_say_otherwise(tmp_path: Path) -> None:
    run = run_in(tmp_path, "shoes")
    run_in(tmp_path, "hats")
    start(tmp_path / "logs" / "shoes", "outputs/hats")
    assert logs_of_run(run) == ()


def test_links_are_not_followed(tmp_path: Path) -> None:
    run = run_in(tmp_path / "training", "shoes")
    outside = tmp_path / "outside"
    main = log(outside / "shoes")
    os.symlink(outside, tmp_path / "training" / "logs")
    os.symlink(outside, run / "logs")
    os.symlink(main, run / main.name)
    assert logs_of_run(run) == ()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
def test_a_fifo_that_bears_a_logs_name_is_no_log(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    folder = run / "logs" / "run" / f"{NOW}.7"
    folder.mkdir(parents=True)
    os.mkfifo(folder / "hparams.yml")
    os.mkfifo(run / "logs" / "run" / f"events.out.tfevents.{NOW}.vm.1.0")
    assert logs_of_run(run) == ()


def test_the_search_ends_in_a_tree_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(match, "_MOST_FOLDERS", 50)
    run = run_in(tmp_path)
    main = log(run / "logs")
    for place in range(200):
        (run / "logs" / f"z{place}").mkdir()
    listed: list[Path] = []

    def counted(path: Path) -> Folder:
        listed.append(path)
        return list_folder(path)

    monkeypatch.setattr(match, "list_folder", counted)
    (found,) = logs_of_run(run)
    assert found.event_files == (main,) and len(listed) < 70


def test_a_run_without_logs_and_a_run_that_is_gone_have_none(tmp_path: Path) -> None:
    assert logs_of_run(run_in(tmp_path)) == ()
    assert logs_of_run(tmp_path / "gone") == ()


def test_shared_folders_are_read_once_for_all_runs_of_a_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [run_in(tmp_path, f"run{number}") for number in range(4)]
    for number, run in enumerate(runs):
        start(tmp_path / "logs" / "tracker", f"outputs/{run.name}", NOW + 60 * number, pid=number)
    reads: list[Path] = []

    def counted(path: Path) -> str | None:
        reads.append(path)
        return read_output_dir(path)

    monkeypatch.setattr(match, "read_output_dir", counted)
    known: dict[Path, tuple[Tracker, ...]] = {}
    assert [len(logs_of_run(run, known)) for run in runs] == [1, 1, 1, 1]
    assert len(reads) == 4
