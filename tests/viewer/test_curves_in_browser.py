"""The chart in a real browser, with real key and pointer events."""

from __future__ import annotations

from typing import Any

import pytest

NEEDS_PLOTLY = True
HOSTILE = '<b>&amp;</b> <img src=x onerror="window.pwned=1"> ${window.pwned=1} {{value}} %{y}'


def line(run: str, tag: str = "loss", **more: object) -> dict[str, object]:
    x = list(range(0, 1000, 10))
    y = [1 / (1 + step / 100) for step in x]
    return {"run": run, "label": f"run {run}", "tag": tag, "x": x, "y": [None, *y[1:]], "smooth": y, **more}


def chart(*series: dict[str, object], **more: object) -> dict[str, object]:
    marks = [{"run": "a", "label": "a at 500", "step": 500, "y": None}]
    return {"series": series or [line("a"), line("b")], "markers": marks, "log": False, "notes": [], "empty": "", **more}


def plot(page: Any, value: object) -> None:
    page.evaluate("value => C.update(value)", value)
    page.wait_for_function("() => { const c = document.querySelector('.cmp-chart'); return c?._fullLayout?.width }")
    settle(page)


def settle(page: Any) -> None:
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def inside(page: Any, what: str) -> Any:
    return page.evaluate(f"document.querySelector('.cmp-chart').{what}")


def pixel(page: Any, step: float, y: float) -> list[float]:
    return page.evaluate(
        """([step, y]) => {
        const chart = document.querySelector(".cmp-chart"), box = chart.getBoundingClientRect();
        const { xaxis, yaxis } = chart._fullLayout;
        return [box.left + xaxis._offset + xaxis.d2p(step), box.top + yaxis._offset + yaxis.d2p(y)]; }""",
        [step, y],
    )


def drag(page: Any, start: list[float], end: list[float]) -> None:
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(*end, steps=6)
    page.mouse.up()
    page.get_by_text("Reset zoom").wait_for()
    settle(page)


def test_a_chart_hidden_at_first_gets_its_size_when_shown(page: Any) -> None:
    page.evaluate("document.querySelector('#curves').style.display = 'none'")
    page.evaluate("value => C.update(value)", chart())
    page.evaluate("document.querySelector('#curves').style.cssText = 'width: 700px'")
    page.wait_for_function("document.querySelector('.cmp-chart')._fullLayout?.width === 700")
    page.set_viewport_size({"width": 500, "height": 700})
    page.evaluate("document.querySelector('#curves').style.cssText = 'width: 400px'")
    page.wait_for_function("document.querySelector('.cmp-chart')._fullLayout.width === 400")


def test_a_hostile_run_name_is_shown_as_text_in_legend_hover_and_notes(page: Any) -> None:
    marks = [{"run": HOSTILE, "label": HOSTILE, "step": 500, "y": None}]
    plot(page, chart(line(HOSTILE, HOSTILE, label=HOSTILE), markers=marks, notes=[HOSTILE]))
    assert page.locator(".cmp-curves .cmp-legend").text_content() == page.locator(".cmp-notes").text_content() == HOSTILE
    page.mouse.move(*pixel(page, 480, 0.2))
    page.mouse.move(*pixel(page, 500, 0.2))
    page.locator(".cmp-tip").wait_for()
    assert HOSTILE[:59] in page.locator(".cmp-tip").text_content()  # longer names are cut off
    assert page.locator("#curves img").count() == 0


def test_log_scale_changes_the_axis_and_lets_go_of_the_old_zoom(page: Any) -> None:
    plot(page, chart())
    drag(page, pixel(page, 200, 0.9), pixel(page, 600, 0.3))
    zoomed = inside(page, "_fullLayout.xaxis.range")
    plot(page, chart(log=True))
    assert inside(page, "_fullLayout.yaxis.type") == "log"
    assert inside(page, "_fullLayout.yaxis.range")[0] < -1, "all the heights again, as powers of ten"
    assert inside(page, "_fullLayout.xaxis.range") == zoomed


