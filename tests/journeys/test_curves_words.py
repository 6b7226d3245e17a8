"""Each thing that the Curves tab promises, on the page of the real program: filters, groups, scales, lines, marks, order, memory, files."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.compat.proto.event_pb2 import Event

from tests.disk.test_tfevents import record, start
from tests.support import NOW, origin_run

from .conftest import Server, start_server
from .test_curves_tab import CHART, at, drag, mark_place, range_of
from .watched import Watched

ONE, TWO = "first_run", "second_run"


def logged(at: int, late: float = 0.0, **values: float) -> bytes:
    """One event of the values at a step, which takes a minute; `__` stands for the slash in a tag."""
    event = Event(wall_time=NOW + 60.0 * at + late, step=at)
    for tag, value in values.items():
        event.summary.value.add(tag=tag.replace("__", "/"), simple_value=value)
    return record(event)


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two runs with the same steps. The first logs a held-out loss, the rates of two layers and one loss far off; the second was killed at
    step 600, and ten hours later resumed at 501; one of its values is not a number.
    """
    top = tmp_path_factory.mktemp("words")
    for number, name in enumerate((ONE, TWO)):
        made = origin_run(top, name=name)
        noise = np.random.default_rng(number).normal(0, 0.02, 1001)
        told = [
            logged(step, loss=90.0 if number == 0 and step == 333 else 0.3 + number + 1 / step + noise[step]) for step in range(1, 1001)
        ]
        if number == 1:
            told[500:] = [
                *told[500:600],
                record(start(501)),
                *(logged(step, late=36000, loss=np.nan if step == 800 else 1.4 + noise[step]) for step in range(501, 1001)),
            ]
        if number == 0:
            told += [logged(step, val_loss=0.5 + step / 1e4, lr__unet=0.1, lr__text=0.2, grad__norm=1.0) for step in range(100, 1001, 100)]
        next((top / "logs" / f"train_{name}").glob("events.*")).write_bytes(b"".join(told))
    assert made.run.parent == top / "outputs"
    yield from start_server(top / "home", "--runs", str(top / "outputs"), "serve", "--port", "0")


@pytest.fixture(scope="module")
def shown(browser: Any, two_runs: Server) -> Iterator[Watched]:
    context = browser.new_context(viewport={"width": 1400, "height": 1000}, accept_downloads=True)
    context.set_default_timeout(30_000)
    watched = Watched(context.new_page(), two_runs)
    yield watched
    context.close()
    assert watched.complaints == []


@pytest.fixture
def curves(shown: Watched) -> Any:
    """The tab as one who has never been here finds it."""
    shown.page.evaluate("localStorage.clear(); history.replaceState(null, '', '/')")  # the address names runs, too
    return loaded(shown)


def loaded(shown: Watched) -> Any:
    shown.reload()
    shown.tab("Curves")
    shown.page.locator("#curves .cmp-card").first.wait_for()
    shown.page.wait_for_function("(chart) => document.querySelector(chart)?._fullData?.some((t) => t.uid.startsWith('marks'))", arg=CHART)
    return shown.page


def drawn(page: Any) -> list[str]:
    """What is drawn from back to front, each by its kind, run and tag."""
    return page.evaluate(
        "(chart) => document.querySelector(chart)._fullData.filter((t) => t.meta).map((t) => t.meta.replace('\\0', ' '))", CHART
    )


def line(page: Any, name: str) -> dict[str, Any]:
    return page.evaluate(
        """([chart, name]) => { const t = document.querySelector(chart)._fullData.find((t) => t.meta?.replace('\\0', ' ') === name);
            return t && {x: [...t.x], y: [...t.y], opacity: t.opacity, symbol: [].concat(t.marker?.symbol ?? [])}; }""",
        [CHART, name],
    )


def until(page: Any, what: str, arg: object = None) -> None:
    page.wait_for_function(f"(told) => {{ const chart = document.querySelector({json.dumps(CHART)}); return {what}; }}", arg=arg)


def show_both(page: Any) -> None:
    for box in page.locator("#curves .cmp-pick input").all():
        box.check()
    until(page, f"chart._fullData.some((t) => t.meta?.startsWith('line {TWO}'))")


def button(page: Any, name: str) -> Any:
    return page.locator(f"#curves [data-set={name}]")


