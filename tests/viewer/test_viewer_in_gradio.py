"""Both viewers inside a real Gradio page: what its HTML component does with our constant templates."""

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cmp import viewer

HOSTILE = '${window.pwned=1} {{value}} <img src=x onerror="window.pwned=1"> @children'
PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAP///wAAACwAAAAAAQABAAACAkQBADs="


def grid(done: int) -> dict[str, object]:
    cells = [{"at": [c, 0], "key": f"k{c}", "state": "done", "thumb": PIXEL, "full": PIXEL, "caption": HOSTILE} for c in range(done)]
    waiting = [{"at": [c, 0], "key": "", "state": "waiting"} for c in range(done, 4)]
    columns = [{"key": f"c{c}", "label": f"{c} {HOSTILE}", "sub": ""} for c in range(4)]
    return {
        "title": HOSTILE,
        "axes": [{"key": "c", "values": columns}, {"key": "r", "values": [{"key": "r", "label": "row", "sub": ""}]}],
        "place": {"c": "x", "r": "y"},
        "cells": cells + waiting,
        "done": done,
        "total": 4,
    }


def chart(log: bool) -> dict[str, object]:
    series = {"run": "a", "label": HOSTILE, "tag": "loss", "x": [1, 2, 3], "y": [3, 2, 1], "smooth": None}
    return {"series": [series], "markers": [{"run": "a", "label": "a", "step": 2, "y": None}], "log": log, "notes": []}


def build() -> Any:
    import gradio as gr

    def stepwise() -> Iterator[dict[str, object]]:
        for done in range(5):
            yield grid(done)
            time.sleep(0.1)

    def told(event: gr.SelectData) -> str:
        return f"{event.index} {event.value}"

    with gr.Blocks() as demo:
        with gr.Tab("Compare"):
            draw = gr.Button("Draw")
            matrix = gr.HTML(html_template=viewer.MATRIX_TEMPLATE, js_on_load=viewer.matrix_on_load(), apply_default_css=False)
        with gr.Tab("Curves"):
            curves = gr.HTML(html_template=viewer.CURVES_TEMPLATE, js_on_load=viewer.curves_on_load(), apply_default_css=False)
            log = gr.Checkbox(label="Log scale")
        said = gr.Textbox(label="Told")
        draw.click(stepwise, None, matrix, show_progress="hidden").then(lambda: chart(False), None, curves, show_progress="hidden")
        log.change(chart, log, curves, show_progress="hidden")
        matrix.select(told, None, said)
        curves.select(told, None, said)
    return demo


@pytest.fixture(scope="module")
def home(answer: Callable[[str], tuple[str, bytes]]) -> Iterator[str]:
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    from starlette.responses import Response
    from starlette.routing import Route

    def static(request: Any) -> Response:
        kind, body = answer(request.url.path)
        return Response(body, media_type=kind)

    demo = build()
    routes = {"routes": [Route("/cmp/static/{name}", static)]}
    _, url, _ = demo.launch(
        prevent_thread_lock=True, server_name="127.0.0.1", ssr_mode=False, quiet=True, head=viewer.HEAD, app_kwargs=routes
    )
    yield url
    demo.close()


def test_a_gradio_page_updates_both_viewers_and_hears_what_was_chosen(context: Any, home: str, watch: Callable[..., list[str]]) -> None:
    with context.new_page() as page:
        complaints = watch(page, home)
        page.goto(home)
        page.get_by_text("Nothing to show yet.").wait_for(timeout=60_000)
        page.get_by_role("button", name="Draw").click()
        page.locator("td img.is-loaded").first.wait_for()
        page.evaluate("window.first = document.querySelector('td img')")
        page.get_by_text("4 of 4").wait_for()
        page.wait_for_function("document.querySelectorAll('td img.is-loaded').length === 4")
        assert page.evaluate("first.isConnected"), "Gradio rendered the template anew and took our nodes away"
        assert page.locator(".cmp-title").text_content() == HOSTILE
        page.locator("td.cmp-cell").nth(2).click()
        page.keyboard.press("Escape")
        page.wait_for_function("document.querySelector('textarea').value === '[0, 2] k2'")

        page.get_by_role("tab", name="Curves").click()
        page.wait_for_function(
            """(() => { const chart = document.querySelector(".cmp-chart");
                return chart?.clientWidth > 300 && chart._fullLayout?.width === chart.clientWidth; })()"""
        )
        page.get_by_label("Log scale").check()
        page.wait_for_function("document.querySelector('.cmp-chart')._fullLayout.yaxis.type === 'log'")
        assert page.locator(".cmp-curves .cmp-legend").text_content() == HOSTILE
        page.get_by_role("tab", name="Compare").click()
        assert page.evaluate("first.isConnected && first.checkVisibility() && window.pwned === undefined")
        assert complaints == []
