"""The Curves tab of the real program, with real key and pointer events: marks, zoom, scales, growth, hostile names."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from tests.support import origin_run

from .conftest import FULL, Server, start_server
from .watched import Watched

HOSTILE = '<img src=x onerror="window.pwned=1"> ${window.pwned=1} {{value}}'
CHART = "#curves .cmp-panel:first-child .cmp-chart"


def opened(page: Watched) -> Any:
    page.tab("Curves")
    page.page.wait_for_selector("#curves .main-svg .scatterlayer .trace")
    page.page.locator("#curves .cmp-card").first.wait_for()
    return page.page


def traces(browser: Any, prefix: str) -> int:
    """How many points the lines of one kind have."""
    return browser.evaluate(
        """([chart, prefix]) => document.querySelector(chart)._fullData.filter((t) => t.uid.startsWith(prefix))
            .map((t) => t.x.length).reduce((a, b) => a + b, 0)""",
        [CHART, prefix],
    )


def range_of(browser: Any, axis: str = "xaxis") -> list[float]:
    return browser.evaluate("([chart, axis]) => [...document.querySelector(chart)._fullLayout[axis].range]", [CHART, axis])


def at(browser: Any, share_x: float, share_y: float) -> tuple[float, float]:
    """A place within the plotted area."""
    return tuple(
        browser.evaluate(
            """([chart, x, y]) => {
                const node = document.querySelector(chart), box = node.getBoundingClientRect(), s = node._fullLayout._size;
                return [box.left + s.l + x * s.w, box.top + s.t + y * s.h]; }""",
            [CHART, share_x, share_y],
        )
    )


def drag(browser: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    browser.mouse.move(*start)
    browser.mouse.down()
    browser.mouse.move(*end, steps=8)
    browser.mouse.up()


def mark_place(browser: Any, step: int) -> tuple[float, float]:
    return tuple(
        browser.evaluate(
            """([chart, step]) => {
                const node = document.querySelector(chart), box = node.getBoundingClientRect(), { xaxis, yaxis } = node._fullLayout;
                const marks = node._fullData.find((t) => t.uid.startsWith("marks")), i = [...marks.x].indexOf(step);
                return [box.left + xaxis._offset + xaxis.d2p(step), box.top + yaxis._offset + yaxis.d2p(marks.y[i])]; }""",
            [CHART, step],
        )
    )


def test_a_zoom_asks_for_the_window_in_full_detail_and_a_double_click_gives_all_back(page: Watched) -> None:
    browser = opened(page)
    whole, before = range_of(browser), traces(browser, "raw")
    asked: list[str] = []
    browser.on("request", lambda request: asked.append(request.url) if "curve/points" in request.url else None)
    drag(browser, at(browser, 0.40, 0.2), at(browser, 0.45, 0.8))
    browser.wait_for_function("([chart, x]) => document.querySelector(chart)._fullLayout.xaxis.range[0] > x", arg=[CHART, 1000])
    browser.wait_for_function("() => document.querySelector('#curves .cmp-panel .cmp-chart')._fullData[0].x.length < 400")
    low, high = range_of(browser)
    told = parse_qs(urlsplit(asked[0]).query)
    assert float(told["low"][0]) == pytest.approx(low, abs=1) and "/" not in told["run"][0]
    steps = browser.evaluate("(chart) => [...document.querySelector(chart)._fullData.find((t) => t.uid.startsWith('raw')).x]", CHART)
    inside = [step for step in steps if low <= step <= high]
    assert len(inside) == int(high) - int(low) or len(inside) == int(high) - int(low) + 1, "every step of the window"
    place = at(browser, 0.5, 0.5)
    browser.mouse.dblclick(*place)
    browser.wait_for_function("([chart, end]) => document.querySelector(chart)._fullLayout.xaxis.range[1] === end", arg=[CHART, whole[1]])
    browser.wait_for_function(f"() => document.querySelector({CHART!r})._fullData[0].x.length === {before}")


def test_a_click_on_a_mark_opens_what_can_be_done_and_comparing_leads_to_the_grid(page: Watched) -> None:
    page.row("runs-table", FULL).click()
    page.row("checkpoints-table", f"{FULL}@500").wait_for()
    browser = opened(page)
    browser.mouse.move(*at(browser, 0.3, 0.3))
    browser.mouse.click(*mark_place(browser, 1500))
    menu = browser.locator("#curves .cmp-menu")
    menu.wait_for()
    assert "step 1,500" in menu.inner_text()
    browser.keyboard.press("Escape")
    menu.wait_for(state="hidden")
    browser.mouse.click(*mark_place(browser, 1500))
    menu.locator("[data-action=compare]").click()
    browser.locator("#compare-checkpoints input").first.wait_for()
    ticked = browser.locator("#compare-checkpoints label:has(input:checked)").all_inner_texts()
    assert [text.strip() for text in ticked] == ["base model", "1500"]


def test_converting_from_a_mark_leads_to_the_runs_tab_with_that_checkpoint_ticked(page: Watched) -> None:
    page.row("runs-table", FULL).click()
    page.row("checkpoints-table", f"{FULL}@500").wait_for()
    browser = opened(page)
    browser.mouse.click(*mark_place(browser, 1000))
    browser.locator("#curves [data-action=convert]").click()
    page.row("checkpoints-table", f"{FULL}@1000").locator("input:checked").wait_for()


def test_scales_smoothing_and_axes_change_the_chart_and_are_remembered_for_the_run(page: Watched) -> None:
    browser = opened(page)
    browser.locator("#curves [data-set=logY]").click()
    browser.wait_for_function("(chart) => document.querySelector(chart)._fullLayout.yaxis.type === 'log'", arg=CHART)
    browser.locator("#curves").get_by_label("Smoothing as a number").fill("0.95")
    browser.locator("#curves").get_by_label("Smoothing as a number").press("Enter")
    slider, told = browser.locator("#curves").get_by_label("Smoothing", exact=True), []
    for key in ("ArrowRight", "Shift+ArrowRight", "End", "ArrowUp", "ArrowDown", "Home", "Shift+ArrowLeft"):
        slider.press(key)
        told.append(slider.input_value())
    assert told == ["0.96", "0.961", "0.999", "0.999", "0.989", "0", "0"]
    browser.locator("#curves").get_by_label("Smoothing as a number").fill("0.95")
    browser.locator("#curves").get_by_label("Smoothing as a number").press("Enter")
    browser.locator("#curves").get_by_label("Horizontal axis").select_option("wall")
    browser.wait_for_function("(chart) => document.querySelector(chart)._fullLayout.xaxis.type === 'date'", arg=CHART)
    page.reload()
    browser = opened(page)
    browser.wait_for_function("(chart) => document.querySelector(chart)._fullLayout.xaxis.type === 'date'", arg=CHART)
    assert browser.locator("#curves").get_by_label("Smoothing as a number").input_value() == "0.95"
    assert browser.locator("#curves [data-set=logY]").get_attribute("aria-pressed") == "true"


def test_a_page_that_is_loaded_anew_shows_the_runs_that_it_showed_until_another_is_clicked(page: Watched) -> None:
    browser = opened(page)
    boxes = browser.locator("#curves .cmp-pick input")
    for box in boxes.all():
        box.check()
    browser.locator("#curves").get_by_text("Difference: others minus").wait_for()
    page.reload()
    browser.locator("#runs-table tr.is-ticked").first.wait_for(state="attached")
    page.tab("Curves")
    browser.locator("#curves").get_by_text("Difference: others minus").wait_for()
    assert all(box.is_checked() for box in boxes.all()), "the run that a new page has chosen by itself is nobody's wish"
    page.tab("Runs")
    other = browser.locator("#runs-table tr[data-key]:not(.is-ticked)").first.get_attribute("data-key")
    page.row("runs-table", other).click()
    page.row("checkpoints-table", f"{other}@500").wait_for()
    page.tab("Curves")
    browser.wait_for_function("() => document.querySelectorAll('#curves .cmp-pick input:checked').length === 1")
    assert browser.locator("#curves .cmp-pick:has(input:checked)").get_attribute("title") == other


def test_two_runs_of_the_same_noise_get_a_chart_of_their_difference(page: Watched) -> None:
    browser = opened(page)
    for box in browser.locator("#curves .cmp-pick input").all():
        box.check()
    browser.locator("#curves").get_by_text("Difference: others minus").wait_for()
    assert "correlation 0.99" in browser.locator("#curves .cmp-card").first.inner_text()
    browser.wait_for_function("() => document.querySelectorAll('#curves .cmp-chart .cartesianlayer').length === 2")
    lefts = browser.evaluate("[...document.querySelectorAll('#curves .cmp-chart')].map((chart) => chart._fullLayout._size.l)")
    assert lefts[0] == lefts[1], "equal steps stand below each other"
    browser.locator("#curves .cmp-settings summary").click()
    browser.locator("#curves tr.is-different").first.wait_for()
    assert "learning_rate" in browser.locator("#curves .cmp-side-by-side").inner_text()
    logs = browser.locator("#curves .cmp-settings-body h5:has-text('Which logs are read') + ul li").all_inner_texts()
    assert len(logs) == 2 and all("events.out.tfevents" in line for line in logs)


def test_a_bad_filter_is_told_a_good_one_filters_and_a_pinned_chart_stands_below(page: Watched) -> None:
    browser = opened(page)
    boxes = browser.locator("#curves").get_by_label("Filter tags")
    boxes.fill("l(r")
    browser.locator("#curves").get_by_text("Not a regular expression").wait_for()
    for box in browser.locator("#curves .cmp-pick input").all():
        box.check()
    boxes.fill("^lr$")
    browser.locator("#curves").get_by_text("Not a regular expression").wait_for(state="hidden")
    browser.locator("#curves").get_by_label("Pin lr").wait_for()
    assert browser.locator("#curves .cmp-tag-name").all_inner_texts() == ["Training loss", "lr"]
    browser.locator("#curves").get_by_label("Pin lr").click()
    browser.wait_for_function("() => [...document.querySelectorAll('#curves .cmp-panel-title')].some((node) => node.textContent === 'lr')")


@pytest.fixture
def growing(tmp_path: Path) -> Iterator[tuple[Server, Path]]:
    """A run of a hostile name that is being trained: its log grows while one looks."""
    made = origin_run(tmp_path, name=HOSTILE.replace("/", "_"))
    log = next((tmp_path / "logs").rglob("events.*"))
    told = next((tmp_path / "logs").rglob("hparams.yml"))
    assert yaml.safe_load(told.read_text())["output_dir"].endswith(made.run.name)
    log.write_bytes(events(range(1, 300)))
    for server in start_server(tmp_path / "home", "--runs", str(made.outputs), "serve", "--port", "0"):
        yield server, log


def events(steps: range) -> bytes:
    import io

    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    out = io.BytesIO()
    writer = RecordWriter(out)
    for step in steps:
        event = Event(wall_time=time.time(), step=step)
        event.summary.value.add(tag="loss", simple_value=1 / step)
        writer.write(event.SerializeToString())
    return out.getvalue()


def test_a_run_in_training_grows_on_the_chart_its_zoom_stays_and_its_name_is_only_text(browser: Any, growing: tuple[Server, Path]) -> None:
    server, log = growing
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    context.set_default_timeout(30_000)
    watched = Watched(context.new_page(), server)
    page = opened(watched)
    page.locator("#curves .cmp-live").wait_for()
    assert page.locator("#curves .cmp-pick span").inner_text() != "" and page.evaluate("window.pwned") is None
    drag(page, at(page, 0.5, 0.2), at(page, 0.9, 0.8))
    page.locator("#curves").get_by_text("Reset zoom").wait_for()
    zoomed = range_of(page)
    with open(log, "ab") as file:
        file.write(events(range(300, 500)))
    page.wait_for_function("() => document.querySelector('#curves .cmp-card').innerText.includes('499')")
    assert range_of(page) == zoomed
    page.locator("#curves").get_by_text("Reset zoom").click()
    page.wait_for_function("(chart) => document.querySelector(chart)._fullLayout.xaxis.range[1] > 480", arg=CHART)
    page.mouse.move(*at(page, 0.5, 0.5))
    page.mouse.move(*at(page, 0.52, 0.5))
    page.locator("#curves .cmp-tip").wait_for()
    assert page.evaluate("window.pwned") is None and page.locator("#curves img").count() == 0
    assert watched.complaints == []
    context.close()
