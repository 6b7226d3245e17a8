"""A page that was shared, opened from a disk in a browser without a network: all of it is there, and nothing is asked for."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.sharing import HOSTILE, given_run, vote, written

Watch = Callable[[Any, str], list[str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    given = given_run(tmp_path_factory.mktemp("share"))
    vote(given)
    target = tmp_path_factory.mktemp("page") / "a page"
    written(given, target)
    return target


@pytest.fixture
def page(context: Any, watch: Watch, folder: Path) -> Iterator[Any]:
    context.set_offline(True)
    page = context.new_page()
    page.set_viewport_size({"width": 1400, "height": 900})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    complaints = watch(page, folder.as_uri())
    page.goto((folder / "index.html").as_uri())
    yield page
    assert page.evaluate("window.pwned") is None
    assert complaints == [] and [url for url in asked if not url.startswith((folder.as_uri(), "data:"))] == []
    page.close()
    context.set_offline(False)


def loaded(page: Any) -> list[int]:
    return page.evaluate(  # type: ignore[no-any-return]
        """async () => {
          const all = [...document.querySelectorAll("td.cmp-cell img")];
          await Promise.all(all.map((img) => { img.loading = "eager"; return img.decode().catch(() => null); }));
          return all.map((img) => img.naturalWidth);
        }"""
    )


def test_pictures_verdict_loss_votes_and_settings_are_there(page: Any) -> None:
    assert loaded(page) == [256] * 8
    assert page.locator("h1").text_content() == "lora_casual_shoes"
    assert page.locator(".cmp-head.is-col .cmp-label").all_text_contents() == ["step 500", "step 1000"]
    assert "Held-out loss" in page.locator(".cmp-shared-verdict").text_content()
    assert page.locator("img.cmp-shared-chart").evaluate("(img) => img.decode().then(() => img.naturalWidth)") > 500
    assert page.locator("h2").all_text_contents()[-3:] == ["Loss", "Which is the best", "Trained with"]
    assert HOSTILE in page.locator(".cmp-matrix").first.text_content()


def test_a_cell_opens_large_and_the_next_step_is_a_key_away(page: Any) -> None:
    from playwright.sync_api import expect

    page.locator("td.cmp-cell").first.click()
    large = page.locator("dialog .cmp-full-image.is-own")
    expect(large).to_have_class(re.compile("is-loaded"))
    assert large.evaluate("(img) => img.naturalWidth") == 300
    first = large.get_attribute("src")
    page.keyboard.press("ArrowRight")
    expect(page.locator("dialog .cmp-full-image.is-own")).not_to_have_attribute("src", str(first))


def test_zoom_is_locked_over_all_pictures(page: Any) -> None:
    loaded(page)
    page.locator("td.cmp-cell").first.hover()
    page.keyboard.down("Control")
    page.mouse.wheel(0, -240)
    page.keyboard.up("Control")
    page.get_by_text(re.compile(r"^Zoom.*×")).or_(page.locator(".cmp-zoom:has-text('×')")).first.wait_for()
    widths = """[...document.querySelectorAll("td .cmp-frame")]
        .map((f) => Math.round(100 * f.querySelector("img").getBoundingClientRect().width / f.clientWidth) / 100)"""
    assert len(set(page.evaluate(widths))) == 1 and page.evaluate(widths)[0] > 1


def test_a_difference_that_the_browser_does_not_allow_is_told_and_not_guessed(page: Any) -> None:
    page.locator("td.cmp-cell").nth(1).click()
    page.keyboard.press("Shift+M")
    page.get_by_text("A page that is opened from a disk may not read pixels, so no difference is told.").wait_for()


def test_as_a_static_space_it_asks_nobody_else_and_tells_differences(context: Any, folder: Path) -> None:
    serve = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server, context.new_page() as page:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        home, asked, complaints = f"http://127.0.0.1:{server.server_port}", [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.goto(f"{home}/index.html")
        page.locator("td.cmp-cell").nth(1).click()
        page.keyboard.press("Shift+M")
        page.get_by_text(re.compile("of the pixels are equal|pixels differ|differ")).first.wait_for()
        server.shutdown()
    assert [url for url in asked if not url.startswith((home, "data:", "blob:"))] == [] and complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(page: Any, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    loaded(page)
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    assert [f"{one['id']}: {node['html'][:160]}" for one in found for node in one["nodes"]] == []
    page.emulate_media(color_scheme="light", reduced_motion="no-preference")
