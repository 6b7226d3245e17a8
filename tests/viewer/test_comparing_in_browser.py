"""Comparing within the matrix: cells that are chosen, cells that blink in place, and how far each picture is from the step before."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

STEPS = ("base", "500", "1000", "1500")
SHADES = {"base": 0, "500": 120, "1000": 200, "1500": 200}


def axis(kind: str, *names: str) -> dict[str, Any]:
    return {"key": kind, "label": kind.capitalize(), "values": [{"key": name, "label": f"{kind} {name}", "sub": ""} for name in names]}


def two_runs(**more: object) -> dict[str, Any]:
    """A base model that belongs to no run, two runs of which one lacks step 1000, two prompts."""
    axes = [axis("run", "a", "b"), axis("step", *STEPS), axis("prompt", "shoe", "star")]
    runs = [(None, 0), *((0, n) for n in (1, 2, 3)), (1, 1), (1, 3)]
    cells = [{"at": [run, step, prompt], "key": f"{run}-{step}-{prompt}", "state": "done"} for run, step in runs for prompt in range(2)]
    for cell in cells:
        cell["thumb"] = cell["full"] = f"/shade/{SHADES[STEPS[cell['at'][1]]]}/{cell['key']}.png"
    place = {"run": "X", "step": "x", "prompt": "y"}
    return {"title": "g", "axes": axes, "place": place, "step_axis": "step", "cells": cells, "done": 0, "total": 0, **more}


def grey(shade: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (64, 64), (shade, shade, shade)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(autouse=True)
def shades(page: Any) -> None:
    page.route("**/shade/**", lambda route: route.fulfill(body=grey(int(route.request.url.split("/")[-2])), content_type="image/png"))


def show(page: Any, value: object) -> None:
    page.evaluate("value => M.update(value)", value)
    page.wait_for_function("[...document.querySelectorAll('td img')].every((img) => img.classList.contains('is-loaded'))")


def cell(page: Any, name: str) -> Any:
    return page.locator(f'td.cmp-cell[aria-label^="{name}"]')


def numbers(page: Any) -> dict[str, str]:
    """What stands on the chosen cells, by their names."""
    told = page.evaluate("""() => [...document.querySelectorAll("td.cmp-cell")].filter((td) => td.ariaSelected === "true")
        .map((td) => [td.ariaLabel.split(";")[0], td.querySelector(".cmp-number").textContent])""")
    return dict(told)


def title(page: Any) -> str:
    return str(page.locator(".cmp-full-title").inner_text())


# Choosing


def test_cells_are_chosen_by_click_and_key_and_keep_their_numbers(page: Any) -> None:
    show(page, two_runs())
    cell(page, "run a, step 500, prompt star").click(modifiers=["Control"])
    assert not page.locator(".cmp-full").is_visible() and page.get_by_text("1 chosen: choose another one").is_visible()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("x")
    page.keyboard.press("ArrowRight")
    page.keyboard.press(" ")
    chosen = {"run a, step 500, prompt star": "1", "run a, step 1000, prompt star": "2", "run a, step 1500, prompt star": "3"}
    assert numbers(page) == chosen
    assert (
        page.locator("td.cmp-cell[aria-selected=false]").count() == 9
        and page.get_by_role("grid").get_attribute("aria-multiselectable") == "true"
    )
    page.keyboard.press("x")
    assert list(numbers(page)) == list(chosen)[:2], "once more takes it away"
    show(page, two_runs(title="later"))
    page.evaluate("M.setView({place: {step: 'y', prompt: 'x'}})")
    assert numbers(page) == {"run a, prompt star, step 500": "1", "run a, prompt star, step 1000": "2"}
    page.get_by_role("button", name="Clear").click()
    assert numbers(page) == {} and not page.locator(".cmp-chosen").is_visible()


def test_no_more_than_four_and_only_drawn_ones_are_chosen(page: Any) -> None:
    value = two_runs()
    value["cells"][0] = {"at": [None, 0, 0], "key": "", "state": "waiting"}
    show(page, value)
    cells = page.locator("td.cmp-cell")
    cells.nth(0).focus()
    page.keyboard.press("x")
    assert page.get_by_text("Only a drawn picture").is_visible() and numbers(page) == {}
    for n in range(1, 6):
        cells.nth(n).focus()
        page.keyboard.press("x")
    assert sorted(numbers(page).values()) == ["1", "2", "3", "4"] and page.get_by_text("4 at most: take one away first.").is_visible()


def test_chosen_cells_of_two_runs_are_compared_and_move_together(page: Any) -> None:
    show(page, two_runs())
    for name in ("run a, step 500, prompt shoe", "run b, step 1500, prompt shoe"):
        cell(page, name).click(modifiers=["Control"])
    page.get_by_role("button", name="Compare").click()
    assert page.locator(".cmp-stage").get_attribute("data-mode") == "slider"
    assert title(page) == "run a · step 500 ↔ run b · step 1500 - prompt shoe"
    page.keyboard.press("ArrowDown")
    assert title(page) == "run a · step 500 ↔ run b · step 1500 - prompt star"
    page.keyboard.press("ArrowLeft")
    assert title(page) == "step base ↔ run b · step 500 - prompt star"
    page.keyboard.press("c")
    assert title(page).startswith("run b · step 500 ↔ ")
    page.keyboard.press("Escape")
    page.wait_for_function("document.activeElement.textContent === 'Compare'")
    assert numbers(page) == {"run a, step 500, prompt shoe": "1", "run b, step 1500, prompt shoe": "2"}


def test_four_at_once_lie_side_by_side_and_each_is_named(page: Any) -> None:
    show(page, two_runs())
    for n in range(4):
        page.locator("td.cmp-cell").nth(n).focus()
        page.keyboard.press("x")
    page.keyboard.press("c")
    assert page.locator(".cmp-stage").get_attribute("data-mode") == "side"
    assert [text.split("\n")[1] for text in page.locator(".cmp-tag").all_inner_texts()] == [
        "step base",
        "run a · step 500",
        "run a · step 1000",
        "run a · step 1500",
    ]
    page.keyboard.press("Shift+M")
    page.keyboard.press("Shift+M")
    assert page.locator(".cmp-divider").count() == 3
    page.get_by_role("button", name="Only this one").click()
    assert "step 1500" in title(page) and page.locator(".cmp-stage").get_attribute("data-mode") == "one"


def test_a_chosen_cell_that_is_no_longer_there_is_not_chosen(page: Any) -> None:
    show(page, two_runs())
    for n in (0, 1):
        page.locator("td.cmp-cell").nth(n).focus()
        page.keyboard.press("x")
    value = two_runs()
    value["cells"] = [one for one in value["cells"] if one["at"][0] != 0]
    show(page, value)
    assert list(numbers(page).values()) == ["1"] and not page.get_by_role("button", name="Compare").is_visible()


# Blinking in place

OVER = """() => { const over = document.querySelector(".cmp-blinking"); return over && [over.closest("td").ariaLabel.split(";")[0],
    over.querySelector(".cmp-blinking-name").textContent, over.querySelector("img").src.split("/").at(-1)]; }"""


def over(page: Any, wanted: list[str] | None) -> None:
    page.wait_for_function(f"wanted => JSON.stringify(({OVER})()) === JSON.stringify(wanted)", arg=wanted)


def test_the_cell_under_the_mouse_blinks_to_the_base_and_to_the_step_before(page: Any) -> None:
    show(page, two_runs())
    cell(page, "run b, step 1500, prompt star").hover()
    page.keyboard.down("b")
    over(page, ["run b, step 1500, prompt star", "step base", "None-0-1.png"])
    page.keyboard.up("b")
    over(page, None)
    page.keyboard.down("v")
    over(page, ["run b, step 1500, prompt star", "step 500", "1-1-1.png"])  # this run has no step 1000
    cell(page, "run a, step 1500, prompt shoe").hover()
    over(page, ["run a, step 1500, prompt shoe", "step 1000", "0-2-0.png"])
    page.mouse.move(2, 2)
    over(page, None)
    page.keyboard.up("v")


def test_the_cell_at_the_keyboard_blinks_where_there_is_no_mouse(page: Any) -> None:
    show(page, two_runs(place={"run": "X", "step": "", "prompt": "y"}))
    page.mouse.move(2, 2)
    cell(page, "run a, prompt shoe").focus()
    page.keyboard.down("v")
    over(page, ["run a, prompt shoe", "step 1000", "0-2-0.png"])
    page.keyboard.up("v")
    page.keyboard.down("b")
    over(page, ["run a, prompt shoe", "step base", "None-0-0.png"])
    page.keyboard.up("b")
    over(page, None)


# How far each picture moved


def lightness(shade: int) -> float:
    """Of a grey, the only one of OKLab's values that is not zero."""
    share = shade / 255
    return float(np.cbrt(share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4))