def test_a_drag_that_is_all_but_straight_zooms_along_its_longer_side_alone(page: Any) -> None:
    plot(page, chart())
    whole = [inside(page, f"_fullLayout.{axis}.range") for axis in ("xaxis", "yaxis")]
    left, top = pixel(page, 200, 0.6)
    right, _ = pixel(page, 600, 0.6)
    drag(page, [left, top], [right, top + 26])
    assert inside(page, "_fullLayout.xaxis.range") == pytest.approx([200, 600], abs=8)
    assert inside(page, "_fullLayout.yaxis.range") == pytest.approx(whole[1])
    page.get_by_text("Reset zoom").click()
    settle(page)
    above, below = pixel(page, 200, 0.9), pixel(page, 200, 0.3)
    drag(page, above, [above[0] + 26, below[1]])
    assert inside(page, "_fullLayout.xaxis.range") == pytest.approx(whole[0])
    assert inside(page, "_fullLayout.yaxis.range") == pytest.approx([0.3, 0.9], abs=0.02)


def test_a_zoom_survives_new_points_and_a_double_click_ends_it(page: Any) -> None:
    plot(page, chart())
    drag(page, pixel(page, 200, 0.9), pixel(page, 600, 0.3))
    zoomed = inside(page, "_fullLayout.xaxis.range")
    assert zoomed == pytest.approx([200, 600], abs=8)
    longer = line("a")
    longer["y"][-1] = 0.5  # type: ignore[index]
    plot(page, chart(longer, line("b")))
    assert inside(page, "_fullLayout.xaxis.range") == zoomed
    page.mouse.dblclick(*pixel(page, 400, 0.5))
    page.wait_for_function("document.querySelector('.cmp-chart')._fullLayout.xaxis.range[1] > 980")
    assert not page.get_by_text("Reset zoom").is_visible()


def test_only_a_click_on_a_mark_names_its_checkpoint(page: Any) -> None:
    plot(page, chart())
    height = 1 / (1 + 500 / 100)
    for step, y in ((500, 0.8), (300, 0.25), (500, height)):
        page.mouse.move(*pixel(page, step - 3, y))
        page.mouse.move(*pixel(page, step, y))
        page.wait_for_timeout(120)  # Plotly ignores moves that follow each other faster than its own clock
        page.mouse.click(*pixel(page, step, y))
    assert page.evaluate("picked.map(({run, step}) => [run, step])") == [["a", 500]]


def focused(page: Any) -> str | None:
    return page.evaluate("document.activeElement.getAttribute('aria-label')")


def test_marks_are_reached_looked_at_and_chosen_with_the_keyboard_alone(page: Any) -> None:
    marks = [{"run": run, "label": f"run {run}", "step": step, "y": None} for run in "ab" for step in (300, 500)]
    plot(page, chart(markers=marks, picking="Compare it"))
    page.locator(".cmp-legend button").last.focus()
    page.keyboard.press("Tab")
    assert focused(page) == "checkpoint 300 of run a"
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    assert focused(page) == "checkpoint 300 of run b"
    page.wait_for_function("document.querySelector('.cmp-tip').textContent.includes('step 300')")
    page.keyboard.press("Enter")
    assert page.evaluate("picked.map(({run, step}) => [run, step])") == [["b", 300]]
    plot(page, chart(markers=marks, picking="Compare it", log=True))
    assert focused(page) == "checkpoint 300 of run b", "a drawing that is made anew must not take the place away"
    page.keyboard.press("Tab")
    assert "checkpoint" not in (focused(page) or ""), "the row is one stop"


