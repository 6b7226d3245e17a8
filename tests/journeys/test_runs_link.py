"""The Runs tab's address: which run, how its pictures are arranged and where one is, brought back by a link, a reload and the way back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import Training, origin_run

from .conftest import Server, start_server
from .test_first_screen import png
from .watched import Watched

pytestmark = pytest.mark.browser
NAMES = ("a & b=c", "second", "third one")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Three runs with pictures and logs, one of them with a name that an address must escape, and one without a log."""
    training = tmp_path_factory.mktemp("training")
    for name in (*NAMES, "without"):
        made = origin_run(training, steps=(10, 20, 30), name=name, logs=name != "without")
        for step in (10, 20, 30):
            draw(made, step)
    yield from start_server(tmp_path_factory.mktemp("served"), "--runs", str(training / "outputs"), "serve", "--port", "0")


def draw(made: Training, step: int) -> None:
    for prompt in (0, 1):
        file = made.run / "sample" / f"x_{step:06d}_{prompt:02d}_20261123115343_7.png"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(png("teal", 64 + step))
    (made.run / "sample" / "prompt.txt").write_text("a cat\na dog", encoding="utf-8")


@pytest.fixture
def own(browser: Any, served: Server) -> Iterator[Watched]:
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    context.set_default_timeout(60_000)
    watched = Watched(context.new_page(), served)
    yield watched
    context.close()
    assert watched.complaints == []


def chosen(page: Watched, name: str) -> None:
    page.page.locator(f'#runs-table tr.is-ticked[data-key="{name}"]').wait_for()
    page.page.locator("#samples .cmp-title", has_text=f"{name}: drawn by the trainer").wait_for()


def heads(page: Watched) -> list[str]:
    return page.page.locator("#samples thead th .cmp-label").all_inner_texts()


def arranged(page: Watched) -> None:
    """Hides a step, runs prompts across, and goes to a cell."""
    page.page.get_by_role("button", name="Arrange").click()
    page.page.locator("#samples").get_by_label("step 20", exact=True).uncheck()
    page.page.locator("#samples").get_by_label("Where Prompt runs").select_option("X")
    page.page.keyboard.press("Escape")
    page.page.locator("#samples td.cmp-cell").nth(0).focus()
    page.page.keyboard.press("ArrowRight")
    page.page.wait_for_function("location.search.includes('cell')")


def seen(page: Watched) -> None:
    page.page.wait_for_function("document.querySelectorAll('#samples .cmp-group.is-col').length === 2")
    assert heads(page) == ["step 10", "step 30", "step 10", "step 30"]
    page.page.wait_for_function("document.querySelectorAll('#samples td.cmp-cell')[1].classList.contains('is-cursor')")


def test_a_link_to_a_run_and_its_pictures_brings_them_back_on_another_page(own: Watched, served: Server, browser: Any) -> None:
    own.row("runs-table", NAMES[0]).click()
    chosen(own, NAMES[0])
    arranged(own)
    link = own.page.url
    own.reload()
    chosen(own, NAMES[0])
    seen(own)
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    context.set_default_timeout(60_000)
    page = context.new_page()
    page.goto(link)
    other = Watched.__new__(Watched)
    other.page, other.complaints, other.asked = page, [], set()
    chosen(other, NAMES[0])
    seen(other)
    assert page.url == link, "opening a link changes nothing in it"
    context.close()


def test_a_reload_within_the_full_view_comes_back_to_it_and_back_stays_on_the_page(own: Watched) -> None:
    page = own.page
    own.row("runs-table", NAMES[1]).click()
    chosen(own, NAMES[1])
    page.locator("#samples td.cmp-cell").nth(4).click()
    page.locator("#samples dialog.cmp-full").get_by_role("button", name="Side by side").click()
    page.wait_for_function("location.search.includes('side')")
    said = page.locator("#samples .cmp-full-title").inner_text()
    assert "step 20" in said and "a dog" in said
    own.reload()
    page.wait_for_function("document.querySelectorAll('#samples dialog.cmp-full[open] .cmp-stage img.is-loaded').length === 2")
    assert page.locator("#samples .cmp-full-title").inner_text() == said
    page.go_back()
    page.wait_for_function("!document.querySelector('#samples dialog.cmp-full').open && !location.search.includes('side')")
    chosen(own, NAMES[1])
    assert page.evaluate("new URL(location).searchParams.get('run')") == NAMES[1]


