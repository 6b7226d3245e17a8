"""A bare page with both viewers on it, served from this process."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import plotly
import pytest
from PIL import Image

from cmp import viewer

PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
WITHOUT_PLOTLY = "\n".join(tag for tag in viewer.HEAD.splitlines() if "plotly" not in tag)
PAGE = """<!doctype html><html><head><meta charset="utf-8"><link rel="icon" href="data:,">%s
<style>body.dark { --body-text-color: #eeeeee; --background-fill-primary: #101010 }</style></head>
<body class="cmp-alone"><div id="matrix"></div><div id="curves"></div></body></html>"""


def picture(colour: str, size: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(out, "PNG")
    return out.getvalue()


def reply_to(path: str) -> tuple[str, bytes]:
    """The content type and body of /, /plotly, /cmp/static/NAME, and /img/COLOUR/PIXELS/ANYTHING."""
    parts = path.split("?")[0].strip("/").split("/")
    if parts[0] == "img":
        return "image/png", picture(parts[1], int(parts[2]))
    if parts[-1] == "plotly.min.js":
        return "text/javascript", PLOTLY.read_bytes()
    if parts[0] == "cmp":
        return "text/css" if parts[-1].endswith(".css") else "text/javascript", viewer.asset(parts[-1]).encode()
    return "text/html", (PAGE % (viewer.HEAD if parts[-1] == "plotly" else WITHOUT_PLOTLY)).encode()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        kind, body = reply_to(self.path)
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store" if self.path.startswith("/img") else "max-age=600")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


class Quiet(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A page that is closed drops its last requests; that is no news."""


@pytest.fixture(scope="module")
def site() -> Iterator[ThreadingHTTPServer]:
    server = Quiet(("127.0.0.1", 0), Handler)
    server.asked = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def answer() -> Callable[[str], tuple[str, bytes]]:
    return reply_to


def watched(page: Any, home: str) -> list[str]:
    """What must never happen on `page`, as it happens: errors, and requests to anywhere but `home`."""
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith((home, "data:")) else complaints.append(request.url))
    return complaints


@pytest.fixture(scope="session")
def watch() -> Callable[[Any, str], list[str]]:
    return watched


@pytest.fixture(scope="module")
def context(browser: Any) -> Iterator[Any]:
    """One browser cache for all tests of a file: Plotly is 5 MB to read and compile."""
    with browser.new_context() as context:
        context.set_default_timeout(15_000)
        yield context


@pytest.fixture
def page(request: Any, context: Any, site: ThreadingHTTPServer) -> Iterator[Any]:
    """A page on which `M` is a matrix, `C` a chart, and `picked` what they told; it must end without a complaint.

    Plotly is there only for a test module that sets `NEEDS_PLOTLY`: reading it takes most of a second.
    """
    home = f"http://127.0.0.1:{site.server_port}"
    with context.new_page() as page:
        page.set_viewport_size({"width": 1200, "height": 900})
        complaints = watched(page, home)
        page.goto(f"{home}/{'plotly' if getattr(request.module, 'NEEDS_PLOTLY', False) else ''}")
        page.evaluate("""localStorage.clear();
            window.picked = [];
            window.M = cmpMatrix(document.querySelector("#matrix"), {onPick: (what) => picked.push(what)});
            window.C = cmpCurves(document.querySelector("#curves"), {onPick: (what) => picked.push(what)});""")
        yield page
        assert page.evaluate("window.pwned") is None
        assert complaints == []
