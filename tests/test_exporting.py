"""Exports: each whole under its name or not there, never over what is there, bounded in memory, and with nothing hidden in it."""

from __future__ import annotations

import base64
import csv
import hashlib
import html
import io
import json
import re
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cmp.core.arranging import arrange, read_matrix
from cmp.core.matrices import grid_matrix
from cmp.core.views import View
from cmp.errors import BadInput, NotFound, Refused
from cmp.pictures.settings import read_settings
from cmp.workbench.exporting import Matrix, write_export
from tests.exporting import SCRIPT, Shown, shown

EVERY = [("sheet", "s.png"), ("sheet", "s.webp"), ("zip", "c.zip"), ("html", "g.html"), ("animation", "a.gif"), ("animation", "a.webp")]


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    return shown(tmp_path_factory.mktemp("grid"))


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    return shown(tmp_path_factory.mktemp("jane doe"), faults=True)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def page_of(path: Path) -> tuple[dict[str, Any], dict[int, dict[str, str]], str]:
    """The value, the pictures of each cell, and all of the text."""
    text = path.read_text(encoding="utf-8")
    (told,) = re.findall(r'<script type="application/json" id="cmp-value">(.*?)</script>', text, re.DOTALL)
    pictures = re.findall(r'<script type="application/json" data-cell="([0-9]+)">(.*?)</script>', text, re.DOTALL)
    return json.loads(told), {int(number): json.loads(urls) for number, urls in pictures}, text


@pytest.mark.parametrize(("what", "name"), EVERY)
def test_each_is_written_whole_and_never_over_what_is_there_unless_asked(grid: Shown, tmp_path: Path, what: str, name: str) -> None:
    target = tmp_path / name
    target.write_text("mine")
    with pytest.raises(Refused, match=name):
        write_export(what, Matrix(grid.bench, grid.value), target)
    assert target.read_text() == "mine"
    made = write_export(what, Matrix(grid.bench, grid.value), target, force=True)
    assert made.files == (target,) and left(tmp_path) == [name] and target.stat().st_size > 1000


@pytest.mark.parametrize(("what", "name"), EVERY)
def test_what_shows_nothing_is_not_written(grid: Shown, tmp_path: Path, what: str, name: str) -> None:
    with pytest.raises(NotFound):
        write_export(what, Matrix(grid.bench, grid.value | {"cells": []}), tmp_path / name)
    assert left(tmp_path) == []


@pytest.mark.parametrize(("what", "name"), [("sheet", "s.zip"), ("zip", "c.tar"), ("html", "g.png"), ("animation", "a.png")])
def test_another_ending_is_refused(grid: Shown, tmp_path: Path, what: str, name: str) -> None:
    with pytest.raises(BadInput, match=name):
        write_export(what, Matrix(grid.bench, grid.value), tmp_path / name)


def test_a_grid_of_no_steps_has_no_animation(grid: Shown, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="steps"):
        write_export("animation", Matrix(grid.bench, grid.value | {"step_axis": ""}), tmp_path / "a.gif")


def test_a_sheet_says_what_holds_for_all_of_it(grid: Shown, tmp_path: Path) -> None:
    write_export("sheet", Matrix(grid.bench, grid.value), tmp_path / "s.webp")
    found = read_settings(tmp_path / "s.webp")
    assert found.prompt == "a shoe" and "Checkpoint name, Prompt, Seed" in found.not_restored[0].replace("Seed, Prompt", "Prompt, Seed")


def test_a_grid_without_a_title_is_called_by_its_run_and_base(grid: Shown, tmp_path: Path) -> None:
    tiles = [replace(tile, base={"id": "org/tiny", "proof": "tensors"}) for tile in grid.tiles]
    value = grid_matrix(replace(grid.spec, title=""), tiles, lambda c: (c.key if c else "base model", ""))
    run = next(c.run_id for c in grid.spec.checkpoints if c)
    write_export("html", Matrix(grid.bench, value), tmp_path / "g.html")
    assert f"<title>{run} · base org/tiny</title>" in (tmp_path / "g.html").read_text("utf-8")
    sheet = Matrix(grid.bench, value).subject(arrange(*read_matrix(value), View()))
    assert any(f"run: {run} · base: org/tiny" in line for line in sheet.told)
    elsewhere = [replace(tile, base={"id": "/home/me/models/tiny", "proof": "user"}) for tile in grid.tiles]
    value = grid_matrix(replace(grid.spec, title=""), elsewhere, lambda c: (c.key if c else "base model", ""))
    assert Matrix(grid.bench, value).title == f"{run} · base tiny"


