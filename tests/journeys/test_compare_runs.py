"""Two runs on the Compare tab: what is shown belongs together, and grids that were drawn before are found again."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from playwright.sync_api import Error as PlaywrightError

from .conftest import FULL, Server, run_command
from .watched import Watched

pytestmark = [pytest.mark.browser, pytest.mark.model]

OTHER = "casual_shoes_lr_5e-4"


def compare(page: Watched, run: str) -> Any:
    """The Compare tab as one comes to it from a run's row."""
    page.tab("Runs")
    page.row("runs-table", run).click()
    page.page.locator(f'#checkpoints-table tr[data-key^="{run}@"]').first.wait_for()
    page.tab("Compare")
    page.page.wait_for_function("run => document.querySelector('#compare-runs')?.innerText.includes(run)", arg=run)
    page.page.locator(f'#compare-checkpoints input[name^="{run}@"]').first.wait_for()
    return page.page


def tick(page: Watched, *wanted: str) -> None:
    """Ticks these alone. A form that is only just being filled for another run may take a tick back: then it is ticked again."""
    boxes = page.page.locator("#compare-checkpoints label")
    for _ in range(20):
        for i in range(boxes.count()):
            with suppress(PlaywrightError):
                boxes.nth(i).locator("input").set_checked(boxes.nth(i).inner_text().strip() in wanted, timeout=5000)
        page.page.wait_for_timeout(400)  # in which what is under way comes
        ticked = {boxes.nth(i).inner_text().strip() for i in range(boxes.count()) if boxes.nth(i).locator("input").is_checked()}
        if ticked == {*wanted}:
            return
    raise AssertionError(f"{ticked} stay ticked, and not {wanted}; {page.found()}")


def draw(page: Watched, prompt: str, *ticked: str) -> None:
    """With these ticked."""
    page.status("compare-plan", "cell")
    tick(page, *ticked)
    page.page.locator("#compare-prompts textarea").fill(prompt)
    page.page.click("#compare-draw")
    page.status("compare-status", f"done: {len(ticked)} of {len(ticked)}")
    page.page.locator("#grid tbody th", has_text=prompt).wait_for()


def title(page: Watched) -> str:
    return page.page.locator("#grid .cmp-title").inner_text()


def note(page: Watched, wanted: str) -> None:
    page.page.locator("#grid .cmp-note", has_text=wanted).wait_for()


def test_another_run_brings_its_own_grid_or_none_and_a_grid_of_others_says_whose_it_is(page: Watched) -> None:
    compare(page, FULL)
    draw(page, "a shoe of the first", "base model", "500")
    assert title(page) == FULL and "grid=" in page.page.url
    compare(page, OTHER)
    note(page, f"No grid of {OTHER} is here yet. Draw makes one of what is ticked")
    assert page.page.locator("#grid td.cmp-cell").count() == 0 and not page.page.locator("#grid .cmp-verdict").is_visible()
    page.page.wait_for_function("!location.search.includes('grid=')")
    draw(page, "a shoe of the second", "base model", "500")
    assert title(page) == OTHER
    compare(page, FULL)
    page.page.locator("#grid tbody th", has_text="a shoe of the first").wait_for()
    assert title(page) == FULL and not page.page.locator("#compare-whose").is_visible()
    page.page.locator("#compare-runs input").fill(OTHER)
    page.page.get_by_role("option", name=OTHER).click()
    page.status("compare-whose", f"This grid is of {FULL}. Chosen at the left, and in the loss curve: ")
    assert title(page) == FULL, "it is compared across"