def test_a_first_look_has_the_defaults_and_the_held_out_loss_beside_the_loss_with_the_raw_one_behind(curves: Any) -> None:
    slider = curves.locator("#curves").get_by_label("Smoothing", exact=True)
    assert (slider.input_value(), slider.get_attribute("min"), slider.get_attribute("max")) == ("0.6", "0", "0.999")
    pressed = {name: button(curves, name).get_attribute("aria-pressed") for name in ("outliers", "logY", "logX", "trend")}
    assert pressed == {"outliers": "true", "logY": "false", "logX": "false", "trend": "false"}
    assert range_of(curves, "yaxis")[1] < 5, "one loss of 90 does not flatten the others"
    order = drawn(curves)
    assert order.index(f"raw {ONE} loss") < order.index(f"line {ONE} loss")
    assert f"line {ONE} val_loss" in order and line(curves, f"raw {ONE} loss")["opacity"] < 0.5
    raw, smooth = line(curves, f"raw {ONE} loss")["y"], line(curves, f"line {ONE} loss")["y"]
    assert max(raw) == 90 and max(smooth) < 45 and smooth[0] == pytest.approx(1.3, abs=0.1), "a mean without bias begins at the first value"
    assert not curves.locator("#curves").get_by_text("Reset zoom").is_visible()


def test_smoothing_without_lag_and_log_x_and_a_trend_change_what_is_drawn(curves: Any) -> None:
    before = line(curves, f"line {ONE} loss")
    curves.locator("#curves").get_by_label("How it is smoothed").select_option("centred")
    curves.wait_for_function(
        "([chart, first]) => document.querySelector(chart)._fullData.find((t) => t.meta?.startsWith('line')).y[0] !== first",
        arg=[CHART, before["y"][0]],
    )
    after = line(curves, f"line {ONE} loss")
    peak = [int(np.argmax(found["y"])) for found in (before, after)]
    assert before["x"][peak[0]] == after["x"][peak[1]] == 333 and after["y"][peak[1] - 1] > 1, (
        "it rises before the peak, the other does not"
    )
    button(curves, "logX").click()
    until(curves, "chart._fullLayout.xaxis.type === 'log'")
    button(curves, "trend").click()
    until(curves, "chart._fullData.some((t) => t.meta?.startsWith('trend'))")
    assert len(line(curves, f"trend {ONE} loss")["x"]) == 32, "a straight line is bent on a logarithmic axis"
    curves.locator("#curves").get_by_label("Horizontal axis").select_option("relative")
    until(curves, "chart._fullLayout.xaxis.title.text.includes('since the start')")
    button(curves, "logX").click()
    until(curves, "chart._fullLayout.xaxis.type === 'linear' && chart._fullData.find((t) => t.meta?.startsWith('line')).x.at(-1) > 16")
    assert line(curves, f"line {ONE} loss")["x"][-1] == pytest.approx(999 / 60, abs=0.1), "hours"


def test_what_a_resume_overwrote_is_drawn_at_the_time_at_which_it_was_logged(curves: Any) -> None:
    show_both(curves)
    assert line(curves, f"old 0 {TWO} loss")["x"] == list(range(501, 601))
    curves.locator("#curves").get_by_label("Horizontal axis").select_option("relative")
    until(curves, "chart._fullLayout.xaxis.title.text.includes('since the start')")
    old, new = line(curves, f"old 0 {TWO} loss")["x"], line(curves, f"line {TWO} loss")["x"]
    assert [old[0], old[-1]] == pytest.approx([500 / 60, 599 / 60], abs=0.01), "hours"
    assert min(x for x in new if x > 500 / 60) == pytest.approx(500 / 60 + 10, abs=0.01), "the resumed one begins ten hours later"


def test_a_value_that_is_no_number_is_marked_at_its_step_and_leaves_a_gap(curves: Any) -> None:
    show_both(curves)
    assert line(curves, f"broken {TWO} loss")["x"] == [800]
    raw = line(curves, f"raw {TWO} loss")
    assert raw["y"][raw["x"].index(800)] is None and not any(name.startswith(f"broken {ONE}") for name in drawn(curves))


def test_runs_and_tags_are_filtered_by_a_pattern_and_tags_grouped_by_the_slash(curves: Any) -> None:
    show_both(curves)
    assert curves.locator("#curves .cmp-group summary").all_inner_texts() == ["grad/", "lr/"]
    assert curves.locator("#curves .cmp-group:last-of-type .cmp-tag-name").all_inner_texts() == ["text", "unet"]
    curves.locator("#curves").get_by_label("Filter runs").fill("^sec.*run$")
    until(curves, f"chart._fullData.every((t) => !t.meta || t.meta.includes({json.dumps(TWO)}))")
    assert curves.locator("#curves .cmp-pick").count() == 1
    curves.locator("#curves").get_by_label("Filter runs").fill("")
    until(curves, f"chart._fullData.some((t) => t.meta?.includes('line {ONE}'))")
    curves.locator("#curves").get_by_label("Filter tags").fill("lr/(u|v)")
    curves.locator("#curves .cmp-group").first.wait_for()
    assert curves.locator("#curves .cmp-tag-name").all_inner_texts() == ["Training loss", "unet"]
    curves.locator("#curves .cmp-tag-name", has_text="unet").click()
    curves.wait_for_function("() => document.querySelector('#curves .cmp-panel-title').textContent === 'lr/unet'")


