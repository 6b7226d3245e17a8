"""The guard by itself: who it says asks, and what it refuses that a browser was sent to by another site."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from cmp.core.limits import Rates
from cmp.guard import LOOPBACK, Guard, Rules
from cmp.workbench.callers import caller
from tests.support import in_a_loop_of_its_own


def asker(request: Request) -> PlainTextResponse:
    return PlainTextResponse(caller().address)


def seen(request: Request) -> PlainTextResponse:
    """What gradio would build its addresses from."""
    return PlainTextResponse(request.headers.get("x-forwarded-host", "") + request.headers.get("x-gradio-server", ""))


def guarded_by(rules: Rules, base: str = "http://testserver", answer: Callable[[Request], PlainTextResponse] = asker) -> TestClient:
    guard = Middleware(Guard, rules=rules)
    return TestClient(Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])], middleware=[guard]), base_url=base)


def guarded(**rules: Any) -> TestClient:
    """A server whose every answer is the address of who asks."""
    return guarded_by(Rules(hosts=frozenset({"testserver"}), **rules))


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


# -- from where ------------------------------------------------------------------------------------------------------------

NAME = "cmp.example.org"
HOSTS = Rules(token="open sesame", hosts=frozenset({*LOOPBACK, NAME, "testserver"}), origins=frozenset({NAME}))


def sends(rules: Rules, host: str, origin: str, **more: str) -> int:
    """A page of that origin sends what changes something, with the owner's cookie."""
    headers = {"Host": host, "Origin": origin, "Cookie": f'cmp_token="{rules.token}"', "Content-Type": "application/json", **more}
    return guarded_by(rules).post("/api/v1/star", content=b"{}", headers=headers).status_code


def test_another_port_of_the_servers_own_name_is_another_site() -> None:
    assert sends(HOSTS, NAME, f"http://{NAME}:9999") == 403
    assert sends(HOSTS, f"{NAME}:7860", f"http://{NAME}:9999") == 403 and sends(HOSTS, f"{NAME}:7860", f"http://{NAME}:7860") == 200
    assert sends(HOSTS, "127.0.0.1:7860", "http://127.0.0.1:9999") == 403 and sends(HOSTS, "127.0.0.1:7860", "http://localhost") == 403
    assert sends(HOSTS, NAME, f"https://{NAME}") == 200 and sends(HOSTS, f"{NAME}:443", f"https://{NAME}") == 200
    for foreign in (
        "null",
        "",
        f"ftp://{NAME}",
        f"https://{NAME}.evil.test",
        f"https://{NAME}@evil.test",
        f"https://{NAME}:443x",
        "https://",
    ):
        assert sends(HOSTS, NAME, foreign) == 403, foreign


def test_behind_a_proxy_that_rewrites_the_host_the_named_address_alone_is_its_own() -> None:
    for host in ("127.0.0.1:7860", "localhost:7860", "testserver"):
        assert sends(HOSTS, host, f"https://{NAME}") == 200 and sends(HOSTS, host, f"http://{NAME}") == 200
        assert sends(HOSTS, host, f"https://{NAME}:9999") == 403 and sends(HOSTS, host, "https://testserver") == (
            200 if host == "testserver" else 403
        )
    with_port = replace(HOSTS, hosts=HOSTS.hosts | {f"{NAME}:8443"}, origins=frozenset({f"{NAME}:8443"}))
    assert (
        sends(with_port, "127.0.0.1:7860", f"https://{NAME}:8443") == 200 and sends(with_port, "127.0.0.1:7860", f"https://{NAME}") == 403
    )


def test_where_requests_come_by_https_a_page_that_came_without_is_another_site() -> None:
    headers = {"Host": NAME, "Cookie": 'cmp_token="open sesame"', "Content-Type": "application/json"}
    client = guarded_by(HOSTS, "https://testserver")
    assert client.post("/api/v1/star", content=b"{}", headers=headers | {"Origin": f"http://{NAME}"}).status_code == 403
    assert client.post("/api/v1/star", content=b"{}", headers=headers | {"Origin": f"https://{NAME}"}).status_code == 200


@pytest.mark.parametrize(
    "host", ["[::1]evil.test", "127.0.0.1:99999 x", "127.0.0.1:99999", "testserver:80:80", "[testserver]", "testserver/", ""]
)
def test_what_is_no_host_is_no_name_of_this_server(host: str) -> None:
    assert guarded_by(HOSTS).get("/", headers={"Host": host, "X-CMP-Token": "open sesame"}).status_code == 400


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "[::1]:7860", "[::1]", "LOCALHOST:1", NAME.upper()])
def test_a_name_is_known_with_any_port_and_in_any_case(host: str) -> None:
    assert guarded_by(HOSTS).get("/", headers={"Host": host, "X-CMP-Token": "open sesame"}).status_code == 200


def test_gradio_is_told_of_no_name_that_the_server_does_not_go_by() -> None:
    def told(headers: Mapping[str, str]) -> str:
        return guarded_by(replace(HOSTS, any_address=True), answer=seen).get("/", headers={"X-CMP-Token": "open sesame"} | headers).text

    assert told({"X-Forwarded-Host": f"{NAME}, inner"}) == f"{NAME}, inner"
    for foreign in ("evil.test", f"evil.test, {NAME}", "6.6.6.6", ""):
        assert told({"X-Forwarded-Host": foreign}) == ""
    assert told({"X-Gradio-Server": "http://evil.test"}) == ""


