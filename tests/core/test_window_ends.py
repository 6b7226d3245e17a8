"""Two checkpoints side by side: in cells that differ in nothing but which end they are of, and in rows that were drawn of both."""

from __future__ import annotations

from typing import Any

import pytest

from cmp.core.grids import Sampling
from cmp.core.votes import Shown
from cmp.core.window_ends import MOST_SEEDS, cells_of_both, grid_of_both
from tests.core.test_picking import RUN

ENDS = ({"500"}, {"1500"})


def value(*cells: tuple[list[int | None], str], runs: tuple[str, ...] = ()) -> dict[str, Any]:
    """A matrix by step and seed, and by run where there are several."""
    axes = [("checkpoint", ["base model", "500", "1500"]), ("seed", ["1", "2"]), *([("run", [*runs])] if runs else [])]
    told = [{"key": key, "values": [{"key": name} for name in names]} for key, names in axes]
    return {"axes": told, "step_axis": "checkpoint", "cells": [{"at": at, "key": "k", "state": state} for at, state in cells]}


def test_the_two_cells_share_all_but_the_step() -> None:
    assert cells_of_both(value(([1, 0], "done"), ([2, 1], "done"), ([1, 1], "done")), "r", ENDS) == [[1, 1], [2, 1]]
    assert cells_of_both(value(([1, 0], "done"), ([2, 1], "done")), "r", ENDS) is None
    assert cells_of_both(value(([0, None], "done"), ([2, 1], "done")), "r", ({"base model"}, {"1500"})) == [[0, None], [2, 1]]


@pytest.mark.parametrize("spoilt", ["fault", "waiting", "preview"])
def test_a_picture_that_is_not_there_or_only_a_preview_is_none(spoilt: str) -> None:
    found = value(([1, 0], "done"), ([2, 0], "done" if spoilt == "preview" else spoilt))
    if spoilt == "preview":
        found["cells"][1]["mark"] = "preview"
    assert cells_of_both(found, "r", ENDS) is None
    assert cells_of_both(found, "r", ENDS, done=False) == [[1, 0], [2, 0]]


def test_a_step_of_another_run_is_not_an_end() -> None:
    both = value(([1, 0, 0], "done"), ([2, 0, 1], "done"), ([2, 0, 0], "done"), runs=("r", "s"))
    assert cells_of_both(both, "r", ENDS) == [[1, 0, 0], [2, 0, 0]]
    assert cells_of_both(both, "s", ENDS) is None
    assert cells_of_both({}, "r", ENDS) is None, "an empty matrix"


def shown(step: int, seed: int, text: str = "a shoe", stack: tuple[object, ...] = ()) -> Shown:
    return Shown(f"{step}-{seed}-{text}", f"r@{step}", (text, "", seed, 1.0, Sampling(), stack, "base"), text, "", seed)


def test_the_grid_of_both_is_of_the_prompt_that_most_pictures_of_both_have() -> None:
    first, last = RUN.checkpoint("500"), RUN.checkpoint("1500")
    pictures = [shown(step, seed) for step in (500, 1500) for seed in (3, 1)]
    pictures += [shown(step, 7, "a cat") for step in (500, 1500)] + [shown(500, seed, "a dog") for seed in range(5)]
    found = grid_of_both(pictures, first, last)
    assert found is not None and (found.checkpoints, found.prompts[0].text, found.seeds) == ((first, last), "a shoe", (1, 3))
    many = grid_of_both([shown(step, seed) for step in (500, 1500) for seed in range(40)], first, last)
    assert many is not None and len(many.seeds) == MOST_SEEDS


def test_pictures_of_one_alone_or_with_other_loras_make_no_grid() -> None:
    first, last = RUN.checkpoint("500"), RUN.checkpoint("1500")
    assert grid_of_both([shown(500, 1), shown(1500, 2)], first, last) is None
    assert grid_of_both([shown(step, 1, stack=("other",)) for step in (500, 1500)], first, last) is None
