"""What `list` prints for people."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cmp.cli import app
from tests.in_process import command
from tests.support import origin_run, spoil


def test_a_long_flaw_leaves_the_table_whole_and_is_told_in_full_by_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = origin_run(tmp_path, name="r")
    spoil(made, lambda tensors: tensors.pop(next(name for name in tensors if "lora_A" in name)))
    monkeypatch.setenv("CMP_HOME", str(tmp_path / "home"))
    listed, shown = (CliRunner().invoke(app, ["--runs", str(made.outputs), *verb]).output for verb in (["list"], ["show", "r@500"]))
    (row,) = (line for line in listed.splitlines() if line.split()[:1] == ["500"])
    assert len(row) <= 120 and row.endswith("…")
    flaw = next(line for line in shown.splitlines() if line.startswith("  cannot be used"))
    assert row.rpartition("  ")[2].removesuffix("…") in flaw and len(flaw) > 60


def test_equal_weights_are_told_by_the_names_that_people_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = origin_run(tmp_path, name="r")
    monkeypatch.setenv("CMP_HOME", str(tmp_path / "home"))
    listed = CliRunner().invoke(app, ["--runs", str(made.outputs), "list"]).output
    assert next(line for line in listed.splitlines() if line.split()[:1] == ["1000"]).endswith("also final")


@pytest.mark.parametrize("verb", [["list"], ["storage"], ["show", "r"], ["convert", "r", "--to", "lora"], ["best", "r"]])
def test_a_named_folder_that_is_not_there_is_not_found_and_list_still_tells_the_others(tmp_path: Path, verb: list[str]) -> None:
    made = origin_run(tmp_path, name="r")
    gone = tmp_path / "gone"
    said = command(tmp_path / "home", "--runs", str(made.outputs), "--runs", str(gone), *verb, "--json")
    assert said.code == 3 and str(gone) in said.out and not said.crashed, said.told
    if verb == ["list"]:
        assert [run["id"] for run in said.json["runs"]] == ["r"] and [p["path"] for p in said.json["problems"]] == [str(gone)]
    assert command(tmp_path / "home", "--runs", str(made.outputs), "list").code == 0


def test_what_needs_no_folder_of_runs_says_on_standard_error_that_one_is_not_there(tmp_path: Path) -> None:
    said = command(tmp_path / "home", "--runs", str(tmp_path / "gone"), "jobs", "--json")
    assert said.code == 0 and str(tmp_path / "gone") in said.err, said.told
