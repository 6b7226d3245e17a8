"""Arranging: whatever a view says, every cell that it shows stands where its coordinates say, once or under each head it belongs to."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmp.core.arranging import Arranged, Axis, Cell, Group, arrange, over_steps, read_matrix
from cmp.core.views import View, read_view
from cmp.errors import BadInput

PLACES = ("X", "x", "Y", "y", "")


def axis(key: str, *labels: str, place: str = "", is_step: bool = False) -> Axis:
    return Axis(key, key, tuple({"key": label, "label": label, "sub": ""} for label in labels), labels, place, is_step)


CHECKPOINT = axis("c", "base", "500", "1000", place="x", is_step=True)
STRENGTH = axis("s", "0.5", "1", place="x")
SEED = axis("d", "1", "2", place="y")
AXES = (CHECKPOINT, STRENGTH, SEED)


def cells(*places: tuple[int | None, ...]) -> tuple[Cell, ...]:
    return tuple(Cell(at, {"key": f"k{i}", "state": "done"}) for i, at in enumerate(places))


# the base model has no strength
GRID = cells(*((0, None, d) for d in (0, 1)), *((c, s, d) for c in (1, 2) for s in (0, 1) for d in (0, 1)))


def heads(arranged: Arranged) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    return [(h.label, h.sub) for h in arranged.columns], [(h.label, h.sub) for h in arranged.rows]


def keys(arranged: Arranged) -> list[list[str]]:
    return [
        [cell.key if (cell := arranged.cell_at(r, c)) else "-" for c in range(len(arranged.columns))] for r in range(len(arranged.rows))
    ]


def test_the_base_model_has_one_column_and_comes_first() -> None:
    found = arrange(AXES, GRID)
    assert heads(found) == ([("base", ""), ("500", "0.5"), ("500", "1"), ("1000", "0.5"), ("1000", "1")], [("1", ""), ("2", "")])
    assert keys(found) == [["k0", "k2", "k4", "k6", "k8"], ["k1", "k3", "k5", "k7", "k9"]]
    assert found.picks == () and found.cell_at(9, 9) is None


def test_a_value_that_belongs_to_all_stands_under_each_of_them() -> None:
    found = arrange(AXES, GRID, View(place={"c": "y", "s": "x", "d": ""}))
    assert heads(found) == ([("0.5", ""), ("1", "")], [("base", ""), ("500", ""), ("1000", "")])
    assert keys(found) == [["k0", "k0"], ["k2", "k4"], ["k6", "k8"]] and [pick.axis.key for pick in found.picks] == ["d"]


def test_of_two_cells_in_one_place_the_one_that_says_more_is_shown() -> None:
    for several in (((0, None, 0), (0, 1, 0)), ((0, 1, 0), (0, None, 0))):
        found = arrange(AXES, cells(*several), View(place={"s": ""}, pick={"s": "1"}))
        assert found.placed[0, 0].at == (0, 1, 0)


def test_order_puts_the_named_values_first_and_hiding_takes_all_their_cells_away() -> None:
    view = View(order={"c": ("1000", "nobody", "1000")}, hidden={"s": frozenset({"1"}), "d": frozenset({"1"}), "q": frozenset({"1"})})
    assert keys(arrange(AXES, GRID, view)) == [["k7", "k1", "k3"]]
    everything = View(hidden={"d": frozenset({"1", "2"})})
    assert keys(arrange(AXES, GRID, everything)) == keys(arrange(AXES, GRID)), "a link that hides everything hides nothing"


@pytest.mark.parametrize(("pick", "shown"), [({}, "1000"), ({"c": "500"}, "500"), ({"c": "gone"}, "1000"), ({"c": "base"}, "1000")])
def test_a_selector_takes_the_picked_value_or_of_the_steps_the_last(pick: dict[str, str], shown: str) -> None:
    found = arrange(AXES, GRID, View(place={"c": ""}, pick=pick, hidden={"c": frozenset({"base"})}))
    assert found.axes[0].picked == ("base", "500", "1000").index(shown)
    assert {cell.at[0] for cell in found.placed.values()} == {found.axes[0].picked}


def test_outer_axes_make_groups_over_what_lies_beside_each_other() -> None:
    found = arrange(AXES, GRID, View(place={"c": "X"}))
    assert found.column_groups == (Group("base", 0, 1), Group("500", 1, 2), Group("1000", 3, 2))
    assert [h.label for h in found.columns] == ["", "0.5", "1", "0.5", "1"] and found.row_groups == (Group("", 0, 2),)


def test_every_step_is_a_frame_with_the_same_columns_and_rows() -> None:
    frames = over_steps(AXES, (*GRID, *cells((None, 1, 1))), View(order={"c": ("1000",)}))
    assert [step["label"] for step, _ in frames] == ["1000", "base", "500"]
    assert {heads(found)[0][0] for _, found in frames} == {("0.5", "")} and len({len(found.rows) for _, found in frames}) == 1
    assert over_steps(AXES[1:], GRID) == ()


def test_values_of_the_same_key_are_told_apart() -> None:
    head = {"key": "a", "label": "a"}
    axes, found = read_matrix({"axes": [{"key": "q", "values": [head, head]}], "cells": [{"at": [1], "key": "k"}], "place": {"q": "x"}})
    assert axes[0].keys == ("a", "a\x001") and arrange(axes, found).placed[0, 0].key == "k"


# -- whatever is asked -----------------------------------------------------------------------------------------------------

names = st.sampled_from(["c", "s", "d", "q", "", "__proto__"])
values = st.sampled_from(["base", "500", "1000", "0.5", "1", "2", "gone", ""])
views = st.builds(
    View,
    st.dictionaries(names, st.sampled_from(PLACES)),
    st.dictionaries(names, st.lists(values).map(tuple)),
    st.dictionaries(names, st.frozensets(values, max_size=2)),
    st.dictionaries(names, values),
)
coordinates = st.tuples(*(st.none() | st.integers(0, len(one.values) - 1) for one in AXES))


@given(st.lists(coordinates, max_size=30), views)
def test_every_cell_that_is_shown_has_a_place_or_is_beaten_there_by_one_that_says_more(places: list[Any], view: View) -> None:
    all_cells = cells(*places)
    found = arrange(AXES, all_cells, view)
    for cell in all_cells:
        shown = all(
            at is None or (at in one.shown and (one.place != "" or at == one.picked)) for at, one in zip(cell.at, found.axes, strict=True)
        )
        agreeing = [p for p in _every_place(found) if _agrees(cell, found, *p)]
        assert bool(agreeing) >= shown, "a cell that is shown has a head above it and one beside it"
        if shown:
            assert all(found.placed[p].at.count(None) <= cell.at.count(None) for p in agreeing)
        else:
            assert cell not in found.placed.values()


@given(st.lists(coordinates, max_size=30), views)
def test_what_stands_in_a_place_agrees_with_both_its_heads(places: list[Any], view: View) -> None:
    found = arrange(AXES, cells(*places), view)
    assert all(_agrees(cell, found, *place) for place, cell in found.placed.items())
    for some in (found.columns, found.rows):
        assert len({head.at for head in some}) == len(some)
        assert all(not set(head.at) <= {None} or len(some) == 1 for head in some)


@given(st.permutations(GRID), views)
def test_the_order_of_the_cells_moves_nothing(mixed: list[Cell], view: View) -> None:
    assert keys(arrange(AXES, mixed, view)) == keys(arrange(AXES, GRID, view))


def _every_place(found: Arranged) -> list[tuple[int, int]]:
    return [(r, c) for r in range(len(found.rows)) for c in range(len(found.columns))]


def _agrees(cell: Cell, found: Arranged, row: int, column: int) -> bool:
    across = [one for place in "Xx" for one in found.axes if one.place == place]
    down = [one for place in "Yy" for one in found.axes if one.place == place]
    pairs = [*zip(across, found.columns[column].at, strict=True), *zip(down, found.rows[row].at, strict=True)]
    return all(at is None or cell.at[one.number] is None or cell.at[one.number] == at for one, at in pairs)


# -- what a caller sends ---------------------------------------------------------------------------------------------------

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(string.printable, max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@given(anything | st.fixed_dictionaries({}, optional=dict.fromkeys(("place", "order", "hidden", "pick"), anything)))
def test_any_json_is_a_view_or_bad_input(told: Any) -> None:
    try:
        view = read_view(told)
    except BadInput:
        return
    arrange(AXES, GRID, view)


@pytest.mark.parametrize(
    "told",
    [
        [], "x", {"place": []}, {"place": {"c": None}}, {"order": {"c": "500"}}, {"hidden": {"c": [5]}},
        {"pick": {"c": 1}}, {"order": {"c": ["x"] * 10_001}}, {"place": {str(i): "x" for i in range(10_001)}},
    ],
)  # fmt: skip
def test_what_is_no_view_is_refused_in_words(told: Any) -> None:
    with pytest.raises(BadInput) as refused:
        read_view(told)
    assert refused.value.hint and len(refused.value.message) < 300


def test_what_is_for_the_screen_alone_is_passed_over() -> None:
    assert read_view({"cell": ["a", 1], "zoom": {"z": 4}, "size": 64, "place": {"c": "y"}}) == View(place={"c": "y"})
    assert read_view(None) == read_view({"place": {"c": "z"}}) == View()