def test_grids_drawn_before_and_by_the_command_line_are_listed_shown_and_fill_the_form(page: Watched, server: Server) -> None:
    compare(page, FULL)
    draw(page, "a shoe of this page", "base model", "500")
    asked = ("grid", f"{OTHER}@500", "--prompt", "a shoe of the shell", "--seeds", "41", "--steps", "3", "--title", "From the shell")
    said = run_command(server.home, *asked)
    assert said.code == 0, said.err
    page.tab("Runs")
    page.tab("Compare")
    choose_earlier(page, "From the shell")
    page.page.locator("#grid tbody th", has_text="a shoe of the shell").wait_for()
    page.page.wait_for_function("run => document.querySelector('#compare-runs').innerText.includes(run)", arg=OTHER)
    for name, wanted in (("prompts", "a shoe of the shell"), ("seeds", "41")):
        page.page.wait_for_function(
            "([name, wanted]) => document.querySelector(`#compare-${name} :is(textarea, input)`).value === wanted", arg=[name, wanted]
        )
    assert title(page) == "From the shell"
    page.page.locator("#compare-whose").wait_for(state="hidden")
    choose_earlier(page, "a shoe of this page")
    page.page.locator("#grid tbody th", has_text="a shoe of this page").wait_for()
    assert title(page) == FULL


def test_an_earlier_grid_of_which_a_picture_has_gone_says_so_and_fills_the_form(page: Watched, server: Server) -> None:
    said = run_command(server.home, "grid", f"{FULL}@500", "--prompt", "a shoe that goes", "--seeds", "43", "--steps", "3")
    assert said.code == 0, said.err
    newest = max((server.home / "cells").rglob("[0-9a-f]*.png"), key=lambda file: file.stat().st_mtime)
    newest.unlink()
    compare(page, FULL)
    choose_earlier(page, "a shoe that goes")
    page.page.get_by_text("Some pictures of this grid are not here any more").wait_for()
    page.page.wait_for_function("document.querySelector('#compare-prompts textarea').value === 'a shoe that goes'")
    page.status("compare-plan", "1 cell: 1 new")


def choose_earlier(page: Watched, name: str) -> None:
    """The list may be filled anew while it is open: then it is opened again."""
    for _ in range(6):
        page.page.locator("#compare-earlier input").click()
        with suppress(PlaywrightError):
            page.page.get_by_role("option", name=name).first.click(timeout=8000)
            return
        page.page.keyboard.press("Escape")
        page.page.locator("#compare-earlier input").blur()
    raise AssertionError(f"{name} cannot be chosen; {page.found()}")


def ticked(page: Watched) -> list[str]:
    return page.page.locator("#compare-checkpoints label:has(input:checked)").all_inner_texts()


def test_none_are_ticked_at_once_or_those_of_an_expression(page: Watched) -> None:
    compare(page, FULL)
    count = "n => document.querySelectorAll('#compare-checkpoints input:checked').length === n"
    page.page.click("#compare-none")
    page.page.wait_for_function(count, arg=0)
    box = page.page.locator("#compare-axis :is(textarea, input)")
    for axis, wanted in (("500:1500:500", ["500", "1000", "1500"]), ("last 2", ["2500", "3000"]), ("all, SKIP: 1000-3000 (+500)", ["500"])):
        box.fill(axis)
        box.press("Enter")
        page.page.wait_for_function(count, arg=len(wanted))
        assert [text.strip() for text in ticked(page)] == wanted
    box.fill("75")
    box.press("Enter")
    page.page.get_by_text("there is no checkpoint at step 75").first.wait_for()
    assert [text.strip() for text in ticked(page)] == ["500"], "a slip changes nothing"


def test_a_grid_taller_than_the_window_is_seen_to_its_end_without_leaving_the_form(page: Watched) -> None:
    compare(page, FULL)
    draw(page, "a shoe in a low window", "base model", "500")
    page.page.set_viewport_size({"width": 1440, "height": 420})
    page.page.wait_for_function("parseFloat(document.querySelector('#grid-column').style.getPropertyValue('--cmp-rest')) < 0")
    page.page.mouse.wheel(0, 400)
    page.page.wait_for_function("document.querySelector('#grid-column').getBoundingClientRect().bottom <= innerHeight")
    form = "document.querySelector('#compare-left').getBoundingClientRect().bottom > innerHeight"
    assert page.page.evaluate(form), "the form goes on below"
