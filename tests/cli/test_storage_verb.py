"""What `storage` prints: the plan before, the sum after, and what could be asked for where nothing was."""

from __future__ import annotations

import os
from pathlib import Path

from tests.in_process import Said, command
from tests.support import NOW, Training, origin_run


def storage(tmp_path: Path, made: Training, *asked: str) -> Said:
    said = command(tmp_path / "home", "--runs", str(made.outputs), "--bases", str(made.bases), "storage", *asked)
    assert said.code == 0, said.told
    return said


def test_what_could_be_freed_is_offered_where_nothing_was_asked_for(tmp_path: Path) -> None:
    said = storage(tmp_path, origin_run(tmp_path))
    assert " then" not in said.out and "in all" in said.out and "--drop optimizer (frees " in said.out, said.told


def test_a_plan_is_told_before_it_is_carried_out_and_not_again_afterwards(tmp_path: Path) -> None:
    made = origin_run(tmp_path)
    for path in made.run.rglob("*"):
        os.utime(path, (NOW - 10**6, NOW - 10**6))  # what is young stays
    asked = ("--drop", "optimizer")
    plan = storage(tmp_path, made, *asked)
    assert "optimizer.bin" in plan.out and " before, " in plan.out and "--yes does it" in plan.out, plan.told
    done = storage(tmp_path, made, *asked, "--yes")
    assert "optimizer.bin" not in done.out and " to the trash; " in done.out and " now; " in done.out, done.told
    told = [line for line in done.err.splitlines() if "optimizer.bin" in line]
    assert len(told) == len(set(told)) == plan.out.count("optimizer.bin") and all("undo: restore" in line for line in told), done.told


def test_rules_by_which_nothing_goes_are_told_as_such(tmp_path: Path) -> None:
    said = storage(tmp_path, origin_run(tmp_path), "--keep", "last:9")
    assert "Nothing goes by these rules" in said.out and " then" not in said.out, said.told
