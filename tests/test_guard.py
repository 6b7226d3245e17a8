"""The guard by itself: who it says asks, and what it refuses that a browser was sent to by another site."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from cmp.guard import Guard, Rules
from cmp.workbench.callers import caller


def guarded(**rules: Any) -> TestClient:
    """A server whose every answer is the address of who asks."""

    def answer(request: Request) -> PlainTextResponse:
        return PlainTextResponse(caller().address)

    guard = Middleware(Guard, rules=Rules(hosts=frozenset({"testserver"}), **rules))
    return TestClient(Starlette(routes=[Route("/{path:path}", answer)], middleware=[guard]))


def sent(site: str, mode: str) -> Mapping[str, str]:
    return {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode}


WORK = ("/cmp/share/run@500/model.zip", "/cmp/export/grid-1/cells.zip")


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("path", [*WORK, "/", "/api/v1/list"])
def test_a_picture_in_a_page_of_another_site_has_nothing_done_here(site: str, path: str) -> None:
    for mode in ("no-cors", "cors", "websocket"):
        answer = guarded().get(path, headers=sent(site, mode))
        assert answer.status_code == 403 and "another site" in answer.json()["detail"]["error"]


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_link_of_another_site_opens_the_page_and_makes_no_file(site: str) -> None:
    assert guarded().get("/", headers=sent(site, "navigate")).status_code == 200
    assert {guarded().get(path, headers=sent(site, "navigate")).status_code for path in WORK} == {403}


@pytest.mark.parametrize("path", [*WORK, "/", "/api/v1/list"])
def test_the_dashboards_own_page_a_typed_address_and_a_program_are_let_in(path: str) -> None:
    for headers in (sent("same-origin", "no-cors"), sent("same-origin", "navigate"), sent("none", "navigate"), {}):
        assert guarded().get(path, headers=headers).status_code == 200


# -- who asks --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [{"X-Forwarded-For": "6.6.6.6, 203.0.113.7"}, [("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-For", "7.7.7.7,203.0.113.7 ")]],
)
def test_behind_a_proxy_only_its_own_last_word_says_who_asks(headers: Mapping[str, str] | list[tuple[str, str]]) -> None:
    assert guarded(forwarded=True).get("/", headers=headers).text == "203.0.113.7"


def test_without_a_proxy_nobody_says_for_himself_who_asks() -> None:
    assert guarded().get("/", headers={"X-Forwarded-For": "203.0.113.7"}).text == "testclient"
    assert guarded(forwarded=True).get("/", headers={"X-Forwarded-For": "6.6.6.6, "}).text == "testclient"


# -- the cookie ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framed", [True, False])
def test_within_the_page_of_a_hub_the_cookie_is_one_that_is_sent_there_and_nowhere_else_it_is(framed: bool) -> None:
    answer = guarded(token="open sesame", framed=framed).get("/?token=open%20sesame", follow_redirects=False)
    told = {part.strip().lower() for part in answer.headers["set-cookie"].split(";")[1:]}
    across = {"samesite=none", "secure", "partitioned"}
    assert answer.status_code == 303 and "httponly" in told and (across <= told if framed else "samesite=lax" in told and not told & across)
    shown = guarded(framed=framed).get("/").headers
    assert ("x-frame-options" not in shown) == framed