# -- how often -------------------------------------------------------------------------------------------------------------

OPEN = Rules(open_reading=True, strangers=True, hosts=frozenset({"testserver"}), forwarded=True)


def who(address: str) -> dict[str, str]:
    return {"X-Forwarded-For": address}


def test_visitors_make_the_server_work_so_often_and_fetch_what_costs_nothing_as_often_as_they_like() -> None:
    client = guarded_by(replace(OPEN, visits=Rates(5, 60.0)))
    told = [client.get("/api/v1/list", headers=who("192.0.2.1")) for _ in range(7)]
    assert [one.status_code for one in told] == [200] * 5 + [429] * 2
    assert told[-1].json()["detail"]["code"] == 75 and int(told[-1].headers["Retry-After"]) > 0
    event = {"content": b"{}", "headers": who("192.0.2.1") | {"Content-Type": "application/json"}}
    assert client.post("/gradio_api/queue/join", **event).status_code == 429  # type: ignore[arg-type]
    for path in ("/health", "/cmp/cell/a.png", "/cmp/sample/a.png", "/cmp/static/matrix.js", "/assets/index.js", "/theme.css"):
        assert client.get(path, headers=who("192.0.2.1")).status_code == 200, path
    assert client.get("/api/v1/list", headers=who("192.0.2.2")).status_code == 200


def test_the_owner_is_asked_for_no_patience() -> None:
    client = guarded_by(replace(HOSTS, open_reading=True, visits=Rates(1, 60.0)))
    assert {client.get("/api/v1/list", headers={"X-CMP-Token": "open sesame"}).status_code for _ in range(9)} == {200}
    assert [client.get("/api/v1/list").status_code for _ in range(2)] == [200, 429]


SAME = [
    ("192.0.2.1", "192.0.2.1:4711"),
    ("192.0.2.1", "::ffff:192.0.2.1"),
    ("2001:db8::1", "2001:db8:0:0:ffff::9"),
    ("2001:db8::1", "[2001:DB8::2]:443"),
    ("fe80::1%eth0", "fe80::2%eth1"),
]


@pytest.mark.parametrize(("first", "second"), SAME)
def test_another_port_spelling_or_address_of_one_network_is_no_other_visitor(first: str, second: str) -> None:
    client = guarded_by(replace(OPEN, visits=Rates(1, 60.0)))
    assert client.get("/", headers=who(first)).status_code == 200 and client.get("/", headers=who(second)).status_code == 429
    assert client.get("/", headers=who("2001:db8:0:1::1")).status_code == 200


def test_wrong_tokens_are_told_to_wait_and_then_no_token_is_looked_at() -> None:
    client = guarded_by(replace(HOSTS, forwarded=True))
    told = [client.get("/", headers=who("192.0.2.1") | {"Authorization": f"Bearer {number}"}).status_code for number in range(25)]
    assert told == [401] * 20 + [429] * 5
    right = {"X-CMP-Token": "open sesame"}
    assert client.get("/", headers=who("192.0.2.1") | right).status_code == 429, "or the 429 would tell the right one from the others"
    assert client.get("/?token=open+sesame", headers=who("192.0.2.1")).status_code == 429
    assert client.get("/", headers=who("192.0.2.2") | right).status_code == 200


def test_the_cookie_of_an_earlier_server_is_one_wrong_token_however_often_it_comes() -> None:
    client = guarded_by(replace(HOSTS, open_reading=True))
    assert {client.get("/", headers={"Cookie": "cmp_token=old"}).status_code for _ in range(50)} == {200}
    assert client.get("/", headers={"Cookie": "cmp_token=old", "X-CMP-Token": "open sesame"}).status_code == 200


def test_another_site_cannot_lock_the_owner_out_by_links_with_wrong_tokens() -> None:
    client, right = guarded_by(HOSTS), {"X-CMP-Token": "open sesame"}
    for mode in ("navigate", "no-cors"):
        told = [client.get(f"/?token={mode}{number}", headers=sent("cross-site", mode)).status_code for number in range(25)]
        assert told == ([401] * 20 + [429] * 5 if mode == "navigate" else [403] * 25)
    assert client.get("/", headers=right).status_code == 200


async def no_part() -> Any:
    await asyncio.Event().wait()


async def one_letter() -> Any:
    await asyncio.sleep(0.01)
    return {"type": "http.request", "body": b" ", "more_body": True}


@pytest.mark.parametrize("comes", [no_part, one_letter])
@pytest.mark.parametrize(
    ("path", "kind"), [("/gradio_api/queue/join", b"application/json"), ("/gradio_api/upload", b"multipart/form-data; boundary=x")]
)
def test_a_body_that_hardly_comes_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, path: str, kind: bytes, comes: Any) -> None:
    monkeypatch.setattr("cmp.guard._WITHIN", 0.05)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"testserver"), (b"content-type", kind), (b"content-length", b"90000")]
    about = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers, "client": ("192.0.2.1", 1)}
    in_a_loop_of_its_own(asyncio.wait_for(Guard(lambda *_: no_part(), OPEN)(about, comes, send), 60))
    assert sent[0]["status"] == 408
