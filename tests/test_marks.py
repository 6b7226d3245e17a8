"""Stars, notes and names: they stay when roots move, are the row's and not the file's, and two processes lose none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cmp.cli import app
from cmp.core.describing import checkpoint_facts, run_facts
from cmp.errors import BadInput, NotFound, Refused
from cmp.settings import Settings
from cmp.workbench import Workbench
from tests.support import Training, as_nobody, bench_of, origin_run

RUN = "lora_casual_shoes"
ROOT = Path(__file__).resolve().parents[1]
STAR = """
import sys
from pathlib import Path
from cmp.settings import Settings
from cmp.workbench import Workbench
home, outputs, begin, end = sys.argv[1:]
bench = Workbench(Settings(Path(home), (Path(outputs),)))
for number in range(int(begin), int(end)):
    bench.star(f"lora_casual_shoes@{number % 10 + 1}", note=f"{number}")
    bench.star("lora_casual_shoes@99", number % 2 == 0)
"""


@pytest.fixture
def made(tmp_path: Path) -> Training:
    return origin_run(tmp_path)


def said(made: Training, *arguments: str, home: str = "home", runs: Path | None = None) -> Any:
    place = {"CMP_HOME": str(made.outputs.parent / home), "CMP_RUNS": str(runs or made.outputs), "CMP_BASES": str(made.bases)}
    return CliRunner().invoke(app, list(arguments), env=place)


def listed(made: Training, **more: Any) -> dict[str, tuple[bool, str]]:
    (run,) = json.loads(said(made, "list", "--json", **more).stdout)["runs"]
    return {c["id"]: (c["star"], c["note"]) for c in run["checkpoints"]}


def test_a_star_is_in_the_list_and_in_what_is_shown(made: Training) -> None:
    assert listed(made) == {f"{RUN}@500": (False, ""), f"{RUN}@1000": (False, "")}
    done = said(made, "star", f"{RUN}@500", "--note", "best hands", "--json")
    assert (done.exit_code, json.loads(done.stdout)) == (0, {"checkpoint": f"{RUN}@500", "star": True, "note": "best hands"})
    assert listed(made) == {f"{RUN}@500": (True, "best hands"), f"{RUN}@1000": (False, "")}
    (row,) = (line for line in said(made, "list").stdout.splitlines() if " 500 " in line)
    assert row.startswith("★") and row.endswith("best hands")
    shown = json.loads(said(made, "show", f"{RUN}@500", "--json").stdout)
    assert (shown["star"], shown["note"]) == (True, "best hands")
    assert "★ starred" in {fact.label for fact in checkpoint_facts(shown)}
    whole = json.loads(said(made, "show", RUN, "--json").stdout)
    assert [c["star"] for c in whole["checkpoints"]] == [True, False]
    assert any("★ 500" in line and "best hands" in line for fact in run_facts(whole) for line in fact.lines)


def test_a_note_is_kept_until_another_is_said_and_outlives_its_star(made: Training) -> None:
    bench, target = bench_of(made), f"{RUN}@500"
    run = bench.find(RUN)[0]
    bench.star(target, note="a")
    bench.star(target)
    assert bench.starred(run) == {target: "a"}
    bench.star(target, False)
    assert bench.starred(run) == {} and listed(made)[target] == (False, "a")
    bench.star(target, note="")
    assert bench.starred(run) == {target: ""}
    bench.star(target, False)
    assert bench.store.all("star") == {} == bench.marks([run])


def test_a_star_is_the_rows_whatever_name_it_was_put_by(made: Training) -> None:
    bench = bench_of(made)
    for name in (f"{RUN}@final", str(made.checkpoint(1000)), str(made.run / "lora_weights"), f"{RUN}@1000"):
        assert bench.star(name, note=name[-5:])[0] == f"{RUN}@1000"
    assert bench.starred(bench.find(RUN)[0]) == {f"{RUN}@1000": "@1000"} and len(bench.store.all("star")) == 1
    assert bench.show(str(made.run / "lora_weights"))["star"] is True
    bench.star(str(made.checkpoint(1000)), False, "")
    assert bench.store.all("star") == {}


def test_a_star_of_a_final_is_the_steps_once_they_are_known_to_be_the_same(made: Training) -> None:
    kept = made.checkpoint(1000).rename(made.outputs.parent / "kept")
    bench_of(made).star(f"{RUN}@final", note="mine")
    kept.rename(made.checkpoint(1000))
    assert listed(made)[f"{RUN}@1000"] == (True, "mine")
    bench_of(made).star(f"{RUN}@1000", False)
    assert listed(made)[f"{RUN}@1000"] == (False, "mine") and len(bench_of(made).store.all("star")) == 1


def test_stars_move_with_their_root(made: Training) -> None:
    bench_of(made).star(f"{RUN}@500", note="mine")
    elsewhere = made.outputs.rename(made.outputs.parent / "moved")
    assert listed(made, runs=elsewhere)[f"{RUN}@500"] == (True, "mine")


def test_what_lies_outside_the_roots_is_starred_by_its_path_and_not_by_its_name(made: Training) -> None:
    other = origin_run(made.outputs.parent / "other")
    bench = bench_of(made)
    name, mark = bench.star(str(other.checkpoint(500)), note="theirs")
    assert (name, mark.star, mark.note) == (f"{RUN}@500", True, "theirs")
    assert bench.starred(bench.find(RUN)[0]) == {} and bench.show(str(made.checkpoint(500)))["star"] is False
    assert bench.show(str(other.checkpoint(500)))["note"] == "theirs"
    assert bench.starred(bench.find(str(other.run))[0]) == {f"{RUN}@500": "theirs"}
    assert listed(made, runs=other.outputs)[f"{RUN}@500"] == (True, "theirs"), "also once its folder is looked at"
    os.symlink(other.outputs, made.outputs.parent / "link")
    assert bench.show(str(made.outputs.parent / "link" / RUN / "checkpoints" / "checkpoint-500"))["star"] is True


def test_a_path_outside_the_roots_has_nobody_look_at_them(made: Training, tmp_path: Path) -> None:
    bench = Workbench(Settings(tmp_path / "empty"))
    bench.star(str(made.checkpoint(500)))
    assert bench.show(str(made.checkpoint(500)))["star"] is True and not (tmp_path / "empty" / "demo").exists()


def test_given_names_are_listed_and_shown(made: Training) -> None:
    bench = bench_of(made)
    bench.rename(RUN, "Shoes"), bench.rename(f"{RUN}@500", "early")
    told = json.loads(said(made, "list", "--json").stdout)["runs"][0]
    assert told["name"] == "Shoes" and [c["name"] for c in told["checkpoints"]] == ["early", None]
    text = said(made, "list").stdout
    assert f"{RUN} “Shoes”" in text and "“early”" in text
    assert bench.show(f"{RUN}@500")["name"] == "early"


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [((RUN,), BadInput), ((f"{RUN}@7",), NotFound), (("nobody@500",), NotFound), ((f"{RUN}@500", "--note", "x" * 2001), BadInput)],
)
def test_what_cannot_be_starred_is_told(made: Training, arguments: tuple[str, ...], kind: type[Exception]) -> None:
    assert isinstance(said(made, "star", *arguments).exception, kind)


def test_a_home_that_cannot_be_written_refuses_a_star(open_path: Path) -> None:
    made = origin_run(open_path)
    home = open_path / "home"
    home.mkdir(mode=0o555)

    def attempt() -> str:
        try:
            Workbench(Settings(home, (made.outputs,))).star(f"{RUN}@500")
        except Refused as fault:
            return fault.message
        return "starred"

    assert "cannot keep state" in as_nobody(attempt) and "Errno" not in as_nobody(attempt)


def test_two_processes_at_once_lose_no_star_and_no_note(tmp_path: Path) -> None:
    made = origin_run(tmp_path, (*range(1, 11), 99), final=False, logs=False)
    home = tmp_path / "home"
    bench_of(made).star(f"{RUN}@99", note="stays")
    order = [sys.executable, "-c", STAR, str(home), str(made.outputs)]
    alone = os.environ | {"OMP_NUM_THREADS": "1"}
    both = [subprocess.Popen([*order, *of], cwd=ROOT, env=alone) for of in (("0", "25"), ("25", "50"))]
    assert [process.wait(120) for process in both] == [0, 0]
    found = bench_of(made).marks(bench_of(made).library().runs)
    assert {name.rpartition("@")[2] for name, mark in found.items() if mark.star} >= set(map(str, range(1, 11)))
    assert found[f"{RUN}@99"].note == "stays"


def test_nothing_is_written_into_the_run(made: Training) -> None:
    def left() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in made.run.rglob("*")}

    before = left()
    said(made, "star", f"{RUN}@500", "--note", "x")
    assert left() == before
    shutil.rmtree(made.outputs.parent / "home")
    assert listed(made)[f"{RUN}@500"] == (False, "")
