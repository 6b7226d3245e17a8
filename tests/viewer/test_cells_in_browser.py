"""The cells of a matrix: their edges, their size, and which pictures are fetched at all."""

from __future__ import annotations

import io
from http.server import ThreadingHTTPServer
from typing import Any

import pytest
from PIL import Image


def grid(columns: int = 4, rows: int = 3, colour: str = "red", size: int = 64, **more: object) -> dict[str, Any]:
    axes = [
        {"key": key, "label": key, "values": [{"key": f"{key}{i}", "label": f"{key} {i}", "sub": "", "details": []} for i in range(count)]}
        for key, count in (("step", columns), ("prompt", rows))
    ]
    cells = [
        {"at": [c, r], "key": f"k{r}-{c}", "state": "done", "thumb": f"/img/{colour}/32/{r}-{c}", "full": f"/img/{colour}/{size}/{r}-{c}"}
        for r in range(rows)
        for c in range(columns)
    ]
    fixed = {"title": "g", "axes": axes, "place": {"step": "x", "prompt": "y"}, "step_axis": "step", "cells": cells}
    return {**fixed, "common": [], "done": 0, "total": 0, **more}


def show(page: Any, value: object) -> None:
    page.evaluate("value => M.update(value)", value)
    page.wait_for_function("document.querySelector('td img')?.classList.contains('is-loaded')")


def widths(page: Any) -> set[int]:
    return set(page.evaluate("[...document.querySelectorAll('td .cmp-frame')].map((frame) => frame.clientWidth)"))


@pytest.mark.parametrize(("scheme", "colour"), [("light", "white"), ("dark", "black"), ("light", "black"), ("dark", "white")])
def test_a_picture_of_the_colour_of_the_page_has_an_edge_that_is_seen(page: Any, scheme: str, colour: str) -> None:
    page.emulate_media(color_scheme=scheme)
    show(page, grid(2, 1, colour))
    page.wait_for_function("[...document.querySelectorAll('td img')].every((img) => img.complete && getComputedStyle(img).opacity === '1')")
    page.wait_for_function("document.querySelectorAll('td img.is-loaded').length === 2")
    page.mouse.move(1, 899)
    box = page.locator("td.cmp-cell .cmp-frame").nth(1).bounding_box()  # the cursor marks the first one
    clip = {"x": box["x"] - 3, "y": box["y"] + box["height"] / 2, "width": 12, "height": 1}
    with Image.open(io.BytesIO(page.screenshot(clip=clip))) as strip:
        grey = [strip.convert("L").getpixel((x, 0)) for x in range(12)]
    outside, inside = grey[0], grey[-1]
    assert inside == {"white": 255, "black": 0}[colour]
    assert any(abs(tone - outside) > 40 and abs(tone - inside) > 40 for tone in grey) or abs(outside - inside) > 200, grey


@pytest.mark.parametrize("narrow", [1000, 390])
def test_all_columns_fit_into_the_width_and_go_on_doing_so(page: Any, narrow: int) -> None:
    fits = "() => { const box = document.querySelector('.cmp-box'); return box.scrollWidth <= box.clientWidth; }"
    show(page, grid(10 if narrow > 500 else 4))
    page.get_by_label("Size of a cell").fill("256")
    assert widths(page) != set() and not page.evaluate(fits)
    wide = widths(page)
    page.get_by_role("button", name="Fit width").click()
    page.wait_for_function(fits)
    page.set_viewport_size({"width": narrow, "height": 900})
    page.wait_for_function(fits)
    page.wait_for_function("document.querySelector('.cmp-box').clientWidth - document.querySelector('table.cmp-grid').offsetWidth < 60")
    assert max(widths(page)) < min(wide)


@pytest.mark.parametrize("size", [80, 700])
def test_one_to_one_shows_each_pixel_of_the_picture_as_one_of_the_screen(page: Any, size: int) -> None:
    show(page, grid(2, 2, size=size))
    page.get_by_role("button", name="1:1").click()
    page.wait_for_function(
        "size => [...document.querySelectorAll('td img')].every((img) => Math.abs(img.getBoundingClientRect().width - size) < 3)", arg=size
    )


def test_of_a_thousand_pictures_only_those_about_to_be_seen_are_fetched(page: Any, site: ThreadingHTTPServer) -> None:
    before = len(site.asked)  # type: ignore[attr-defined]
    show(page, grid(10, 100))
    page.wait_for_function("[...document.querySelectorAll('td img')].slice(0, 40).every((img) => img.classList.contains('is-loaded'))")
    page.wait_for_load_state("networkidle")
    fetched = {path for path in site.asked[before:] if path.startswith("/img")}  # type: ignore[attr-defined]
    assert 40 <= len(fetched) < 700
    page.locator("td.cmp-cell").last.scroll_into_view_if_needed()
    page.wait_for_function("[...document.querySelectorAll('td img')].at(-1).classList.contains('is-loaded')")


def test_without_the_loop_the_steps_stop_at_the_last_one(page: Any) -> None:
    show(page, grid(3, 1, place={"step": "", "prompt": "y"}, view={}))
    assert page.locator("output").inner_text() == "step 2, 3 of 3"
    page.get_by_label("Speed").select_option("8")
    page.get_by_label("Loop").uncheck()
    page.get_by_role("button", name="Step before").click()
    page.wait_for_function("document.querySelector('output').textContent === 'step 1, 2 of 3'")
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("document.querySelector('output').textContent === 'step 2, 3 of 3'")
    page.get_by_role("button", name="Play").wait_for()
    assert page.locator("output").inner_text() == "step 2, 3 of 3"
