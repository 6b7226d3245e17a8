"""Making room among drawn cells: the oldest go first, what a job still needs stays, and nothing goes without a plan."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cmp.core.work import JobRecord
from cmp.disk.cells import all_cells, cells_size, mark_used, plan_prune, prune
from cmp.disk.store import Store
from cmp.errors import BadInput
from cmp.pictures.files import save_png

NOW = 1_700_000_000.0
DAY = 86400.0


def cell(store: Store, number: int, days: float, prompt: str = "a shoe", seed: int = 0) -> Path:
    """A drawn cell that was last used so many days ago."""
    path = store.cell_path(f"{number:064x}")
    save_png(Image.new("RGB", (8, 8)), path, "a shoe\nSteps: 4", {"prompt": prompt, "seed": seed})
    os.utime(path, (NOW - days * DAY,) * 2)
    return path


def job(days: float, prompt: str = "a boot", seed: int = 1) -> tuple[JobRecord, dict[str, Any]]:
    order = {"grid": {"prompts": [{"text": prompt}], "seeds": [seed]}}
    return JobRecord("grid-1", "grid", "", 4, "interrupted", made=NOW - days * DAY), order


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_the_longest_unused_go_until_what_stays_is_small_enough(store: Store) -> None:
    paths = [cell(store, number, days) for number, days in enumerate((1, 5, 3, 4, 2))]
    count, size = cells_size(store)
    one = size // 5
    assert count == 5 and size == 5 * one
    plan = plan_prune(store, (), most_bytes=3 * one, now=NOW)
    assert [cell.path for cell in plan.going] == [paths[1], paths[3]] and plan.bytes_after == 3 * one
    assert all(path.exists() for path in paths), "a plan deletes nothing"
    assert prune(plan) == 2 * one and [path.exists() for path in paths] == [True, False, True, False, True]


def test_what_was_found_again_counts_as_used(store: Store) -> None:
    paths = [cell(store, number, days) for number, days in enumerate((9, 5))]
    mark_used(paths[0])
    plan = plan_prune(store, (), most_bytes=paths[0].stat().st_size, now=NOW)
    assert [cell.path for cell in plan.going] == [paths[1]]


def test_age_alone_lets_go_of_the_old_and_of_nothing_else(store: Store) -> None:
    paths = [cell(store, number, days) for number, days in enumerate((1, 31, 29))]
    assert [cell.path for cell in plan_prune(store, (), unused_for=30 * DAY, now=NOW).going] == [paths[1]]


def test_cells_of_a_job_that_is_not_over_stay_and_no_others(store: Store) -> None:
    of_others, shown, other_seed, other = (
        cell(store, number, days, prompt, seed)
        for number, (days, prompt, seed) in enumerate([(1, "a shoe", 0), (9, "a boot", 1), (8, "a boot", 2), (7, "a shoe", 1)])
    )
    plan = plan_prune(store, [job(2)], most_bytes=0, now=NOW)
    assert {cell.path for cell in plan.going} == {of_others, other_seed, other} and plan.held == 1
    prune(plan)
    assert shown.exists() and not of_others.exists()
    assert plan_prune(store, [], most_bytes=0, now=NOW).held == 0


def test_a_cell_that_does_not_tell_what_it_shows_stays_while_a_job_may_need_it(store: Store) -> None:
    path = cell(store, 0, 9)
    path.write_bytes(path.read_bytes()[:40])
    os.utime(path, (NOW - 9 * DAY,) * 2)
    assert plan_prune(store, [job(2)], most_bytes=0, now=NOW).going == ()
    assert len(plan_prune(store, [], most_bytes=0, now=NOW).going) == 1


def test_what_was_used_since_the_plan_was_made_stays(store: Store) -> None:
    path = cell(store, 0, 9)
    plan = plan_prune(store, (), most_bytes=0, now=NOW)
    mark_used(path)
    assert prune(plan) == 0 and path.exists()


def test_drafts_and_foreign_files_are_no_cells(store: Store) -> None:
    path = cell(store, 0, 9)
    (path.parent / ".tmp-abcdefgh.png").write_bytes(b"half")
    (path.parent / "notes.txt").write_text("mine")
    (store.home / "cells" / "loose.png").write_bytes(b"mine")
    assert [found.path for found in all_cells(store)] == [path]
    assert cells_size(Store(store.home / "nowhere")) == (0, 0)


def test_a_plan_without_a_limit_is_refused(store: Store) -> None:
    with pytest.raises(BadInput, match="what may stay"):
        plan_prune(store, ())
