"""axe-core finds nothing to complain of, in no state of the matrix and of the full view, light and dark, wide and narrow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

# The bare page around the matrix has no landmarks and no heading of its own.
OPTIONS = {"resultTypes": ["violations"], "rules": {"region": {"enabled": False}}}
COLOURS = ("red", "white", "black", "teal")
# A long label, a starred and a converted step, a fault and a preview: everything that a head or a cell can say.
MARKS = [
    {"at": {"step": 1}, "star": True, "note": "good", "loss": 0.04, "score": "0.31", "window": True, "converted": "kohya"},
    {"at": {"step": 2}, "flaw": "half written", "score": "0.2"},
]


def grid() -> dict[str, Any]:
    steps = [{"key": f"c{c}", "label": f"step {c}", "sub": "run", "details": [["checkpoint", f"run@{c}"]]} for c in range(4)]
    prompts = [{"key": f"r{r}", "label": f"prompt {r}", "sub": "seed 0", "details": []} for r in range(2)]
    cells: list[dict[str, Any]] = [
        {"at": [c, r], "key": f"k{r}{c}", "state": "done", "full": f"/img/{COLOURS[c]}/64/{r}-{c}", "caption": "a caption", "badge": "0.3"}
        for r in range(2)
        for c in range(4)
    ]
    cells[1] |= {"mark": "preview", "settings": "shoe"}
    cells[6] = {"at": [2, 1], "key": "x", "state": "fault", "fault": "no memory"}
    cells[7] = {"at": [3, 1], "key": "", "state": "drawing"}
    axes = [{"key": "step", "label": "Step", "values": steps}, {"key": "prompt", "label": "Prompt", "values": prompts}]
    return {"title": "g", "axes": axes, "place": {"step": "x", "prompt": "y"}, "step_axis": "step", "cells": cells, "marks": MARKS,
            "scores": [{"key": "s", "label": "score", "better": "high", "of": {"k00": 1, "k01": [2, 1, 3]}}], "stars": True,
            "rerolls": ["prompt"], "done": 6, "total": 8, "verdict": "Held-out loss: step 1 has the lowest."}  # fmt: skip


@pytest.fixture(params=["light", "dark", "narrow"])
def shown(request: Any, page: Any) -> Iterator[Any]:
    page.emulate_media(color_scheme="dark" if request.param == "dark" else "light", reduced_motion="reduce")
    if request.param == "dark":
        page.add_style_tag(content="body { background: #0f1218; }")
    if request.param == "narrow":
        page.set_viewport_size({"width": 390, "height": 844})
    page.evaluate("document.documentElement.lang = 'en'; document.title = 'Matrix'")
    page.evaluate("value => M.update(value)", grid())
    page.wait_for_function("document.querySelectorAll('td img.is-loaded').length === 6")
    yield page
    page.emulate_media(color_scheme="light", reduced_motion="no-preference")


def faults(page: Any) -> list[str]:
    found = Axe().run(page, context=".cmp-matrix", options=OPTIONS).response["violations"]
    return [f"{one['id']}: {node['html'][:200]} {node.get('failureSummary', '')}" for one in found for node in one["nodes"]]


def test_the_matrix_with_all_that_it_can_show(shown: Any) -> None:
    assert faults(shown) == []
    for n in (0, 1):
        shown.locator("td.cmp-cell").nth(n).focus()
        shown.keyboard.press("x")
    more = shown.get_by_role("button", name="More", exact=True)
    for name in ("More", "Arrange", "Change", "Look"):
        if name == "Change" and more.is_visible():
            more.click()
        if name != "More" or more.is_visible():
            shown.get_by_role("button", name=name, exact=True).click()
            assert faults(shown) == []
    shown.wait_for_function("document.querySelectorAll('.cmp-change-dot').length === 4")
    shown.get_by_label("How to tint").select_option("bar")
    shown.locator("td.cmp-cell").nth(1).focus()
    assert faults(shown) == []
    shown.keyboard.down("v")
    shown.locator(".cmp-blinking").wait_for()
    assert faults(shown) == []
    shown.keyboard.up("v")


def test_the_full_view_in_each_of_its_modes(shown: Any) -> None:
    shown.locator("td.cmp-cell").nth(1).focus()
    shown.keyboard.press("Enter")
    shown.wait_for_function("[...document.querySelectorAll('.cmp-stage img')].every((img) => img.classList.contains('is-loaded'))")
    if not shown.locator(".cmp-full-side").is_visible():
        shown.keyboard.press("i")
    shown.wait_for_function("document.querySelector('.cmp-full').getAnimations().length === 0")
    for mode in ("one", "slider", "hover", "side", "blink", "difference"):
        assert shown.locator(".cmp-stage").get_attribute("data-mode") == mode
        if mode == "difference":
            shown.locator("canvas.is-loaded").wait_for()
        assert (mode, faults(shown)) == (mode, [])
        shown.keyboard.press("m")
    shown.keyboard.press("?")
    assert faults(shown) == []
