"""Scores of pictures and sizes of updates as scripts use them: from a grid that was drawn to the verdict, with fields and exit codes."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.engine.making import unet_adapter, write_step
from tests.engine.seeing import draw_picture, tiny_clip, tiny_encoder
from tests.engine.test_measuring import NANO
from tests.in_process import Said, command

pytestmark = pytest.mark.model

GRID = ("--prompt", "a red shoe", "--prompt", "a cat", "--seeds", "0-2", "--steps", "1", "--size", "32x32", "--base-column")
EVERY = "clip,cmmd,nearest,diversity,leak,identity,preference,update"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("models")
    return {"clip": tiny_clip(place / "clip"), "encoder": tiny_encoder(place / "dino")}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two checkpoints with a grid that another process has drawn."""
    place = tmp_path_factory.mktemp("place")
    base = Path(shutil.copytree(NANO, place / "bases" / "sd_nano"))
    for step in (1, 2):
        write_step(place / "outputs" / "run", step, unet_adapter(base, 4, step))
    for i in range(4):
        draw_picture(place / "images" / f"{i}.png", i)
    made = said(place, "grid", "run", "--base", "sd_nano", *GRID)
    assert made.code == 0, made.told
    return place


@pytest.fixture
def place(drawn: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(drawn, tmp_path / "place"))


def said(place: Path, *arguments: str) -> Said:
    return command(place / "home", "--runs", str(place / "outputs"), "--bases", str(place / "bases"), *arguments)


def measure(place: Path, metric: str, models: dict[str, Path], *arguments: str) -> Said:
    looking = ("--clip", str(models["clip"]), "--encoder", str(models["encoder"]), "--preference", str(models["clip"]))
    images = ("--reference", str(place / "images"), "--training", str(place / "images"), "--subject", "shoe")
    return said(place, "measure", "run", "--base", "sd_nano", "--metric", metric, *looking, *images, *arguments)


def scores_of(found: Said, metric: str) -> dict[int, dict[str, Any]]:
    return {score["step"]: score for score in found.json["scores"] if score["metric"] == metric}


def test_every_metric_is_told_with_its_interval_n_and_limits(place: Path, models: dict[str, Path]) -> None:
    plan = measure(place, EVERY, models, "--dry-run", "--json")
    assert plan.code == 0 and plan.json["new"] == 16 and not plan.json["failed"], plan.told
    assert plan.json["items"] == {
        "clip": 6, "cmmd": 6, "nearest": 6, "diversity": 6, "leak": 3, "identity": 6, "preference": 6, "update": 1,
    }  # fmt: skip
    found = measure(place, EVERY, models, "--json")
    again = measure(place, EVERY, models, "--dry-run", "--json").json
    assert (again["new"], again["known"], again["seconds"]) == (0, 16, 0)
    assert found.code == 0 and not found.json["failed"], found.told
    for metric, count in (("clip", 6), ("cmmd", 6), ("nearest", 6), ("identity", 6), ("preference", 6), ("leak", 3), ("diversity", 2)):
        assert {score["n"] for score in scores_of(found, metric).values()} == {count}, metric
        for score in scores_of(found, metric).values():
            assert score["low"] is None if count < 5 else score["low"] < score["value"] < score["high"]
        assert found.json["limits"][metric]
    bases = {told["metric"]: told["value"] for told in found.json["base"]}
    assert set(bases) == {"clip", "cmmd", "nearest", "identity", "preference", "diversity"} and all(map(abs, bases.values()))
    for metric in ("update", "update-relative"):
        for score in scores_of(found, metric).values():
            blocks = score["by_block"]
            total = sum(one["value"] ** 2 for one in blocks) ** 0.5
            assert total == pytest.approx(score["value"]) if metric == "update" else len(blocks) > 2
    verdicts = {verdict["rule"]: verdict for verdict in found.json["verdicts"]}
    assert verdicts["update"]["window"] == ["run@1", "run@2"] and "names no best" in verdicts["update"]["reason"]


def test_people_are_told_the_limits_beside_the_scores(place: Path, models: dict[str, Path]) -> None:
    found = measure(place, "preference,update", models)
    assert found.code == 0 and "70.2 %" in found.out and "names no best" in found.out and "base model" in found.out, found.told
    assert "unet down_blocks.0" in found.out