def test_the_marks_of_a_hidden_line_are_no_stops(page: Any) -> None:
    plot(page, chart())
    assert page.locator(".cmp-mark").count() == 1 and page.locator(".cmp-mark").get_attribute("aria-label") == "checkpoint 500"
    page.locator(".cmp-legend button").first.click()
    page.wait_for_function("!document.querySelector('.cmp-mark')")
    assert page.evaluate("document.activeElement.className") == "cmp-entry", "the legend's button keeps the keyboard"
    plot(page, {"series": [], "markers": [], "notes": []})
    assert not page.locator(".cmp-marks").is_visible()


def test_a_mark_without_height_lies_on_its_line_or_is_counted_in_a_note(page: Any) -> None:
    marks = [{"run": "a", "label": "", "step": step, "y": None} for step in (495, 1000, 5000)]
    plot(page, chart(markers=marks))
    heights = page.evaluate("document.querySelector('.cmp-chart')._fullData.find((trace) => trace.meta.startsWith('marks a')).y")
    smooth = line("a")["smooth"]
    assert heights == pytest.approx([(smooth[49] + smooth[50]) / 2, smooth[-1]])  # type: ignore[index]
    assert "1 of 3 checkpoints" in page.locator(".cmp-notes").inner_text()


def colours(page: Any) -> dict[str, str]:
    return page.evaluate(
        "Object.fromEntries(document.querySelector('.cmp-chart')._fullData.map((trace) => [trace.meta, trace.line?.color]))"
    )


def test_a_run_keeps_its_colour_when_another_leaves(page: Any) -> None:
    plot(page, chart(line("a"), line("b"), line("c")))
    before = colours(page)
    plot(page, chart(line("c"), line("b")))
    after = colours(page)
    assert len({before[f"line {run}\0loss"] for run in "abc"}) == 3
    assert all(after[f"line {run}\0loss"] == before[f"line {run}\0loss"] for run in "bc")


def test_the_legend_hides_a_run_and_its_marks(page: Any) -> None:
    plot(page, chart())
    page.get_by_role("button", name="run a").click()
    shown = "document.querySelector('.cmp-chart')._fullData.filter((trace) => trace.visible === true).map((trace) => trace.meta)"
    settle(page)
    assert page.evaluate(shown) == ["raw b\0loss", "line b\0loss"]


def test_the_chart_follows_a_change_of_theme(page: Any) -> None:
    plot(page, chart())
    light = inside(page, "_fullLayout.font.color")
    page.evaluate("document.body.classList.add('dark')")
    page.wait_for_function("document.querySelector('.cmp-chart')._fullLayout.font.color === 'rgba(238, 238, 238, 1)'")
    assert light == "rgba(31, 41, 55, 1)"


def test_an_empty_chart_says_why(page: Any) -> None:
    page.evaluate("C.update({ series: [], empty: 'This run has no log.' })")
    assert page.locator("#curves").inner_text().strip() == "This run has no log."


def test_the_pointer_is_told_all_runs_at_one_step_lowest_first_and_others_hear_of_it(page: Any) -> None:
    low = line("low")
    low["smooth"] = [y / 2 for y in low["smooth"]]  # type: ignore[attr-defined]
    plot(page, chart(line("a"), low))
    page.evaluate("window.heard = []; addEventListener('cmp:step', ({detail}) => heard.push(detail))")
    page.mouse.move(*pixel(page, 430, 0.8))
    page.mouse.move(*pixel(page, 432, 0.8))
    page.locator(".cmp-tip").wait_for()
    assert page.locator(".cmp-tip-row span").all_inner_texts() == ["run low", "run a"]
    assert page.locator(".cmp-tip-head").inner_text() == "step 430"
    assert page.evaluate("heard.at(-1)") == {"run": "a", "step": 430, "from": "curves"}


def test_a_step_told_from_elsewhere_is_a_line_that_is_not_told_again(page: Any) -> None:
    plot(page, chart())
    page.evaluate("window.heard = 0; addEventListener('cmp:step', () => { heard += 1 })")
    page.evaluate("dispatchEvent(new CustomEvent('cmp:step', {detail: {run: 'a', step: 250, from: 'matrix'}}))")
    told = page.locator(".cmp-cross.is-told")
    told.wait_for()
    left = told.bounding_box()["x"]
    assert left == pytest.approx(pixel(page, 250, 0.5)[0], abs=2)
    assert page.evaluate("heard") == 1
    page.evaluate("dispatchEvent(new CustomEvent('cmp:step', {detail: {run: 'a', step: null, from: 'matrix'}}))")
    told.wait_for(state="hidden")


