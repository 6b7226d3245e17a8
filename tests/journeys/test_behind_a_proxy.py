"""The page below another address than /, as reverse proxies serve it: nothing on it may ask for what lies outside."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from .conftest import FULL, Server, start_server

pytestmark = [pytest.mark.browser, pytest.mark.model]

PREFIX = "/tools/cmp"
TOKEN = "open sesame"


class Proxy(BaseHTTPRequestHandler):
    """Hands on what lies below PREFIX, without it, as `proxy_pass http://127.0.0.1:7860/` does."""

    def do_GET(self) -> None:
        inside = self.path.removeprefix(PREFIX)
        if inside == self.path or not inside.startswith("/"):
            self.server.astray.append(self.path)  # type: ignore[attr-defined]
            self.send_response(204)
            self.end_headers()
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        onward = http.client.HTTPConnection(self.server.behind, timeout=120)  # type: ignore[attr-defined]
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("connection", "accept-encoding")}
        onward.request(self.command, inside, body, headers)
        answer = onward.getresponse()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        self.end_headers()
        while part := answer.read1(65536):
            self.wfile.write(part)
            self.wfile.flush()
        onward.close()

    do_POST = do_HEAD = do_GET

    def log_message(self, *args: object) -> None:
        pass


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A page that is closed drops its last requests; that is no news."""


@pytest.fixture(scope="module")
def behind(demo_home: Path) -> Iterator[Server]:
    yield from start_server(demo_home, "serve", "--port", "0", "--token", TOKEN, GRADIO_ROOT_PATH=PREFIX)


@pytest.fixture
def proxy(behind: Server) -> Iterator[Any]:
    server = Quiet(("127.0.0.1", 0), Proxy)
    server.astray, server.behind = [], urlsplit(behind.url).netloc  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_proxy_on_this_machine_says_who_asks_and_each_of_them_has_a_share_of_its_own(behind: Server) -> None:
    uploaded = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nx\r\n--x--\r\n'

    def send(who: str) -> int:
        onward = http.client.HTTPConnection(urlsplit(behind.url).netloc, timeout=120)
        told = {"X-Forwarded-For": who, "X-CMP-Token": TOKEN, "Content-Type": "multipart/form-data; boundary=x"}
        onward.request("POST", "/gradio_api/upload", uploaded, told)
        status = onward.getresponse().status
        onward.close()
        return status

    of_one = [send(f"6.6.6.{number}, 192.0.2.1") for number in range(30)]
    assert 200 in of_one and 429 in of_one, "what a client says before the proxy's own word gives it no further share"
    assert send("192.0.2.2") == 200


def test_the_page_works_below_a_proxys_prefix(browser: Any, proxy: Any) -> None:
    with browser.new_context(viewport={"width": 1400, "height": 900}) as context:
        context.set_default_timeout(60_000)
        page = context.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("response", lambda answer: complaints.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None)
        page.goto(f"http://127.0.0.1:{proxy.server_port}{PREFIX}/?token={TOKEN}")
        assert urlsplit(page.url).path == f"{PREFIX}/" and "token" not in page.url
        page.locator(f'#runs-table tr[data-key="{FULL}"]').click()
        page.locator("#checkpoints-table tbody img").first.wait_for()
        shown = "[...document.querySelectorAll('#checkpoints-table img')].every(image => image.complete && image.naturalWidth)"
        page.wait_for_function(shown)
        page.get_by_role("tab", name="Curves").click()
        page.wait_for_selector("#curves .main-svg .scatterlayer .trace")
        page.get_by_role("tab", name="Compare").click()
        page.locator("#compare-checkpoints input").first.wait_for()
        page.get_by_role("radio", name="drawn by the trainer").click()
        page.wait_for_function("document.querySelectorAll('#grid td img.is-loaded').length > 3")
        page.get_by_role("tab", name="Pick").click()
        page.locator("#pick .cmp-pick-panel svg").first.wait_for()
        vote = page.context.new_page()
        vote.goto(f"http://127.0.0.1:{proxy.server_port}{PREFIX}/{page.locator('#pick [data-do=vote]').get_attribute('href')}")
        vote.locator("#voter").wait_for()
        assert vote.evaluate("getComputedStyle(document.querySelector('main')).maxWidth") == "1180px", "its style sheet was found"
        assert set(proxy.astray) <= {"/favicon.ico"}, "the browser's own question, since gradio's page names no icon"
        assert complaints == []