def test_back_goes_to_the_run_before_as_it_was_arranged(own: Watched) -> None:
    own.row("runs-table", NAMES[1]).click()
    chosen(own, NAMES[1])
    own.page.get_by_role("button", name="Swap axes").click()
    own.page.wait_for_function("location.search.includes('samples')")
    own.row("runs-table", NAMES[2]).click()
    chosen(own, NAMES[2])
    own.page.wait_for_function("new URL(location).searchParams.get('run') === 'third one'")
    own.page.go_back()
    chosen(own, NAMES[1])
    assert heads(own) == ["a cat", "a dog"]
    own.page.go_back()
    own.page.wait_for_function("!location.search.includes('samples')")
    chosen(own, NAMES[1])
    own.page.wait_for_function("document.querySelectorAll('#samples thead th .cmp-label').length === 3")
    own.page.go_forward()
    own.page.go_forward()
    chosen(own, NAMES[2])


def test_runs_beside_each_other_are_in_the_link_and_the_curves_show_the_same_ones(own: Watched) -> None:
    own.row("runs-table", NAMES[1]).click()
    chosen(own, NAMES[1])
    own.page.locator("#samples-beside input").click()
    own.page.get_by_role("option", name=NAMES[2]).click()
    own.page.wait_for_function("new URL(location).searchParams.getAll('run').join() === 'second,third one'")
    own.page.keyboard.press("Escape")
    own.reload()
    own.page.wait_for_function("document.querySelectorAll('#samples .cmp-group-row').length === 2")
    own.tab("Curves")
    own.page.wait_for_function("document.querySelectorAll('#curves .cmp-legend .cmp-entry').length === 2")
    own.page.locator("#curves .cmp-pick", has_text=NAMES[0]).click()
    own.page.wait_for_function("new URL(location).searchParams.getAll('run').length === 3")
    own.page.go_back()
    own.page.wait_for_function("new URL(location).searchParams.getAll('run').join() === 'second,third one'")
    own.page.wait_for_function("document.querySelectorAll('#curves .cmp-legend .cmp-entry').length === 2")
    own.page.go_forward()
    own.page.wait_for_function("new URL(location).searchParams.getAll('run').length === 3")
    own.reload()
    own.page.wait_for_function("document.querySelectorAll('#curves .cmp-legend .cmp-entry').length === 3")
    own.tab("Runs")
    own.page.wait_for_function("new URL(location).searchParams.get('tab') === 'runs'")


def test_a_link_to_a_run_that_is_gone_shows_another_and_says_so_in_the_address(own: Watched, served: Server) -> None:
    own.reload(f"{served.url}/?run=gone%22%5D%3Cimg%20src%3Dx%3E")
    chosen(own, NAMES[0])
    own.page.wait_for_function("new URL(location).searchParams.get('run') === 'a & b=c'")


def test_columns_and_curve_speak_of_the_same_step_and_no_curve_stands_where_nothing_was_logged(own: Watched) -> None:
    page = own.page
    own.row("runs-table", NAMES[1]).click()
    chosen(own, NAMES[1])
    page.wait_for_function("document.querySelector('#samples-curve .cmp-chart')?._fullLayout?.width")
    page.evaluate("""window.told = []; addEventListener("cmp:step", ({ detail }) => told.push([detail.from, detail.run, detail.step]));""")
    page.locator("#samples td.cmp-cell").nth(1).hover()
    page.locator("#samples-curve .cmp-cross.is-told").wait_for(state="visible")
    assert ["matrix", "second", 20] in page.evaluate("told")
    box = page.locator("#samples-curve .nsewdrag").bounding_box()
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + box["height"] / 2)
    page.mouse.move(box["x"] + 0.62 * box["width"], box["y"] + box["height"] / 2)
    page.wait_for_function("document.querySelector('#samples th.is-linked .cmp-label')?.innerText === 'step 30'")
    own.row("runs-table", "without").click()
    chosen(own, "without")
    page.locator("#samples-curve").wait_for(state="hidden")


