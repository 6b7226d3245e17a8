"""What a new page says of a large folder while it is being read: never that something is not there before that is known."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cmp.disk.scan import Scanner
from cmp.server import launch_options
from cmp.workbench import Workbench, lookout
from tests.support import bench_of, diffusers_run, origin_run
from tests.ui.test_sample_values import with_pictures

READING = re.compile(r"Reading [1-9]\d* folders? …")
pytestmark = pytest.mark.browser


class Gate:
    """Lets the reading of headers go on only when told to."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.really = Scanner.read_on

    def read_on(self, scanner: Scanner, folder: Path | None = None) -> bool:
        return self.really(scanner, folder) if self.opened.is_set() else bool(scanner.unread)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate()
    monkeypatch.setattr(lookout, "_MOMENT", 0.0)  # as if everything took long
    monkeypatch.setattr(Scanner, "read_on", lambda scanner, folder=None: gate.read_on(scanner, folder))
    yield gate
    gate.opened.set()


@pytest.fixture
def bench(tmp_path: Path, gate: Gate) -> Workbench:
    """Two runs, the second with pictures."""
    training = tmp_path / "training"
    diffusers_run(training, name="a bare one")
    with_pictures(made := origin_run(training, steps=(10, 20), name="b drawn"), 10, 20)
    bench = bench_of(made)
    bench.serves = True
    return bench


@pytest.fixture
def home(bench: Workbench) -> Iterator[str]:
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    from cmp.ui.page import build_page

    page = build_page(bench)
    page.queue(max_size=64, default_concurrency_limit=8)
    _, url, _ = page.launch(prevent_thread_lock=True, **launch_options(bench, "127.0.0.1"))
    yield url
    page.close()


def test_a_folder_that_is_being_read_is_said_to_be_and_fills(browser: Any, home: str, gate: Gate) -> None:
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    context.set_default_timeout(60_000)
    page = context.new_page()
    page.add_init_script("""window.claims = [];
        new MutationObserver(() => {
        const text = document.body?.innerText || "";
        for (const claim of ["none yet", "No training run", "left no pictures"]) if (text.includes(claim)) claims.push(claim);
        }).observe(document, { subtree: true, childList: true, characterData: true });""")
    page.goto(home)
    page.locator("#runs-table .cmp-note", has_text=READING).wait_for()
    assert page.locator("#runs-table td.has-strip").all_inner_texts() == ["reading …"] * 2
    page.locator("#samples .cmp-note", has_text=READING).wait_for()
    assert page.locator("#runs-table tr.is-ticked").count() == 0, "a run with pictures may still be found"
    page.locator('#runs-table tr[data-key="a bare one"]').click()
    page.locator("#samples .cmp-note", has_text="The folder of this run is being read …").wait_for()
    assert page.evaluate("claims") == []
    gate.opened.set()
    page.locator("#samples .cmp-note", has_text="The trainer left no pictures in this run.").wait_for()
    page.locator('#runs-table tr[data-key="b drawn"] .cmp-strip-picture').first.wait_for()
    page.wait_for_function("!document.querySelector('#runs-table .cmp-note').checkVisibility()")
    assert "none yet" in page.locator('#runs-table tr[data-key="a bare one"]').inner_text()
    context.close()


def test_a_new_page_shows_the_first_pictures_that_are_found(browser: Any, home: str, gate: Gate) -> None:
    page = browser.new_page()
    page.goto(home)
    page.locator("#samples .cmp-note", has_text=READING).wait_for()
    gate.opened.set()
    page.locator('#runs-table tr.is-ticked[data-key="b drawn"]').wait_for()
    page.locator("#samples td.cmp-cell").nth(1).wait_for()
    page.close()
