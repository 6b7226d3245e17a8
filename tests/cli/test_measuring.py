"""The verb measure as scripts use it: fields, exit codes, and what goes where."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from tests.engine.making import WEIGHTS, unet_adapter, write_step
from tests.engine.test_measuring import NANO, folder, picture
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


# -- folders and runs as people have them ----------------------------------------------------------------------------------


def held(place: Path, *arguments: str, what: str = "held_out") -> Said:
    return measure(place, "--held-out", str(place / what), *arguments)


def test_images_without_captions_are_measured_without_a_prompt_and_it_is_said_before(place: Path) -> None:
    (place / "held_out" / "metadata.jsonl").unlink()
    assert "none has a caption: the loss there is that without a prompt" in held(place, "--dry-run").err
    found = held(place, "--json")
    assert found.code == 0 and [score["n"] for score in found.json["scores"]] == [6, 6], found.told
    assert "none has a caption" in found.err


def test_one_image_is_measured_and_tells_nothing_apart(place: Path) -> None:
    folder(place / "one", 1)
    found = held(place, "--json", what="one")
    assert found.code == 0 and [score["n"] for score in found.json["scores"]] == [1, 1], found.told
    best = said(place, "best", "run", "--json")
    assert best.json["best"] is None and len(best.json["window"]) == 2
    assert any("1 item are too few" in told or "1 item is too few" in told for told in best.json["warnings"]), best.told
    assert said(place, "best", "run", "--gate", "1 vs 2").code == 5


def test_a_corrupt_image_is_named_before_anything_is_measured(place: Path) -> None:
    broken = place / "held_out" / "3.png"
    broken.write_bytes(broken.read_bytes()[:20])
    for more in ((), ("--dry-run",)):
        found = held(place, *more, "--json")
        assert (found.code, found.json["code"]) == (4, 4) and str(broken) in found.json["error"] and not found.crashed, found.told
    assert said(place, "best", "run").code == 3, "nothing was measured"


def test_an_image_that_is_cut_off_in_the_middle_is_named_when_it_is_read(place: Path) -> None:
    broken = place / "held_out" / "3.png"
    broken.write_bytes(broken.read_bytes()[:-200])
    found = held(place, "--json")
    assert found.code == 4 and str(broken) in found.json["error"] and not found.crashed, found.told


def test_images_of_another_size_are_cut_and_the_plan_says_so(place: Path) -> None:
    picture(place / "held_out" / "0.png", 40, (200, 100))
    picture(place / "held_out" / "1.png", 41, (32, 90))
    told = "2 of 6 images in"
    plan = held(place, "--dry-run", "--json")
    assert any(told in text and "64 × 64" in text and "1 of them is smaller" in text for text in plan.json["warnings"]), plan.told
    found = held(place)
    assert found.code == 0 and told in found.err, found.told
    assert told not in measure(place, "--held-out", str(place / "train"), "--dry-run").err, "of the right size nothing is said"


def test_a_loss_that_is_nan_everywhere_judges_nobody_and_ends_well(place: Path) -> None:
    for step in (1, 2):
        file = place / "outputs" / "run" / f"checkpoint-{step}" / WEIGHTS
        tensors = {name: values * 1e30 for name, values in load_file(file).items()}
        shutil.rmtree(file.parent)
        write_step(place / "outputs" / "run", step, tensors)
    found = held(place, "--json")
    assert found.code == 0 and found.json["scores"] == [] and not found.crashed, found.told
    assert found.json["warnings"] == ["loss of run@1, run@2 is not finite, so that it is not judged"]
    assert found.json["warnings"][0] in held(place).err
    best = said(place, "best", "run", "--json")
    assert best.code == 3 and "no logged values" in best.json["error"], best.told
    assert said(place, "convert", "run", "--to", "lora", "--best", "1", "--json").code == 2


def test_a_run_of_one_checkpoint_is_measured_and_is_its_own_best(place: Path) -> None:
    shutil.rmtree(place / "outputs" / "run" / "checkpoint-2")
    found = held(place, "--json")
    assert found.code == 0 and [score["checkpoint"] for score in found.json["scores"]] == ["run@1"], found.told
    best = said(place, "best", "run", "--json")
    assert (best.code, best.json["best"]) == (0, "run@1") and "only checkpoint" in best.json["reason"], best.told
    assert "best" not in held(place).out.split("checkpoint", 1)[1].split("95 %")[0]
