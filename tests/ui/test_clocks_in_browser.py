"""The clock of a page in a real browser: the end of the job before stops nothing, and its own end does, also the second time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import gradio as gr
import pytest

from cmp.ui.clocks import clock, stop_at_end

pytestmark = pytest.mark.browser

ANSWERS = {"begin": ("", ""), "begin a": ("a", ""), "begin b": ("b", ""), "a has ended": (None, "a"), "b has ended": (None, "b")}


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    ticks = 0

    def tick() -> str:
        nonlocal ticks
        ticks += 1
        return str(ticks)

    with gr.Blocks() as page:
        timer, job, ended, seen = clock(0.1), *(gr.Textbox(visible=False) for _ in range(3))
        count = gr.Textbox(elem_id="count")
        for name, (begun, over) in ANSWERS.items():
            started = gr.skip() if begun is None else gr.Timer(active=True)
            told = (gr.skip() if begun is None else begun, over, started)
            gr.Button(name).click(lambda told=told: told, None, [job, ended, timer], queue=False)
        timer.tick(tick, None, count, queue=False)
        gr.Button("an earlier tick is answered").click(lambda: str(time.time()), None, seen, queue=False)
        stop_at_end(timer, ended, job, seen)
    _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", ssr_mode=False)
    yield address
    page.close()


def test_a_clock_runs_until_its_own_job_has_ended(browser: Any, served: str) -> None:
    with browser.new_context() as context:
        context.set_default_timeout(60_000)
        page = context.new_page()
        page.goto(served)
        shown = "document.querySelector('#count textarea, #count input')?.value"

        def press(name: str) -> None:
            page.get_by_role("button", name=name, exact=True).click()

        def ticks_on() -> None:
            page.wait_for_function(f"(before) => Number({shown}) > Number(before) + 2", arg=page.evaluate(shown) or 0)

        def stands() -> None:
            page.wait_for_function(  # ten ticks' time
                f"() => {{ const now = {shown}; if (window.was !== now) {{ window.was = now; window.since = Date.now(); }}"
                " return Date.now() - window.since > 1000; }"
            )

        press("begin")  # before the page knows for which job
        ticks_on()
        press("begin a")
        ticks_on()
        press("begin b")
        press("a has ended")
        ticks_on()
        press("b has ended")
        stands()
        press("an earlier tick is answered")  # and has overwritten what was shown of the end
        ticks_on()
        press("b has ended")
        stands()
        press("begin b")  # what is over may be shown again
        ticks_on()
        press("b has ended")
        stands()
