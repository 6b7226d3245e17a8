"""A grid whose process is killed goes on where it was: on the command line when it is told to, and by itself when the page is served."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cmp.disk.demo import open_demo

from .conftest import FULL, ROOT, Said, environment, run_command, start_server

pytestmark = pytest.mark.model
GRID = ("grid", FULL, "--checkpoints", "500, 1000, 1500", "--seeds", "1-2", "--prompt", "a red casual shoe", "--steps", "4", "--exact")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    open_demo(tmp_path / "home")
    return tmp_path / "home"


def begun(home: Path, *order: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cmp", *order], cwd=ROOT, env=environment(home) | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def tiles_of(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stderr is not None
    return (line for line in process.stderr if FULL in line and "seed" in line)


def killed_after(home: Path, tiles: int) -> dict[str, int]:
    """Kills a grid after so many tiles, and gives the inode of each cell that was drawn."""
    process = begun(home, *GRID)
    lines = tiles_of(process)
    for _ in range(tiles):
        assert next(lines)
    process.send_signal(signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL
    assert process.stderr is not None
    process.stderr.close()
    return inodes(home)


def inodes(home: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in (home / "cells").glob("*/*.png") if not path.name.startswith(".")}


def jobs(home: Path) -> list[dict[str, Any]]:
    said = run_command(home, "jobs", "--json")
    assert said.code == 0
    return list(said.json["jobs"])


def until(true: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(1)  # each look is a process of its own


def test_a_killed_grid_is_interrupted_and_goes_on_with_nothing_drawn_twice(home: Path) -> None:
    drawn = killed_after(home, 3)
    (job,) = jobs(home)
    assert (job["state"], job["total"], job["kind"]) == ("interrupted", 6, "grid") and 3 <= len(drawn) < 6
    said = run_command(home, "jobs", job["job"], "--resume", "--json")
    assert said.code == 0 and (said.json["state"], said.json["done"]) == ("done", 6)
    assert said.json["reused"] == len(drawn) == sum(tile["reused"] for tile in said.json["tiles"])
    after = inodes(home)
    assert len(after) == 6 and {name: after[name] for name in drawn} == drawn
    again = run_command(home, "jobs", job["job"], "--resume")
    assert again.code == 2 and inodes(home) == after


def test_a_killed_grid_draws_to_the_bit_what_an_undisturbed_one_does(home: Path, tmp_path: Path) -> None:
    killed_after(home, 2)
    run_command(home, "jobs", jobs(home)[0]["job"], "--resume")
    open_demo(tmp_path / "other")
    undisturbed = run_command(tmp_path / "other", *GRID, "--json").json["tiles"]
    assert len(undisturbed) == 6
    from tests.engine.conftest import pixels

    for tile in undisturbed:
        mine = home / "cells" / tile["key"][:2] / f"{tile['key']}.png"
        assert (pixels(mine) == pixels(Path(tile["path"]))).all()


def test_a_killed_grid_goes_on_by_itself_when_the_page_is_served(home: Path) -> None:
    drawn = killed_after(home, 2)
    serving = start_server(home, "serve", "--port", "0")
    next(serving)
    try:
        until(lambda: jobs(home)[0]["state"] == "done")
        (job,) = jobs(home)
        assert (job["done"], job["reused"], job["faults"]) == (6, len(drawn), 0)
    finally:
        serving.close()  # type: ignore[attr-defined]
    after = inodes(home)
    assert len(after) == 6 and {name: after[name] for name in drawn} == drawn


def test_a_grid_that_runs_is_seen_refused_and_stopped_from_another_process(home: Path) -> None:
    process = begun(home, *GRID, "--seeds", "1-400")  # more than can be drawn meanwhile
    lines = tiles_of(process)
    next(lines)
    (job,) = jobs(home)
    assert job["state"] == "running"
    taken = run_command(home, "jobs", job["job"], "--resume", "--json")
    assert taken.code == 0 and taken.json["state"] == "running", "it goes on where it is"
    stopped = run_command(home, "jobs", job["job"], "--cancel", "--json")
    assert stopped.code == 0
    assert process.wait(60) == 130
    (job,) = jobs(home)
    assert job["state"] == "cancelled" and 0 < job["done"] < job["total"] == 1200
    assert process.stderr is not None
    process.stderr.close()


def test_a_watched_run_draws_what_is_new_and_ends_cleanly_on_ctrl_c(home: Path, tmp_path: Path) -> None:
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps({"prompts": ["a red casual shoe"], "seeds": [5], "samplings": [{"steps": 2, "guidance": 4}]}))
    once = run_command(home, "watch", FULL, "--grid", str(spec), "--once", "--json")
    assert once.code == 0 and [tile["step"] for tile in once.json["tiles"]] == [3000, 2500, 2000, 1500, 1000, 500]
    assert {tile["prompt"] for tile in once.json["tiles"]} == {"a red casual shoe"}
    process = begun(home, "watch", FULL, "--grid", str(spec))
    assert process.stderr is not None
    for line in process.stderr:
        if "waiting for the next checkpoint" in line:
            break
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    rest = process.stderr.read()
    assert "Traceback" not in rest and "ended" in rest
    process.stderr.close()
    assert [job["state"] for job in jobs(home)] == ["done", "cancelled"]


@pytest.mark.parametrize(
    ("order", "code", "says"),
    [
        (("jobs", "grid-77"), 3, "no job"),
        (("jobs", "--cancel"), 2, "without a job"),
        (("jobs", "grid-1", "--cancel", "--pause"), 2, "both"),
        (("measure", FULL, "--metric", "beauty"), 2, "'beauty'"),
        (("measure", FULL, "--draws", "0"), 2, "draws is 0"),
        (("measure", FULL, "--held-out", "nowhere"), 3, "no folder"),
        (("watch", f"{FULL}@500"), 2, "is a checkpoint"),
        (("watch", FULL, "--grid", "nothing.json"), 4, "cannot be read"),
        (("watch", FULL, "--grid", "grid-77"), 3, "no job"),
        (("cells", "--yes"), 2, "what may stay"),
        (("cells", "--max-size", "much"), 2, "'much'"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_contracts_code(demo_home: Path, order: tuple[str, ...], code: int, says: str) -> None:
    said: Said = run_command(demo_home, *order, "--json")
    assert said.code == code == said.json["code"] and says in said.json["error"], said


def test_cells_are_deleted_only_when_it_is_said_and_are_drawn_again(home: Path) -> None:
    run_command(home, *GRID)
    for number, path in enumerate(sorted((home / "cells").glob("*/*.png"))):
        os.utime(path, (1_700_000_000 + number,) * 2)
    before = inodes(home)
    plan = run_command(home, "cells", "--max-size", "20kB", "--json").json
    assert not plan["done"] and plan["going"] > 0 and inodes(home) == before
    done = run_command(home, "cells", "--max-size", "20kB", "--yes", "--json").json
    left = inodes(home)
    assert done["done"] and done["after_bytes"] <= 20_000 and len(left) == 6 - plan["going"]
    assert set(left) == set(sorted(before)[plan["going"] :]), "those that were used last stay"
    again = run_command(home, *GRID, "--json").json["tiles"]
    assert sum(tile["reused"] for tile in again) == len(left) and all(tile["fault"] is None for tile in again)