def told(value: float) -> str:
    return "0" if value == 0 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


FIRST, SECOND = lightness(120) - lightness(0), lightness(200) - lightness(120)


def test_each_row_shows_how_far_every_step_moved(page: Any) -> None:
    show(page, two_runs())
    assert page.locator(".cmp-change-row").count() == 0
    page.get_by_role("button", name="Change", exact=True).click()
    page.wait_for_function("end => document.querySelector('.cmp-change-note').textContent.endsWith(end)", arg=f" from 0 to {told(FIRST)}")
    row = page.locator(".cmp-change-row").first
    label = row.locator("svg").get_attribute("aria-label")
    assert label == (
        f"Change since the step before: run a step 500 {told(FIRST)}, run a step 1000 {told(SECOND)}, run a step 1500 0, "
        f"run b step 500 {told(FIRST)}, run b step 1500 {told(SECOND)}"
    )
    assert row.locator("path").count() == 2, "no line leads from one run to the other"
    middles = page.evaluate("""() => { const mid = (node) => { const box = node.getBoundingClientRect(); return box.left + box.width / 2; };
        const tds = [...document.querySelector("tbody tr").querySelectorAll("td")].slice(1).map(mid);
        const dots = document.querySelector(".cmp-change-row").querySelectorAll(".cmp-change-dot");
        return [...dots].map((dot, n) => Math.abs(mid(dot) - tds[n])); }""")
    assert max(middles) < 4, "each point stands under its own picture"
    page.reload()
    page.evaluate("window.M = cmpMatrix(document.querySelector('#matrix'))")
    show(page, two_runs())
    assert page.locator(".cmp-change-row").count() == 2, "what was chosen is remembered"


