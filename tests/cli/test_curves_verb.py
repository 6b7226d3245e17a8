"""`curves`: of runs, of logs on their own, of logs that somebody has said are a run's, and while a training writes them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from cmp.settings import Settings
from cmp.workbench import Workbench
from tests.disk.test_log_readers import CONSOLES, DATA, WANDB
from tests.disk.test_tfevents import NAME as EVENTS
from tests.disk.test_tfevents import record, scalar, write
from tests.in_process import Said, command
from tests.support import NOW, Training, bench_of, origin_run, write_log


@pytest.fixture
def made(tmp_path: Path) -> Training:
    return origin_run(tmp_path / "training")


def say(made: Training, *arguments: str) -> Said:
    return command(made.outputs.parent / "home", "--runs", str(made.outputs), "curves", *arguments, "--json")


@pytest.mark.parametrize(
    ("place", "tags"),
    [
        (WANDB, {"train_loss", "opt.lr"}),
        (DATA / "wandb", {"train_loss", "opt.lr"}),
        (DATA / "mlruns", {"train/loss", "lr"}),
        (DATA / "dvclive", {"train/loss", "lr"}),
        (DATA / "trackio" / "proj.db", {"train_loss", "lr"}),
        (DATA / "t2i_lora_resume", {"train_loss"}),
        (DATA / "acc_peft_r8_a16" / "events.out.tfevents.1795433809.vm.6047.0", {"train_loss", "lr"}),
    ],
)
def test_any_log_opens_on_its_own(tmp_path: Path, place: Path, tags: set[str]) -> None:
    said = command(tmp_path / "home", "--runs", str(tmp_path), "curves", str(place), "--json")
    assert said.code == 0, said.told
    assert {curve["tag"] for curve in said.json["curves"]} == tags and said.json["checkpoints"] == []
    assert said.json["logs"] and all(log["why"] for log in said.json["logs"])


def test_logs_of_several_trainings_in_one_folder_are_not_made_one(tmp_path: Path) -> None:
    for name, loss in (("a", 1.0), ("b", 2.0)):
        write(tmp_path / "logs" / name, [scalar("loss", step, loss) for step in (1, 2)])
    said = command(tmp_path / "home", "--runs", str(tmp_path), "curves", str(tmp_path / "logs"), "--json")
    assert {curve["tag"]: curve["values"] for curve in said.json["curves"]} == {"a/loss": [1.0, 1.0], "b/loss": [2.0, 2.0]}


@pytest.mark.parametrize(("content", "code"), [("nothing of a log\n", 4), (None, 3)])
def test_what_is_no_log_is_said_to_be_none(tmp_path: Path, content: str | None, code: int) -> None:
    if content is not None:
        (tmp_path / "x.txt").write_text(content)
    said = command(tmp_path / "home", "--runs", str(tmp_path), "curves", str(tmp_path / "x.txt"), "--json")
    assert said.code == code and not said.crashed and said.json["error"]


def test_the_match_is_shown_and_can_be_corrected_and_taken_back(made: Training, tmp_path: Path) -> None:
    said = say(made, "lora_casual_shoes")
    assert [log["why"] for log in said.json["logs"]] == ["its settings name the output folder ../outputs/lora_casual_shoes"]
    right = tmp_path / "right" / "train.log"
    right.parent.mkdir()
    right.write_text(CONSOLES["kohya"][0])
    for arguments in (("--logs", str(right.parent)), ()):  # given once, it is remembered
        told = say(made, "lora_casual_shoes", *arguments).json
        assert [curve["tag"] for curve in told["curves"]] == ["avr_loss"] and str(right.parent) in told["logs"][0]["why"]
    bench = bench_of(made)
    assert bench.show("lora_casual_shoes")["answers"] == {"alpha": None, "base": None, "logs": str(right.parent)}
    assert say(made, "lora_casual_shoes", "--logs", "auto").json["curves"][0]["tag"] == "loss"
    assert say(made, "lora_casual_shoes").json["curves"][0]["tag"] == "loss"


def test_the_logs_that_were_answered_are_those_of_the_list_and_of_the_verdict(made: Training, tmp_path: Path) -> None:
    def ask(*arguments: str) -> Any:
        return command(made.outputs.parent / "home", "--runs", str(made.outputs), *arguments, "--json").json

    before = ask("list")["runs"][0]
    right = tmp_path / "right"
    write(
        right, [*(scalar("loss", step, 7.5) for step in range(1, 1001, 100)), scalar("val_loss", 500, 0.75), scalar("val_loss", 1000, 0.25)]
    )
    ask("curves", "lora_casual_shoes", "--logs", str(right))
    told = ask("list")["runs"][0]
    assert (told["last_loss"], told["logs"]) == (7.5, [str(right / EVENTS)]) and before["last_loss"] != 7.5
    verdict = ask("best", "lora_casual_shoes")
    assert {score["step"]: score["value"] for score in verdict["scores"]} == {500: 0.75, 1000: 0.25}
    bench = bench_of(made)
    bench.library()
    with open(right / EVENTS, "ab") as file:
        file.write(record(scalar("loss", 1001, 3.5)))
    assert bench.library().runs[0].last_loss == 3.5
    assert ask("curves", "lora_casual_shoes", "--logs", "auto")["curves"][0]["source"] == before["logs"][0]
    assert ask("list")["runs"][0] == before


def test_an_answer_that_leads_nowhere_is_not_remembered_and_one_whose_logs_went_is_said(made: Training, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert say(made, "lora_casual_shoes", "--logs", str(tmp_path / "empty")).json["curves"] == []
    assert say(made, "lora_casual_shoes", "--logs", str(tmp_path / "gone")).code == 3
    assert say(made, "lora_casual_shoes").json["curves"][0]["tag"] == "loss"
    write_log(tmp_path / "mine", [(1, 9.0)])
    say(made, "lora_casual_shoes", "--logs", str(tmp_path / "mine"))
    shutil.rmtree(tmp_path / "mine")
    told = say(made, "lora_casual_shoes").json
    assert len(told["curves"][0]["steps"]) == 50 and "are gone" in told["notes"][0]


def test_what_a_later_start_wrote_over_is_told_only_when_it_is_asked_for(tmp_path: Path) -> None:
    place = str(DATA / "t2i_lora_resume")
    arguments = ("--runs", str(tmp_path), "curves", place, "--json")
    assert "abandoned" not in command(tmp_path / "home", *arguments).json
    told = command(tmp_path / "home", *arguments, "--abandoned").json
    assert told["curves"][0]["steps"] == list(range(1, 11))
    assert [(one["tag"], one["branch"], one["steps"]) for one in told["abandoned"]] == [("train_loss", 1, [5, 6])]
    kept = dict(zip(told["curves"][0]["steps"], told["curves"][0]["wall_times"], strict=True))
    assert all(kept[4] < time < kept[5] for time in told["abandoned"][0]["wall_times"]), "logged before the resume"


def test_what_a_training_appends_is_in_the_next_answer(made: Training) -> None:
    bench = bench_of(made)
    run, _ = bench.find("lora_casual_shoes")
    before = bench.curves(run).curves[0]
    assert before.steps[-1] == 50
    whole = record(scalar("loss", 51, 0.125))
    for piece, last in ((whole[:20], 50), (whole[20:], 51)):
        with open(run.logs[0], "ab") as file:
            file.write(piece)
        assert bench.curves(run).curves[0].steps[-1] == last
    assert before.steps.size == 50


def test_a_start_that_is_added_is_found_by_a_program_that_runs(made: Training) -> None:
    bench = Workbench(Settings(made.outputs.parent / "home", (made.outputs,)))
    (tracker,) = (made.outputs.parent / "logs").iterdir()
    assert bench.curves(bench.library().run("lora_casual_shoes")).curves[0].steps.size == 50
    shutil.copytree(tracker, made.run / "logs" / "again")
    write(made.run / "logs" / "again", [scalar("loss", step, 9.0) for step in range(31, 61)], f"events.out.tfevents.{NOW + 900}.vm.7.0")
    loss = bench.curves(bench.library().run("lora_casual_shoes")).curves[0]
    assert loss.steps.tolist() == list(range(1, 61)) and set(loss.values[30:].tolist()) == {9.0}


def test_several_runs_are_told_in_one_answer_one_table_and_one_chart(tmp_path: Path) -> None:
    for name, loss in (("a", 1.0), ("b", 2.0)):
        write(tmp_path / name, [scalar("loss", step, loss) for step in (1, 2)])
    places, table, chart = [str(tmp_path / name) for name in "ab"], tmp_path / "both.csv", tmp_path / "both.svg"

    def told(*asked: str) -> Said:
        return command(tmp_path / "home", "--runs", str(tmp_path), "curves", *asked)

    said = told(*places, places[0], "--csv", str(table), "--svg", str(chart), "--json")
    alone = [told(place, "--json").json for place in places]
    assert said.code == 0 and said.json == {"runs": alone} and "curves" in alone[0], said.told
    heads, *rows = [line.split(",") for line in table.read_text("utf-8").splitlines()]
    assert heads == ["run", "tag", "step", "value", "smoothed"] and [row[0] for row in rows] == ["a", "a", "b", "b"]
    drawn = chart.read_text("utf-8")
    assert "<!-- 2 runs -->" in drawn and "<!-- a -->" in drawn and "<!-- b -->" in drawn
    told(places[0], "--csv", str(table))
    assert table.read_text("utf-8").splitlines()[0] == "tag,step,value,smoothed"
    assert told(*places, "--logs", "auto").code == 2
