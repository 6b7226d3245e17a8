"""Measuring from the Pick tab of the real program: planned, done, seen again after a reload, and told as `best` tells it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cmp.core.agreeing import sentence

from .conftest import FULL, Server, run_command, start_server
from .test_pick_tab import closed, faults
from .watched import Watched

pytestmark = [pytest.mark.browser, pytest.mark.model]
IMAGES = 6


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, demo_home: Path) -> Path:
    """A home with folders of few images, beside those of the demo."""
    home = tmp_path_factory.mktemp("measuring")
    shutil.copytree(demo_home / "demo", home / "demo")
    for kind in ("held_out", "train"):
        data = home / "demo" / "data" / kind
        few = home / f"few_{kind}"
        few.mkdir()
        shutil.copy(data / "metadata.jsonl", few)
        for image in sorted(data.rglob("*.png"))[:IMAGES]:
            (few / image.relative_to(data)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(image, few / image.relative_to(data))
    return home


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Server]:
    yield from start_server(home, "serve", "--port", "0")


def opened(browser: Any, server: Server, **more: Any) -> Watched:
    context = browser.new_context(**({"viewport": {"width": 1400, "height": 900}} | more))
    context.set_default_timeout(60_000)
    watched = Watched(context.new_page(), server)
    to_pick(watched)
    return watched


def to_pick(watched: Watched) -> None:
    watched.tab("Runs")  # after a reload it may be another
    watched.row("runs-table", FULL).click()
    watched.row("checkpoints-table", f"{FULL}@500").wait_for()
    watched.tab("Pick")
    watched.page.locator("#pick .cmp-pick-told").wait_for()


def field(watched: Watched, name: str) -> Any:
    return watched.page.locator(f"#measure-{name} :is(input, textarea)").first


def test_a_run_is_measured_without_a_command_line_and_the_verdict_is_that_of_best(browser: Any, server: Server, home: Path) -> None:
    watched = opened(browser, server)
    page = watched.page
    field(watched, "held-out").wait_for()  # since nothing decides, the section is open
    assert page.locator("#pick .cmp-pick-next button").inner_text() == "Measure the loss of every checkpoint on images that were kept out."
    assert "held_out" in field(watched, "held-out").input_value(), "the demo comes with images of its own"
    field(watched, "held-out").fill(str(home / "none"))
    watched.status("measure-plan", "there is no folder")
    field(watched, "held-out").fill(str(home / "few_held_out"))
    field(watched, "training").fill(str(home / "few_train"))
    field(watched, "draws").fill("8")
    plan = watched.status("measure-plan", "8 draws each")
    assert plan.startswith(f"loss on {IMAGES} images, training-loss on {IMAGES} images, 8 draws each: 14 values to measure, 0 known")
    page.locator("#measure-start").click()
    watched.status("measure-status", "measured")
    watched.reload()
    to_pick(watched)
    watched.status("measure-status", "of 12 values measured")
    panel = page.locator("#pick [data-rule=measured]")
    panel.locator("svg").first.wait_for()
    page.wait_for_function("document.querySelectorAll('#pick [data-rule=measured] .cmp-pick-chart .cmp-pick-point').length === 6")
    page.locator("#pick [data-rule=training-loss]").wait_for()
    page.wait_for_function("document.querySelector('#measure-cancel').disabled && !document.querySelector('#measure-start').disabled")
    best = run_command(home, "best", FULL, "--json").json
    assert best["rule"] == "measured" and panel.locator(".cmp-pick-sentence").inner_text() == sentence(best["reason"])
    points = panel.locator(".cmp-pick-chart .is-window").evaluate_all("(nodes) => nodes.map((node) => node.dataset.id)")
    assert points in ([], best["window"]), "a window that holds all is not shaded"
    assert f"{IMAGES} images" in panel.locator(".cmp-pick-about").inner_text()
    assert panel.locator("[data-part=gap] .cmp-pick-spot:visible").count() == 6
    panel.locator("[data-part=bands] > summary").click()
    assert panel.locator("[data-part=bands] figure:visible").count() == 8
    assert "learned by heart" in run_command(home, "measure", FULL).out, "the folders are remembered for the command line too"
    closed(watched)


def test_update_sizes_need_no_pictures_and_have_their_limits(browser: Any, server: Server) -> None:
    watched = opened(browser, server)
    page = watched.page
    page.locator("#pick [data-do=measure]").click()
    page.locator("#measure-metrics").get_by_label("loss: ").wait_for()
    page.locator("#measure-metrics").get_by_label("update: ").check()
    page.locator("#measure-metrics").get_by_label("loss: ").uncheck()
    field(watched, "held-out").wait_for(state="hidden")
    assert watched.status("measure-plan", "update: 6 values to measure")
    page.locator("#measure-start").click()
    limits = page.locator("#pick [data-rule=update] .cmp-pick-limits")
    limits.wait_for()
    assert "not whether that was for the better" in limits.inner_text()
    page.locator("#pick [data-rule=update] [data-part=blocks] > summary").click()
    assert page.locator("#pick [data-rule=update] [data-part=blocks] figure:visible").count() > 4
    watched.status("measure-status", "done: 6 of 6 values measured")
    closed(watched)


def test_what_lacks_an_answer_is_told_in_the_words_of_the_page(browser: Any, server: Server) -> None:
    watched = opened(browser, server)
    page = watched.page
    page.get_by_label("Run", exact=True).select_option("casual_shoes_lr_5e-4")
    field(watched, "held-out").wait_for()
    field(watched, "held-out").fill("")
    told = watched.status("measure-plan", "nothing says on which images")
    assert "“Held-out images”" in told and "--" not in told
    page.locator("#measure-metrics").get_by_label("cmmd: ").check()
    field(watched, "reference").wait_for()
    closed(watched)


def test_measuring_is_cancelled_within_a_value_and_what_was_measured_stays(browser: Any, server: Server, home: Path) -> None:
    watched = opened(browser, server)
    page = watched.page
    page.locator("#pick [data-do=measure]").click()
    page.locator("#measure-metrics").get_by_label("loss: ").check()  # the form is as it was filled in last
    page.locator("#measure-metrics").get_by_label("update: ").uncheck()
    field(watched, "held-out").fill(str(home / "few_held_out"))
    field(watched, "training").fill("")
    field(watched, "draws").fill("2000")  # minutes for each checkpoint
    watched.status("measure-plan", "2,000 draws each")
    assert page.locator("#measure-cancel").is_disabled()
    page.locator("#measure-start").click()
    watched.status("measure-status", "measuring")
    page.wait_for_function("!document.querySelector('#measure-cancel').disabled && document.querySelector('#measure-start').disabled")
    page.locator("#measure-cancel").click()
    told = watched.status("measure-status", "cancelled: ")
    assert " of 6 values measured" in told
    page.wait_for_function("document.querySelector('#measure-cancel').disabled && !document.querySelector('#measure-start').disabled")
    field(watched, "draws").fill("1")
    watched.status("measure-plan", "1 draw each")
    page.locator("#measure-start").click()
    watched.status("measure-status", "done: 6 of 6 values measured")
    closed(watched)


@pytest.fixture
def growing(home: Path, tmp_path: Path) -> Iterator[tuple[Server, Path]]:
    """A server over a folder of one run, in which another checkpoint may land; and where."""
    from_demo, landed = home / "demo" / "training" / "outputs" / FULL / "checkpoints", tmp_path / "outputs" / "trained now" / "checkpoints"
    shutil.copytree(from_demo / "checkpoint-500", landed / "checkpoint-40")
    arguments = ("--runs", str(tmp_path / "outputs"), "--bases", str(home / "demo" / "bases"), "serve", "--port", "0")
    for server in start_server(home, *arguments):
        yield server, landed


def test_with_watch_on_each_new_checkpoint_is_measured_too_as_it_lands(
    browser: Any, growing: tuple[Server, Path], home: Path, tmp_path: Path
) -> None:
    server, landed = growing
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    context.set_default_timeout(60_000)
    watched = Watched(context.new_page(), server)
    page = watched.page
    watched.row("checkpoints-table", "trained now@40").wait_for()
    watched.tab("Compare")
    page.locator("#compare-watching > button").click()
    page.locator("#compare-watch").wait_for()
    assert page.locator("#compare-watch-too:visible").count() == 0, "nothing says on which images"
    watched.tab("Pick")
    _measure_once(watched, home)
    watched.tab("Compare")
    page.locator("#compare-watch-too").wait_for()
    page.locator("#compare-prompts textarea").fill("a shoe that grows")
    page.locator("#compare-watch-too input").check()
    page.locator("#compare-watch input").check()
    watched.status("compare-status", "waiting for the next checkpoint")
    shutil.copytree(home / "demo" / "training" / "outputs" / FULL / "checkpoints" / "checkpoint-1000", landed / "checkpoint-60")
    page.wait_for_function("document.querySelector('#grid thead')?.innerText.includes('step 60')", timeout=90_000)
    watched.status("compare-status", "waiting for the next checkpoint")
    watched.tab("Pick")
    page.locator("#pick [data-rule=measured] .cmp-pick-chart .cmp-pick-point").nth(1).wait_for()
    best = run_command(home, "--runs", str(tmp_path / "outputs"), "best", "trained now", "--json").json
    assert best["rule"] == "measured" and [score["step"] for score in best["scores"]] == [40, 60]
    watched.tab("Compare")
    page.locator("#compare-watch input").uncheck()
    watched.status("compare-status", "cancelled")
    closed(watched)


def _measure_once(watched: Watched, home: Path) -> None:
    page = watched.page
    page.locator("#pick .cmp-pick-told", has_text="step 40 is the only checkpoint").wait_for()
    page.locator("#pick [data-do=measure]").click()
    page.locator("#measure-question > button").click()
    field(watched, "alpha").fill("16")
    field(watched, "held-out").fill(str(home / "few_held_out"))
    field(watched, "draws").fill("3")  # as nobody measured before: what is known by its weights is not new
    watched.status("measure-plan", f"loss on {IMAGES} images, 3 draws each: 2 values to measure")
    page.locator("#measure-start").click()
    watched.status("measure-status", "done: 1 of 1 value measured")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("wide", [1400, 390])
def test_axe_finds_nothing_in_the_section_and_the_panels(browser: Any, server: Server, scheme: str, wide: int) -> None:
    watched = opened(browser, server, viewport={"width": wide, "height": 900}, color_scheme=scheme)
    page = watched.page
    page.locator("#pick [data-do=measure]").click()
    page.locator("#measure-start").wait_for()
    for metric in page.locator("#measure-metrics input").all():
        metric.check()
    for name in ("clip", "encoder", "preference", "reference", "subject"):  # all that is ever asked for
        page.locator(f"#measure-{name}").wait_for()
    page.locator("#measure-question > button").click()
    page.locator("#pick-measure button", has_text="The same on the command line").click()
    field(watched, "alpha").wait_for()
    page.locator("#measure-command").wait_for()
    for part in page.locator("#pick .cmp-pick-panel summary:visible").all():
        part.click()
    assert faults(page, "#pick") == []
    # a primary button has Gradio's own colours, as on every tab
    assert [told for told in faults(page, "#pick-measure") if 'id="measure-start"' not in told] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing hangs out of the page"
    closed(watched)


@pytest.fixture
def looking(home: Path) -> Iterator[Server]:
    yield from start_server(home, "serve", "--port", "0", "--read-only")


@pytest.fixture
def visited(home: Path) -> Iterator[Server]:
    yield from start_server(home, "serve", "--port", "0", "--token", "open sesame", "--open-reading")


@pytest.mark.parametrize("which", ["looking", "visited"])
def test_who_may_only_look_has_none_of_it(browser: Any, which: str, request: pytest.FixtureRequest) -> None:
    server = request.getfixturevalue(which)
    watched = opened(browser, server)
    assert watched.page.locator("#pick-measure:visible, #pick [data-do=measure]:visible").count() == 0
    assert "few_held_out" not in watched.page.content()
    status, told, _ = server.get(f"/api/v1/measure?run={FULL}")
    assert status == 200 and "few_held_out" not in str(told) and str(server.home) not in str(told)
    assert server.post("/api/v1/measure", {"run": FULL, "held_out": "/etc", "dry_run": True})[0] in (401, 405)
    closed(watched)
