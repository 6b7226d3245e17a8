"""Files that page events name: no event makes the server fetch one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from cmp.core.page_events import check_event
from cmp.errors import BadInput, Refused
from cmp.guard import Guard, Rules

FILE = {"_type": "gradio.FileData"}
EVENTS = ("/gradio_api/queue/join", "/gradio_api/run/predict", "/gradio_api/call/take")


def event(path: str, url: str | None = None) -> dict[str, Any]:
    return {"data": [["x", {"value": {"path": path, "url": url, "meta": FILE}}]], "fn_index": 0, "session_hash": "s"}


def guarded() -> TestClient:
    async def passed_on(request: Request) -> Response:
        return PlainTextResponse(await request.body())

    app = Starlette(routes=[Route(path, passed_on, methods=["POST"]) for path in EVENTS])
    return TestClient(Guard(app, Rules(open_reading=True, strangers=True)), base_url="http://localhost:7860")


@pytest.mark.parametrize("path", EVENTS)
@pytest.mark.parametrize(
    "told",
    [
        event("http://evil.test/x.png"),
        event("https://evil.test/x.png"),
        event("//evil.test/x.png"),
        event("/up/x.png", "http://evil.test/x"),
    ],
)
def test_the_guard_lets_no_event_through_that_names_a_file_elsewhere(path: str, told: dict[str, Any]) -> None:
    body = json.dumps(told)
    for sent in (body, body.replace('"path"', '"\\u0070ath"'), body.encode("utf-16")):
        answer = guarded().post(path, content=sent, headers={"Content-Type": "application/json"})
        assert answer.status_code == 409 and "lies elsewhere" in answer.text, answer.text


@pytest.mark.parametrize("path", EVENTS)
def test_an_uploaded_file_and_a_text_with_an_address_go_through_as_they_are(path: str) -> None:
    for told in (
        event("/up/ab/x.png", "http://localhost:7860/gradio_api/file=/up/ab/x.png"),
        event("/up/ab/x.png"),
        {"data": ["a http://evil.test/x.png"]},
    ):
        answer = guarded().post(path, json=told)
        assert answer.status_code == 200 and answer.json() == told


def test_an_event_that_is_no_json_is_refused() -> None:
    for body in (b"{", b"", b"[" * 200_000, b"\xff\xfe"):
        with pytest.raises(BadInput):
            check_event(body, lambda _: True)
    with pytest.raises(Refused):
        check_event(json.dumps([{"path": "http://x/y", "meta": None}]).encode(), lambda _: True)
