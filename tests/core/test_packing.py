"""Packing: file names that every system takes, that sort as the grid does, and a table that no spreadsheet executes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmp.core.arranging import Axis, Cell, read_matrix
from cmp.core.grids import Fault, GridSpec, Prompt, Tile
from cmp.core.matrices import grid_matrix
from cmp.core.packing import file_name, harmless, pack, table
from cmp.core.runs import Checkpoint
from cmp.core.views import View

STEPS = tuple(Checkpoint("shoes", str(step), None, "x", "lora", step=step) for step in (500, 1000))  # type: ignore[arg-type]
SAFE = re.compile(r"[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)?")


def grid(spec: GridSpec, fault: Fault | None = None) -> tuple[tuple[Axis, ...], tuple[Cell, ...]]:
    tiles = [Tile(cell, f"k{i}", None, seconds=1.5, fault=fault) for i, cell in enumerate(spec.cells())]
    return read_matrix(grid_matrix(spec, tiles, lambda c: (f"step {c.key}", "") if c else ("base model", "")))


def test_names_tell_the_column_and_what_differs_within_it() -> None:
    spec = GridSpec(
        (None, *STEPS), (Prompt("a red shoe on a table of very old wood"), Prompt("an even longer text that no file name holds")), (0, 7)
    )
    names = [name for name, _ in pack(*grid(spec))]
    assert names[:4] == [f"001-base-model/prompt-{p}_seed-{s}" for p in (1, 2) for s in (0, 7)]
    assert names[4].startswith("002-step-500/") and names[-1] == "003-step-1000/prompt-2_seed-7" and len(set(names)) == 12
    assert names == sorted(names)


def test_the_order_of_the_view_is_that_of_the_folders_and_hidden_values_are_not_packed() -> None:
    spec = GridSpec((None, *STEPS), (Prompt("a"),), (1, 2), (0.5, 1.0))
    view = View(order={"checkpoint": (STEPS[1].id,)}, hidden={"checkpoint": frozenset({"base model"}), "seed": frozenset({"2"})})
    assert [name for name, _ in pack(*grid(spec), view)] == [
        "001-step-1000-strength-0.5/picture", "002-step-1000-strength-1/picture",
        "003-step-500-strength-0.5/picture", "004-step-500-strength-1/picture",
    ]  # fmt: skip


def test_what_is_not_picked_is_packed_too_under_its_own_name() -> None:
    spec = GridSpec(STEPS, (Prompt("a"),), (1, 2))
    assert len({name for name, _ in pack(*grid(spec), View({"checkpoint": "", "seed": ""}))}) == 4


texts = st.text(max_size=30) | st.sampled_from(["CON", "..", "a/../b", "C:\\x", "nul.txt", "\u202e", "  ", "靴", "a.", "-x"])


@given(st.lists(texts, min_size=1, max_size=4, unique=True), st.sampled_from(["x", "y", "X", ""]))
def test_any_prompt_makes_a_name_that_is_safe_everywhere_and_that_no_other_cell_has(prompts: list[str], place: str) -> None:
    axes, cells = grid(GridSpec(STEPS, tuple(map(Prompt, prompts)), (1, 2)))
    names = [name for name, _ in pack(axes, cells, View({"prompt": place}))]
    assert len({name.lower() for name in names}) == len(cells) == len(names)
    for name in names:
        assert SAFE.fullmatch(name) and not name.endswith(".") and len(name) < 200
        assert not re.match(r"(con|prn|aux|nul|com\d|lpt\d)\b", name.rpartition("/")[2]), name


@given(st.text() | st.sampled_from(["CON", "nul.x", "..", "a/b", "...", "\ud800", "x" * 300, 'a"b', "COM1"]))
def test_any_title_makes_a_file_name(title: str) -> None:
    name = file_name(title)
    assert name and len(name) <= 90 and not set(name) & set('<>:"/\\|?*\0\n') and name == name.strip(" .")
    assert name.split(".")[0].upper() not in ("CON", "NUL", "COM1") and name.isprintable()


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-2+3", "@SUM(A1)", "\t=x", " =x", "\r=x", "-", "=cmd|' /C calc'!A0"])
def test_nothing_that_begins_like_a_formula_is_left_so(text: str) -> None:
    assert harmless(text) == f"'{text}"


@pytest.mark.parametrize("text", ["-0.5", "+3", "1e-5", "a = b", "", "-1e5", "'=x"])
def test_numbers_and_plain_texts_stay_as_they_are(text: str) -> None:
    assert harmless(text) == text


def test_the_table_has_every_coordinate_and_what_became_of_each_cell() -> None:
    spec = GridSpec((None, STEPS[0]), (Prompt("=HYPERLINK(1)", "@bad"),), (3,), (0.5,))
    axes, cells = grid(spec, Fault("it is broken", "Mend it."))
    head, *rows = table(axes, pack(axes, cells), [["mode", "fast"]])
    told = [dict(zip(head, row, strict=True)) for row in rows]
    assert [row["Checkpoint name"] for row in told] == ["base model", "shoes@500"] and [row["Strength"] for row in told] == ["", "0.5"]
    known = {"Prompt": "'=HYPERLINK(1)", "key": "k1", "state": "fault", "fault": "it is broken. Mend it.", "mode": "fast"}
    assert told[1] | known == told[1]
    assert told[0]["seconds"] == "1.5" and told[0]["file"].startswith("001-") and len(set(head)) == len(head)