def test_best_goes_by_a_score_only_where_it_is_asked_to(place: Path, models: dict[str, Path]) -> None:
    assert measure(place, "clip", models).code == 0
    by = said(place, "best", "run", "--by", "clip", "--json")
    scores = {score["checkpoint"]: score["value"] for score in by.json["scores"]}
    assert any("30 to 39" in text for text in by.json["warnings"]), "its limits stand beside a verdict too"
    assert by.code == 0 and by.json["rule"] == "clip" and by.json["window"][0] == max(scores, key=scores.__getitem__)
    assert said(place, "best", "run", "--json").code == 3, "without a loss nothing decides"
    gated = said(place, "best", "run", "--by", "clip", "--gate", "2 vs base", "--json")
    assert gated.code in (0, 1, 5) and gated.json["gate"]["metric"] == "clip", gated.told
    measure(place, "update", models)
    assert said(place, "best", "run", "--by", "update", "--gate", "2 vs 1").code == 5
    for verb in (
        ("convert", "run", "--to", "webui", "--best", "1"),
        ("grid", "run", "--prompt", "x", "--checkpoints", "best", "--dry-run"),
    ):
        assert said(place, *verb).code == 2


def test_a_checkpoint_that_was_not_drawn_is_told_with_the_command_that_draws_it_and_then_costs_only_itself(
    place: Path, models: dict[str, Path]
) -> None:
    first = measure(place, "clip", models, "--json")
    write_step(place / "outputs" / "run", 3, unet_adapter(place / "bases" / "sd_nano", 4, 3))
    lacking = measure(place, "clip", models, "--json")
    assert lacking.code == 1 and set(scores_of(lacking, "clip")) == {1, 2}
    (failed,) = lacking.json["failed"]
    assert failed["checkpoint"] == "run@3" and failed["code"] == 3
    plan = measure(place, "clip", models, "--dry-run")
    assert plan.code == 1 and "--checkpoints 3" in plan.err, plan.told
    drawing = shlex.split(failed["hint"].split("`")[1])
    assert drawing[:5] == ["python", "-m", "cmp", "grid", "run"] and said(place, *drawing[3:], "--base", "sd_nano").code == 0
    plan = measure(place, "clip", models, "--dry-run", "--json").json
    assert (plan["new"], plan["known"]) == (1, 2)
    whole = measure(place, "clip", models)
    assert whole.code == 0 and "run@1, clip" in whole.err and whole.err.count(", known\n") == 3, whole.told  # two checkpoints and the base
    again = measure(place, "clip", models, "--json")
    assert scores_of(again, "clip")[1]["value"] == scores_of(first, "clip")[1]["value"] and set(scores_of(again, "clip")) == {1, 2, 3}


def test_nothing_is_drawn_where_there_is_no_picture(place: Path, models: dict[str, Path]) -> None:
    shutil.rmtree(place / "home" / "cells")
    found = measure(place, "clip", models)
    assert found.code == 3 and "python -m cmp grid run" in found.err, found.told
    unknown = said(place, "measure", "run", "--metric", "clip", "--clip", str(models["clip"]))
    assert unknown.code == 3 and "--base" in unknown.err, unknown.told
    assert not (place / "home" / "cells").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "quoted"),
    [
        (("--metric", "fid"), 2, "'fid'"),
        (("--metric", "clip"), 2, "--clip"),
        (("--metric", "clip", "--clip", "/no/such"), 3, "/no/such"),
        (("--metric", "cmmd", "--clip", "CLIP"), 2, "--reference"),
        (("--metric", "cmmd", "--clip", "CLIP", "--reference", "/no/such"), 3, "/no/such"),
        (("--metric", "cmmd", "--clip", "CLIP", "--reference", "EMPTY"), 2, "no image in"),
        (("--metric", "leak", "--clip", "CLIP"), 2, "--subject"),
        (("--metric", "nearest", "--clip", "CLIP"), 2, "--training"),
        (("--metric", "preference", "--preference", "DINO"), 5, "reads no prompts"),
        (("--metric", "clip", "--clip", "BASE"), 4, "config.json"),
        (("--metric", "clip", "--clip", "CLIP", "--pictures", "mine"), 2, "'mine'"),
    ],
)
def test_what_is_wrong_is_quoted(arguments: tuple[str, ...], code: int, quoted: str, place: Path, models: dict[str, Path]) -> None:
    (place / "empty").mkdir()
    named = {"CLIP": models["clip"], "DINO": models["encoder"], "EMPTY": place / "empty", "BASE": place / "bases" / "sd_nano"}
    found = said(place, "measure", "run", *(str(named.get(word, word)) for word in arguments))
    assert (found.code, found.crashed) == (code, False) and quoted in found.err, found.told


def test_the_size_of_updates_needs_no_base_and_no_picture(place: Path, models: dict[str, Path]) -> None:
    shutil.rmtree(place / "bases")
    shutil.rmtree(place / "home")
    found = said(place, "measure", "run", "--metric", "update", "--json")
    assert found.code == 0 and set(scores_of(found, "update")) == {1, 2} and not scores_of(found, "update-relative"), found.told
    shown = said(place, "show", "run@1", "--json").json["update"]["blocks"]
    assert shown[0]["size"] == pytest.approx(scores_of(found, "update")[1]["value"])
