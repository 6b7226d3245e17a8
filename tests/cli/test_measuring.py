"""The verb measure as scripts use it: fields, exit codes, and what goes where."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from tests.engine.making import WEIGHTS, unet_adapter, write_step
from tests.engine.test_measuring import NANO, folder
from tests.in_process import Said, command

pytestmark = pytest.mark.model


@pytest.fixture
def place(tmp_path: Path) -> Path:
    base = Path(shutil.copytree(NANO, tmp_path / "bases" / "sd_nano"))
    for step in (1, 2):
        write_step(tmp_path / "outputs" / "run", step, unet_adapter(base, 4, step))
    folder(tmp_path / "held_out", 6)
    folder(tmp_path / "train", range(6, 12))
    return tmp_path


def said(place: Path, *arguments: str) -> Said:
    folders = ("--runs", str(place / "outputs"), "--bases", str(place / "bases"))
    return command(place / "home", *folders, *arguments)


def measure(place: Path, *arguments: str) -> Said:
    return said(place, "measure", "run", "--base", "sd_nano", "--draws", "4", *arguments)


def test_what_was_measured_is_told_as_the_contract_has_it_and_best_goes_by_it(place: Path) -> None:
    sets = ("--held-out", str(place / "held_out"), "--training", str(place / "train"))
    plan = measure(place, *sets, "--dry-run", "--json")
    assert (plan.code, plan.json["values"], plan.json["new"], plan.json["items"]) == (0, 6, 6, {"loss": 6, "training-loss": 6}), plan.told
    found = measure(place, *sets, "--json")
    assert found.code == 0 and found.json["run"] == "run" and not found.json["failed"], found.told
    scores = found.json["scores"]
    assert [(s["checkpoint"], s["step"], s["metric"], s["n"]) for s in scores] == [
        ("run@1", 1, "loss", 6), ("run@2", 2, "loss", 6), ("run@1", 1, "training-loss", 6), ("run@2", 2, "training-loss", 6),
    ]  # fmt: skip
    for score in scores:
        assert score["low"] < score["value"] < score["high"] and [band["timestep"] for band in score["by_timestep"]] == [125, 375, 625, 875]
        assert abs(sum(band["value"] for band in score["by_timestep"]) / 4 - score["value"]) < 1e-9
    assert [gap["checkpoint"] for gap in found.json["gap"]] == ["run@1", "run@2"]
    assert found.json["base"][0]["loss"][0]["value"] > 0 and [v["rule"] for v in found.json["verdicts"]] == ["measured", "training-loss"]
    best = said(place, "best", "run", "--json")
    assert best.json["rule"] == "measured" and best.json["window"] == found.json["verdicts"][0]["window"], best.told
    plain = measure(place)
    assert (
        plain.code == 0
        and "learned by heart" in plain.out
        and "by timestep" in plain.out
        and plain.err.count(", known") == 6
        and "0 values to measure, 6 known" in plain.err
    ), plain.told


def test_one_checkpoint_alone_is_measured_and_nothing_is_said_of_a_best(place: Path) -> None:
    found = said(place, "measure", "run@2", "--base", "sd_nano", "--held-out", str(place / "held_out"), "--draws", "4", "--json")
    assert found.code == 0 and [score["checkpoint"] for score in found.json["scores"]] == ["run@2"], found.told


def test_checkpoints_that_cannot_be_proven_are_told_with_the_contracts_code(place: Path) -> None:
    for step, code in ((1, 1), (2, 5)):
        file = place / "outputs" / "run" / f"checkpoint-{step}" / WEIGHTS
        save_file({name.replace("to_q", "nowhere"): values for name, values in load_file(file).items()}, file, {"format": "pt"})
        found = measure(place, "--held-out", str(place / "held_out"), "--json")
        assert found.code == code, found.told
        if code == 1:
            assert [fault["checkpoint"] for fault in found.json["failed"]] == ["run@1"]
            assert [score["checkpoint"] for score in found.json["scores"]] == ["run@2"]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ((), 2, "on which images"),
        (("--held-out", "nowhere"), 3, "nowhere"),
        (("--held-out", "HELD", "--metric", "beauty"), 2, "'beauty'"),
        (("--held-out", "HELD", "--checkpoints", "77"), 2, "77"),
        (("--held-out", "HELD", "--base", "no-such"), 3, "no-such"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_the_contracts_code(place: Path, arguments: tuple[str, ...], code: int, told: str) -> None:
    for more in ((), ("--dry-run",)):
        found = measure(place, *(str(place / "held_out") if word == "HELD" else word for word in arguments), *more, "--json")
        assert not found.crashed and found.code == code == found.json["code"] and told in found.json["error"], found.told


def test_loss_that_is_not_finite_comes_as_null(place: Path) -> None:
    file = place / "outputs" / "run" / "checkpoint-1" / WEIGHTS
    tensors = {name: values * 1e30 for name, values in load_file(file).items()}
    shutil.rmtree(file.parent)
    write_step(place / "outputs" / "run", 1, tensors)
    found = measure(place, "--held-out", str(place / "held_out"), "--json")
    assert found.code == 0 and [score["checkpoint"] for score in found.json["scores"]] == ["run@2"], found.told
    assert any("not all finite" in told for told in found.json["verdicts"][0]["warnings"]) and json.dumps(found.json)
