"""The chart's questions over real runs: by ids, without secrets, and valid whatever was logged."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from cmp.errors import BadInput, NotFound
from cmp.settings import Settings
from cmp.ui import curve_answers
from cmp.ui.curve_answers import CurveAnswers
from cmp.ui.curves_tab import curves_value
from cmp.workbench import Workbench
from tests.disk.test_tfevents import record, scalar, start
from tests.support import NOW, Training, bench_of, diffusers_run, origin_run, write_log

RUN = "lora_casual_shoes"
SECRET = "hf_" + "x" * 20


@pytest.fixture
def made(tmp_path: Path) -> Training:
    return origin_run(tmp_path)


def ask(answers: CurveAnswers, name: str, *runs: str, **more: str) -> Any:
    return json.loads(answers.answer(name, [*(("run", run) for run in runs), *more.items()]).body)


def test_a_run_is_asked_for_by_its_id_and_nothing_else_is_opened(made: Training) -> None:
    answers = CurveAnswers(bench_of(made))
    for name in (str(made.run), "../outputs", "/etc", "gone"):
        assert ask(answers, "points", name)["lines"] == [] and ask(answers, "catalogue", name)["runs"] == []
    with pytest.raises(NotFound):
        answers.answer("../../secret", [])
    with pytest.raises(BadInput, match="61 runs"):
        answers.answer("stamp", [("run", str(i)) for i in range(61)])
    with pytest.raises(NotFound, match="'gone'"):
        answers.answer("points", [("run", RUN), ("minus", "gone")])


def test_a_catalogue_has_tags_and_checkpoints_with_their_states(made: Training) -> None:
    (made.checkpoint(1000) / "model.safetensors").write_bytes(b"half")
    told = ask(CurveAnswers(bench_of(made)), "catalogue", RUN)["runs"][0]
    assert told["loss"] == "loss" and told["tags"] == ["loss"]
    assert [(mark["step"], mark["state"]) for mark in told["checkpoints"]] == [(500, "whole"), (1000, "flawed")]


def test_a_held_out_loss_stands_beside_the_training_loss_and_scores_the_checkpoints(made: Training) -> None:
    tracker = made.outputs.parent / "logs" / f"train_{RUN}"
    hparams = next(tracker.rglob("hparams.yml")).read_text()
    write_log(tracker / "more", [(500, 0.25), (1000, 0.5)], tag="val_loss")
    (next((tracker / "more").rglob("hparams.yml"))).write_text(hparams)
    answers = CurveAnswers(bench_of(made))
    assert [line["kind"] for line in ask(answers, "points", RUN)["lines"]] == ["loss", "held"]
    assert ask(answers, "catalogue", RUN)["runs"][0]["checkpoints"][0]["score"] == "held-out loss 0.25"


def test_what_a_resume_overwrote_lies_where_it_was_logged_on_an_axis_of_time(made: Training) -> None:
    file = next((made.outputs.parent / "logs").rglob("events.*"))
    first = [scalar("loss", step, 0.5, NOW + step) for step in range(1, 41)]
    again = [scalar("loss", step, 0.4, NOW + 1000 + step) for step in range(21, 61)]
    file.write_bytes(b"".join(map(record, [*first, start(21), *again])))
    answers = CurveAnswers(bench_of(made))
    for axis, shift, scale in (("step", 0, 1), ("wall", NOW, 1000), ("relative", -1, 1000)):
        (line,) = ask(answers, "points", RUN, axis=axis)["lines"]
        (old,) = line["abandoned"]
        assert np.cumsum(old["x"]).tolist() == [(shift + step) * scale for step in range(21, 41)], axis
        assert np.cumsum(old.get("s", old["x"])).tolist() == list(range(21, 41))
    zoomed = ask(answers, "points", RUN, axis="wall", low=str(NOW + 24.5), high=str(NOW + 27.5))["lines"][0]["abandoned"]
    assert np.cumsum(zoomed[0]["s"]).tolist() == [24, 25, 26, 27, 28], "the window and what leads into it"


def test_a_log_that_grows_changes_the_stamp_and_the_points(made: Training) -> None:
    answers = CurveAnswers(bench_of(made))
    before = ask(answers, "stamp", RUN)["stamp"]
    assert ask(answers, "stamp", RUN)["stamp"] == before
    file = next((made.outputs.parent / "logs").rglob("events.*"))
    longer = write_log(made.outputs.parent / "other", [(step, 0.1) for step in range(51, 90)])
    with open(file, "ab") as log:
        log.write(longer.read_bytes())
    assert ask(answers, "stamp", RUN)["stamp"] != before
    assert sum(ask(answers, "points", RUN)["lines"][0]["raw"]["x"]) == 89


def test_the_same_question_is_computed_once_until_a_run_that_it_concerns_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = origin_run(tmp_path, name="one")
    origin_run(tmp_path, name="two")
    answers = CurveAnswers(bench_of(made))
    computed: list[str] = []
    line_of = curve_answers.line_of
    monkeypatch.setattr(curve_answers, "line_of", lambda curve, *more: computed.append(curve.run_id) or line_of(curve, *more))
    asked = {"minus": "two", "smooth": "0.5"}
    first = ask(answers, "points", "one", **asked)
    assert ask(answers, "points", "one", **asked) == first and len(computed) == 1
    ask(answers, "points", "one", minus="two", smooth="0.9")
    assert len(computed) == 2
    other = next((tmp_path / "logs" / "train_two").rglob("events.*"))  # the values of both are the same
    with open(other, "ab") as log:
        log.write(record(scalar("loss", 7, 9.0, NOW)))
    assert ask(answers, "points", "one", **asked) != first and len(computed) == 3


def test_no_token_and_no_field_that_is_not_listed_is_in_any_answer(made: Training) -> None:
    hparams = next((made.outputs.parent / "logs").rglob("hparams.yml"))
    told = yaml.safe_load(hparams.read_text())
    hparams.write_text(yaml.dump(told | {"hub_token": SECRET, "api_key": "private-thing", "learning_rate": 0.5, "wandb_entity": "me"}))
    answers = CurveAnswers(bench_of(made))
    bodies = [answers.answer(name, [("run", RUN)]).body for name in ("catalogue", "points", "band", "reading", "settings", "curves.csv")]
    assert any(b"learning_rate" in body for body in bodies)
    for word in (SECRET.encode(), b"private-thing", b"hub_token", b"wandb_entity", b"api_key"):
        assert not any(word in body for body in bodies)


def test_settings_that_differ_come_first_and_one_that_a_run_does_not_say_is_no_difference(tmp_path: Path) -> None:
    one = origin_run(tmp_path, rank=8)
    diffusers_run(tmp_path, rank=4)
    told = ask(CurveAnswers(bench_of(one)), "settings", RUN, "sd-lora")
    differs = [row["differs"] for row in told["rows"]]
    assert differs == sorted(differs, reverse=True)
    rows = {row["name"]: row for row in told["rows"]}
    assert rows["rank"]["values"] == ["8", "4"] and rows["rank"]["differs"]
    assert rows["alpha"]["values"][1] == "" and not rows["alpha"]["differs"]


def test_the_logs_that_are_read_are_told_with_what_makes_them_the_runs_own(made: Training) -> None:
    bench = bench_of(made)
    answers = CurveAnswers(bench)
    (line,) = ask(answers, "settings", RUN)["logs"]
    assert line.startswith(f"{RUN}: logs/train_{RUN}/") and line.endswith(f"its settings name the output folder ../outputs/{RUN}")
    other = write_log(made.outputs.parent / "elsewhere", [(1, 0.5), (2, 0.25)])
    bench.curves_at(RUN, logs=str(other.parent))
    (line,) = ask(answers, "settings", RUN)["logs"]
    assert line.startswith(f"{RUN}: elsewhere/") and "it was answered for this run" in line


def test_the_lineage_tells_the_base_and_the_checkpoint_that_a_run_was_resumed_from(made: Training) -> None:
    hparams = next((made.outputs.parent / "logs").rglob("hparams.yml"))
    hparams.write_text(yaml.dump(yaml.safe_load(hparams.read_text()) | {"resume_from_checkpoint": "checkpoint-500"}))
    (line,) = ask(CurveAnswers(bench_of(made)), "settings", RUN)["lineage"]
    assert line.startswith(f"{RUN}: base ") and "; resumed from checkpoint-500" in line


def test_the_demos_two_runs_saw_the_same_noise_and_the_same_images(demo_home: Path) -> None:
    bench = Workbench(Settings(demo_home, (), ()))
    answers = CurveAnswers(bench)
    runs = [run.id for run in bench.library().runs]
    told = ask(answers, "reading", *runs)
    assert len(told["pairs"]) == 1 and told["pairs"][0]["compare"]
    assert "scatters 5." in told["pairs"][0]["text"] and "correlation 0.99" in told["pairs"][0]["text"]
    difference = ask(answers, "points", *runs, minus=runs[0])["lines"]
    assert [(line["run"], line["kind"]) for line in difference] == [(runs[1], "difference")]
    assert any("same images as" in line for line in ask(answers, "settings", *runs)["lineage"])
    digests = next(row for row in ask(answers, "settings", *runs)["rows"] if row["name"] == "data: digest")
    assert digests["values"][0] == digests["values"][1] != ""


def test_a_table_has_every_point_and_no_formula(tmp_path: Path) -> None:
    made = origin_run(tmp_path, name="=cmd()")
    answers = CurveAnswers(bench_of(made))
    told = answers.answer("curves.csv", [("run", "=cmd()"), ("smooth", "0.9")])
    rows = list(csv.reader(io.StringIO(told.body.decode())))
    assert len(rows) == 51 and rows[1][0] == "'=cmd()" and rows[1][2] == "1"
    assert told.headers["Content-Disposition"] == 'attachment; filename="loss.csv"'
    assert answers.answer("curves.png", [("run", "=cmd()")]).body.startswith(b"\x89PNG")
    assert b"<svg" in answers.answer("curves.svg", [("run", "=cmd()")]).body


def test_ten_runs_of_a_hundred_thousand_points_are_answered_in_under_150_kb(tmp_path: Path) -> None:
    import gzip

    from cmp.core.curves import LossCurve
    from cmp.workbench import Curves

    runs = [origin_run(tmp_path, name=f"run{i}", logs=False) for i in range(10)]
    bench = bench_of(runs[0])
    steps = np.arange(1, 100_001)

    def logged(run: Any, *_: object) -> Curves:
        values = 0.1 + np.random.default_rng(list(run.id.encode())).gamma(2, 0.02, steps.size)
        return Curves((LossCurve(run.id, "loss", steps, values, NOW + steps * 1.0, Path("log")),), ())

    bench.curves = logged  # type: ignore[method-assign]
    body = CurveAnswers(bench).answer("points", [("run", f"run{i}") for i in range(10)]).body
    assert len(json.loads(body)["lines"]) == 10 and len(gzip.compress(body, 5)) < 150_000


def test_the_charts_value_offers_only_what_exists(made: Training) -> None:
    bench = bench_of(made)
    value = curves_value(bench, bench.library(), RUN)
    assert value["chosen"] == [RUN] and value["runs"][0]["run"] == RUN
    assert value["actions"][:2] == ["compare", "convert"] and ("star" in value["actions"]) == hasattr(bench, "star")
    assert curves_value(bench, bench.library(), "gone")["chosen"] == []
    assert "convert" not in curves_value(bench, bench.library(), RUN, compact=True)["actions"]