def test_a_mark_on_the_strip_leads_to_compare(page: Watched) -> None:
    page.page.wait_for_function("document.querySelector('#samples-curve .cmp-chart')?._fullLayout?.width")
    at = page.page.evaluate("""() => { const chart = document.querySelector("#samples-curve .cmp-chart");
        const { xaxis, yaxis } = chart._fullLayout, box = chart.getBoundingClientRect();
        const marks = chart.data.find((trace) => trace.mode === "markers");
        return [box.left + xaxis._offset + xaxis.d2p(marks.x[1]), box.top + yaxis._offset + yaxis.d2p(marks.y[1])]; }""")
    page.page.mouse.click(*at)
    page.page.locator("#compare-checkpoints input:checked").first.wait_for()
    assert page.page.locator("#compare-checkpoints").get_by_label("1000", exact=True).is_checked()


@pytest.mark.parametrize("wide", [390, 320])
def test_on_a_phone_all_tabs_are_in_sight_and_a_link_opens_its_own(browser: Any, served: Server, wide: int) -> None:
    context = browser.new_context(viewport={"width": wide, "height": 844})
    context.set_default_timeout(60_000)
    page = context.new_page()
    for name in ("Storage", "Compare"):
        page.goto(f"{served.url}/?tab={name.lower()}")
        page.locator('.cmp-tabs [role="tab"][aria-selected="true"]', has_text=name).wait_for()
    tabs = page.locator(".cmp-tabs").get_by_role("tab")
    assert tabs.all_inner_texts() == ["Runs", "Curves", "Pick", "Compare", "Storage"]
    boxes = [tab.bounding_box() for tab in tabs.all()]
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= wide for box in boxes), "none is cut off"
    assert wide < 390 or len({box["y"] for box in boxes}) == 1, "they stand in one line"
    page.get_by_role("tab", name="Pick").click()
    page.wait_for_function("new URL(location).searchParams.get('tab') === 'pick'")
    page.go_back()
    page.locator('.cmp-tabs [role="tab"][aria-selected="true"]', has_text="Compare").wait_for()
    context.close()


def test_a_link_to_compare_names_the_runs_of_the_form_and_follows_them(own: Watched, served: Server) -> None:
    page, runs = own.page, "new URL(location).searchParams.getAll('run').join()"
    own.reload(f"{served.url}/?tab=compare&run=second&run=third+one")
    page.wait_for_function("document.querySelectorAll('#compare-runs .token').length === 2")
    page.wait_for_function("document.querySelectorAll('#compare-checkpoints input').length === 7")
    assert page.evaluate(runs) == "second,third one"
    page.locator("#compare-runs input").click()
    page.get_by_role("option", name="without").click()
    page.wait_for_function(f"{runs} === 'second,third one,without'")


def test_comparing_what_is_ticked_is_an_entry_of_the_history(own: Watched) -> None:
    page, tab = own.page, "new URL(location).searchParams.get('tab')"
    own.row("runs-table", "second").click()
    chosen(own, "second")
    page.locator("#checkpoints-table tr[data-key='second@20'] input").check()
    page.locator("#compare-selected").click()
    page.wait_for_function(f"{tab} === 'compare' && document.querySelector('#compare-runs .token')?.checkVisibility()")
    assert page.evaluate("new URL(location).searchParams.getAll('run')") == ["second"]
    page.go_back()
    page.locator("#runs-table tr.is-ticked[data-key='second']").wait_for()
    page.wait_for_function("document.querySelector('#runs-table')?.checkVisibility()")
    assert page.evaluate(tab) is None
