"""The full view: how pictures are compared in it, its zoom, its keys, touches and history, and what it tells and hands out."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from cmp import viewer

COLOURS = ("red", "lime", "blue", "teal")
HOSTILE = '<img src=x onerror="window.pwned=1"> ${window.pwned=1} <b>&</b>'


def grid(columns: int = 4, rows: int = 3, size: int = 64, **more: object) -> dict[str, Any]:
    steps = [{"key": f"c{c}", "label": f"step {c}", "sub": "", "details": [["checkpoint", f"run@{c}"]]} for c in range(columns)]
    prompts = [{"key": f"r{r}", "label": f"prompt {r}", "sub": "", "details": [["prompt", f"prompt {r}"]]} for r in range(rows)]
    axes = [{"key": "step", "label": "Step", "values": steps}, {"key": "prompt", "label": "Prompt", "values": prompts}]
    places = [(r, c) for r in range(rows) for c in range(columns)]
    cells = [{"at": [c, r], "key": f"k{r}{c}", "state": "done", "full": f"/img/{COLOURS[c]}/{size}/{r}-{c}"} for r, c in places]
    for record, (r, c) in zip(cells, places, strict=True):
        record["thumb"] = f"/img/{COLOURS[c]}/32/{r}-{c}"
    fixed = {"title": "g", "axes": axes, "place": {"step": "x", "prompt": "y"}, "step_axis": "step", "cells": cells}
    return {**fixed, "common": [["steps", "12"]], "done": 0, "total": 0, **more}


def show(page: Any, value: object) -> None:
    page.evaluate("value => M.update(value)", value)


def opened(page: Any, number: int, value: object | None = None, mode: str = "One") -> None:
    """The full view on the cell of that number, in one of its modes, with all pictures there."""
    show(page, value or grid())
    page.locator("td.cmp-cell").nth(number).click()
    if mode != "One":
        page.locator(".cmp-segments").get_by_role("button", name=mode, exact=True).click()
    settled(page)


def settled(page: Any) -> None:
    page.wait_for_function(
        "[...document.querySelectorAll('.cmp-stage .cmp-full-image')].every((img) => img.classList.contains('is-loaded'))"
    )


def title(page: Any) -> str:
    return str(page.locator(".cmp-full-title").inner_text())


# The colours of the pictures that can be seen, from the bottom to the top or from left to right.
SEEN = """() => [...document.querySelectorAll(".cmp-stage img.cmp-full-image")]
    .filter((img) => getComputedStyle(img).opacity === "1").map((img) => img.src.split("/").at(-3))"""


def seen(page: Any) -> list[str]:
    return list(page.evaluate(SEEN))


def touch(page: Any, *strokes: list[tuple[float, float]]) -> None:
    """One stroke for each finger, all at once, as the browser gets them from a touch screen."""
    wire = page.context.new_cdp_session(page)

    def send(kind: str, n: int) -> None:
        points = [{"x": stroke[n][0], "y": stroke[n][1], "id": i} for i, stroke in enumerate(strokes)]
        wire.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [] if kind == "touchEnd" else points})

    send("touchStart", 0)
    for n in range(1, len(strokes[0])):
        send("touchMove", n)
    send("touchEnd", -1)


def stage(page: Any) -> dict[str, float]:
    return dict(page.locator(".cmp-stage").bounding_box())


# Ways to compare


def test_m_goes_through_the_ways_to_compare_and_says_whose_pictures_they_are(page: Any) -> None:
    opened(page, 6)
    both = "step 0 ↔ step 2 - prompt 1"
    for mode, name in (("slider", both), ("hover", "step 2 - prompt 1"), ("side", both), ("blink", "step"), ("difference", both)):
        page.keyboard.press("m")
        assert page.locator(".cmp-stage").get_attribute("data-mode") == mode
        assert title(page).startswith(name)
    page.keyboard.press("m")
    assert title(page) == "step 2 - prompt 1"
    page.keyboard.press("Shift+M")
    assert page.locator(".cmp-stage").get_attribute("data-mode") == "difference"


def test_c_swaps_the_pictures_and_their_names(page: Any) -> None:
    opened(page, 6, mode="Side by side")
    assert (seen(page), page.locator(".cmp-tag").all_inner_texts()) == (["red", "blue"], ["1\nstep 0", "2\nstep 2"])
    page.keyboard.press("c")
    settled(page)
    assert (seen(page), page.locator(".cmp-tag").all_inner_texts()) == (["blue", "red"], ["1\nstep 2", "2\nstep 0"])
    assert title(page) == "step 2 ↔ step 0 - prompt 1"


def test_the_divider_is_dragged_and_moved_by_keys(page: Any) -> None:
    opened(page, 6, mode="Slider")
    divider = page.get_by_role("slider", name="Divider between step 0 and step 2")
    assert divider.get_attribute("aria-valuenow") == "50" and "step 0 on the left" in divider.get_attribute("aria-valuetext")
    divider.focus()
    page.keyboard.press("ArrowRight")
    assert divider.get_attribute("aria-valuenow") == "52" and title(page) == "step 0 ↔ step 2 - prompt 1"
    page.keyboard.press("Home")
    assert divider.get_attribute("aria-valuenow") == "0"
    box = divider.bounding_box()
    picture = page.locator(".cmp-full-image").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(picture["x"] + picture["width"] * 0.75, box["y"] + 60, steps=4)
    page.mouse.up()
    assert divider.get_attribute("aria-valuenow") == "75"
    at = page.evaluate("""() => { const [a, b] = [...document.querySelectorAll(".cmp-layer")].map((one) => one.style.clipPath);
        const wide = document.querySelector(".cmp-view").clientWidth;
        return [wide - parseFloat(a.split(" ")[1]), parseFloat(b.split(" ").at(-1).replace("inset(", ""))]; }""")
    assert abs(at[0] - at[1]) < 1, "where the one ends the other begins"


def test_where_the_mouse_is_decides_which_picture_is_shown(page: Any) -> None:
    opened(page, 6, mode="Hover")
    box = stage(page)
    for share, colour, name in ((0.25, "red", "step 0 - prompt 1"), (0.75, "blue", "step 2 - prompt 1")):
        page.mouse.move(box["x"] + share * box["width"], box["y"] + box["height"] / 2)
        assert (seen(page), title(page)) == ([colour], name)
    page.keyboard.press("1")
    assert (seen(page), title(page)) == (["red"], "step 0 - prompt 1")


def test_blinking_never_shows_a_picture_under_the_name_of_the_other(page: Any) -> None:
    opened(page, 6, mode="Blink")
    page.evaluate("""() => { window.wrong = []; window.names = new Set();
        const look = () => {
            const name = document.querySelector(".cmp-full-title").textContent;
            const shown = [...document.querySelectorAll(".cmp-stage img")]
                .filter((img) => getComputedStyle(img).opacity === "1").map((img) => img.alt);
            names.add(name);
            if (shown.length !== 1 || shown[0] !== name) wrong.push([name, shown]);
            if (document.querySelector(".cmp-stage img")) requestAnimationFrame(look); };
        look(); }""")
    page.wait_for_function("names.size === 2")
    page.keyboard.press(" ")
    assert page.get_by_role("button", name="Play").is_visible() and page.evaluate("wrong") == []


def test_who_wants_no_motion_gets_a_blink_that_stands_still(page: Any) -> None:
    page.emulate_media(reduced_motion="reduce")
    opened(page, 6, mode="Blink")
    assert page.get_by_role("button", name="Play").is_visible()
    page.emulate_media(reduced_motion="no-preference")


def test_v_shows_the_step_before_while_it_is_held(page: Any) -> None:
    opened(page, 7)
    page.keyboard.down("v")
    assert (seen(page), title(page)) == (["blue"], "step 2 - prompt 1")
    page.keyboard.up("v")
    assert (seen(page), title(page)) == (["teal"], "step 3 - prompt 1")
    box = stage(page)
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.wait_for_function("document.querySelector('.cmp-full-title').textContent === 'step 0 - prompt 1'")
    assert seen(page) == ["red"]
    page.mouse.up()
    assert (seen(page), title(page)) == (["teal"], "step 3 - prompt 1")


def test_the_first_column_says_that_there_is_nothing_to_compare_with(page: Any) -> None:
    opened(page, 4, mode="Slider")
    assert page.get_by_text("nothing to compare this picture with").is_visible()
    assert (seen(page), title(page)) == (["red"], "step 0 - prompt 1")


def test_a_picture_that_comes_late_is_never_preceded_by_another_under_its_name(page: Any) -> None:
    held: list[Any] = []
    page.route("**/img/lime/64/*", lambda route: held.append(route))
    show(page, grid())
    page.locator("td.cmp-cell").first.click()
    settled(page)
    page.keyboard.press("ArrowRight")
    assert (seen(page), title(page)) == ([], "step 1 - prompt 0")
    page.keyboard.press("m")
    assert page.evaluate("[...document.querySelectorAll('.cmp-stage img')].map((i) => i.alt)") == ["step 0 - prompt 0", "step 1 - prompt 0"]
    assert seen(page) == ["red"]
    for route in held:
        route.continue_()
    page.unroute("**/img/lime/64/*")
    settled(page)
    assert seen(page) == ["red", "lime"]


# Differences


def lab(red: int, green: int, blue: int) -> list[float]:
    """OKLab of an sRGB colour, after the matrices of CSS Color 4."""
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (red / 255, green / 255, blue / 255)]
    rows = (
        (0.4122214708, 0.5363325363, 0.0514459929),
        (0.2119034982, 0.6806995451, 0.1073969566),
        (0.0883024619, 0.2817188376, 0.6299787005),
    )
    l, m, s = (sum(a * b for a, b in zip(row, linear, strict=True)) ** (1 / 3) for row in rows)  # noqa: E741
    back = (
        (0.2104542553, 0.7936177850, -0.0040720468),
        (1.9779984951, -2.4285922050, 0.4505937099),
        (0.0259040371, 0.7827717662, -0.8086757660),
    )
    return [a * l + b * m + c * s for a, b, c in back]


def delta(one: tuple[int, int, int], two: tuple[int, int, int]) -> float:
    return float(sum((a - b) ** 2 for a, b in zip(lab(*one), lab(*two), strict=True)) ** 0.5)


def words(page: Any) -> str:
    page.wait_for_function("/average|pixel for pixel|cannot|falsifies/.test(document.querySelector('.cmp-difference-words').textContent)")
    return str(page.locator(".cmp-difference-words").inner_text())


def test_the_difference_is_told_in_numbers_that_are_right(page: Any) -> None:
    opened(page, 2, mode="Difference")
    wanted = delta((255, 0, 0), (0, 0, 255))
    assert 0.5 < wanted < 0.6
    assert words(page) == f"step 2 against step 0: {wanted:.3f} on average, {wanted:.3f} at most; 0 % of the pixels are equal."
    page.get_by_label("How the difference is measured").select_option("channel")
    page.wait_for_function("document.querySelector('.cmp-difference-words').textContent.includes('255 of 255 on average, 255 at most')")
    assert page.locator(".cmp-scale-ends span").all_inner_texts() == ["0", "32", "≥ 64"]
    page.get_by_label("Gain", exact=True).select_option("1")
    assert page.locator(".cmp-scale-ends span").all_inner_texts() == ["0", "128", "255"]


def test_the_heat_map_is_as_bright_as_its_scale_says(page: Any) -> None:
    # teal is (0, 128, 128): of blue it is 128 of 255 away in its largest channel
    opened(page, 3, mode="Difference")
    page.get_by_label("Compared with").select_option("is-before")
    page.get_by_label("How the difference is measured").select_option("channel")
    page.wait_for_function("document.querySelector('.cmp-difference-words').textContent.includes('128 of 255 on average')")
    pixel = "[...document.querySelector('canvas').getContext('2d').getImageData(5, 5, 1, 1).data]"
    assert page.evaluate(pixel) == [252, 255, 164, 255], "gain 4: more than the scale has"
    page.get_by_label("Gain", exact=True).select_option("1")
    red, green, blue, _ = page.evaluate(pixel)
    assert 147 < red < 221 and 38 < green < 81 and 58 < blue < 103, "half way up"


def test_equal_pictures_are_called_equal_and_one_that_is_missing_is_not(page: Any) -> None:
    value = grid(3, 1)
    value["cells"][1] |= {"full": "/img/red/64/other"}
    value["cells"][2] = {"at": [2, 0], "key": "x", "state": "fault", "fault": "no memory"}
    opened(page, 1, value, mode="Difference")
    assert words(page) == "step 1 against step 0: the same, pixel for pixel."
    page.keyboard.press("ArrowRight")
    assert words(page) == "A picture that is not there cannot be compared."


def test_unequal_sizes_are_brought_to_the_larger_and_that_is_said(page: Any) -> None:
    value = grid(2, 1)
    value["cells"][0] |= {"full": "/img/red/32/small"}
    opened(page, 1, value, mode="Side by side")
    assert page.locator(".cmp-full-note").inner_text() == "step 0 has 32 × 32 pixels and is scaled to 64 × 64."
    one, two = (node.bounding_box() for node in page.locator(".cmp-full-image").all())
    assert (one["width"], one["height"]) == (two["width"], two["height"])
    page.keyboard.press("m")
    page.keyboard.press("m")
    assert "of the pixels are equal" in words(page)
    assert page.evaluate("[document.querySelector('canvas').width, document.querySelector('canvas').height]") == [64, 64]


FALSE_PIXELS = """() => { const read = CanvasRenderingContext2D.prototype.getImageData;
    CanvasRenderingContext2D.prototype.getImageData = function (...where) {
        const got = read.apply(this, where);
        got.data[7] ^= 1;
        return got; }; }"""


def test_a_browser_that_falsifies_pixels_gets_no_difference(page: Any) -> None:
    page.evaluate(FALSE_PIXELS)
    opened(page, 2)
    page.keyboard.press("Shift+M")
    assert words(page).startswith("This browser falsifies")


# Zoom


def lies(page: Any) -> list[str]:
    return list(
        page.evaluate("[...document.querySelectorAll('.cmp-stage .cmp-world')].map((w) => [w.style.width, w.style.transform].join())")
    )


def test_z_zooms_all_pictures_together_and_keeps_it_over_other_cells(page: Any) -> None:
    opened(page, 6, grid(size=256), mode="Side by side")
    zoom = page.locator(".cmp-full-tools [aria-label^='Zoom, now']")
    assert zoom.inner_text().startswith("Fit")
    for said in ("100 %", "200 %", "400 %"):
        page.keyboard.press("z")
        assert zoom.inner_text() == said and len(set(lies(page))) == 1
    page.keyboard.press("Shift+ArrowLeft")
    before = lies(page)
    page.keyboard.press("ArrowRight")
    settled(page)
    assert title(page).startswith("step 0 ↔ step 3") and lies(page) == before
    page.keyboard.press("0")
    assert zoom.inner_text().startswith("Fit")


def test_the_wheel_zooms_at_the_mouse_and_dragging_moves(page: Any) -> None:
    opened(page, 6, grid(size=256), mode="Side by side")
    first = page.locator(".cmp-full-image").first
    box = first.bounding_box()
    x, y = box["x"] + 0.25 * box["width"], box["y"] + 0.5 * box["height"]
    page.mouse.move(x, y)
    page.mouse.wheel(0, -300)
    page.wait_for_function("wide => document.querySelector('.cmp-full-image').getBoundingClientRect().width > 1.2 * wide", arg=box["width"])
    grown = first.bounding_box()
    assert abs((x - grown["x"]) / grown["width"] - 0.25) < 0.01 and len(set(lies(page))) == 1
    page.mouse.down()
    page.mouse.move(x - 30, y, steps=3)
    page.mouse.up()
    assert abs(first.bounding_box()["x"] - (grown["x"] - 30)) < 1 and len(set(lies(page))) == 1
    assert title(page) == "step 0 ↔ step 2 - prompt 1"


def test_two_fingers_zoom_and_one_that_strokes_goes_on(page: Any) -> None:
    opened(page, 5, grid(size=256))
    box = stage(page)
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    for stroke, name in (
        ([(x + 60, y), (x, y), (x - 60, y)], "step 2 - prompt 1"),
        ([(x - 60, y), (x, y), (x + 60, y)], "step 1 - prompt 1"),
        ([(x, y + 60), (x, y), (x, y - 60)], "step 1 - prompt 2"),
        ([(x, y - 60), (x, y), (x, y + 60)], "step 1 - prompt 1"),
        ([(x, y), (x + 9, y)], "step 1 - prompt 1"),
    ):
        touch(page, stroke)
        assert title(page) == name
    wide = page.locator(".cmp-full-image").first.bounding_box()["width"]
    touch(page, [(x - 40, y), (x - 60, y), (x - 120, y)], [(x + 40, y), (x + 60, y), (x + 120, y)])
    assert page.locator(".cmp-full-image").first.bounding_box()["width"] == pytest.approx(3 * wide, rel=0.02)
    touch(page, [(x + 60, y), (x, y), (x - 60, y)])
    assert title(page) == "step 1 - prompt 1", "a stroke moves a picture that is zoomed in"


# Keys, focus and history


def test_every_end_leads_to_the_other_one(page: Any) -> None:
    opened(page, 0)
    for key, name, place in (
        ("ArrowLeft", "step 3 - prompt 0", "column 4 / 4, row 1 / 3"),
        ("ArrowUp", "step 3 - prompt 2", "column 4 / 4, row 3 / 3"),
        ("ArrowRight", "step 0 - prompt 2", "column 1 / 4, row 3 / 3"),
        ("ArrowDown", "step 0 - prompt 0", "column 1 / 4, row 1 / 3"),
        ("End", "step 3 - prompt 0", "column 4 / 4, row 1 / 3"),
        ("PageDown", "step 3 - prompt 2", "column 4 / 4, row 3 / 3"),
        ("Home", "step 0 - prompt 2", "column 1 / 4, row 3 / 3"),
    ):
        page.keyboard.press(key)
        assert (title(page), page.locator(".cmp-full-place").inner_text()) == (name, place)


def test_the_browsers_way_back_closes_the_full_view_and_nothing_else(page: Any) -> None:
    page.evaluate("history.replaceState(null, '', '?grid=grid-7')")
    show(page, grid(link="view", source="a"))
    page.locator("td.cmp-cell").nth(1).click()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("location.search.includes('c2')")
    assert page.evaluate("history.state") == {"cmpFull": True}
    page.go_back()
    page.wait_for_function("!document.querySelector('.cmp-full').open && document.activeElement.ariaLabel === 'step 2, prompt 0'")
    page.wait_for_function("location.search.startsWith('?grid=grid-7') && location.search.includes('c2')")
    assert page.evaluate("history.state?.cmpFull") is None


def full_in_address(page: Any) -> Any:
    return page.evaluate("JSON.parse(new URL(location).searchParams.get('view') || '{}').full ?? null")


def reloaded(page: Any, value: object) -> None:
    page.reload()
    page.evaluate("window.M = cmpMatrix(document.querySelector('#matrix'))")
    show(page, value)


IS_OPEN = "document.querySelector('.cmp-full')?.open === true"


def test_a_reload_comes_back_to_the_full_view_and_the_way_back_still_closes_it(page: Any) -> None:
    value = grid(link="view", source="a")
    page.evaluate("history.replaceState(null, '', '?grid=grid-7')")
    before = page.evaluate("history.length")
    opened(page, 6, value, "Slider")
    page.get_by_label("Compared with").select_option("is-before")
    page.keyboard.press("c")
    page.keyboard.press("z")
    page.wait_for_function("location.search.includes('swapped') && location.search.includes('zoom')")
    said = title(page), page.locator('[aria-label^="Zoom, now"]').inner_text()
    assert full_in_address(page) | {"zoom": 0} == {"mode": "slider", "with": "before", "swapped": True, "zoom": 0}
    for _ in range(2):
        reloaded(page, value)
        page.wait_for_function(IS_OPEN)
        settled(page)
        assert (title(page), page.locator('[aria-label^="Zoom, now"]').inner_text()) == said
        assert page.evaluate("history.length") == before + 1, "it is no new entry"
    page.go_back()
    page.wait_for_function(f"!({IS_OPEN})")
    page.wait_for_function("!location.search.includes('full')")
    assert page.evaluate("[location.search.startsWith('?grid=grid-7'), M.grid.cursor().c, M.grid.cursor().r]") == [True, 2, 1]
    page.go_forward()
    page.wait_for_function(IS_OPEN)
    assert title(page) == said[0]


def test_a_link_to_the_full_view_opens_it_on_a_new_page_where_back_closes_it(page: Any, context: Any) -> None:
    value = grid(link="view", source="a")
    show(page, value)
    for number in (1, 6, 11):
        page.locator("td.cmp-cell").nth(number).click(modifiers=["Control"])
    page.get_by_role("button", name="Compare", exact=True).click()
    page.wait_for_function("location.search.includes('chosen')")
    with context.new_page() as other:
        other.goto(page.url)
        other.evaluate("window.M = cmpMatrix(document.querySelector('#matrix'))")
        show(other, value)
        other.wait_for_function(IS_OPEN)
        settled(other)
        assert title(other) == title(page) and seen(other) == ["lime", "blue", "teal"]
        other.wait_for_function("location.search.includes('chosen')")
        assert other.url == page.url
        other.go_back()
        other.wait_for_function(f"!({IS_OPEN}) && !location.search.includes('full')")


@pytest.mark.parametrize(
    "saved",
    [
        {"full": {"mode": "one"}, "cell": ["gone", "gone"]},
        {"full": {"mode": "<img onerror=1>"}, "cell": None},
        {"full": {"mode": "side", "chosen": [{"step": "c1", "prompt": "r0"}, {"step": "c9", "prompt": "r0"}]}, "cell": None},
        {"full": 7, "cell": None},
    ],
)
def test_a_link_to_a_picture_that_is_gone_opens_no_other_in_its_place(page: Any, saved: dict[str, Any]) -> None:
    value = grid(link="view", source="a")
    show(page, value)
    page.locator("td.cmp-cell").nth(6).click()
    page.wait_for_function("location.search.includes('full')")
    cell = page.evaluate("JSON.parse(new URL(location).searchParams.get('view')).cell")
    text = json.dumps({**saved, "cell": saved["cell"] or cell})
    page.evaluate("text => history.replaceState(null, '', '/?view=' + encodeURIComponent(text))", text)
    reloaded(page, value)
    page.wait_for_function("!location.search.includes('full')")
    assert page.evaluate(IS_OPEN) is False


def test_closing_takes_its_entry_of_the_history_back(page: Any) -> None:
    page.evaluate(
        "history.replaceState({mine: 1}, '', '?grid=grid-7'); window.addEventListener('popstate', () => { window.pwned = 'told'; })"
    )
    restoring = [name for name in viewer.ASSETS if name.endswith(".js") and "popstate" in viewer.asset(name)]
    assert restoring[0] == "full_history.js", "who restores something from the address is loaded after it, and so not told"
    show(page, grid())
    for _ in range(2):
        page.locator("td.cmp-cell").nth(1).click()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Escape")
        page.wait_for_function("history.state?.mine === 1")
    assert page.evaluate("location.search") == "?grid=grid-7"
    page.wait_for_function("document.activeElement.ariaLabel === 'step 1, prompt 1'")
    # closed and opened again before the browser has gone back
    page.evaluate("""() => { const cells = document.querySelectorAll("td.cmp-cell");
        cells[1].click(); document.querySelector(".cmp-full").close(); cells[2].click(); }""")
    page.wait_for_function("history.state?.cmpFull && document.querySelector('.cmp-full').open")
    page.go_back()
    page.wait_for_function("history.state?.mine === 1 && !document.querySelector('.cmp-full').open")


def test_the_focus_stays_inside_and_is_given_back(page: Any) -> None:
    opened(page, 5)
    inside = set()
    for _ in range(30):
        page.keyboard.press("Tab")
        inside.add(
            page.evaluate(
                "document.querySelector('.cmp-full').contains(document.activeElement) || document.activeElement === document.body"
            )
        )
    assert inside == {True}
    page.keyboard.press("Escape")
    page.wait_for_function("document.activeElement.ariaLabel === 'step 1, prompt 1'")


def keys_listed(page: Any) -> list[str]:
    return [re.sub(r"\s+", " ", text) for text in page.locator(".cmp-help dd").all_inner_texts()]


def test_the_help_lists_what_can_be_done_now(page: Any) -> None:
    show(page, grid())
    page.locator("td.cmp-cell").first.focus()
    page.keyboard.press("?")
    assert page.get_by_role("dialog", name="Keyboard help").is_visible()
    assert "open the cell large" in keys_listed(page) and not any("new seed" in text for text in keys_listed(page))
    page.keyboard.press("Escape")
    page.wait_for_function("document.activeElement.ariaLabel === 'step 0, prompt 0'")
    show(page, grid(rerolls=["prompt"]))
    page.locator("td.cmp-cell").nth(1).click()
    page.keyboard.press("?")
    assert "add a row with a new seed below" in keys_listed(page) and "swap the pictures" not in keys_listed(page)
    page.keyboard.press("Escape")
    assert page.locator(".cmp-full").is_visible(), "Escape closes the list, not the view below it"
    page.keyboard.press("m")
    page.keyboard.press("?")
    assert {"swap the pictures", "move the divider; or Tab to it, then ← →"} <= set(keys_listed(page))
    page.keyboard.press("m")
    assert page.locator(".cmp-stage").get_attribute("data-mode") == "slider", "keys are for the list while it is open"


# What it tells and hands out


def test_the_panel_is_put_away_and_stays_so(page: Any) -> None:
    opened(page, 0)
    assert page.locator(".cmp-full-side").is_visible()
    page.keyboard.press("i")
    page.keyboard.press("Escape")
    page.locator("td.cmp-cell").nth(1).click()
    assert not page.locator(".cmp-full-side").is_visible()


def test_on_a_phone_the_picture_comes_first_and_the_panel_is_folded(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    opened(page, 1)
    assert not page.locator(".cmp-full-side").is_visible()
    assert page.locator(".cmp-stage").bounding_box()["height"] > 400
    page.get_by_role("button", name="Info").click()
    assert page.locator(".cmp-full-side").bounding_box()["y"] > page.locator(".cmp-stage").bounding_box()["y"]
    assert page.evaluate("document.querySelector('.cmp-full').scrollWidth") <= 390


def test_the_panel_tells_apart_what_differs(page: Any) -> None:
    opened(page, 6, mode="Side by side")
    assert page.locator(".cmp-full-differs").inner_text().split() == ["checkpoint", "1", "run@0", "2", "run@2"]
    assert page.locator(".cmp-full-facts").inner_text().split() == ["prompt", "prompt", "1", "steps", "12"]


COPIED = """() => { window.copied = []; Object.defineProperty(navigator, "clipboard", { configurable: true,
    value: { writeText: async (text) => { copied.push(text); } } }); }"""


def copied(page: Any) -> str:
    page.get_by_role("button", name="Copy settings").click()
    page.locator(".cmp-full-status", has_text="Copied").wait_for()
    return str(page.evaluate("copied.at(-1)"))


def test_settings_come_from_the_server_else_from_the_record_else_from_the_details(page: Any) -> None:
    page.evaluate(COPIED)
    page.route("**/settings/*.txt", lambda route: route.fulfill(body=f"text of {route.request.url.rpartition('/')[2]}"))
    opened(page, 5, grid(urls={"settings": "settings/{key}.txt"}))
    assert copied(page) == "text of k11.txt"
    page.keyboard.press("Escape")
    value = grid()
    value["cells"][5] |= {"settings": "shoe\nSteps: 12", "details": [["note", "a, b"]]}
    opened(page, 5, value)
    assert copied(page) == "shoe\nSteps: 12"
    page.keyboard.press("Escape")
    del value["cells"][5]["settings"]
    opened(page, 5, value)
    assert copied(page) == 'prompt 1\ncheckpoint: run@1, steps: 12, note: "a, b"'


def test_settings_are_copied_where_there_is_no_clipboard_to_write_to(page: Any) -> None:
    page.evaluate("""() => { Object.defineProperty(navigator, "clipboard", { configurable: true, value: undefined });
        window.copied = []; document.addEventListener("copy", () => copied.push(getSelection().toString())); }""")
    opened(page, 5)
    assert copied(page) == "prompt 1\ncheckpoint: run@1, steps: 12"
    page.evaluate("document.execCommand = () => false")
    page.get_by_role("button", name="Copy settings").click()
    page.get_by_text("press Ctrl+C now").wait_for()
    assert page.get_by_label("Settings to copy").input_value() == "prompt 1\ncheckpoint: run@1, steps: 12"


def test_the_picture_is_downloaded_whole_under_a_name_that_speaks(page: Any) -> None:
    opened(page, 5, grid(title="shoes / ../x"))
    with page.expect_download() as loading:
        page.get_by_role("link", name="Download").click()
    assert loading.value.suggested_filename == "shoes-..-x-step-1-prompt-1.png"
    from PIL import Image

    with Image.open(loading.value.path()) as image:
        assert image.size == (64, 64) and image.getpixel((0, 0)) == (0, 255, 0)


def test_a_checkpoint_is_starred_with_a_note_and_the_base_model_cannot_be(page: Any) -> None:
    page.evaluate("""window.edits = [];
        window.M = cmpMatrix(document.querySelector("#matrix"), { onEdit: (what) => edits.push(what) });""")
    value = grid()
    value["axes"][0]["values"][0]["key"] = "base model"
    opened(page, 1, value)
    star = page.locator(".cmp-star")
    assert not star.is_visible()
    page.keyboard.press("Escape")
    opened(page, 1, {**value, "stars": True})
    star.click()
    at = {"step": "c1", "prompt": "r0"}
    assert page.evaluate("edits.map(({ id, ...told }) => told)") == [{"what": "star", "at": at, "on": True, "note": ""}]
    assert star.get_attribute("aria-pressed") == "false", "not before it has come back"
    show(page, {**value, "stars": True, "marks": [{"at": {"step": 1}, "star": True, "note": "good"}]})
    assert star.get_attribute("aria-pressed") == "true" and page.get_by_label("Note on this").input_value() == "good"
    page.get_by_label("Note on this").fill("mibc")
    page.keyboard.press("Escape")
    assert page.locator(".cmp-full").is_visible() and page.get_by_label("Note on this").input_value() == "good"
    page.get_by_label("Note on this").fill("best")
    page.keyboard.press("Enter")
    assert page.evaluate("edits.map(({ id, ...told }) => told).at(-1)") == {"what": "star", "at": at, "on": True, "note": "best"}
    assert title(page) == "step 1 - prompt 0", "what is written there is no key"
    page.get_by_role("button", name="Column before").click()
    assert title(page) == "step 0 - prompt 0" and not star.is_visible()
    # where not every step has a checkpoint, only what has one is starred, and by its id
    show(page, {**value, "stars": "known", "marks": [{"at": {"step": 1}, "id": "r@1"}, {"at": {"step": 2}, "loss": 0.5}]})
    page.get_by_role("button", name="Column after").click()
    star.click()
    assert page.evaluate("edits.at(-1).id") == "r@1"
    page.get_by_role("button", name="Column after").click()
    assert title(page) == "step 2 - prompt 0" and not star.is_visible()


def test_where_no_row_can_be_drawn_anew_nothing_offers_it(page: Any) -> None:
    page.evaluate("""window.edits = [];
        window.M = cmpMatrix(document.querySelector("#matrix"), { onEdit: (what) => edits.push(what) });""")
    opened(page, 1, grid(rerolls=[]))
    assert page.get_by_role("button", name="new seed").count() == 0
    page.keyboard.press("r")
    page.keyboard.press("Escape")
    page.keyboard.press("Shift+R")
    assert page.evaluate("edits") == []
    opened(page, 1, grid(rerolls=["prompt"]))
    page.get_by_role("button", name="Add a row with a new seed").click()
    page.keyboard.press("r")
    assert [told["what"] for told in page.evaluate("edits")] == ["cell", "cell"]


def test_a_hostile_name_is_shown_as_text_in_every_mode(page: Any) -> None:
    value = grid(2, 1, title=HOSTILE, stars=True, common=[[HOSTILE, HOSTILE]], marks=[{"at": {"step": 1}, "star": True, "note": HOSTILE}])
    for head in (one for axis in value["axes"] for one in axis["values"]):
        head.update(label=f"{head['label']} {HOSTILE}", sub=HOSTILE, details=[[HOSTILE, head["key"] + HOSTILE]])
    opened(page, 1, value)
    for _ in range(6):
        page.keyboard.press("m")
        assert HOSTILE in title(page)
    page.keyboard.press("?")
    assert page.locator("img[src=x], .cmp-matrix .cmp-full-title b").count() == 0


# -- what a value asks for -------------------------------------------------------------------------------------------------


def test_two_cells_that_a_value_asks_for_are_opened_side_by_side_once(page: Any) -> None:
    both = grid(compare={"cells": [[1, 1], [3, 1]], "asked": "one"})
    show(page, both)
    assert title(page).startswith("step 1 ↔ step 3")
    page.keyboard.press("Escape")
    page.locator("dialog.cmp-full[open]").wait_for(state="hidden")
    show(page, {**both, "note": "more"})
    assert page.locator("dialog.cmp-full[open]").count() == 0, "a value that comes again opens nothing"
    show(page, grid(compare={"cells": [[0, 0], [1, 0]], "asked": "two"}))
    assert title(page).startswith("step 0 ↔ step 1")


def test_what_is_asked_for_waits_until_it_is_seen_and_both_are_drawn(page: Any) -> None:
    both = grid(compare={"cells": [[1, 1], [3, 1]], "asked": "one"}, source="job")
    waiting = {**both, "cells": [{**cell, "state": "waiting"} if cell["at"] == [3, 1] else cell for cell in both["cells"]]}
    page.evaluate("document.querySelector('#matrix').hidden = true")
    show(page, waiting)
    page.evaluate("document.querySelector('#matrix').hidden = false")
    assert page.locator("dialog.cmp-full[open]").count() == 0
    show(page, {name: part for name, part in both.items() if name != "compare"})
    page.locator("dialog.cmp-full[open]").wait_for()
    page.keyboard.press("Escape")
    page.locator("dialog.cmp-full[open]").wait_for(state="hidden")
    page.evaluate("document.querySelector('#matrix').hidden = true")
    show(page, grid(compare={"cells": [[0, 0], [1, 0]], "asked": "two"}, source="job"))
    assert page.locator("dialog.cmp-full[open]").count() == 0, "nothing is opened over another tab"
    page.evaluate("document.querySelector('#matrix').hidden = false")
    page.locator("dialog.cmp-full[open]").wait_for()


def test_where_both_keys_hold_up_one_picture_there_is_one_button_for_it(page: Any) -> None:
    opened(page, 1)
    holds = page.locator(".cmp-full-tools button", has_text="Hold ")
    assert holds.locator("visible=true").all_inner_texts() == ["Hold B: step 0"]
    page.keyboard.press("ArrowRight")
    assert holds.locator("visible=true").all_inner_texts() == ["Hold B: step 0", "Hold V: step 1"]
