"""The page's address: it brings back what was looked at, also in another process, and the browser's Back works."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .conftest import start_server
from .watched import Watched

pytestmark = [pytest.mark.browser, pytest.mark.model]


def test_a_link_outlives_the_server_and_back_goes_to_the_tab_before(browser: Any, tmp_path: Path) -> None:
    serving = start_server(tmp_path, "serve", "--port", "0")
    server = next(serving)
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(60_000)
    watched = Watched(context.new_page(), server)
    page = watched.page
    watched.row("runs-table", "casual_shoes_lr_5e-4").click()
    page.locator("#runs-table tr.is-ticked[data-key='casual_shoes_lr_5e-4']").wait_for()
    page.locator("#checkpoints-table tr[data-key^='casual_shoes_lr_5e-4']").first.wait_for()
    watched.tab("Compare")
    page.locator("#compare-checkpoints input:checked").first.wait_for()
    page.locator("#compare-seeds :is(textarea, input)").first.fill("1, 2")
    page.click("#compare-draw")
    watched.status("compare-status", "done: 14 of 14 cells")
    page.get_by_role("button", name="Arrange").click()
    page.locator("#grid").get_by_label("Where Seed runs").select_option("X")
    page.get_by_role("button", name="Step slider").click()
    page.locator("#grid").get_by_label("Training step").fill("2")
    page.wait_for_function("location.search.includes('pick')")
    watched.tab("Runs")
    page.wait_for_function("location.search.includes('tab=runs') && !location.search.includes('grid')")
    page.go_back()
    page.wait_for_function("document.querySelector('#grid td img.is-loaded')?.checkVisibility()")
    link = page.url.partition("/?")[2]
    assert "grid=" in link and "view=" in link and "tab=compare" in link
    context.close()
    assert watched.complaints == []
    serving.close()

    serving = start_server(tmp_path, "serve", "--port", "0")
    server = next(serving)
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(60_000)
    page = context.new_page()
    page.goto(f"{server.url}/?{link}")
    page.wait_for_function("document.querySelectorAll('#grid td img.is-loaded').length === 2")
    assert page.locator("#grid output").inner_text() == "step 1000, 3 of 7"
    assert page.locator("#grid th.cmp-group").all_inner_texts() == ["seed 1", "seed 2"]
    page.wait_for_function("document.querySelector('#compare-status textarea').value.includes('14 of them earlier')")
    context.close()
    serving.close()
