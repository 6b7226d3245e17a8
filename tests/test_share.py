"""Sharing: what is listed is what is written, nothing of the user's is in any byte of it, and what is not ours stays as it was."""

from __future__ import annotations

import getpass
import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file

from cmp.core.publishing import MARK, WEIGHTS, Wanted
from cmp.errors import BadInput, Refused
from cmp.settings import Settings, prepare_libraries
from tests.in_process import command
from tests.sharing import HOSTILE, RUN, SECRET, Given, given_run, plan_of, vote, written
from tests.support import MODULES, adapter_tensors


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    given = given_run(tmp_path_factory.mktemp("share"))
    vote(given)
    return given


@pytest.fixture(scope="module")
def page(given: Given, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("page") / "out"
    written(given, target)
    return target


@pytest.fixture(scope="module")
def model(given: Given, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("model") / "out"
    written(given, target, model="me/shoes", license="mit")
    return target


def files_in(folder: Path) -> dict[str, int]:
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def needles(given: Given) -> set[bytes]:
    told = {str(Path.home()), SECRET, str(given.home), str(given.made.outputs), str(given.made.bases), str(given.bench.settings.home)}
    return {text.encode() for text in told if len(text) > 2} | {f"/{getpass.getuser()}/".encode()}


@pytest.mark.parametrize("kind", ["page", "model"])
def test_no_byte_of_any_file_names_a_folder_of_the_user(given: Given, kind: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(kind)
    for name in files_in(folder):
        content = (folder / name).read_bytes()
        assert [needle for needle in needles(given) if needle in content] == [], name


def test_pictures_carry_no_settings(page: Path) -> None:
    pictures = [path for path in (page / "images").iterdir() if path.suffix == ".webp"]
    assert len(pictures) == 16
    for path in pictures:
        with Image.open(path) as image:
            assert max(image.size) in (256, 300) and not image.getexif() and not {"parameters", "cmp", "exif"} & set(image.info)


def test_a_page_has_no_weights_and_all_its_pictures_lie_beside_it(page: Path) -> None:
    names = files_in(page)
    assert set(names) == {"index.html", "README.md"} | {name for name in names if re.fullmatch(r"images/[0-9a-f]{64}\.(webp|svg)", name)}
    text = (page / "index.html").read_text("utf-8")
    values = [json.loads(told) for told in re.findall(r'<script type="application/json" data-matrix="[^"]*">(.*?)</script>', text)]
    pictures = [cell[which] for value in values for cell in value["cells"] for which in ("full", "thumb")]
    assert len(pictures) == 16 and set(pictures) <= set(names)
    assert "http:" not in text.replace("http://www.w3.org", "") and "urls" not in values[0]


def test_a_page_tells_verdict_votes_and_settings_but_no_voter(page: Path) -> None:
    text = (page / "index.html").read_text("utf-8")
    assert "Held-out loss" in text and "all others are worse at 95 %" in text
    assert "1 blind vote by 1 voter;" in text and "Training loss" in text and ">rank</th><td>8<" in text
    assert "hf_xxxx" not in text


def test_the_readme_of_a_page_is_a_static_space(page: Path) -> None:
    _, front, body = (page / "README.md").read_text("utf-8").split("---\n", 2)
    told = yaml.safe_load(front)
    assert (told["sdk"], told["app_file"], told["title"]) == ("static", "index.html", RUN) and len(told["short_description"]) <= 60
    assert MARK in body


def test_a_plan_lists_exactly_what_is_written_and_writes_nothing(given: Given, tmp_path: Path) -> None:
    with given.bench.shared(RUN, Wanted(tmp_path / "out")) as planning:
        plan = plan_of(planning)
        assert not (tmp_path / "out").exists() and plan.draft.is_dir()
    assert not plan.draft.exists()
    done = written(given, tmp_path / "out")
    assert {one.path: one.bytes for one in done.files} == files_in(tmp_path / "out")
    svg = {name for name in files_in(tmp_path / "out") if name.endswith(".svg")}  # matplotlib gives its marks random names
    assert {one.path for one in plan.files if not one.path.endswith(".svg")} == set(files_in(tmp_path / "out")) - svg
    assert list((given.bench.settings.home / "shares").iterdir()) == []


def test_pictures_as_they_were_drawn_have_all_their_pixels_and_no_settings(given: Given, tmp_path: Path) -> None:
    written(given, tmp_path / "out", png=True)
    pngs = list((tmp_path / "out" / "images").glob("*.png"))
    assert len(pngs) == 8
    for path in pngs:
        with Image.open(path) as image:
            assert image.size == (300, 300) and not image.info


def test_what_lies_there_is_replaced_only_if_share_has_written_all_of_it(given: Given, tmp_path: Path) -> None:
    target = tmp_path / "out"
    written(given, target)
    with pytest.raises(Refused, match="there already"):
        written(given, target)
    (target / "notes.txt").write_text("mine")
    with pytest.raises(Refused, match=r"notes\.txt"):
        written(given, target, force=True)
    assert (target / "notes.txt").read_text() == "mine"
    (target / "notes.txt").unlink()
    written(given, target, force=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "README.md").write_text("# mine\n")
    with pytest.raises(Refused, match="not written by share"):
        written(given, tmp_path / "other", force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "out"]


def test_leaving_it_half_way_leaves_what_was_there(given: Given, tmp_path: Path) -> None:
    target = tmp_path / "out"
    written(given, target)
    before = files_in(target)
    with given.bench.shared(RUN, Wanted(target, png=True, force=True)) as planning:
        work = given.bench.share(plan_of(planning))
        next(work)
        next(work)
        work.close()
    assert files_in(target) == before and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_prompt_that_names_a_folder_is_refused(tmp_path: Path) -> None:
    given = given_run(tmp_path, side=64)
    run, _ = given.bench.find(RUN)
    given.bench.rename(RUN, f"shoes of {given.made.outputs}")
    with pytest.raises(Refused, match="a folder of yours"):
        written(given, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert run.id == RUN


# -- models ----------------------------------------------------------------------------------------------------------------


def test_the_best_by_the_verdict_is_taken_and_the_card_says_why(model: Path) -> None:
    text = (model / "README.md").read_text("utf-8")
    _, front, body = text.split("---\n", 2)
    told = yaml.safe_load(front)
    assert told["license"] == "mit" and {"lora", "diffusers", "text-to-image"} <= set(told["tags"])
    assert [one["text"] for one in told["widget"]] == ["a red shoe", HOSTILE]
    assert all((model / one["output"]["url"]).is_file() for one in told["widget"])
    assert "base_model" not in told, "a folder of this disk is no id of the Hub"
    assert "Step 500 was chosen by the held-out loss." in body and "95 %" in body and "from_pretrained" in body


def test_the_weights_are_those_of_the_checkpoint_with_the_scale_in_them(model: Path) -> None:
    found, meant = load_file(model / WEIGHTS), adapter_tensors(500)
    assert len(found) == 2 * len(MODULES)
    for name, values in meant.items():
        wanted = values * np.float32(2) if ".lora_B." in name else values  # alpha 16 over rank 8
        assert np.array_equal(found[f"unet.{name}"], wanted)
    with safe_open(model / WEIGHTS, "numpy") as file:
        record = json.loads(file.metadata()["cmp_conversion"])
    assert record["checkpoint"] == f"{RUN}@500" and record["scale_folded"] is True


def test_nothing_hostile_in_a_card_is_read_as_markdown(model: Path) -> None:
    from markdown_it import MarkdownIt

    body = (model / "README.md").read_text("utf-8").split("---\n", 2)[2]
    shown = MarkdownIt("commonmark", {"html": True}).enable("table").render(body)
    assert "<img src=x" not in shown and "javascript:alert)" not in re.sub(r"<code.*?</code>", "", shown, flags=re.DOTALL)
    assert shown.count("<h1>") == 1 and "<hr" not in shown


def test_without_a_verdict_a_checkpoint_must_be_named(tmp_path: Path) -> None:
    given = given_run(tmp_path, held_out=False, side=64)
    with pytest.raises(Refused, match="nothing says"):
        written(given, tmp_path / "out", model="me/shoes")
    written(given, tmp_path / "out", f"{RUN}@1000", model="me/shoes")
    assert "Step 1000 was chosen by hand" in (tmp_path / "out" / "README.md").read_text("utf-8")


@pytest.mark.parametrize("name", ["shoes", "me/../shoes", "me/sh oes", "me/shoes\n", "https://x/y", "-me/shoes"])
def test_what_is_no_repository_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match="repository"):
        Wanted(None, model=name)


# -- the command -----------------------------------------------------------------------------------------------------------


def test_the_verb_lists_first_and_writes_with_yes(given: Given, tmp_path: Path) -> None:
    around = ("--runs", str(given.made.outputs), "--bases", str(given.made.bases), "share", RUN, "--output", str(tmp_path / "out"))
    listed = command(given.bench.settings.home, *around, "--json")
    assert listed.code == 0 and not (tmp_path / "out").exists() and listed.json["done"] is False, listed.told
    done = command(given.bench.settings.home, *around, "--yes", "--json")
    assert done.code == 0 and done.json["at"] == str(tmp_path / "out") and done.json["done"] is True, done.told
    assert {one["path"]: one["bytes"] for one in done.json["files"]} == files_in(tmp_path / "out")
    assert command(given.bench.settings.home, *around, "--yes").code == 5
    assert command(given.bench.settings.home, *around, "--yes", "--dry-run").code == 2
    assert command(given.bench.settings.home, *around[:-2]).code == 2


def test_a_preview_tells_pictures_in_one_line_and_every_file_where_that_is_asked(given: Given, tmp_path: Path) -> None:
    around = ("--runs", str(given.made.outputs), "--bases", str(given.made.bases), "share", RUN, "--output", str(tmp_path / "out"))
    short, full = command(given.bench.settings.home, *around), command(given.bench.settings.home, *around, "--dry-run")
    assert "16 pictures" in short.out and ".webp" not in short.out and "index.html" in short.out and "README.md" in short.out, short.told
    assert len(re.findall(r"images/[0-9a-f]{64}\.webp", full.out)) == 16, full.told
    assert (short.code, full.code) == (0, 0) and not (tmp_path / "out").exists()


def test_a_job_that_shares_counts_the_files_that_it_wrote(given: Given, tmp_path: Path) -> None:
    with given.bench.shared(RUN, Wanted(tmp_path / "out")) as planning:
        plan = plan_of(planning)
        assert list(given.bench.follow_share(plan))[-1] == str(tmp_path / "out")
    record = given.bench.jobs.records()[-1]
    assert (record.kind, record.state, record.done, record.total) == ("share", "done", len(plan.files), len(files_in(tmp_path / "out")))


def test_what_this_program_says_for_itself_keeps_the_library_offline_and_uploads_possible(tmp_path: Path) -> None:
    from huggingface_hub.constants import ENV_VARS_TRUE_VALUES

    environ = {"CMP_HOME": str(tmp_path)}
    prepare_libraries(environ)
    assert environ["HF_HUB_OFFLINE"] in ENV_VARS_TRUE_VALUES and not Settings.from_env(environ).offline
    for said, offline in (("1", True), ("true", True), ("0", False)):
        assert Settings.from_env(environ | {"HF_HUB_OFFLINE": said}).offline is offline


def test_an_upload_is_refused_where_the_library_was_told_to_stay_offline(given: Given) -> None:
    around = ("--runs", str(given.made.outputs), "--bases", str(given.made.bases), "share", RUN, "--space", "me/shoes")
    said = command(given.bench.settings.home, *around, "--yes")
    assert said.code == 5 and "HF_HUB_OFFLINE" in said.err, said.told
    assert command(given.bench.settings.home, *around).code == 0
