"""What the user makes of a grid after it was drawn: arranged, sliding over the steps, zoomed and tinted, and found again by its link."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

COLOURS = ("red", "lime", "blue", "teal")


def values(kind: str, *names: str) -> dict[str, Any]:
    return {"key": kind, "label": kind.capitalize(), "values": [{"key": name, "label": f"{kind} {name}", "sub": ""} for name in names]}


def four_axes(**more: object) -> dict[str, Any]:
    """A base model without a strength and two steps with two; two prompts; two seeds."""
    axes = [
        values("step", "base", "500", "1000"),
        values("strength", "0.5", "1"),
        values("prompt", "shoe", "star"),
        values("seed", "1", "2"),
    ]
    cells = [
        {"at": at, "key": "".join(map(str, at)), "state": "done"}
        for step in range(3)
        for strength in ([None] if step == 0 else [0, 1])
        for prompt in range(2)
        for seed in range(2)
        for at in [[step, strength, prompt, seed]]
    ]
    for cell in cells:
        cell["thumb"] = f"/img/{COLOURS[cell['at'][0]]}/64/{cell['key']}"
        cell["full"] = f"/img/{COLOURS[cell['at'][0]]}/256/{cell['key']}"
    place = {"step": "x", "strength": "x", "prompt": "y", "seed": "y"}
    return {"title": "g", "axes": axes, "place": place, "step_axis": "step", "cells": cells, "done": 0, "total": 0, **more}


def show(page: Any, value: object) -> None:
    page.evaluate("value => M.update(value)", value)


def loaded(page: Any) -> None:
    page.wait_for_function(
        "[...document.querySelectorAll('td img')].length && [...document.querySelectorAll('td img')].every(i => i.complete)"
    )


def heads(page: Any, which: str) -> list[str]:
    told = page.evaluate(
        """which => [...document.querySelectorAll(`th.cmp-head.is-${which}`)].map((th) =>
            [...th.querySelectorAll(".cmp-label, .cmp-sub")].filter((n) => !n.hidden).map((n) => n.textContent).join(" / "))""",
        which,
    )
    return list(told)


def colours(page: Any) -> list[str]:
    """Of the first row, by what its pictures were asked for."""
    return list(
        page.evaluate("""[...document.querySelector("tbody tr:not(.cmp-group-row)").querySelectorAll("td")]
            .map((td) => td.querySelector("img")?.src.split("/").at(-3) ?? td.dataset.state)""")
    )


def keys_of(page: Any) -> list[list[str]]:
    return list(
        page.evaluate("""M.grid.arranged().rows.map((_, r) => M.grid.arranged().columns.map((_, c) => M.grid.cellAt(r, c).key ?? ""))""")
    )


def choose(page: Any, axis: str, place: str) -> None:
    page.get_by_label(f"Where {axis} runs").select_option(place)


def test_what_has_no_strength_stands_once_and_the_others_by_both(page: Any) -> None:
    show(page, four_axes())
    assert heads(page, "col") == [
        "step base",
        "step 500 / strength 0.5",
        "step 500 / strength 1",
        "step 1000 / strength 0.5",
        "step 1000 / strength 1",
    ]
    assert heads(page, "row") == ["prompt shoe / seed 1", "prompt shoe / seed 2", "prompt star / seed 1", "prompt star / seed 2"]


def test_swapped_axes_show_the_same_pictures_the_other_way_round(page: Any) -> None:
    show(page, four_axes())
    before = keys_of(page)
    page.get_by_role("button", name="Swap axes").click()
    assert keys_of(page) == [list(row) for row in zip(*before, strict=True)]
    assert heads(page, "row")[0] == "step base"
    page.get_by_role("button", name="Swap axes").click()
    assert keys_of(page) == before


def test_a_second_pair_of_axes_makes_a_grid_of_grids(page: Any) -> None:
    show(page, four_axes())
    page.get_by_role("button", name="Arrange").click()
    choose(page, "Strength", "X")
    choose(page, "Prompt", "Y")
    groups = "[...document.querySelectorAll('th.cmp-group.is-%s')].map((th) => [th.textContent, th.colSpan])"
    assert page.evaluate(groups % "col") == [["", 1], ["strength 0.5", 2], ["strength 1", 2]]
    assert [text for text, _ in page.evaluate(groups % "row")] == ["prompt shoe", "prompt star"]
    assert (
        heads(page, "col") == ["step base", "step 500", "step 1000", "step 500", "step 1000"]
        and heads(page, "row") == ["seed 1", "seed 2"] * 2
    )
    assert keys_of(page)[0] == ["0None00", "1000", "2000", "1100", "2100"]


def test_a_strength_that_runs_down_has_the_base_model_beside_each(page: Any) -> None:
    show(page, four_axes())
    page.get_by_role("button", name="Arrange").click()
    choose(page, "Strength", "y")
    assert len(heads(page, "row")) == 8 and heads(page, "col") == ["step base", "step 500", "step 1000"]
    assert {row[0] for row in keys_of(page)} == {"0None00", "0None01", "0None10", "0None11"}


def test_values_are_hidden_and_reordered_and_never_all_of_them(page: Any) -> None:
    show(page, four_axes())
    page.get_by_role("button", name="Arrange").click()
    page.get_by_label("step 500", exact=True).uncheck()
    page.get_by_role("button", name="Earlier: step 1000").click()
    page.get_by_role("button", name="Earlier: step 1000").click()
    assert heads(page, "col") == ["step 1000 / strength 0.5", "step 1000 / strength 1", "step base"]
    page.get_by_label("step base", exact=True).uncheck()
    last = page.get_by_label("step 1000", exact=True)
    last.click()
    assert last.is_checked() and len(heads(page, "col")) == 2
    page.get_by_role("button", name="As it was").click()
    assert len(heads(page, "col")) == 5


def test_an_axis_on_none_of_the_sides_is_chosen_one_value_at_a_time(page: Any) -> None:
    show(page, four_axes(place={"step": "x", "strength": "", "prompt": "y", "seed": ""}))
    assert heads(page, "col") == ["step base", "step 500", "step 1000"] and heads(page, "row") == ["prompt shoe", "prompt star"]
    assert keys_of(page)[0] == ["0None00", "1000", "2000"]
    page.get_by_label("Seed", exact=True).select_option(label="seed 2")
    page.get_by_label("Strength", exact=True).select_option(label="strength 1")
    assert keys_of(page)[0] == ["0None01", "1101", "2101"]


def test_the_step_slider_moves_all_pictures_together_and_never_shows_a_gap(page: Any) -> None:
    show(page, four_axes(place={"step": "x", "strength": "", "prompt": "y", "seed": "y"}))
    page.get_by_role("button", name="Step slider").click()
    assert heads(page, "col") == [""] and keys_of(page) == [["2000"], ["2001"], ["2010"], ["2011"]]  # the last step
    loaded(page)
    page.evaluate("""window.gaps = 0; window.watch = new MutationObserver(() => {
        for (const frame of document.querySelectorAll("td .cmp-frame")) if (!frame.querySelector("img.is-loaded")) gaps += 1; });
        watch.observe(document.querySelector("tbody"), {subtree: true, childList: true});""")
    page.get_by_label("Training step").fill("1")
    page.wait_for_function("document.querySelector('td img').src.includes('/lime/')")
    assert page.locator("output").inner_text() == "step 500, 2 of 3" and page.evaluate("gaps") == 0
    page.get_by_role("button", name="Step before").click()
    page.wait_for_function("document.querySelector('td img').src.includes('/red/')")
    page.get_by_label("Speed").select_option("8")
    page.get_by_role("button", name="Play").click()
    for colour in ("lime", "blue", "red"):  # round and round
        page.wait_for_function("colour => document.querySelector('td img').src.includes(`/${colour}/`)", arg=colour)
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Step slider").click()
    assert len(heads(page, "col")) == 3


def zoom_of(page: Any) -> list[float]:
    """How much larger each picture in sight is than its frame."""
    return list(
        page.evaluate("""[...document.querySelectorAll("td .cmp-frame")]
            .map((f) => Math.round(100 * f.querySelector("img").getBoundingClientRect().width / f.clientWidth) / 100)""")
    )


def test_the_wheel_zooms_all_pictures_at_once_about_the_pointer(page: Any) -> None:
    show(page, four_axes())
    loaded(page)
    page.locator("td.cmp-cell").first.hover()
    page.mouse.wheel(0, -240)
    assert set(zoom_of(page)) == {1}  # the page may want to scroll
    page.keyboard.down("Control")
    page.mouse.wheel(0, -240)
    page.keyboard.up("Control")
    page.wait_for_function("document.querySelector('.cmp-zoom').textContent.includes('×')")
    page.mouse.wheel(0, -240)
    page.wait_for_function("document.querySelector('td .cmp-pan').style.transform.includes('scale(2.')")
    assert len(set(zoom_of(page))) == 1 and zoom_of(page)[0] > 2
    page.wait_for_function("[...document.querySelectorAll('td img')].every((img) => img.src.includes('/256/'))")  # all their pixels
    before = page.evaluate("document.querySelector('td img').getBoundingClientRect().x")
    box = page.locator("td.cmp-cell").nth(1).bounding_box()
    page.mouse.move(box["x"] + 60, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 40, box["y"] + 50, steps=4)
    page.mouse.up()
    page.wait_for_function("before => document.querySelector('td img').getBoundingClientRect().x < before", arg=before)
    assert not page.locator(".cmp-full").is_visible()  # a drag opens nothing
    page.locator("td.cmp-cell").nth(1).dblclick()
    page.wait_for_function("document.querySelector('td .cmp-pan').style.transform === ''")
    assert page.get_by_role("button", name="Zoom").inner_text() == "Zoom"


def test_two_fingers_zoom(page: Any) -> None:
    show(page, four_axes())
    loaded(page)
    box = page.locator("td.cmp-cell").nth(1).bounding_box()
    client = page.context.new_cdp_session(page)
    touch = lambda kind, far: client.send(  # noqa: E731
        "Input.dispatchTouchEvent",
        {"type": kind, "touchPoints": [{"x": box["x"] + 70 + side * far, "y": box["y"] + 70, "id": i} for i, side in enumerate((-1, 1))]},
    )
    touch("touchStart", 10)
    for far in (15, 20, 25, 30):
        touch("touchMove", far)
    client.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    page.wait_for_function("document.querySelector('td .cmp-pan').style.transform.includes('scale(')")
    assert zoom_of(page)[0] > 1.5


def test_brightness_and_contrast_act_on_all_pictures(page: Any) -> None:
    show(page, four_axes())
    page.get_by_role("button", name="Look").click()
    page.get_by_label("Brightness").fill("1.5")
    assert set(page.evaluate("[...document.querySelectorAll('td img')].map((i) => getComputedStyle(i).filter)")) == {
        "brightness(1.5) contrast(1)"
    }
    page.get_by_role("button", name="As drawn").click()
    assert set(page.evaluate("[...document.querySelectorAll('td img')].map((i) => getComputedStyle(i).filter)")) == {"none"}


def test_cells_are_tinted_by_a_score_with_a_legend_and_the_interval_on_hover(page: Any) -> None:
    of = {"0None00": [0.1, 0.05, 0.2], "1000": 0.5, "2000": 0.9}
    show(page, four_axes(scores=[{"key": "clip", "label": "CLIP", "better": "high", "of": of}]))
    page.get_by_role("button", name="Look").click()
    for way in ("outline", "bar", "heat"):
        page.get_by_label("How to tint").select_option(way)
        assert page.locator(f".cmp-tint.is-{way}").count() == 3
    assert page.locator(".cmp-matrix .cmp-legend").inner_text().split() == ["0.1", "0.9", "higher", "is", "better"]
    assert page.locator("td.cmp-cell").first.get_attribute("title") == "CLIP: 0.1 (0.05 to 0.2)"
    page.get_by_label("How to tint").select_option("")
    assert page.locator(".cmp-tint").count() == 0


def test_a_head_says_what_is_known_of_its_checkpoint(page: Any) -> None:
    mark = {"at": {"step": 1}, "loss": 0.12345, "star": True, "note": "good hands", "window": True, "score": "0.31", "converted": "lora"}
    show(page, four_axes(marks=[mark]))
    told = page.locator("th.cmp-head.is-col").nth(1)
    assert told.locator(".cmp-facts").inner_text().split("\n") == ["★", "0.31", "train 0.123", "lora"]
    assert "good hands" in told.get_attribute("title") and page.locator("th.in-window").count() == 2
    assert page.locator("th.cmp-head.is-col").nth(3).locator(".cmp-facts").is_hidden()


def view_in_address(page: Any) -> dict[str, Any]:
    return json.loads(parse_qs(urlsplit(page.url).query).get("view", ["{}"])[0])


def test_a_link_brings_the_view_back_and_the_browsers_back_undoes_it(page: Any) -> None:
    value = four_axes(link="view", source="grid-1")
    show(page, value)
    page.get_by_role("button", name="Arrange").click()
    choose(page, "Prompt", "Y")
    page.wait_for_function("location.search.includes('prompt')")
    page.locator("td.cmp-cell").nth(3).focus()
    page.keyboard.press("+")
    page.wait_for_function("location.search.includes('zoom')")
    told = view_in_address(page)
    assert told["place"] == {"prompt": "Y"} and told["zoom"][0] == 1.4 and told["cell"][1] == '[["step","1000"],["strength","0.5"]]'
    page.reload()
    page.evaluate("window.M = cmpMatrix(document.querySelector('#matrix'))")
    show(page, value)
    assert page.evaluate("[M.view().place.prompt, M.grid.cursor().c, M.grid.zoom.get().z]") == ["Y", 3, 1.4]
    page.get_by_role("button", name="Swap axes").click()
    page.wait_for_function("JSON.parse(new URL(location).searchParams.get('view')).place.step === 'y'")
    page.go_back()
    page.wait_for_function("M.view().place.step === undefined && M.view().place.prompt === 'Y'")


def test_a_broken_link_changes_nothing(page: Any) -> None:
    for text in ("{", "[1]", '{"place":{"step":"nowhere"},"order":{"step":7},"hidden":{"step":["base","500","1000"]},"pick":3,"cell":[1]}'):
        page.evaluate("text => history.replaceState(null, '', '/?view=' + encodeURIComponent(text))", text)
        page.evaluate("window.M = cmpMatrix(document.querySelector('#matrix'))")
        show(page, four_axes(link="view", source="grid-1"))
        assert len(heads(page, "col")) > 0


def with_steps() -> dict[str, Any]:
    value = four_axes(run="r", place={"step": "x", "strength": "", "prompt": "y", "seed": ""})
    for one, step in zip(value["axes"][0]["values"], (None, 500, 1000), strict=True):
        one["step"] = step
    return value


def test_a_step_of_the_curve_is_marked_at_its_column_or_moves_the_slider(page: Any) -> None:
    show(page, with_steps())
    tell = "step => window.dispatchEvent(new CustomEvent('cmp:step', {detail: {run: 'r', step, from: 'curves'}}))"
    linked = "[...document.querySelectorAll('th.is-linked .cmp-label')].map((n) => n.textContent)"
    page.evaluate(tell, 610)
    assert page.evaluate(linked) == ["step 500"]
    page.evaluate(tell, None)
    assert page.evaluate(linked) == []
    page.get_by_role("button", name="Step slider").click()
    page.evaluate(tell, 480)
    page.wait_for_function("document.querySelector('.cmp-step').textContent.startsWith('step 500')")


def test_a_cell_that_is_looked_at_tells_its_step_to_the_curve_and_hears_no_echo(page: Any) -> None:
    show(page, with_steps())
    page.evaluate(
        "window.heard = []; window.addEventListener('cmp:step', ({detail}) => heard.push([detail.run, detail.step, detail.from]))"
    )
    page.locator("td.cmp-cell").nth(2).hover()
    page.locator("td.cmp-cell").nth(0).hover()  # the base model has no step
    page.locator("td.cmp-cell").nth(1).focus()
    assert page.evaluate("heard") == [["r", 1000, "matrix"], ["r", 500, "matrix"]]
    assert page.locator("th.is-linked").count() == 0


def test_a_row_that_was_moved_is_the_one_that_is_drawn_again(page: Any) -> None:
    page.evaluate("""window.edits = [];
        window.M = cmpMatrix(document.querySelector("#matrix"), {onEdit: ({what, at}) => edits.push([what, at.prompt, at.seed])});""")
    show(page, four_axes(rerolls=["prompt", "seed"]))
    page.evaluate("M.grid.setView({order: {prompt: ['star', 'shoe']}})")
    page.locator(".cmp-again").first.click(force=True)
    assert page.evaluate("edits") == [["row", "star", "1"]]
