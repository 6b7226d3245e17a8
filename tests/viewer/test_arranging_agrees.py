"""The page and the exports arrange alike: the browser's arrangement of random cells and views is the core's."""

from __future__ import annotations

import random
from typing import Any

from cmp.core.arranging import Cell, arrange
from cmp.core.views import read_view
from tests.core.test_arranging import AXES

PLACES = ["X", "x", "Y", "y", "", "z"]
TOLD = """([value, view]) => {
  const found = cmpArrange(value, view);
  const told = (heads) => heads.map((head) => [head.tuple, head.label, head.sub, head.group]);
  return [told(found.columns), told(found.rows),
    found.rows.map((_, r) => found.columns.map((_, c) => found.at(r, c)?.key ?? null)), found.picks.map((axis) => axis.key)];
}"""


def a_case(chance: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    places = {axis.key: chance.choice(PLACES) for axis in AXES if chance.random() < 0.6}
    keys = {axis.key: [*axis.keys, "gone"] for axis in AXES}
    view = {
        "place": places,
        "order": {k: chance.sample(v, chance.randint(0, len(v))) for k, v in keys.items() if chance.random() < 0.4},
        "hidden": {k: chance.sample(v, chance.randint(1, len(v))) for k, v in keys.items() if chance.random() < 0.3},
        "pick": {k: chance.choice(v) for k, v in keys.items() if chance.random() < 0.5},
    }
    at: list[list[int | None]] = [[chance.randrange(len(axis.values)) for axis in AXES] for _ in range(chance.randint(0, 14))]
    for place in at:  # a cell lacks one value at most, as the base model lacks a strength
        if chance.random() < 0.4:
            place[chance.randrange(len(place))] = None
    value = {
        "axes": [{"key": axis.key, "label": axis.label, "values": list(axis.values)} for axis in AXES],
        "place": {axis.key: axis.place for axis in AXES},
        "step_axis": "c",
        "cells": [{"at": place, "key": f"k{i}", "state": "done"} for i, place in enumerate(at)],
    }
    return value, view


def test_two_hundred_random_arrangements_are_the_same(page: Any) -> None:
    chance = random.Random(7)
    for case in range(200):
        value, told = a_case(chance)
        mine = arrange(AXES, [Cell(tuple(cell["at"]), cell) for cell in value["cells"]], read_view(told))
        heads = [[[list(h.at), h.label, h.sub, h.group] for h in some] for some in (mine.columns, mine.rows)]
        placed = [[found.key if (found := mine.cell_at(r, c)) else None for c in range(len(mine.columns))] for r in range(len(mine.rows))]
        assert page.evaluate(TOLD, [value, told]) == [*heads, placed, [pick.axis.key for pick in mine.picks]], (case, value["cells"], told)
