"""The page as gradio serves it behind the guard: to whom it may be read, what it costs to be kept, and what it is asked that it has not."""

from __future__ import annotations

import http.client
import json
import os
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from cmp import server
from cmp.errors import NotFound
from tests.support import bench_of, origin_run

RUN = "lora_casual_shoes"
KEPT = 3


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    from cmp.ui.page import build_page

    monkeypatch.setattr(server, "MOST_PAGES", KEPT)
    bench = bench_of(origin_run(tmp_path))
    bench.settings = replace(bench.settings, hosts=("cmp.example.org",))
    bench.serves = True
    made = build_page(bench)
    made.launch(prevent_thread_lock=True, **server.launch_options(bench, "127.0.0.1"))
    yield made
    made.close()


def ask(page: Any, method: str, path: str, value: object = None, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    line = http.client.HTTPConnection(urlsplit(page.local_url).netloc, timeout=60)
    kind = {} if value is None else {"Content-Type": "application/json"}
    try:
        line.request(
            method, path, None if value is None else json.dumps(value), kind | {k.replace("_", "-"): v for k, v in headers.items()}
        )
        answer = line.getresponse()
        return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
    finally:
        line.close()


def event(page: Any, name: str, session: str, **values: object) -> tuple[int, Any]:
    """Sends an event of the page with its fields as they are at first, but for those that are named by their ids."""
    config = json.loads(ask(page, "GET", "/config")[1])
    fields = {told["id"]: told["props"] for told in config["components"]}
    found = next(told for told in config["dependencies"] if told["api_name"] == name)
    data = [values.get(str(fields[one].get("elem_id")).replace("-", "_"), fields[one].get("value")) for one in found["inputs"]]
    asked = {"data": data, "fn_index": found["id"], "session_hash": session}
    status, body, _ = ask(page, "POST", "/gradio_api/run/predict", asked)
    return status, json.loads(body)


def test_so_many_pages_are_remembered_and_one_that_is_not_goes_on(page: Any) -> None:
    chosen = {"compare_runs": [RUN], "compare_checkpoints": [f"{RUN}@500"]}
    first = event(page, "tick_all", "tab", **chosen)
    assert first[0] == 200, first
    for number in range(2 * KEPT):
        assert event(page, "tick_all", f"other{number}", **chosen)[0] == 200
    kept = page.app.state_holder.session_data
    assert len(kept) == KEPT and "tab" not in kept
    assert event(page, "tick_all", "tab", **chosen) == first or event(page, "tick_all", "tab", **chosen)[1]["data"] == first[1]["data"]
    for name in ("show", "look", "change_runs"):
        status, told = event(page, name, f"{name} after a new start", compare_runs=[RUN], samples_beside=[RUN])
        assert status == 200, (name, told)


def test_no_other_site_may_read_what_is_here_and_the_page_needs_no_leave(page: Any) -> None:
    for origin in ("http://evil.test", "https://cmp.example.org:9999", "null"):
        for method in ("GET", "OPTIONS"):
            for host in (urlsplit(page.local_url).netloc, "cmp.example.org"):
                status, _, headers = ask(page, method, "/config", Host=host, Origin=origin, Access_Control_Request_Method="POST")
                assert status == 403 and not [name for name in headers if name.startswith("access-control")], (origin, method, headers)
    status, _, headers = ask(page, "GET", "/config", Origin="https://cmp.example.org")
    assert status == 200 and "access-control-allow-origin" not in headers


def test_the_page_names_itself_by_no_foreign_name(page: Any) -> None:
    def root(**headers: str) -> str:
        return str(json.loads(ask(page, "GET", "/config", **headers)[1])["root"])

    assert root(X_Forwarded_Host="evil.test") == root() == page.local_url.rstrip("/")
    assert root(X_Forwarded_Host="cmp.example.org", X_Forwarded_Proto="https") == "https://cmp.example.org"
    assert b"evil.test" not in ask(page, "GET", "/", X_Forwarded_Host="evil.test")[1]


@pytest.mark.parametrize("path", ["run/predict", "queue/join", "call/nothing", "run/nothing"])
def test_an_event_that_the_page_has_not_is_not_there_and_nothing_fails(page: Any, path: str, capfd: pytest.CaptureFixture[str]) -> None:
    for number, status in ((99_999, 404), (-1, 404), ("x", 422), (True, 422), ([0], 422), (None, 422 if path == "queue/join" else 404)):
        told = ask(page, "POST", f"/gradio_api/{path}", {"data": [], "fn_index": number, "session_hash": "x"})
        assert told[0] == status and set(json.loads(told[1])["detail"]) == {"error", "hint", "code"}, (number, told)
    assert "Traceback" not in "".join(capfd.readouterr())


def test_what_a_page_asks_for_by_itself_does_not_go_through_the_queue(page: Any) -> None:
    """Its stream ends with its last answer, and what is pressed in that very moment would never be answered."""
    told = json.loads(ask(page, "GET", "/config")[1])["dependencies"]
    alone = [one for one in told if one["backend_fn"] and {name for _, name in one["targets"]} & {"load", "tick"}]
    assert len(alone) > 8 and [one["api_name"] for one in alone if one["queue"]] == []


def test_so_many_events_wait_and_the_next_is_told_so_and_none_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight of a kind are carried out at once, and 64 more wait."""
    bench, gate, begun = bench_of(origin_run(tmp_path)), threading.Event(), threading.Semaphore(0)
    bench.settings = replace(bench.settings, port=0)
    page = server.dashboard(bench)
    monkeypatch.setattr(bench, "show", lambda target: (begun.release(), gate.wait(60), nothing_shown(target))[-1])
    page.launch(prevent_thread_lock=True)
    try:
        config = json.loads(ask(page, "GET", "/config")[1])
        look = next(one for one in config["dependencies"] if one["api_name"] == "look_1")
        assert look["queue"] is not False

        def join(number: int) -> tuple[int, bytes]:
            asked = {"data": [f"{RUN}@500"], "fn_index": look["id"], "session_hash": f"page{number}"}
            return ask(page, "POST", "/gradio_api/queue/join", asked)[:2]

        assert [join(number)[0] for number in range(8)] == [200] * 8
        for _ in range(8):
            assert begun.acquire(timeout=30)
        assert [join(number)[0] for number in range(8, 72)] == [200] * 64
        status, told = join(72)
        assert status == 503 and b"full" in told.lower(), told
        assert not begun.acquire(timeout=0.5), "a ninth was carried out"
        gate.set()
        for number in range(72):
            stream = urllib.request.urlopen(f"{page.local_url}gradio_api/queue/data?session_hash=page{number}", timeout=60)
            with stream:
                assert any(b"process_completed" in line for line in stream), number
        assert join(73)[0] == 200
    finally:
        gate.set()
        page.close()


def nothing_shown(target: str) -> dict[str, Any]:
    raise NotFound(f"there is no {target!r}", "It is only asked for here.")