def test_a_strip_has_a_low_chart_and_nothing_else(page: Any) -> None:
    plot(page, chart(compact=True))
    assert page.locator("#curves").bounding_box()["height"] <= 170
    assert not page.locator(".cmp-curves-bar").is_visible() and not page.locator(".cmp-marks").is_visible()
    assert inside(page, "_fullData.length") > 3


def test_outliers_do_not_flatten_a_chart_until_they_are_asked_for(page: Any) -> None:
    spiked = line("a")
    spiked["y"] = [*spiked["y"][:50], 90.0, *spiked["y"][51:]]  # type: ignore[index]
    spiked["smooth"] = None
    plot(page, chart(spiked))
    assert inside(page, "_fullLayout.yaxis.range")[1] < 3
    page.get_by_text("more beyond").click()
    page.wait_for_function("document.querySelector('.cmp-chart')._fullLayout.yaxis.range[1] > 90")
    assert page.locator("[data-set=outliers]").get_attribute("aria-pressed") == "false"


def test_a_run_whose_name_is_no_selector_is_drawn(page: Any) -> None:
    """Plotly looks for a trace by its name when it is drawn anew: slashes, dots and worse must not break it."""
    names = ["t2i/outputs/run 1", "a.b#c[d]", 'x"y', "שלום 👟"]
    for chosen in (names[:2], names[2:], names):
        series = [{"run": n, "label": n, "tag": "train_loss", "x": [1, 2, 3], "y": [3, 2, 1], "smooth": None} for n in chosen]
        page.evaluate("value => C.update(value)", {"series": series, "markers": [], "notes": []})
        page.wait_for_function(
            "n => document.querySelector('.cmp-chart')._fullData?.filter((t) => t.meta?.startsWith('line')).length === n", arg=len(chosen)
        )


def luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(", ")]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize(("theme", "paper"), [("light", "rgb(255, 255, 255)"), ("dark", "rgb(16, 16, 16)")])
def test_twelve_runs_have_twelve_colours_that_stand_out_from_the_page(page: Any, theme: str, paper: str) -> None:
    page.evaluate("theme => document.body.classList.toggle('dark', theme === 'dark')", theme)
    plot(page, chart(*(line(f"r{i}") for i in range(12))))
    page.wait_for_function(
        "paper => cmpCurveTheme.makeTheme(document.querySelector('#curves'))().dark === (paper !== 'rgb(255, 255, 255)')", arg=paper
    )
    seen = page.evaluate("""() => { const probe = document.body.appendChild(document.createElement("i"));
        return [...document.querySelector(".cmp-chart").data].filter((trace) => /^line/.test(trace.uid)).map(({ line }) => {
            probe.style.color = line.color; return getComputedStyle(probe).color; }); }""")
    assert len(set(seen)) == 12
    for colour in seen:
        low, high = sorted((luminance(colour), luminance(paper)))
        assert (high + 0.05) / (low + 0.05) >= 3, colour


def test_runs_that_are_shown_together_share_no_colour_however_many_there_are(page: Any) -> None:
    told = page.evaluate("""() => {
        const places = cmpCurveTheme.makePlaces();
        const colourOf = (run) => cmpCurveTheme.colourOf(places.of(run), { dark: false }).colour;
        const colours = (runs) => { places.show(runs); return runs.map(colourOf); };
        for (let i = 0; i < 40; i += 1) places.of(`r${i}`);
        const alone = colours(["r3"]);
        return [alone, colours(["r3", "r15", "r27"]), colours(["r15", "r27"]),
            colours([...Array(12).keys()].map((i) => `r${3 * i}`))]; }""")
    alone, three, two, twelve = told
    assert len(set(three)) == 3 and three[0] == alone[0] and two == three[1:] and len(set(twelve)) == 12


