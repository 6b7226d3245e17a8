"""The matrix in a real browser, with real key and pointer events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cmp import viewer
from cmp.errors import NotFound

HOSTILE = '${window.pwned=1} <img src=x onerror="window.pwned=1"> {{value}} <b>&amp;</b> %{y} שלום 👟'
COLOURS = ("red", "lime", "blue", "teal", "navy", "olive")


def cell(r: int, c: int, state: str = "done", size: int = 64, **more: object) -> dict[str, object]:
    url = f"/img/{COLOURS[c]}/{size}/{r}-{c}" if state == "done" else ""
    fields = {"caption": "", "details": [["seed", 7]], "reused": False, "seconds": 1.5, "fault": None, "badge": ""}
    return {"at": [c, r], "key": f"k{r}{c}", "state": state, "thumb": url, "full": url, **fields, **more}


def grid(columns: int = 4, rows: int = 3, **more: object) -> dict[str, object]:
    heads = [{"key": f"c{c}", "label": f"step {c}", "sub": ""} for c in range(columns)]
    sides = [{"key": f"r{r}", "label": f"prompt {r}", "sub": ""} for r in range(rows)]
    axes = [{"key": "step", "label": "Step", "values": heads}, {"key": "prompt", "label": "Prompt", "values": sides}]
    cells = [cell(r, c) for r in range(rows) for c in range(columns)]
    total = rows * columns
    fixed = {"title": "grid", "axes": axes, "place": {"step": "x", "prompt": "y"}, "step_axis": "step", "note": ""}
    return {**fixed, "cells": cells, "done": total, "total": total, **more}


def show(page: Any, value: object) -> None:
    page.evaluate("value => M.update(value)", value)


def loaded(page: Any, count: int) -> None:
    page.wait_for_function("n => document.querySelectorAll('td img.is-loaded').length === n", arg=count)


def regains_focus(page: Any, name: str) -> None:
    """The browser tells of a closed dialog a moment after it has closed it."""
    page.wait_for_function("name => document.activeElement.getAttribute('aria-label')?.startsWith(name)", arg=name)


def focused(page: Any) -> str:
    return page.evaluate("document.activeElement.getAttribute('aria-label')").split(";")[0]


def title(page: Any) -> str:
    return page.locator(".cmp-full-title").inner_text()


def test_a_hostile_label_is_shown_as_text(page: Any) -> None:
    value = grid(1, 1, title=HOSTILE, note=HOSTILE)
    for head in (one for axis in value["axes"] for one in axis["values"]):  # type: ignore[attr-defined]
        head.update(key=HOSTILE, label=HOSTILE, sub=HOSTILE)
    value["cells"] = [cell(0, 0, caption=HOSTILE, badge=HOSTILE, details=[[HOSTILE, HOSTILE]])]
    show(page, value)
    loaded(page, 1)
    page.locator("td.cmp-cell").click()
    for place in (
        ".cmp-title",
        ".cmp-note",
        "thead .cmp-label",
        "tbody .cmp-sub",
        ".cmp-badge",
        ".cmp-caption",
        ".cmp-full-facts dt",
    ):
        assert page.locator(place).first.text_content() == HOSTILE
    assert title(page) == f"{HOSTILE}, {HOSTILE} - {HOSTILE}, {HOSTILE}"
    assert page.locator("img[src=x], .cmp-matrix b").count() == 0


def test_updating_one_cell_leaves_the_other_images_in_place(page: Any, site: Any) -> None:
    value = grid()
    value["cells"][5] = cell(1, 1, "drawing")  # type: ignore[index]
    show(page, value)
    loaded(page, 11)
    page.evaluate("window.before = [...document.querySelectorAll('td img')]")
    site.asked.clear()
    value["cells"][5] = cell(1, 1)  # type: ignore[index]
    show(page, value)
    loaded(page, 12)
    assert page.evaluate("before.every((img) => img.isConnected && img.classList.contains('is-loaded'))")
    assert [path for path in site.asked if path.startswith("/img")] == ["/img/lime/64/1-1"]


def test_a_column_added_in_front_moves_the_cells_and_the_cursor_along(page: Any) -> None:
    show(page, grid(2, 1))
    loaded(page, 2)
    page.locator("td.cmp-cell").first.focus()
    page.keyboard.press("ArrowRight")
    page.evaluate("window.before = document.activeElement")
    value = grid(3, 1)
    steps = value["axes"][0]["values"]  # type: ignore[index]
    value["axes"][0]["values"] = [{"key": "new", "label": "new", "sub": ""}, *steps[:2]]  # type: ignore[index]
    value["cells"] = [{**cell(0, 2), "at": [0, 0]}, {**cell(0, 0), "at": [1, 0]}, {**cell(0, 1), "at": [2, 0]}]
    show(page, value)
    loaded(page, 3)
    assert page.evaluate("before.isConnected && before.tabIndex === 0 && before.cellIndex === 3")
    assert page.locator("td.cmp-cell[tabindex='0']").count() == 1


def test_a_picture_never_stands_under_the_name_of_the_next(page: Any) -> None:
    show(page, grid(2, 1))
    loaded(page, 2)
    late = grid(2, 1, cells=[cell(0, 0, thumb="/img/black/64/late"), cell(0, 1)])
    assert page.evaluate(
        """late => {
            const before = document.querySelector("td img");
            M.update(late);
            return !before.isConnected && !document.querySelector("td img").classList.contains("is-loaded"); }""",
        late,
    )
    loaded(page, 2)


def test_a_preview_is_marked_and_stays_until_the_picture_is_there(page: Any) -> None:
    value = grid(2, 1, cells=[cell(0, 0, mark="preview"), cell(0, 1)])
    show(page, value)
    loaded(page, 2)
    assert page.locator(".cmp-mark-corner:visible").all_inner_texts() == ["preview"]
    assert "preview" in page.locator("td.cmp-cell").first.get_attribute("aria-label")
    page.locator("td.cmp-cell").first.click()
    assert stage_colour(page) == "red"
    better = grid(2, 1, cells=[cell(0, 0, thumb="/img/black/64/good", full="/img/black/64/good"), cell(0, 1)])
    assert page.evaluate(
        """better => {
            const before = document.querySelector("td img"), large = document.querySelector(".cmp-full-image.is-own");
            M.update(better);
            return before.isConnected && before.classList.contains("is-loaded") && large.isConnected; }""",
        better,
    )
    page.wait_for_function(
        "document.querySelectorAll('td img').length === 2 && document.querySelectorAll('.cmp-full-image.is-own').length === 1"
    )
    assert stage_colour(page) == "black" and page.locator("td img").first.get_attribute("src") == "/img/black/64/good"
    assert page.locator(".cmp-mark-corner:visible").count() == 0


def test_rows_and_cells_ask_for_a_new_seed_only_where_they_can(page: Any) -> None:
    page.evaluate("""window.edits = [];
        const onEdit = ({what, at}) => edits.push([what, at.prompt, at.step]);
        window.M = cmpMatrix(document.querySelector("#matrix"), {onEdit});""")
    show(page, grid(2, 2))
    page.locator("td.cmp-cell").nth(1).focus()
    page.keyboard.press("r")
    assert page.locator(".cmp-again:visible").count() == 0 and page.evaluate("edits") == []
    show(page, grid(2, 2, rerolls=["prompt"]))
    page.keyboard.press("r")
    page.keyboard.press("Shift+R")
    page.get_by_role("button", name="Replace by a new seed: prompt 1").click()
    page.locator("td.cmp-cell").nth(2).click()
    page.get_by_role("button", name="Add a row with a new seed").click()
    page.keyboard.press("r")
    page.keyboard.press("Escape")
    assert page.evaluate("edits") == [
        ["cell", "r0", "c1"], ["row", "r0", "c1"], ["row", "r1", "c0"], ["cell", "r1", "c0"], ["cell", "r1", "c0"],
    ]  # fmt: skip


def test_arrow_keys_move_in_two_dimensions(page: Any) -> None:
    show(page, grid())
    page.locator("td.cmp-cell").first.focus()
    for key, where in (
        ("ArrowRight", "step 1, prompt 0"),
        ("ArrowDown", "step 1, prompt 1"),
        ("End", "step 3, prompt 1"),
        ("ArrowRight", "step 3, prompt 1"),
        ("ArrowLeft", "step 2, prompt 1"),
        ("ArrowUp", "step 2, prompt 0"),
        ("ArrowUp", "step 2, prompt 0"),
    ):
        page.keyboard.press(key)
        assert focused(page) == where
    assert page.evaluate("picked") == []


def test_escape_closes_the_full_view(page: Any) -> None:
    show(page, grid())
    page.locator("td.cmp-cell").nth(5).focus()
    page.keyboard.press("Enter")
    assert title(page) == "step 1 - prompt 1"
    assert page.locator(".cmp-full-place").inner_text() == "column 2 / 4, row 2 / 3"
    page.keyboard.press("Escape")
    assert not page.locator(".cmp-full").is_visible()
    regains_focus(page, "step 1, prompt 1")


def test_the_full_view_moves_in_two_dimensions_and_takes_the_cursor_along(page: Any) -> None:
    show(page, grid())
    page.locator("td.cmp-cell").first.click()
    for key, where in (
        ("ArrowRight", "step 1 - prompt 0"),
        ("ArrowDown", "step 1 - prompt 1"),
        ("ArrowLeft", "step 0 - prompt 1"),
        ("ArrowLeft", "step 3 - prompt 1"),
        ("ArrowRight", "step 0 - prompt 1"),
    ):
        page.keyboard.press(key)
        assert title(page) == where
    page.keyboard.press("Escape")
    regains_focus(page, "step 0, prompt 1")
    assert [(what["index"], what["key"], what["at"]) for what in page.evaluate("picked")] == [
        ([0, 0], "k00", {"step": "c0", "prompt": "r0"})
    ]


def test_the_keys_keep_working_where_there_is_nothing_to_blink_to(page: Any) -> None:
    show(page, grid())
    page.locator("td.cmp-cell").nth(1).click()
    page.get_by_role("button", name="Hold B").focus()
    for key in ("ArrowLeft", "b", "ArrowDown"):
        page.keyboard.press(key)
    assert title(page) == "step 0 - prompt 1"


def stage_colour(page: Any) -> str:
    """Which of the stacked pictures can be seen."""
    page.wait_for_function("[...document.querySelectorAll('.cmp-full-image')].every((img) => img.classList.contains('is-loaded'))")
    return page.evaluate(
        "[...document.querySelectorAll('.cmp-full-image')]"
        ".filter((img) => getComputedStyle(img).opacity === '1').at(-1).src.split('/').at(-3)"
    )


def test_holding_b_shows_the_first_column_until_it_is_let_go(page: Any) -> None:
    show(page, grid())
    page.locator("td.cmp-cell").nth(6).click()
    assert stage_colour(page) == "blue"
    page.keyboard.down("b")
    assert (stage_colour(page), title(page)) == ("red", "step 0 - prompt 1")
    page.keyboard.up("b")
    assert (stage_colour(page), title(page)) == ("blue", "step 2 - prompt 1")
    page.get_by_role("button", name="Hold B").hover()
    page.mouse.down()
    assert stage_colour(page) == "red"
    page.mouse.move(5, 5)
    assert stage_colour(page) == "blue"
    page.mouse.up()


def test_an_update_reaches_the_open_full_view(page: Any) -> None:
    show(page, grid(2, 1, cells=[cell(0, 0), cell(0, 1, "drawing")], done=1))
    page.locator("td.cmp-cell").nth(1).click()
    assert page.locator(".cmp-stage").inner_text() == "Being drawn…"
    show(page, grid(2, 1))
    assert stage_colour(page) == "lime"


def test_a_failed_cell_says_why(page: Any) -> None:
    reason = "Refused: 12 tensors match no layer"
    show(page, grid(3, 1, cells=[cell(0, 0), cell(0, 1, "fault", fault=reason), cell(0, 2, thumb="data:image/png;base64,AAAA")]))
    assert page.locator("td.cmp-cell").nth(1).inner_text() == reason
    assert reason in page.locator("td.cmp-cell").nth(1).get_attribute("aria-label")
    page.get_by_text("could not be loaded").wait_for()
    page.locator("td.cmp-cell").nth(1).click()
    assert page.locator(".cmp-stage").inner_text() == reason


def test_few_pixels_are_shown_sharp_and_many_smooth(page: Any) -> None:
    show(page, grid(2, 1, cells=[cell(0, 0, size=64), cell(0, 1, size=256)]))
    loaded(page, 2)
    rendering = page.evaluate("[...document.querySelectorAll('td img')].map((img) => img.style.imageRendering)")
    assert rendering == ["pixelated", "auto"]


@pytest.mark.parametrize("size", ["96", "176", "512"])
def test_what_rows_differ_in_is_in_sight_however_long_their_prompt_is(page: Any, size: str) -> None:
    value: Any = grid(2, 2)
    for row, sampler in zip(value["axes"][1]["values"], ("Euler a", "DPM++ 2M"), strict=True):
        row |= {"label": "a red casual shoe on a white table, photographed from the left in the light of a studio, " * 3}
        row |= {"sub": f"seed 1234567890 · Steps: 30 · Sampler: {sampler}"}
    show(page, value)
    page.get_by_label("Size of a cell").fill(size)
    told = page.evaluate("""() => [...document.querySelectorAll('th.is-row')].map((head) => {
        const [sub, label] = ['.cmp-sub', '.cmp-label'].map((of) => head.querySelector(of));
        const [within, it] = [head.firstChild.getBoundingClientRect(), sub.getBoundingClientRect()];
        const line = parseFloat(getComputedStyle(label).lineHeight);
        return [it.bottom <= within.bottom + 1, sub.scrollHeight <= sub.clientHeight + 1, label.clientHeight / line];
    })""")
    assert len(told) == 2 and all(inside and whole for inside, whole, _ in told), told
    assert all(abs(lines - round(lines)) < 0.05 and round(lines) >= 2 for _, _, lines in told), told


def test_the_size_of_the_cells_is_remembered(page: Any) -> None:
    show(page, grid())
    page.get_by_label("Size of a cell").fill("256")
    assert page.locator(".cmp-frame").first.bounding_box()["width"] == 258  # and its border
    page.reload()
    page.evaluate("cmpMatrix(document.querySelector('#matrix'))")
    assert page.get_by_label("Size of a cell").input_value() == "256"


def test_the_size_of_the_cells_is_that_which_was_chosen_for_the_run(page: Any) -> None:
    size = page.get_by_label("Size of a cell")
    for run, chosen in (("a", "256"), ("b", "128")):
        show(page, grid(run=run))
        size.fill(chosen)
    show(page, grid(run="a"))
    assert size.input_value() == "256" and page.locator(".cmp-frame").first.bounding_box()["width"] == 258
    show(page, grid(run="c"))
    assert size.input_value() == "128", "of a run that was never looked at, the last choice holds"
    page.reload()
    page.evaluate("value => { window.M = cmpMatrix(document.querySelector('#matrix')); M.update(value) }", grid(run="a"))
    assert size.input_value() == "256"


def test_the_headers_stay_in_view_and_never_cover_the_cursor(page: Any) -> None:
    page.set_viewport_size({"width": 600, "height": 500})
    show(page, grid(6, 12))
    page.locator("td.cmp-cell").first.focus()
    for key in ("PageDown", "End", "ArrowLeft", "ArrowLeft", "ArrowLeft", "ArrowUp", "ArrowUp", "ArrowUp", "ArrowUp"):
        page.keyboard.press(key)
    edges = page.evaluate("""() => {
        const rect = (of) => document.querySelector(of).getBoundingClientRect();
        const box = rect(".cmp-box"), cell = document.activeElement.getBoundingClientRect();
        const head = rect("thead th:last-child"), side = rect("tbody tr:last-child th");
        return [head.top - box.top, side.left - box.left, cell.top - head.bottom, cell.left - side.right]; }""")
    assert abs(edges[0]) < 3 and abs(edges[1]) < 3
    assert edges[2] >= -1 and edges[3] >= -1


def test_the_grid_can_be_read_without_seeing_it(page: Any) -> None:
    show(page, grid(2, 1, cells=[cell(0, 0, badge="0.31"), cell(0, 1, "waiting")], done=1))
    loaded(page, 1)
    assert page.get_by_role("grid", name="grid").count() == 1
    assert page.get_by_role("columnheader").count() == 2 and page.get_by_role("rowheader").count() == 1
    assert page.get_by_role("img", name="step 0, prompt 0; 0.31").count() == 1
    assert page.get_by_role("gridcell", name="step 1, prompt 0; not drawn yet").count() == 1
    assert page.get_by_role("progressbar").get_attribute("aria-valuenow") == "1"


def test_an_empty_matrix_says_what_to_do(page: Any) -> None:
    for value in (None, "", {"note": "Choose two checkpoints."}):
        show(page, value)
    assert page.locator(".cmp-matrix .cmp-note").inner_text() == "Choose two checkpoints."
    assert not page.locator(".cmp-box").is_visible() and not page.locator(".cmp-count").is_visible()


# What the page is given


def test_only_the_listed_files_are_given_out() -> None:
    for name in ("../errors.py", "__init__.py", "/etc/passwd", "matrix", ""):
        with pytest.raises(NotFound):
            viewer.asset(name)
    assert all(viewer.asset(name) for name in viewer.ASSETS)


def test_the_head_names_every_file_and_the_templates_take_no_data() -> None:
    assert all(f'"cmp/static/{name}?v=' in viewer.HEAD for name in (*viewer.BUNDLES, "plotly.min.js"))
    assert all(viewer.asset(name) in viewer.asset(f"viewer{Path(name).suffix}") for name in viewer.ASSETS)
    assert not any(sign in template for template in (viewer.MATRIX_TEMPLATE, viewer.CURVES_TEMPLATE) for sign in ("{", "$", "@"))


def test_the_same_fault_of_several_cells_is_told_once_and_stays_with_each(page: Any) -> None:
    cells = [cell(0, 0, "fault", fault="no base model"), cell(0, 1, "fault", fault="no base model"), cell(0, 2, "fault", fault="damaged")]
    show(page, grid(3, 1, cells=cells))
    assert page.locator("td .cmp-fault").all_text_contents() == ["no base model", "Failed for the same reason.", "damaged"]
    second = page.locator("td.cmp-cell").nth(1)
    assert second.get_attribute("title") == "no base model" and "failed: no base model" in second.get_attribute("aria-label")