def test_with_a_step_slider_each_row_has_the_curve_of_all_steps(page: Any) -> None:
    show(page, two_runs(place={"run": "x", "step": "", "prompt": "y"}))
    page.get_by_role("button", name="Change", exact=True).click()
    wanted = f"Change since the step before: step 500 {told(FIRST)}, step 1000 {told(SECOND)}, step 1500 {told(SECOND / 2)}"
    page.wait_for_function("wanted => document.querySelector('th.is-row .is-spark')?.ariaLabel === wanted", arg=wanted)
    assert page.locator(".cmp-change-row").count() == 0 and page.locator("th.is-row .cmp-change-here").count() == 2


COUNTING = """() => { window.read = 0;
    const get = CanvasRenderingContext2D.prototype.getImageData;
    CanvasRenderingContext2D.prototype.getImageData = function (...where) { read += 1; return get.apply(this, where); }; }"""


def test_the_change_is_a_score_to_tint_by_and_costs_nothing_until_then(page: Any) -> None:
    page.evaluate(COUNTING)
    show(page, two_runs())
    page.get_by_role("button", name="Look").click()
    assert page.evaluate("read") == 0
    page.get_by_label("How to tint").select_option("outline")
    page.wait_for_function("document.querySelectorAll('.cmp-tint').length === 10")
    assert page.get_by_label("Score to tint by").evaluate("(list) => list.selectedOptions[0].text") == "change since the step before"
    of = page.evaluate("M.grid.changeScore().of")
    assert of["0-1-0"] == pytest.approx(FIRST, abs=1e-4) and of["1-3-1"] == pytest.approx(SECOND, abs=1e-4) and of["0-3-0"] == 0
    assert "None-0-0" not in of, "the base model has no step before it"


def test_the_order_in_which_steps_are_looked_at_does_not_change_what_they_changed(page: Any) -> None:
    show(page, two_runs())
    page.evaluate("M.setView({order: {step: ['1500', '1000', '500', 'base']}})")
    page.evaluate("M.grid.changeScore().of")
    page.wait_for_function("Object.keys(M.grid.changeScore().of).length === 10")
    assert page.evaluate("M.grid.changeScore().of['0-1-0']") == pytest.approx(FIRST, abs=1e-4)


def test_cells_are_chosen_in_the_full_view_too(page: Any) -> None:
    show(page, two_runs())
    cell(page, "run a, step 500, prompt shoe").click()
    page.get_by_role("button", name="Choose").click()
    assert (
        page.get_by_text("1 chosen").filter(visible=True).count()
        and page.get_by_role("button", name="Choose").get_attribute("aria-pressed") == "true"
    )
    page.keyboard.press("ArrowDown")
    assert page.get_by_role("button", name="Choose").get_attribute("aria-pressed") == "false"
    page.keyboard.press("x")
    page.keyboard.press("Escape")
    assert numbers(page) == {"run a, step 500, prompt shoe": "1", "run a, step 500, prompt star": "2"}