def test_the_words_beside_the_pointer_are_in_the_order_that_was_chosen(curves: Any) -> None:
    show_both(curves)
    heads = []
    for order in ("low", "high", "listed"):
        curves.locator("#curves").get_by_label("Order beside the pointer").select_option(order)
        curves.mouse.move(*at(curves, 0.7, 0.5))
        curves.mouse.move(*at(curves, 0.72, 0.5))
        curves.locator("#curves .cmp-tip").wait_for()
        curves.wait_for_function("() => document.querySelectorAll('#curves .cmp-tip-row').length === 3")
        heads.append(curves.locator("#curves .cmp-tip-row b").all_inner_texts())
        curves.mouse.move(*at(curves, 0.7, -0.5))
    values = [[float(text) for text in texts] for texts in heads]
    assert values[0] == sorted(values[0]) and values[1] == sorted(values[1], reverse=True) and len(set(values[0])) == 3


def test_a_mark_tells_its_state_and_score_and_its_menu_gives_it_a_star(curves: Any) -> None:
    place = mark_place(curves, 500)
    curves.mouse.move(place[0] - 3, place[1])
    curves.mouse.move(*place)
    curves.wait_for_function("() => document.querySelector('#curves .cmp-tip-note').textContent.includes('checkpoint 500')")
    assert "held-out loss 0.55" in curves.locator("#curves .cmp-tip-note").inner_text()
    curves.mouse.click(*place)
    curves.locator("#curves [data-action=star]").click()
    until(curves, "[].concat(chart._fullData.find((t) => t.meta?.startsWith('marks')).marker.symbol).includes('star')")
    curves.mouse.click(*mark_place(curves, 500))
    curves.locator("#curves").get_by_text("Take the star away").click()
    until(curves, "![].concat(chart._fullData.find((t) => t.meta?.startsWith('marks')).marker.symbol).includes('star')")


def test_a_zoom_is_reset_by_its_button_alone_there(curves: Any) -> None:
    whole = range_of(curves)
    drag(curves, at(curves, 0.3, 0.2), at(curves, 0.5, 0.8))
    reset = curves.locator("#curves").get_by_text("Reset zoom")
    reset.wait_for()
    until(curves, "chart._fullLayout.xaxis.range[1] < 600")
    reset.click()
    until(curves, "chart._fullLayout.xaxis.range[1] === told", whole[1])
    reset.wait_for(state="hidden")


def test_pins_and_settings_are_remembered_for_their_run_and_not_for_another(curves: Any, shown: Watched) -> None:
    curves.locator("#curves").get_by_label("Pin unet").click()
    titles = "[...document.querySelectorAll('#curves .cmp-panel-title')].map((node) => node.textContent).join()"
    pinned = f"() => {titles} === 'Training loss,lr/unet'"
    curves.wait_for_function(pinned)
    button(curves, "trend").click()
    until(curves, "chart._fullData.some((t) => t.meta?.startsWith('trend'))")
    page = loaded(shown)
    page.wait_for_function(pinned)
    assert button(page, "trend").get_attribute("aria-pressed") == "true"
    page.locator(f"#curves .cmp-pick[title={TWO}] input").check()
    page.locator(f"#curves .cmp-pick[title={ONE}] input").uncheck()
    until(page, f"chart._fullData.every((t) => !t.meta || t.meta.includes({json.dumps(TWO)}))")
    assert button(page, "trend").get_attribute("aria-pressed") == "false" and page.locator("#curves .cmp-panel").count() == 1
    page.locator(f"#curves .cmp-pick[title={ONE}] input").check()
    page.wait_for_function(pinned)
    page.locator("#curves").get_by_label("Unpin lr/unet").click()
    page.wait_for_function("() => document.querySelectorAll('#curves .cmp-panel').length === 1")


def test_the_band_and_the_words_are_of_this_runs_own_figures(curves: Any) -> None:
    until(curves, f"chart._fullData.some((t) => t.meta === 'band {ONE}\\0loss')")
    words = curves.locator("#curves .cmp-card").first.inner_text()
    assert (
        words.startswith("How to read this curve") and "scatter by" in words and "held-out loss (val_loss) was lowest at step 100" in words
    )
    button(curves, "band").click()
    until(curves, "!chart._fullData.some((t) => t.meta?.startsWith('band'))")


def test_the_chart_is_saved_as_a_table_and_as_pictures(curves: Any, tmp_path: Path) -> None:
    begins = {"CSV": b"run,tag,step", "PNG": b"\x89PNG", "SVG": b"<?xml"}
    for kind, first in begins.items():
        with curves.expect_download() as waiting:
            curves.locator("#curves .cmp-file", has_text=kind).click()
        file = tmp_path / f"saved.{kind}"
        waiting.value.save_as(file)
        assert file.read_bytes().startswith(first), kind
    rows = list(csv.DictReader((tmp_path / "saved.CSV").read_text().splitlines()))
    assert {row["run"] for row in rows} == {ONE} and len([row for row in rows if row["tag"] == "loss"]) == 1000