def test_what_is_left_to_the_base_is_told_by_size_and_name_and_changes_no_key(grid: Shown) -> None:
    way = {"width": 64, "height": 48, "sampler": "DDIM"}
    tiles = [replace(tile, drawn=way) for tile in grid.tiles]
    label = lambda c: (c.key if c else "base model", "")  # noqa: E731
    told = dict(grid_matrix(grid.spec, tiles, label)["common"])
    assert (told["width"], told["height"], told["scheduler"]) == ("64", "48", "DDIM, the base model's own")
    assert dict(grid_matrix(grid.spec, grid.tiles, label)["common"])["width"] == "default", "where it is not known"
    several = [replace(tile, drawn=way | {"width": 64 * (1 + i % 2)}) for i, tile in enumerate(grid.tiles)]
    assert dict(grid_matrix(grid.spec, several, label)["common"])["width"] == "default"
    assert tiles[0].as_json()["drawn"] == way and tiles[0].cell.key("w", {}) == grid.tiles[0].cell.key("w", {})


def test_sheet_and_page_carry_the_verdict(grid: Shown, tmp_path: Path) -> None:
    verdict = f"Held-out loss: step 1000 has the lowest val/loss, 0.1, and all others are worse at 95 % {SCRIPT}."
    with_verdict = Matrix(grid.bench, grid.value | {"verdict": verdict})
    write_export("html", with_verdict, tmp_path / "g.html")
    told, _, text = page_of(tmp_path / "g.html")
    assert told["value"]["verdict"] == verdict and SCRIPT not in text
    arranged = arrange(*read_matrix(grid.value), with_verdict.view)
    assert with_verdict.subject(arranged).told[-1] == verdict and verdict not in Matrix(grid.bench, grid.value).subject(arranged).told
    heights = []
    for name, matrix in (("with", with_verdict), ("without", Matrix(grid.bench, grid.value))):
        write_export("sheet", matrix, tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as sheet:
            heights.append(sheet.height)
    assert heights[0] > heights[1], "the sheet has a line more"


def test_the_archive_holds_the_pictures_to_the_bit_and_a_row_for_each_cell(broken: Shown, tmp_path: Path) -> None:
    made = write_export("zip", Matrix(broken.bench, broken.value), tmp_path / "c.zip")
    assert made.notes == ("2 of 16 cells have no picture; cells.csv says why",)
    with zipfile.ZipFile(tmp_path / "c.zip") as archive:
        names = [name for name in archive.namelist() if name != "cells.csv"]
        rows = list(csv.DictReader(io.StringIO(archive.read("cells.csv").decode(), newline="")))
        drawn = {tile.key: tile.path for tile in broken.tiles}
        for row in (row for row in rows if row["file"]):
            path = drawn[row["key"]]
            assert path and archive.read(row["file"]) == path.read_bytes()
        assert archive.testzip() is None
    assert len(rows) == 16 and names == [row["file"] for row in rows if row["file"]] and "004-step-1500/prompt-2_seed-1.png" in names
    (failed,) = (row for row in rows if row["state"] == "fault")
    assert failed["fault"].endswith("x.pt. Look there.") and "jane" not in failed["fault"]
    assert [row["file"] for row in rows if row["state"] == "waiting"] == [""]


def test_a_page_holds_every_picture_and_nothing_in_it_can_end_a_script(grid: Shown, tmp_path: Path) -> None:
    write_export("html", Matrix(grid.bench, grid.value), tmp_path / "g.html")
    told, pictures, text = page_of(tmp_path / "g.html")
    assert set(pictures) == set(range(16)) and all(set(urls) == {"full"} for urls in pictures.values())
    assert all(urls["full"].startswith("data:image/webp;base64,") for urls in pictures.values())
    assert SCRIPT not in text and "<b>" not in text.split("<script>")[0] and SCRIPT in json.dumps(told).replace("\\/", "/")
    assert not set(told["value"]) & {"urls", "rerolls", "link", "source", "export"} and '<body class="cmp-alone">' in text
    assert text.count("</script>") == text.count("<script") and text.count("<title>") == 1


def test_every_script_of_a_page_is_named_in_its_policy_and_no_other_may_run(grid: Shown, tmp_path: Path) -> None:
    write_export("html", Matrix(grid.bench, grid.value), tmp_path / "g.html")
    text = (tmp_path / "g.html").read_bytes().decode()
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', text)
    for script in re.findall(r"<script>(.*?)</script>", text, re.DOTALL):
        assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
    assert html.unescape(policy).startswith("default-src 'none'; script-src 'sha256-")
    assert "http" not in policy and "unsafe-eval" not in policy and "*" not in policy
    assert text.index("Content-Security-Policy") < text.index("<script")


def test_large_pictures_have_a_thumbnail_and_png_is_as_it_was_drawn(tmp_path: Path) -> None:
    large = shown(tmp_path / "home", side=512, prompts=("a",), seeds=1)
    write_export("html", Matrix(large.bench, large.value, as_drawn=True), tmp_path / "g.html")
    _, pictures, _ = page_of(tmp_path / "g.html")
    whole = base64.b64decode(pictures[0]["full"].partition(",")[2])
    assert pictures[0]["full"].startswith("data:image/png;") and large.tiles[0].path and whole == large.tiles[0].path.read_bytes()
    with Image.open(io.BytesIO(base64.b64decode(pictures[0]["thumb"].partition(",")[2]))) as thumb:
        assert thumb.size == (256, 256)


def test_no_page_names_a_folder_of_the_users(broken: Shown, tmp_path: Path) -> None:
    write_export("html", Matrix(broken.bench, broken.value), tmp_path / "g.html")
    text = (tmp_path / "g.html").read_text()
    assert "jane" not in text and str(Path.home()) not in text and str(tmp_path) not in text and "x.pt" in text


def test_hidden_values_are_in_neither_page_nor_archive(grid: Shown, tmp_path: Path) -> None:
    prompt = next(axis for axis in grid.value["axes"] if axis["key"] == "prompt")
    shoe = next(one["key"] for one in prompt["values"] if one["label"] == "a shoe")
    view = View(hidden={"prompt": frozenset({shoe}), "checkpoint": frozenset({"base model"})})
    for what, name in (("html", "g.html"), ("zip", "c.zip")):
        write_export(what, Matrix(grid.bench, grid.value, view), tmp_path / name)
        content = (tmp_path / name).read_bytes()
        assert b"a shoe" not in content.split(b"<script>")[0].replace(b"</script>", b""), name
    told, pictures, _ = page_of(tmp_path / "g.html")
    assert len(told["value"]["cells"]) == len(pictures) == 6
    with zipfile.ZipFile(tmp_path / "c.zip") as archive:
        assert len(archive.namelist()) == 7


@pytest.mark.parametrize(("what", "name"), [("html", "g.html"), ("zip", "c.zip"), ("animation", "a.webp")])
def test_the_pictures_are_not_held_in_memory_at_once(tmp_path: Path, what: str, name: str) -> None:
    """Of each cell a quarter of a megabyte that nothing compresses lies on the disk; all of it is far more than may be held."""
    many = shown(tmp_path / "home", side=8, prompts=("a",), seeds=40)
    one = tmp_path / "noise.png"
    Image.effect_noise((300, 300), 120).convert("RGB").save(one, compress_level=0)
    for tile in many.tiles:
        assert tile.path
        tile.path.unlink()
        tile.path.hardlink_to(one)
    few = Matrix(many.bench, many.value, View(hidden={"seed": frozenset(map(str, range(1, 40)))}), as_drawn=True)
    write_export(what, few, tmp_path / f"few-{name}")  # what is imported and kept for good
    tracemalloc.start()
    write_export(what, Matrix(many.bench, many.value, as_drawn=True), tmp_path / name)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert one.stat().st_size * len(many.tiles) > 40_000_000 and peak < 8_000_000
