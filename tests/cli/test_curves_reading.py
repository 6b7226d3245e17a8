"""`curves` on the command line: what it says of a curve, and files of it."""

from __future__ import annotations

import csv
from pathlib import Path

from tests.in_process import command
from tests.support import origin_run, write_log

RUN = "lora_casual_shoes"


def test_json_and_text_say_how_to_read_the_training_loss(tmp_path: Path) -> None:
    made = origin_run(tmp_path)
    told = command(tmp_path / "home", "--runs", str(made.outputs), "curves", RUN, "--json").json
    assert told["reading"][-1].startswith("A lower training loss does not by itself mean better pictures")
    assert told["run"] == RUN and told["checkpoints"] == [500, 1000]
    said = command(tmp_path / "home", "--runs", str(made.outputs), "curves", RUN)
    assert "A lower training loss" in said.out and said.code == 0


def test_a_tag_that_a_spreadsheet_would_run_is_text_in_the_table(tmp_path: Path) -> None:
    made = origin_run(tmp_path)
    file = next((tmp_path / "logs").rglob("events.*"))
    file.write_bytes(file.read_bytes() + write_log(tmp_path / "other", [(1, 0.5)], tag="=HYPERLINK()").read_bytes())
    table = tmp_path / "out.csv"
    said = command(tmp_path / "home", "--runs", str(made.outputs), "curves", RUN, "--csv", str(table))
    assert said.code == 0, said.told
    rows = list(csv.reader(table.read_text().splitlines()))
    assert {row[0] for row in rows[1:]} == {"loss", "'=HYPERLINK()"}


def test_a_picture_and_a_vector_picture_are_written(tmp_path: Path) -> None:
    made = origin_run(tmp_path)
    png, svg = tmp_path / "a.png", tmp_path / "a.svg"
    said = command(tmp_path / "home", "--runs", str(made.outputs), "curves", RUN, "--png", str(png), "--svg", str(svg))
    assert said.code == 0 and png.read_bytes().startswith(b"\x89PNG") and "<svg" in svg.read_text()