def test_a_value_is_drawn_once_though_the_page_grows_by_it_and_again_in_another_size(page: Any) -> None:
    page.evaluate(
        "() => { window.drawn = 0; const react = Plotly.react; Plotly.react = (...told) => { drawn += 1; return react(...told); }; }"
    )
    before = page.locator("#curves").bounding_box()["height"]
    plot(page, chart())
    settle(page)
    assert page.locator("#curves").bounding_box()["height"] > before + 100 and page.evaluate("drawn") == 1
    page.set_viewport_size({"width": 800, "height": 900})
    page.wait_for_function("document.querySelector('.cmp-chart')._fullLayout.width < 800")
    page.set_viewport_size({"width": 800, "height": 700})
    page.wait_for_function(
        "() => { const c = document.querySelector('.cmp-chart'); return c._fullLayout.height === c.clientHeight && c.clientHeight < 320 }"
    )


def test_in_a_long_list_the_run_that_is_shown_is_in_sight(page: Any) -> None:
    inside_list = page.evaluate("""async () => {
        const root = document.querySelector("#curves");
        const side = cmpCurveSide({ onRuns: () => {}, onTag: () => {}, onPin: () => {}, colourOf: () => "red" });
        root.classList.add("has-source");
        root.replaceChildren(side.node);
        side.setRuns([...Array(60).keys()].map((i) => ({ run: `r${i}`, label: `run ${i}` })), ["r41"]);
        await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
        const [list, row] = [".cmp-list", ".cmp-pick:has(input:checked)"].map((of) => root.querySelector(of).getBoundingClientRect());
        return [list.height < 400, row.top >= list.top, row.bottom <= list.bottom, scrollY]; }""")
    assert inside_list == [True, True, True, 0]


def test_of_many_runs_settings_stay_readable_and_the_words_of_most_are_folded(page: Any) -> None:
    told = page.evaluate("""() => {
        const root = document.querySelector("#curves"), facts = cmpCurveFacts({ onOpenSettings: () => {} });
        root.classList.add("has-source");
        root.replaceChildren(facts.node);
        const runs = [...Array(30).keys()].map((i) => `a run with a long name ${i}`);
        facts.settings({ runs, rows: [{ name: "learning_rate", values: runs.map(() => "0.0001"), differs: true }], lineage: [], logs: [] });
        facts.reading({ pairs: [], readings: runs.map((label) => ({ label, lines: ["a line"] })) });
        root.querySelector(".cmp-settings").open = true;
        const widths = [...root.querySelectorAll(".cmp-side-by-side thead th")].map((th) => th.offsetWidth);
        const cards = [...root.querySelectorAll(".cmp-card")].filter((card) => card.checkVisibility()).length;
        return [Math.min(...widths) > 70, cards, root.querySelector(".cmp-facts > .cmp-fold summary").textContent,
            document.documentElement.scrollWidth <= innerWidth]; }""")
    assert told == [True, 3, "How to read the other 27 curves", True]


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("steps", [10, 4_000, 123_456])
@pytest.mark.parametrize("most", [0.0123, 0.6, 45.0, -3.0, 12_000.0])
def test_the_chart_is_laid_out_once_since_its_labels_fit_into_its_margins(page: Any, steps: int, most: float, compact: bool) -> None:
    x = list(range(0, steps, max(steps // 100, 1)))
    plot(page, chart({"run": "a", "label": "a", "tag": "loss", "x": x, "y": [most / (i + 1) for i in x], "smooth": None}, compact=compact))
    size, margin = inside(page, "_fullLayout._size"), inside(page, "_fullLayout.margin")
    assert {side: size[side] for side in "lrtb"} == {side: margin[side] for side in "lrtb"}
